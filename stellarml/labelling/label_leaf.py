"""One leaf of matched stars in, one leaf of labels out: what a Spark task of the stage label does.

Features are computed by Spark, fused with the read of the leaf; the task's one Python function labels the rows as they
come and writes the leaf itself, a row group at a time: a row crosses from the JVM to Python once and never goes back,
and a worker holds no more than a row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Tiles
from stellarml.core.errors import StellarmlError
from stellarml.core.files import write_atomically
from stellarml.core.names import CUTS_FAILED, DEC, EBV, HEALPIX_COLUMN, QUALITY_FLAGS, RA, SOURCE_ID
from stellarml.core.schema import arrow_schema, label_columns
from stellarml.labelling.incremental import InputTile, changed, tile_key, waiting
from stellarml.labelling.monitoring import Tally
from stellarml.model.manifest import LabelRange
from stellarml.run.units import RESULT_SCHEMA, guarded, outcome_batch
from stellarml.storage.parquet import leaf_writer

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

    from stellarml.features.feature_file import FeatureFile


RIGHT_CUTS_SHIFT = 32


_FEATURES = "features"


@dataclass(frozen=True)
class LabelTask:
    """What a task of the stage needs to know.

    stop
        A file that the first failure writes where the others are not to go on; None: they go on.
    common
        What every leaf's key begins with: code and settings.
    """

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


def labelling_job(frame: DataFrame, task: LabelTask) -> DataFrame:
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


def _label_leaf(task: LabelTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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


def _label_batches(task: LabelTask, leaf: InputTile, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
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


def label_rows(task: LabelTask, batch: pa.RecordBatch, tally: Tally) -> pa.RecordBatch:
    """Return the output columns for one batch of identity, cuts and features, and count it."""
    from stellarml.labelling.spark_label import predictor_of, unpacked, with_failed_cuts

    predictor = predictor_of(task.blob.value, task.sha256)
    names = batch.schema.names
    reddening = batch.column(EBV).to_numpy(zero_copy_only=False) if EBV in names else None
    features = unpacked(batch.column(_FEATURES), len(predictor.feature_names))
    found = predictor.label(features, task.level, reddening, truth=task.truth)
    found[QUALITY_FLAGS] = with_failed_cuts(found[QUALITY_FLAGS], batch.column(CUTS_FAILED).to_numpy())
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
