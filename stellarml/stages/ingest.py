"""Raw files of one survey in, one table out: checked, repaired, cut bits set, tiled.

Two rounds of units: every file becomes sorted shards, then every tile gathers its rows from them (`sources.shards`).
A table with positions becomes a HATS catalogue; one without is plain Parquet, a file for each level-5 pixel of its
source_id.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core import errors
from stellarml.core.config import Config
from stellarml.core.errors import InputError, StellarmlError
from stellarml.core.schema import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.core.tiles import HEALPIX_ORDER, Tile, choose_tiles
from stellarml.run.log import get_logger
from stellarml.run.ownership import WORK
from stellarml.run.stage_run import StageRun, mark_path, stage_run, write_mark
from stellarml.run.units import RESULT_SCHEMA, Unit, collect_outcomes, run_units
from stellarml.storage.hats_writer import finish_catalogue
from stellarml.surveys.binary_reader import read_table_header
from stellarml.surveys.column_mapping import Header, ddl, resolve
from stellarml.surveys.cuts import chosen_cuts, cut_flow, merge_counts, repair_and_cut, sentinels
from stellarml.surveys.descriptor import Cut, Descriptor, load_descriptor, position_columns
from stellarml.surveys.raw_files import SourceFile, find_files
from stellarml.surveys.shards import (
    FILE,
    LINE,
    PIXEL_FOLDER,
    SOURCE_ID_PIXEL_SHIFT,
    ReadTask,
    TileTask,
    overlapping,
    read_file,
    read_histograms,
    read_summary,
    shard_file,
    without_expressions,
    write_tile,
)
from stellarml.surveys.text_reader import guess_types, read_header

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_Plan = tuple[str, tuple[tuple[int, int], ...], tuple[Path, ...], int]


def ingest(spark: SparkSession, config: Config, survey: str, *, overwrite: bool = False) -> dict[str, Any]:
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
    out = config.path(config.paths.lake) / descriptor.name
    relevant = {
        "descriptor": descriptor.model_dump(mode="json"),
        "cuts": [cut.model_dump() for cut in cuts],
        "tiles": config.tiles.model_dump(),
    }
    with stage_run(
        f"ingest {descriptor.name}",
        out,
        config=config,
        relevant=relevant,
        raw=[f.path for f in files],
        overwrite=overwrite,
    ) as run:
        if run.complete:
            return run.record
        task = _plan(descriptor, files, out, config)
        shards = _read_files(spark, task, cuts, run)
        _check_rejects(descriptor, config, out, shards)
        return _write_tiles(spark, task, cuts, shards, config, run)


def _plan(descriptor: Descriptor, files: Sequence[SourceFile], out: Path, config: Config) -> ReadTask:
    """Read every header and settle the columns, before any row is read."""

    def header_of(file: SourceFile) -> Header:
        return read_header(file, descriptor) if file.family == "text" else read_table_header(file)

    with ThreadPoolExecutor(8) as pool:
        headers = tuple(pool.map(header_of, files))
    guess = guess_types(headers[0], descriptor) if headers[0].file.family == "text" else {}
    resolved = resolve(descriptor, headers, {name.lower(): kind for name, kind in guess.items()})
    if resolved.absent:
        get_logger().warning(
            "optional columns are absent", survey=descriptor.name, columns=list(resolved.absent)
        )
    if not descriptor.has_positions and resolved.schema.field(descriptor.id_column).type != pa.int64():
        raise InputError(
            f"survey '{descriptor.name}': column '{descriptor.id_column}' must hold integers: a table without "
            f"positions is keyed by source_id; found {resolved.schema.field(descriptor.id_column).type}."
        )
    shift = (
        2 * (HEALPIX_ORDER - config.tiles.max_order) if descriptor.has_positions else SOURCE_ID_PIXEL_SHIFT
    )
    names = tuple(f"{i:05d}-{_stem(file.path)}" for i, file in enumerate(files))
    return ReadTask(out, descriptor, headers, resolved, names, config.ingest.block_bytes, shift)


def _stem(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in path.name.split(".")[0])[:60]


def _read_files(
    spark: SparkSession, task: ReadTask, cuts: Sequence[Cut], run: StageRun
) -> list[dict[str, Any]]:
    """Turn every file that is not done into shards; return the marks of all."""
    pending = [i for i, name in enumerate(task.names) if f"read-{name}" not in run.marks]
    pending.sort(key=lambda i: (-task.headers[i].file.size, i))
    job = _sharding(spark, task, cuts, pending)  # checks every expression before any file is read
    if pending:
        (task.out / WORK).mkdir(exist_ok=True)
        collect_outcomes(job, run.stage, task.out, len(pending))
    marks = []
    for index in range(len(task.names)):
        marks.append(_mark_of(task, index))
    return marks


def _sharding(spark: SparkSession, task: ReadTask, cuts: Sequence[Cut], pending: Sequence[int]) -> DataFrame:
    """Return the job: through Spark and back for the descriptor's SQL, or straight to shards where it has none."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from read_file(task, pending[number])

    def shard(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from shard_file(task, batches)

    def read_and_shard(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from shard_file(task, without_expressions(read_file(task, pending[number])))

    numbers = spark.range(0, len(pending), 1, max(len(pending), 1))
    if not (sentinels(task.descriptor) or cuts):
        return numbers.mapInArrow(read_and_shard, RESULT_SCHEMA)
    rows = numbers.mapInArrow(read, ddl(task.schema))
    return repair_and_cut(rows, task.descriptor, cuts).mapInArrow(shard, RESULT_SCHEMA)


def _mark_of(task: ReadTask, index: int) -> dict[str, Any]:
    """Return the mark of one file; a file without rows has sent none to the writer, so it is marked here."""
    name = task.names[index]
    path = mark_path(task.out, f"read-{name}")
    if not path.exists():
        told = json.loads(read_summary(task.out, name).read_text())
        if "error" in told:
            raise getattr(errors, told["kind"] or "StellarmlError")(told["error"])
        if told["rows"]:
            raise StellarmlError(f"{task.headers[index].file.path}: {told['rows']} rows were read and lost")
        write_mark(
            task.out, f"read-{name}", {"files": {}, "rows": 0, "rejected": told["rejected"], "shards": []}
        )
    mark: dict[str, Any] = json.loads(path.read_text())
    return mark


def _check_rejects(
    descriptor: Descriptor, config: Config, out: Path, marks: Sequence[dict[str, Any]], duplicates: int = 0
) -> None:
    rows = sum(m["rows"] for m in marks) - duplicates
    rejected = sum(m["rejected"] for m in marks) + duplicates
    _publish_rejects(out)
    if rejected > config.ingest.max_rejected_fraction * (rows + rejected):
        raise InputError(
            f"survey '{descriptor.name}': {rejected} of {rows + rejected} rows cannot be read, more than "
            f"ingest.max_rejected_fraction = {config.ingest.max_rejected_fraction} allows. {_first_rejects(out)} "
            f"All of them with file, line and reason: {out / '_rejected'}"
        )
    if rows == 0:
        raise InputError(
            f"survey '{descriptor.name}': its files hold no rows. Check [raw] and the files themselves."
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
    task: ReadTask,
    cuts: Sequence[Cut],
    marks: Sequence[dict[str, Any]],
    config: Config,
    run: StageRun,
) -> dict[str, Any]:
    shards = [shard for mark in marks for shard in mark["shards"]]
    tiles = _tile_tasks(task, shards, config)
    done = run_units(spark, run, [Unit(t.name, rows, t) for t, rows in tiles], write_tile)
    _check_rejects(task.descriptor, config, task.out, marks, sum(mark["rejected"] for mark in done))
    rows = sum(mark["rows"] for mark in done)
    rejected = sum(mark["rejected"] for mark in [*marks, *done])
    if task.descriptor.has_positions:
        ra, dec = position_columns(task.descriptor)
        finish_catalogue(
            task.out,
            name=task.descriptor.name,
            tiles=[Tile(*_order_pixel(t)) for t, _ in tiles],
            rows=rows,
            ra=ra,
            dec=dec,
            schema=_output_schema(task),
            max_rows=config.tiles.max_rows,
        )
    _forget_shards(task)
    return run.finish(
        {"in": rows + rejected, "out": rows, "rejected": rejected},
        units=len(tiles),
        survey=task.descriptor.name,
        id=task.id,
        schema=ddl(_output_schema(task)),
        absent=list(task.resolved.absent),
        cuts=[cut.name for cut in cuts],
        cut_flow=cut_flow(task.descriptor.name, cuts, merge_counts([m["cuts"] for m in done])),
    )


def _output_schema(task: ReadTask) -> pa.Schema:
    fields = [f for f in task.schema if f.name not in (FILE, LINE)]
    fields += [pa.field(REPAIRS, pa.int64()), pa.field(CUTS_FAILED, pa.int64())]
    if task.descriptor.has_positions:
        fields.insert(0, pa.field(HEALPIX_COLUMN, pa.int64()))
    return pa.schema(fields)


def _tile_tasks(
    task: ReadTask, shards: Sequence[dict[str, Any]], config: Config
) -> list[tuple[TileTask, int]]:
    cells, counts = read_histograms(task.out, [s["name"] for s in shards])
    if task.descriptor.has_positions:
        key = HEALPIX_COLUMN
        chosen = choose_tiles(cells, counts, config.tiles.max_order, config.tiles)
        plans: list[_Plan] = [(tile.name, (tile.range,), (tile.path,), rows) for tile, rows in chosen]
    else:
        key = task.id
        plans = list(_pixel_plans(cells, counts, config.tiles.max_rows))
    unique = task.descriptor.kind != "labels"
    tasks = []
    for name, ranges, paths, rows in plans:
        low, high = ranges[0][0], ranges[-1][1]
        groups = tuple((s["name"], overlapping(s["groups"], low, high)) for s in shards)
        groups = tuple((shard, numbers) for shard, numbers in groups if numbers)
        files = tuple(str(header.file.path) for header in task.headers)
        tasks.append(
            (TileTask(task.out, name, ranges, paths, groups, key, task.id, unique, files, config.tiles), rows)
        )
    return tasks


def _pixel_plans(cells: np.ndarray, counts: np.ndarray, max_rows: int) -> Iterator[_Plan]:
    """Group neighbouring level-5 pixels into units of about `max_rows` rows."""
    unit = np.cumsum(counts) // max(max_rows, 1)
    for number in np.unique(unit):
        pixels = cells[unit == number].tolist()
        ranges = tuple((p << SOURCE_ID_PIXEL_SHIFT, (p + 1) << SOURCE_ID_PIXEL_SHIFT) for p in pixels)
        paths = tuple(Path("dataset", f"{PIXEL_FOLDER}={p}", "part.parquet") for p in pixels)
        yield f"pixels-{pixels[0]}-{pixels[-1]}", ranges, paths, int(counts[unit == number].sum())


def _order_pixel(task: TileTask) -> tuple[int, int]:
    order, pixel = task.name.removeprefix("Norder=").split("_Npix=")
    return int(order), int(pixel)


def _forget_shards(task: ReadTask) -> None:
    """Remove the shards and their marks once all tiles are whole."""
    for name in task.names:
        mark_path(task.out, f"read-{name}").unlink(missing_ok=True)
    shutil.rmtree(task.out / WORK, ignore_errors=True)
