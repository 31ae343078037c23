"""Raw files of one survey in, one table out: checked, repaired, cut bits set, tiled.

Two rounds of units: every file becomes sorted shards, then every tile gathers its rows from them (`surveys.shards`).
A table with positions becomes a HATS catalogue; one without is plain Parquet, a file for each level-5 pixel of its
source_id.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core import errors
from stellarml.core.config import Config, Ingest, Tiles
from stellarml.core.errors import InputError, StellarmlError
from stellarml.run.log import UNCHANGED, get_logger, log_done
from stellarml.run.marks import Record, mark_path, write_mark
from stellarml.run.ownership import WORK
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.run.units import RESULT_SCHEMA, Shown, Unit, collect_outcomes, run_units
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.surveys.absent_columns import files_judged
from stellarml.surveys.column_mapping import ddl, for_spark
from stellarml.surveys.cuts import (
    chosen_cuts,
    cut_flow,
    merge_counts,
    repair_and_cut,
    sentinels,
    severe_cuts,
)
from stellarml.surveys.descriptor import Cut, load_descriptor, position_columns
from stellarml.surveys.ingest_plan import IngestPlan, output_schema, read_plan, tile_of, tile_tasks
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.shards import (
    FILE,
    FileTask,
    SurveyTask,
    read_file,
    shard_files,
    summary_path,
    without_expressions,
)
from stellarml.surveys.tile_rows import write_names, write_tile

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


_TASK_BYTES = 16 << 20
_TASK_FILES = 200
_TASKS_A_CORE = 4
"""What one task reads at most: one file, or small ones together, but no core is to wait for the last."""


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Ingest every survey that the configuration names; return their rows together, and the run.json of each.

    Raises
    ------
    ConfigError, InputError
        As `ingest_survey`.
    """
    done = {}
    for survey in config.surveys.names:
        done[survey] = ingest_survey(spark, config, survey, overwrite=overwrite)
        log_done(done[survey])
    rows = {name: sum(record["rows"][name] for record in done.values()) for name in ("in", "out", "rejected")}
    made = [record["seconds"] for record in done.values() if not record.get(UNCHANGED)]
    found: Record = {"stage": "ingest", "rows": rows, "seconds": round(sum(made), 3), "surveys": done}
    return found if made else found | {UNCHANGED: True}


def ingest_survey(spark: SparkSession, config: Config, survey: str, *, overwrite: bool = False) -> Record:
    """Ingest one survey into ``lake/<survey>/`` and return its run.json.

    Parameters
    ----------
    survey
        Name of a shipped descriptor, or path of the user's own.

    Raises
    ------
    ConfigError
        If the descriptor or one of its expressions is wrong.
    InputError
        If files are missing or damaged, a column is missing or of the wrong type, the survey is empty, or more rows
        than ``ingest.max_rejected_fraction`` cannot be read.
    """
    descriptor = load_descriptor(survey, config.root)
    cuts = chosen_cuts(config, descriptor)
    files = find_files(descriptor, config.raw_path(descriptor.name))
    out = config.lake_folder / descriptor.name
    relevant = {
        "descriptor": descriptor.model_dump(mode="json"),
        "cuts": [cut.model_dump() for cut in cuts],
        "tiles": config.tiles.model_dump(),
    }
    recipe = Recipe(f"ingest {descriptor.name}", __name__, relevant, raw=[file.path for file in files])
    with stage_run(recipe, out, config, overwrite=overwrite) as output:
        if output.complete:
            return output.record
        plan = read_plan(descriptor, files, out, config.ingest, config.tiles)
        shards = _read_files(spark, plan, cuts, output)
        _check_rejects(plan.task, config.ingest, shards)
        return _write_tiles(spark, plan, cuts, shards, config.ingest, config.tiles, output)


def _read_files(
    spark: SparkSession, plan: IngestPlan, cuts: Sequence[Cut], run: StageRun
) -> list[dict[str, Any]]:
    """Turn every file that is not done into shards; return the marks of all."""
    pending = [file for file in plan.files if f"read-{file.name}" not in run.marks]
    pending.sort(key=lambda file: (-file.header.file.size, file.number))
    job = _sharding(spark, plan, cuts, pending)  # checks every expression before any file is read
    if pending:
        (plan.task.out / WORK).mkdir(exist_ok=True)
        write_names(plan.task.out, [file.header.file.path for file in plan.files])
        sizes = {f"read-{file.name}": file.header.file.size for file in pending}
        collect_outcomes(job, run.stage, plan.task.out, Shown("reading files", sizes, "bytes"))
    return [_mark_of(plan.task, file) for file in plan.files]


