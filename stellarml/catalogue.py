"""The stage label: every matched star with its labels, intervals and flags, as a HATS catalogue a model version.

Features are computed by Spark, fused with the read of the leaf; the task's one Python function labels the rows as they
come and writes the finished leaf itself, so a row crosses from the JVM to Python once and never goes back. A leaf of
``matched`` is the unit of work and keeps its name. No TensorFlow on executors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stellarml.config import Config, Tiles
from stellarml.engine import RESULT_SCHEMA, collect_outcomes, guarded, outcome_batch
from stellarml.errors import StellarmlError
from stellarml.flags import QualityFlag
from stellarml.hats_catalogue import finish_catalogue
from stellarml.hats_reading import Leaf, open_catalogue
from stellarml.manifest import stage_run
from stellarml.model import LabelRange, load_bundle, pack_bundle
from stellarml.registry import chosen_model
from stellarml.schema import (
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
from stellarml.storage import write_atomically, write_parquet
from stellarml.training_set import feature_file

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

CURRENT = "current.json"
RIGHT_CUTS_SHIFT = 32


@dataclass(frozen=True)
class _LabelTask:
    out: Path
    leaves: tuple[Leaf, ...]
    blob: Broadcast[bytes]
    sha256: str
    level: int
    truth: bool
    model_id: str
    schema: pa.Schema
    tiles: Tiles


def label_catalogue(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Label ``lake/matched`` with the chosen model; write ``labels/<model id>/``, publish it, return its run.json."""
    from stellarml.features import check_features

    lake = config.path(config.paths.lake)
    features = feature_file(config)
    model = chosen_model(config, features)
    manifest = load_bundle(model, features).manifest
    out = config.path(config.paths.labels) / manifest.id
    truth = config.label.truth_intervals
    if truth:
        manifest.check_truth()
    relevant: dict[str, Any] = {"level": config.label.level, "tiles": config.tiles.model_dump()}
    relevant |= {"files": manifest.files, **({"truth_intervals": True} if truth else {})}
    with stage_run(
        "label", out, config=config, relevant=relevant, derived=[lake / "matched", model], overwrite=overwrite
    ) as run:
        if run.complete:
            _publish(config, manifest.id)
            return run.record
        matched = open_catalogue(lake / "matched")
        blob, sha256 = pack_bundle(model)
        task = _LabelTask(
            out,
            matched.leaves,
            spark.sparkContext.broadcast(blob),
            sha256,
            config.label.level,
            truth,
            manifest.id,
            output_schema(manifest.labels, truth),
            config.tiles,
        )
        pending = [leaf for leaf in matched.leaves if leaf.tile.name not in run.marks]
        marks = dict(run.marks)
        if pending:
            frame = spark.read.schema(_spark_schema(spark, matched.leaves[0].path)).parquet(
                *(str(leaf.path) for leaf in sorted(pending, key=lambda leaf: -leaf.rows))
            )
            check_features(frame, features)
            marks |= collect_outcomes(_labelling(frame, task, config), "label", out, len(pending))
        done = [marks[leaf.tile.name] for leaf in matched.leaves]
        finish_catalogue(
            out,
            name=f"labels_{manifest.id}",
            tiles=[leaf.tile for leaf in matched.leaves],
            rows=sum(mark["rows"] for mark in done),
            ra=RA,
            dec=DEC,
            schema=task.schema,
            max_rows=config.tiles.max_rows,
        )
        rows = sum(mark["rows"] for mark in done)
        record = run.finish(
            {"in": matched.rows, "out": rows, "without_flag": sum(mark["without_flag"] for mark in done)},
            units=len(done),
            model_id=manifest.id,
        )
        _publish(config, manifest.id)
        return record


def _spark_schema(spark: SparkSession, leaf: Path) -> Any:
    return spark.read.parquet(str(leaf)).schema


def _labelling(frame: DataFrame, task: _LabelTask, config: Config) -> DataFrame:
    """Return the job: one task a leaf, features by Spark, labels and the leaf by `_label_leaf`."""
    from pyspark.sql import functions as sf

    from stellarml.features import feature_columns

    failed = [name for name in frame.columns if name.startswith("cuts_failed_")]
    bits = sf.lit(0).cast("long")
    for shift, name in zip((0, RIGHT_CUTS_SHIFT), failed, strict=True):
        bits = bits.bitwiseOR(sf.shiftleft(sf.col(name), shift))
    features = feature_columns(feature_file(config), frame.columns)
    names = [HEALPIX_COLUMN, SOURCE_ID, RA, DEC]
    passed = [sf.col(EBV).cast("float").alias(EBV)] if EBV in frame.columns else []
    rows = frame.select(*names, bits.alias(CUTS_FAILED), *passed, *features)

    def label(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from _label_leaf(task, batches)

    return rows.mapInArrow(label, RESULT_SCHEMA)


def _label_leaf(task: _LabelTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    labelled: list[pa.RecordBatch] = []
    problem: Exception | None = None
    first = -1
    for batch in batches:
        if batch.num_rows == 0 or problem is not None:
            continue
        try:
            if first < 0:
                first = batch.column(0)[0].as_py()
            labelled.append(label_rows(task, batch))
        except Exception as error:
            problem = error
    if first < 0:
        return
    leaf = _leaf_of(task.leaves, first)

    def finish() -> dict[str, Any]:
        if problem is not None:
            raise problem
        table = pa.Table.from_batches(labelled)
        if table.num_rows != leaf.rows:
            raise StellarmlError(f"{leaf.path}: holds {leaf.rows} rows, {table.num_rows} were labelled")
        written = write_parquet(task.out / leaf.tile.path, table, task.tiles)
        clean = int((table[QUALITY_FLAGS].to_numpy() == 0).sum())
        return {
            "files": {str(leaf.tile.path): written["bytes"]},
            "rows": table.num_rows,
            "without_flag": clean,
        }

    yield outcome_batch(leaf.tile.name, guarded(task.out, leaf.tile.name, finish))


def _leaf_of(leaves: Sequence[Leaf], index: int) -> Leaf:
    starts = np.array([leaf.tile.range[0] for leaf in leaves])
    return leaves[int(np.searchsorted(starts, index, "right")) - 1]


def label_rows(task: _LabelTask, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the output columns for one batch of identity, cuts and features."""
    from stellarml.inference import features_of, predictor_of

    predictor = predictor_of(task.blob.value, task.sha256)
    names = batch.schema.names
    reddening = batch.column(EBV).to_numpy(zero_copy_only=False) if EBV in names else None
    found = predictor.label(
        features_of(batch, predictor.feature_names), task.level, reddening, truth=task.truth
    )
    failed = batch.column(CUTS_FAILED).to_numpy()
    found[QUALITY_FLAGS] = found[QUALITY_FLAGS] | np.where(
        failed != 0, np.int32(QualityFlag.CUT_FAILED), np.int32(0)
    )
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


def _publish(config: Config, model_id: str) -> None:
    """Name the published version: one small file, replaced in one step."""
    pointer = config.path(config.paths.labels) / CURRENT
    if pointer.exists() and json.loads(pointer.read_text()).get("model_id") == model_id:
        return
    content = {"model_id": model_id, "published_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(pointer, json.dumps(content) + "\n")


def current_model(config: Config) -> str | None:
    """Return the id of the published version, or None."""
    pointer = config.path(config.paths.labels) / CURRENT
    return str(json.loads(pointer.read_text())["model_id"]) if pointer.exists() else None
