"""The stage label: every matched star with its labels, intervals and flags, as a HATS catalogue a model version.

Features are computed by Spark, fused with the read of the leaf; the task's one Python function labels the rows as they
come and writes the leaf itself, a row group at a time: a row crosses from the JVM to Python once and never goes back,
and a worker holds no more than a row group. A leaf of ``matched`` is the unit of work and keeps its name. Spark is told
to skip leaves that it cannot read, because it would end the job with them: a leaf that gave too few rows is missed
here, and told by name when all others are done; with `label.keep_going` off, Spark is to end the job with it. An older
catalogue of the model stays as it is until the new one is whole. No TensorFlow on executors.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Config, Tiles
from stellarml.core.errors import StellarmlError, cause_of
from stellarml.core.files import literal, write_atomically
from stellarml.core.quality_flags import QualityFlag
from stellarml.core.schema import (
    CUTS_FAILED,
    DEC,
    EBV,
    HEALPIX_COLUMN,
    QUALITY_FLAGS,
    RA,
    SOURCE_ID,
    arrow_schema,
    label_columns,
)
from stellarml.core.tiles import Tile
from stellarml.features.feature_file import configured_feature_file
from stellarml.labelling.incremental import (
    InputTile,
    changed,
    input_tiles,
    put_in_place,
    schema_of,
    split_done,
    tile_key,
    vanished,
    waiting,
    why_unreadable,
)
from stellarml.labelling.model_registry import chosen_model
from stellarml.labelling.monitoring import Tally, prometheus_text, total
from stellarml.labelling.versions import current_model, publish
from stellarml.model.bundle import pack_bundle
from stellarml.model.manifest import LabelRange
from stellarml.run.fingerprint import code_identity
from stellarml.run.log import get_logger
from stellarml.run.ownership import RECORD
from stellarml.run.stage_run import mark_path, sizes_of, stage_run, write_mark
from stellarml.run.units import RESULT_SCHEMA, collect_outcomes, guarded, outcome_batch, refuse_units
from stellarml.storage.hats_layout import PARTITION_LIST, PROPERTIES
from stellarml.storage.hats_writer import finish_catalogue
from stellarml.storage.parquet import leaf_writer

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

    from stellarml.features.feature_file import FeatureFile

RIGHT_CUTS_SHIFT = 32
METRICS = "metrics.prom"
_FEATURES = "features"
_STOP = ".stop"
_CATALOGUE = "catalogue"
_CATALOGUE_FILES = (PARTITION_LIST, *PROPERTIES, "dataset/_metadata", "dataset/_common_metadata")


@dataclass(frozen=True)
class _LabelTask:
    out: Path
    leaves: tuple[InputTile, ...]
    blob: Broadcast[bytes]
    sha256: str
    level: int
    truth: bool
    stop: Path | None
    model_id: str
    features: FeatureFile
    schema: pa.Schema
    tiles: Tiles
    common: tuple[str, ...]


def label_catalogue(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Label ``lake/matched`` with the chosen model; write ``labels/<model id>/``, publish it, return its run.json.

    Raises
    ------
    StellarmlError
        Naming every tile that could not be labelled, after all others are done (`label.keep_going`).
    """
    lake = config.path(config.paths.lake)
    current_model(config)  # a damaged pointer is told before the work, not after it
    model, manifest = chosen_model(config, configured_feature_file(config))
    out = config.path(config.paths.labels) / manifest.id
    truth = config.label.truth_intervals
    if truth:
        manifest.check_truth()
    relevant: dict[str, Any] = {"level": config.label.level, "tiles": config.tiles.model_dump()}
    relevant |= {"model": manifest.behaviour(), **({"truth_intervals": True} if truth else {})}
    with stage_run(
        "label",
        out,
        config=config,
        relevant=relevant,
        derived=[lake / "matched", model],
        overwrite=overwrite,
        incremental=True,
    ) as run:
        if run.complete:
            _publish(config, run.record)
            return run.record
        tiles = input_tiles(lake / "matched")
        gone = vanished(out, tiles, run.marks)
        blob, sha256 = pack_bundle(model)
        task = _LabelTask(
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
            (code_identity()["digest"], json.dumps(relevant, sort_keys=True)),
        )
        kept, pending = split_done(out, tiles, run.marks, task.common)
        counts = {"to_do": len(pending), "kept": len(kept), "removed": len(gone)}
        get_logger().info("tiles", stage="label", model=manifest.id, **counts)
        marks = kept | _label_pending(spark, config, task, pending)
        rows = sum(mark["rows"] for mark in marks.values())
        _replace_catalogue(task, gone, rows)
        tally = total(mark["tally"] for mark in marks.values())
        record = run.finish(
            {"in": sum(found.rows for found in tiles), "out": rows, "without_flag": tally.without_flag},
            units=len(tiles),
            units_done=len(pending),
            model_id=manifest.id,
            preset=manifest.preset,
            label=tally.told(manifest),
        )
        _publish(config, record)
        return record