def _sharding(
    spark: SparkSession, plan: IngestPlan, cuts: Sequence[Cut], pending: Sequence[FileTask]
) -> DataFrame:
    """Return the job: through Spark and back for the descriptor's SQL, or straight to shards where it has none.

    A row of its input is a file, which brings what is to be known of it: what the tasks carry does not grow with the
    number of files.
    """
    task = plan.task

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for file in _files_of(batches):
            yield from map(for_spark, read_file(task, file))

    def shard(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from shard_files(task, batches)

    def read_and_shard(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for file in _files_of(batches):
            yield from shard_files(task, without_expressions(read_file(task, file)))

    files = _as_frame(spark, pending)
    if not (sentinels(task.descriptor) or cuts):
        return files.mapInArrow(read_and_shard, RESULT_SCHEMA)
    rows = files.mapInArrow(read, ddl(task.schema))
    cut = repair_and_cut(rows, task.descriptor, cuts, _judged(plan, cuts))
    return cut.mapInArrow(shard, RESULT_SCHEMA)


def _as_frame(spark: SparkSession, pending: Sequence[FileTask]) -> DataFrame:
    """Return a row a file, large files alone in a partition, small ones together."""
    groups: list[list[FileTask]] = []
    size, total = 0, sum(file.header.file.size for file in pending)
    most = min(_TASK_BYTES, total // (_TASKS_A_CORE * spark.sparkContext.defaultParallelism))
    for file in pending:
        if not groups or size + file.header.file.size > most or len(groups[-1]) >= _TASK_FILES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.header.file.size
    rows = [[(pickle.dumps(file),) for file in group] for group in groups]
    spread = spark.sparkContext.parallelize(rows, max(len(rows), 1)).flatMap(lambda group: group)
    return spark.createDataFrame(spread, "file binary")


def _files_of(batches: Iterator[pa.RecordBatch]) -> Iterator[FileTask]:
    for batch in batches:
        yield from (pickle.loads(row) for row in batch.column(0).to_pylist())


def _judged(plan: IngestPlan, cuts: Sequence[Cut]) -> dict[str, Column]:
    """Return for cuts that some file lacks a column of, which rows they can judge: those of the other files."""
    from pyspark.sql import functions as sf

    everywhere = len(plan.files)
    judged = {cut.name: files_judged(cut, plan.resolved) for cut in cuts}
    return {name: sf.col(FILE).isin(numbers) for name, numbers in judged.items() if len(numbers) < everywhere}


def _mark_of(task: SurveyTask, file: FileTask) -> dict[str, Any]:
    """Return the mark of one file; a file without rows has sent none to the writer, so it is marked here."""
    name = file.name
    path = mark_path(task.out, f"read-{name}")
    if not path.exists():
        summary = json.loads(summary_path(task.out, file.number).read_text())
        if "error" in summary:
            raise getattr(errors, summary["kind"] or "StellarmlError")(summary["error"])
        if summary["rows"]:
            raise StellarmlError(f"{file.header.file.path}: {summary['rows']} rows were read and lost")
        write_mark(
            task.out, f"read-{name}", {"files": {}, "rows": 0, "rejected": summary["rejected"], "shards": []}
        )
    mark: dict[str, Any] = json.loads(path.read_text())
    return mark


def _check_rejects(
    task: SurveyTask, settings: Ingest, marks: Sequence[dict[str, Any]], duplicates: int = 0
) -> None:
    rows = sum(m["rows"] for m in marks) - duplicates
    rejected = sum(m["rejected"] for m in marks) + duplicates
    _publish_rejects(task.out)
    if rejected > settings.max_rejected_fraction * (rows + rejected):
        raise InputError(
            f"survey '{task.descriptor.name}': {rejected} of {rows + rejected} rows cannot be read, more than "
            f"ingest.max_rejected_fraction = {settings.max_rejected_fraction} allows. {_first_rejects(task.out)} "
            f"All of them with file, line and reason: {task.out / '_rejected'}"
        )
    if rows == 0:
        raise InputError(
            f"survey '{task.descriptor.name}': its files hold no rows. Check [raw] and the files themselves."
        )


def _publish_rejects(out: Path) -> None:
    """Move what units rejected to ``_rejected/``."""
    (out / "_rejected").mkdir(exist_ok=True)
    for path in sorted((out / WORK / "rejects").glob("*.parquet")):
        path.replace(out / "_rejected" / path.name)


def _first_rejects(out: Path) -> str:
    for path in sorted((out / "_rejected").glob("*.parquet")):
        rows = pq.read_table(path).slice(0, 3).to_pylist()
        return (
            "For example "
            + "; ".join(f"{Path(r['file']).name} line {r['line']}: {r['reason']}" for r in rows)
            + "."
        )
    return ""


def _write_tiles(
    spark: SparkSession,
    plan: IngestPlan,
    cuts: Sequence[Cut],
    marks: Sequence[dict[str, Any]],
    settings: Ingest,
    tiling: Tiles,
    run: StageRun,
) -> Record:
    task = plan.task
    shards = [shard for mark in marks for shard in mark["shards"]]
    tiles = tile_tasks(task, shards, tiling)
    done = run_units(
        spark, run, [Unit(t.name, rows, t) for t, rows in tiles], write_tile, step="writing tiles"
    )
    _check_rejects(task, settings, marks, sum(mark["rejected"] for mark in done))
    rows = sum(mark["rows"] for mark in done)
    rejected = sum(mark["rejected"] for mark in [*marks, *done])
    if task.descriptor.has_positions:
        ra, dec = position_columns(task.descriptor)
        finish_catalogue(
            task.out,
            CatalogueInfo(task.descriptor.name, ra, dec, tiling.max_rows),
            [tile_of(t) for t, _ in tiles],
            rows,
            output_schema(task),
        )
    _forget_shards(plan)
    flow = cut_flow(task.descriptor.name, cuts, merge_counts([m["cuts"] for m in done]))
    for line in severe_cuts(flow):
        get_logger().warning(line, stage=run.stage)
    return run.finish(
        {"in": rows + rejected, "out": rows, "rejected": rejected},
        units=len(tiles),
        survey=task.descriptor.name,
        id=task.id,
        schema=ddl(output_schema(task)),
        absent=list(plan.resolved.absent),
        cuts=[cut.name for cut in cuts],
        cut_flow=flow,
    )


def _forget_shards(plan: IngestPlan) -> None:
    """Remove the shards and their marks once all tiles are whole."""
    for file in plan.files:
        mark_path(plan.task.out, f"read-{file.name}").unlink(missing_ok=True)
    shutil.rmtree(plan.task.out / WORK, ignore_errors=True)
