"""The stage label: every matched star with its labels, intervals and flags, as a HATS catalogue a model version.

A leaf of ``matched`` is the unit of work and keeps its name (`labelling.label_leaf`). Spark skips leaves that it
cannot read, because it would end the job with them: a leaf that gave too few rows is missed here, and named when all
others are done; with `label.keep_going` off, Spark is to end the job with it. An older catalogue of the model stays as
it is until the new one is whole. No TensorFlow on executors.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config, Label
from stellarml.core.errors import cause_of
from stellarml.core.files import literal, remains_of, write_atomically
from stellarml.core.names import DEC, RA
from stellarml.core.tiles import Tile
from stellarml.features.feature_file import load_feature_file
from stellarml.labelling.incremental import (
    InputTile,
    input_tiles,
    put_in_place,
    schema_of,
    split_done,
    vanished,
    why_unreadable,
)
from stellarml.labelling.label_leaf import LabelTask, labelling_job, output_schema
from stellarml.labelling.model_registry import chosen_model
from stellarml.labelling.monitoring import prometheus_text, total
from stellarml.labelling.versions import CURRENT, current_model, publish
from stellarml.model.bundle import pack_bundle
from stellarml.model.manifest import Manifest
from stellarml.run.log import get_logger
from stellarml.run.marks import Record, mark_path, sizes_of, write_mark
from stellarml.run.ownership import RECORD, claimed
from stellarml.run.stage_run import Recipe, stage_run
from stellarml.run.units import Shown, collect_outcomes, refuse_units
from stellarml.storage.hats_layout import PARTITION_LIST, PROPERTIES
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


METRICS = "metrics.prom"
_STOP = ".stop"
_CATALOGUE = "catalogue"
_CATALOGUE_FILES = (PARTITION_LIST, *PROPERTIES, "dataset/_metadata", "dataset/_common_metadata")


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Label ``lake/matched`` with the chosen model; write ``labels/<model id>/``, publish it, return its run.json.

    Raises
    ------
    StellarmlError
        Naming every tile that could not be labelled, after all others are done (`label.keep_going`).
    """
    model, manifest = chosen_model(
        config.models_folder, config.label.model, load_feature_file(config.feature_file)
    )
    return label_with(spark, config, model, manifest, overwrite=overwrite)


def label_with(
    spark: SparkSession, config: Config, model: Path, manifest: Manifest, *, overwrite: bool = False
) -> Record:
    """Label ``lake/matched`` with any model, by the features that the model was trained on; see `run`.

    Parameters
    ----------
    model, manifest
        A model's folder, and the manifest of the bundle that was read from it.
    """
    matched = config.lake_folder / "matched"
    current_model(config.labels_folder)  # a damaged pointer is reported before the work, not after it
    out = config.labels_folder / manifest.id
    truth = config.label.truth_intervals
    if truth:
        manifest.check_truth()
    relevant: dict[str, Any] = {"level": config.label.level, "tiles": config.tiles.model_dump()}
    relevant |= {"model": manifest.behaviour(), **({"truth_intervals": True} if truth else {})}
    recipe = Recipe("label", __name__, relevant, derived=[matched, model])
    with stage_run(recipe, out, config, overwrite=overwrite, incremental=True) as output:
        if output.complete:
            _publish(config.labels_folder, output.record)
            return output.record
        tiles = input_tiles(matched)
        gone = vanished(out, tiles, output.marks)
        blob, sha256 = pack_bundle(model)
        task = LabelTask(
            out,
            tuple(tiles),
            spark.sparkContext.broadcast(blob),
            sha256,
            config.label.level,
            truth,
            None if config.label.keep_going else out / f"{_STOP}.{secrets.token_hex(4)}.tmp",
            manifest.id,
            manifest.features,
            output_schema(manifest.labels, truth),
            config.tiles,
            (output.code["digest"], json.dumps(relevant, sort_keys=True)),
        )
        kept, pending = split_done(out, tiles, output.marks, task.common)
        counts = {"to_do": len(pending), "kept": len(kept), "removed": len(gone)}
        get_logger().info("tiles", stage="label", model=manifest.id, **counts)
        marks = kept | _label_pending(spark, matched, config.label, task, pending)
        rows = sum(mark["rows"] for mark in marks.values())
        _replace_catalogue(task, gone, rows)
        tally = total(mark["tally"] for mark in marks.values())
        record = output.finish(
            {"in": sum(found.rows for found in tiles), "out": rows, "without_flag": tally.without_flag},
            units=len(tiles),
            units_done=len(pending),
            model_id=manifest.id,
            preset=manifest.preset,
            label=tally.as_record(manifest),
        )
        _publish(config.labels_folder, record)
        return record


