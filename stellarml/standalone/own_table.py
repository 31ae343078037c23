"""Training and labelling on any table, without the chain: one file in, a model or labels out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from stellarml.core.config import Config, Split
from stellarml.core.errors import InputError, UserError
from stellarml.core.files import storage_errors
from stellarml.core.names import CUTS_FAILED, EBV, SPLIT
from stellarml.core.schema import arrow_schema, label_columns
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.features.plausible_ranges import OutsideRange, told
from stellarml.features.spark_split import split_column
from stellarml.model.bundle import load_bundle, pack_bundle
from stellarml.model.bundle_arrays import is_plain
from stellarml.model.manifest import Manifest
from stellarml.run.fingerprint import file_fingerprint
from stellarml.standalone.own_table_reader import check_ids, check_labels, check_units, read_table
from stellarml.storage.export import write_file
from stellarml.storage.formats import SUFFIXES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_ID = "__id"  # inside Spark, which would take a dot in a name for a field


def train_on_table(
    spark: SparkSession,
    config: Config,
    table: Path,
    features: Path,
    out: Path,
    progress: Callable[[str], None],
) -> Path:
    """Train on the labelled rows of `table`; write the bundle to the folder `out` and return it.

    Rows without any label are taken for a sample of the stars that are to be labelled. A training that was killed goes
    on from what a hidden folder beside `out` keeps.

    Raises
    ------
    InputError, TrainingError
        If the table lacks a column, or cannot teach anything.
    """
    from stellarml.training.fit import Task, train
    from stellarml.training.watch import Watch

    spec = load_feature_file(features)
    _refuse_place(out)
    rows, outside = _rows_to_learn(spark, config.split, table, spec, progress)
    labels = [pc.is_finite(pc.fill_null(rows[name], float("nan"))) for name in spec.label_names]
    labelled = reduce(pc.or_, labels)
    checkpoints = out.parent / f".{out.name}-checkpoints"
    logs = out.parent / f"{out.name}-logs" if config.train.tensorboard else None
    bundle = train(
        rows.filter(labelled),
        Task(spec, config.train, config.split),
        out,
        provenance={"table": file_fingerprint(table) if table.is_file() else str(table)},
        target=rows.filter(pc.invert(labelled)),
        watch=Watch(progress, checkpoints, logs),
        outside_range=outside,
    )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return bundle


def _refuse_place(out: Path) -> None:
    """Refuse a folder for a model whose name is no model's, that cannot be written, or that holds something."""
    if not is_plain(out.name):
        raise UserError(
            f"--out {out}: its name would be the model's; it must not begin with a dot or hold a colon."
        )
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out.parent}: cannot be written to. Choose another --out.")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty. Choose a new folder for the model.")


def _rows_to_learn(
    spark: SparkSession, split: Split, table: Path, spec: FeatureFile, progress: Callable[[str], None]
) -> tuple[pa.Table, tuple[OutsideRange, ...]]:
    """Return id, features, labels and split of every row of a table that can teach, and what ranges took away."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns, spark_label_columns
    from stellarml.features.spark_ranges import within_ranges

    frame = read_table(spark, table, spec.id)
    check_features(frame, spec)
    check_units(frame, spec, labels=True)
    check_labels(frame, spec)
    check_ids(frame, spec.id)
    if SPLIT in frame.columns:
        progress("warning: the table's own column 'split' is not used; stars are split by a hash of their id")
    passed = [sf.col(EBV)] if EBV in frame.columns and EBV not in spec.feature_names else []
    values = [
        *feature_columns(spec, frame.columns, ranges=False),
        *spark_label_columns(spec, frame.columns, ranges=False),
    ]
    split_by_id = split_column(spec.id, split).alias(SPLIT)
    rows = frame.select(sf.col(f"`{spec.id}`"), *values, *passed, split_by_id)
    rows, counts = within_ranges(rows, (*spec.features, *spec.labels))
    table_rows = rows.toArrow()
    return table_rows, counts.found()


def _failed_cuts(frame: DataFrame) -> list[Column]:
    """Return one column with the bits of all cuts that a table says its rows fail; nothing where it says none."""
    from pyspark.sql import functions as sf

    integers = ("bigint", "int", "smallint", "tinyint")
    names = [
        name
        for name, kind in frame.dtypes
        if kind in integers and (name.lower() == CUTS_FAILED or name.lower().startswith(f"{CUTS_FAILED}_"))
    ]
    bits = [sf.coalesce(sf.col(f"`{name}`").cast("long"), sf.lit(0).cast("long")) for name in names]
    return [reduce(lambda a, b: a.bitwiseOR(b), bits).alias(CUTS_FAILED)] if bits else []


def label_table(
    spark: SparkSession,
    config: Config,
    table: Path,
    model: Path,
    out: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> int:
    """Label every row of `table`, in a file's order; write id, labels, intervals and flags to `out`; return the rows.

    `progress` is told how many values are outside the ranges of the model's features, and so missing.

    Raises
    ------
    InputError, BundleError
        If the table lacks a column that a feature names, or the bundle is damaged.
    UserError
        If `out` is the table itself, a folder, or of an unknown format.
    """
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns
    from stellarml.features.spark_ranges import within_ranges
    from stellarml.labelling.spark_label import label_frame

    kind = SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise UserError(f"{out}: unknown format '{out.suffix}'; expected one of {', '.join(SUFFIXES)}")
    if out.is_dir() or out.resolve().is_relative_to(table.resolve()):
        what = "a folder" if out.is_dir() else "the table that is to be labelled, or inside it"
        raise UserError(f"{out}: is {what}; --out names a file to write.")
    manifest = load_bundle(model).manifest
    spec = manifest.features
    frame = read_table(spark, table, spec.id)
    check_features(frame, spec)
    check_units(frame, spec)
    known = {name.lower() for name in frame.columns}
    if spec.id.lower() not in known:
        raise InputError(f"{table}: has no column '{spec.id}', the id that the model's feature file names")
    check_ids(frame, spec.id)
    blob, sha256 = pack_bundle(model)
    names = [f.name for f in spec.features]
    passed = [sf.col(EBV).alias(EBV)] if EBV in known - set(names) else []
    passed += _failed_cuts(frame) if CUTS_FAILED not in names else []
    values = feature_columns(spec, frame.columns, ranges=False)
    inputs, counts = within_ranges(
        frame.select(sf.col(f"`{spec.id}`").alias(_ID), *passed, *values), spec.features
    )
    labelled = label_frame(
        inputs,
        spark.sparkContext.broadcast(blob),
        sha256,
        id_column=_ID,
        label_names=spec.label_names,
        level=config.label.level,
        truth=config.label.truth_intervals,
    ).toArrow()
    _tell(counts.found(), progress)
    labelled = _described(labelled.rename_columns([spec.id, *labelled.column_names[1:]]), manifest, config)
    return write_file([labelled], labelled.schema, out, kind, config.tiles)


def _tell(outside: Sequence[OutsideRange], progress: Callable[[str], None]) -> None:
    messages, warnings = told(outside)
    for line in (*messages, *(f"warning: {text}" for text in warnings)):
        progress(line)


def _described(labelled: pa.Table, manifest: Manifest, config: Config) -> pa.Table:
    """Return labels with the units and descriptions of their columns."""
    units = [(label.name, label.unit) for label in manifest.labels]
    described = arrow_schema(label_columns(units, config.label.truth_intervals))
    schema = pa.schema(
        [
            f if described.get_field_index(f.name) < 0 else described.field(f.name).with_type(f.type)
            for f in labelled.schema
        ]
    )
    return pa.Table.from_arrays(labelled.columns, schema=schema)