def _replace_catalogue(task: _LabelTask, gone: Sequence[Tile], rows: int) -> None:
    """Put the new leaves into the catalogue, take those `gone` out of it, and write its lists anew."""
    out, leaves = task.out, [leaf.tile for leaf in task.leaves]
    for path in (mark_path(out, _CATALOGUE), out / RECORD):
        path.unlink(missing_ok=True)
    put_in_place(out, leaves, gone)
    finish_catalogue(
        out,
        name=f"labels_{task.model_id}",
        tiles=leaves,
        rows=rows,
        ra=RA,
        dec=DEC,
        schema=task.schema,
        max_rows=task.tiles.max_rows,
    )
    lists = [Path(name) for name in _CATALOGUE_FILES if (out / name).is_file()]
    write_mark(out, _CATALOGUE, {"files": sizes_of(out, [*lists, *(leaf.path for leaf in leaves)])})


def _publish(config: Config, record: dict[str, Any]) -> None:
    publish(config, record["model_id"])
    write_atomically(config.path(config.paths.labels) / METRICS, prometheus_text(record))


def _label_pending(
    spark: SparkSession, config: Config, task: _LabelTask, pending: Sequence[InputTile]
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
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(config.label.batch_rows))
    readable = [leaf for leaf in pending if not leaf.problem]

    def lost(told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        if task.stop and task.stop.exists():
            first = json.loads(task.stop.read_text())
            return {} if "error" in told.get(first["unit"], {}) else {first["unit"]: first["error"]}
        without = [leaf for leaf in pending if leaf.tile.name not in told]
        return {leaf.tile.name: leaf.problem or why_unreadable(leaf) for leaf in without}

    try:
        job = _labelling(_read(spark, config, readable), task)
        rows = {leaf.tile.name: leaf.rows for leaf in pending}
        return collect_outcomes(job, "label", task.out, len(pending), lost=lost, rows=rows)
    except (PySparkException, Py4JJavaError) as error:
        told = str(error)
        named = [leaf for leaf in readable if leaf.tile.path.as_posix() in told or not leaf.path.is_file()]
        if named:
            reasons = {leaf.tile.name: f"{leaf.path}: cannot be read ({cause_of(error)})." for leaf in named}
            refuse_units("label", reasons, len(pending))
        raise
    finally:
        if task.stop:
            task.stop.unlink(missing_ok=True)


def _read(spark: SparkSession, config: Config, leaves: Sequence[InputTile]) -> DataFrame:
    from pyspark.sql.pandas.types import from_arrow_schema

    matched = config.path(config.paths.lake) / "matched"
    schema = from_arrow_schema(schema_of(matched, leaves))
    tolerant = str(config.label.keep_going).lower()
    options = dict.fromkeys(("ignoreCorruptFiles", "ignoreMissingFiles"), tolerant)
    return spark.read.options(**options).schema(schema).parquet(*(literal(leaf.path) for leaf in leaves))


def _labelling(frame: DataFrame, task: _LabelTask) -> DataFrame:
    """Return the job: one task a leaf, features by Spark, labels and the leaf by `_label_leaf`.

    The features are in the order of the model, which may not be that of the configuration's file.
    """
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, packed_features

    check_features(frame, task.features)
    failed = [name for name in frame.columns if name.startswith("cuts_failed_")]
    bits = sf.lit(0).cast("long")
    for shift, name in zip((0, RIGHT_CUTS_SHIFT), failed, strict=True):
        bits = bits.bitwiseOR(sf.shiftleft(sf.col(name), shift))
    packed = packed_features(task.features, frame.columns).alias(_FEATURES)
    names = [HEALPIX_COLUMN, SOURCE_ID, RA, DEC]
    passed = [sf.col(EBV).cast("float").alias(EBV)] if EBV in frame.columns else []
    rows = frame.select(*names, bits.alias(CUTS_FAILED), *passed, packed)

    def label(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from _label_leaf(task, batches)

    return rows.mapInArrow(label, RESULT_SCHEMA)


def _label_leaf(task: _LabelTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Label one leaf, whose rows are all of a task's; whatever happens, take all of them."""
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return
    if task.stop and task.stop.exists():
        for _ in filled:
            pass
        return
    leaf = _leaf_of(task.leaves, first.column(0)[0].as_py())
    outcome = guarded(task.out, leaf.tile.name, lambda: _label_batches(task, leaf, chain([first], filled)))
    if "error" in outcome and task.stop:
        write_atomically(task.stop, json.dumps({"unit": leaf.tile.name, "error": outcome["error"]}))
    for _ in filled:
        pass
    yield outcome_batch(leaf.tile.name, outcome)


def _label_batches(task: _LabelTask, leaf: InputTile, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
    tally = Tally()
    path = waiting(task.out, leaf.tile)
    with leaf_writer(path, task.schema, task.tiles) as writer:
        for batch in batches:
            _check_rows(leaf, batch)
            writer.write(label_rows(task, batch, tally))
        problem = changed(leaf)
        if problem or writer.rows != leaf.rows:
            raise StellarmlError(
                problem
                or f"{leaf.path}: holds {leaf.rows} rows, and {writer.rows} could be read: is it damaged?"
            )
    return {
        "bytes": path.stat().st_size,
        "rows": writer.rows,
        "key": tile_key(leaf, task.common),
        "tally": tally.to_json(),
    }


def _check_rows(leaf: InputTile, batch: pa.RecordBatch) -> None:
    names = [
        name for name in (HEALPIX_COLUMN, SOURCE_ID, RA, DEC, CUTS_FAILED) if batch.column(name).null_count
    ]
    if names:
        raise StellarmlError(f"{leaf.path}: has rows without {' and '.join(names)}: is it damaged?")
    keys = batch.column(HEALPIX_COLUMN).to_numpy()
    first, stop = leaf.tile.range
    if keys[0] < first or keys[-1] >= stop or (np.diff(keys) < 0).any():
        raise StellarmlError(f"{leaf.path}: its rows are not in the order of the sky, or of another tile.")


def _leaf_of(leaves: Sequence[InputTile], index: int) -> InputTile:
    starts = np.array([leaf.tile.range[0] for leaf in leaves])
    return leaves[int(np.searchsorted(starts, index, "right")) - 1]


def label_rows(task: _LabelTask, batch: pa.RecordBatch, tally: Tally) -> pa.RecordBatch:
    """Return the output columns for one batch of identity, cuts and features, and count it."""
    from stellarml.labelling.spark_label import predictor_of, unpacked

    predictor = predictor_of(task.blob.value, task.sha256)
    names = batch.schema.names
    reddening = batch.column(EBV).to_numpy(zero_copy_only=False) if EBV in names else None
    features = unpacked(batch.column(_FEATURES), len(predictor.feature_names))
    found = predictor.label(features, task.level, reddening, truth=task.truth)
    failed = batch.column(CUTS_FAILED).to_numpy()
    found[QUALITY_FLAGS] = found[QUALITY_FLAGS] | np.where(
        failed != 0, np.int32(QualityFlag.CUT_FAILED), np.int32(0)
    )
    tally.add(features, found[QUALITY_FLAGS], predictor.manifest.scaler)
    columns = [batch.column(name) for name in (SOURCE_ID, RA, DEC)]
    columns += [pa.array(found[name]) for name in predictor.manifest.output_names(truth=task.truth)]
    columns += [
        batch.column(CUTS_FAILED),
        _constant(task.model_id, batch.num_rows),
        batch.column(HEALPIX_COLUMN),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=task.schema)


def _constant(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text])).cast(
        pa.string()
    )


def output_schema(labels: Sequence[LabelRange], truth: bool) -> pa.Schema:
    """Return the columns of a labelled catalogue, in their order, with units and descriptions."""
    return arrow_schema(label_columns([(label.name, label.unit) for label in labels], truth))