def _replace_catalogue(task: LabelTask, gone: Sequence[Tile], rows: int) -> None:
    """Put the new leaves into the catalogue, take those `gone` out of it, and write its lists anew."""
    out, leaves = task.out, [leaf.tile for leaf in task.leaves]
    for path in (mark_path(out, _CATALOGUE), out / RECORD):
        path.unlink(missing_ok=True)
    put_in_place(out, leaves, gone)
    finish_catalogue(
        out, CatalogueInfo(f"labels_{task.model_id}", RA, DEC, task.tiles.max_rows), leaves, rows, task.schema
    )
    lists = [Path(name) for name in _CATALOGUE_FILES if (out / name).is_file()]
    write_mark(out, _CATALOGUE, {"files": sizes_of(out, [*lists, *(leaf.path for leaf in leaves)])})


def _publish(labels: Path, record: Record) -> None:
    """Name the version, and show its numbers: two files that belong together."""
    with claimed(labels / CURRENT, patient=True):
        publish(labels, record["model_id"])
        for remains in remains_of(labels / METRICS):
            remains.unlink(missing_ok=True)
        write_atomically(labels / METRICS, prometheus_text(record))


def _label_pending(
    spark: SparkSession, matched: Path, settings: Label, task: LabelTask, pending: Sequence[InputTile]
) -> dict[str, dict[str, Any]]:
    """Label what is new or has changed; return the marks of its tiles."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    if not pending:
        return {}
    for leaf in pending:
        mark_path(task.out, leaf.tile.name).unlink(missing_ok=True)
    problems = {leaf.tile.name: leaf.problem for leaf in pending if leaf.problem}
    if len(problems) == len(pending) or (problems and task.stop):
        refuse_units("label", problems, len(pending))
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(settings.batch_rows))
    readable = [leaf for leaf in pending if not leaf.problem]

    def lost(outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        if task.stop and task.stop.exists():
            first = json.loads(task.stop.read_text())
            return {} if "error" in outcomes.get(first["unit"], {}) else {first["unit"]: first["error"]}
        without = [leaf for leaf in pending if leaf.tile.name not in outcomes]
        return {leaf.tile.name: leaf.problem or why_unreadable(leaf) for leaf in without}

    try:
        job = labelling_job(_read(spark, matched, readable, tolerant=settings.keep_going), task)
        rows = {leaf.tile.name: leaf.rows for leaf in pending}
        return collect_outcomes(job, "label", task.out, Shown("tiles", rows), lost=lost)
    except (PySparkException, Py4JJavaError) as error:
        message = str(error)
        named = [leaf for leaf in readable if leaf.tile.path.as_posix() in message or not leaf.path.is_file()]
        if named:
            reasons = {leaf.tile.name: f"{leaf.path}: cannot be read ({cause_of(error)})." for leaf in named}
            refuse_units("label", reasons, len(pending))
        raise
    finally:
        if task.stop:
            task.stop.unlink(missing_ok=True)


def _read(spark: SparkSession, matched: Path, leaves: Sequence[InputTile], *, tolerant: bool) -> DataFrame:
    from pyspark.sql.pandas.types import from_arrow_schema

    schema = from_arrow_schema(schema_of(matched, leaves))
    options = dict.fromkeys(("ignoreCorruptFiles", "ignoreMissingFiles"), str(tolerant).lower())
    return spark.read.options(**options).schema(schema).parquet(*(literal(leaf.path) for leaf in leaves))
