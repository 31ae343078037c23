"""Training and labelling on any table, without the chain: one file in, a model or labels out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stellarml.core import progress
from stellarml.core.config import Config, Label, Split
from stellarml.core.errors import InputError, UserError
from stellarml.core.files import storage_errors
from stellarml.core.names import CUTS_FAILED, EBV, SPLIT
from stellarml.core.progress import Count
from stellarml.core.schema import arrow_schema, label_columns
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.features.spark_split import split_column
from stellarml.model.bundle import load_bundle, pack_bundle
from stellarml.model.bundle_arrays import is_plain
from stellarml.run.fingerprint import file_fingerprint
from stellarml.run.log import get_logger
from stellarml.run.row_tally import rows_told
from stellarml.standalone.own_table_reader import check_ids, check_labels, check_units, read_table
from stellarml.storage.export import write_file
from stellarml.storage.formats import SUFFIXES

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import Column, DataFrame, SparkSession

_ID = "__id"  # inside Spark, which would take a dot in a name for a field


def train_on_table(
    spark: SparkSession,
    config: Config,
    table: Path,
    features: Path,
    out: Path,
    told: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train on the labelled rows of `table`; write the bundle to the folder `out` and return it.

    Rows without any label are taken for a sample of the stars that are to be labelled. A training that was killed goes
    on from what a hidden folder beside `out` keeps. Warnings are logged, and `told` is called with them and with a line
    an epoch.

    Raises
    ------
    InputError, TrainingError
        If the table lacks a column, or cannot teach anything.
    """
    from stellarml.training.fit import Task, train
    from stellarml.training.watch import Watch

    spec = load_feature_file(features)
    _refuse_place(out)
    progress.step("reading the table")

    def warn(warning: str) -> None:
        get_logger().warning(warning, stage="train")
        told(f"warning: {warning}")

    rows = _rows_to_learn(spark, config.split, table, spec, warn)
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
        watch=Watch(told, checkpoints, logs, warn=warn),
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
    spark: SparkSession, split: Split, table: Path, spec: FeatureFile, warn: Callable[[str], None]
) -> pa.Table:
    """Return id, features, labels and split of every row of a table that can teach."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns, spark_label_columns

    frame = read_table(spark, table, spec.id)
    check_features(frame, spec)
    check_units(frame, spec, labels=True)
    check_labels(frame, spec)
    check_ids(frame, spec.id)
    if SPLIT in frame.columns:
        warn("the table's own column 'split' is not used; stars are split by a hash of their id")
    passed = [sf.col(EBV)] if EBV in frame.columns and EBV not in spec.feature_names else []
    columns = [*feature_columns(spec, frame.columns), *spark_label_columns(spec, frame.columns), *passed]
    return frame.select(sf.col(f"`{spec.id}`"), *columns, split_column(spec.id, split).alias(SPLIT)).toArrow()


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


def _rows_of(table: Path) -> int:
    """Return the rows that a Parquet file or folder states, for the progress; 0 for other formats."""
    files = [table] if table.is_file() else table.rglob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files if file.suffix.lower() == ".parquet")


def _labelled(
    inputs: DataFrame, packed: Broadcast[bytes], sha256: str, settings: Label, rows: int
) -> pa.Table:
    """Label the `rows` of a frame, and count them on the way."""
    from stellarml.labelling.spark_label import label_frame

    with tempfile.TemporaryDirectory(prefix="stellarml-rows-") as folder:
        tally = Path(folder)
        seen = str(inputs.sparkSession.sparkContext.master).startswith("local")  # by the executors, too
        progress.step("labelling", rows if seen else 0, counted=lambda: Count(rows_told(tally)))
        return label_frame(
            inputs,
            packed,
            sha256,
            id_column=_ID,
            level=settings.level,
            truth=settings.truth_intervals,
            tally=tally,
        ).toArrow()


def label_table(spark: SparkSession, config: Config, table: Path, model: Path, out: Path) -> int:
    """Label every row of `table`, in a file's order; write id, labels, intervals and flags to `out`; return the rows.

    Raises
    ------
    InputError, BundleError
        If the table lacks a column that a feature names, or the bundle is damaged.
    UserError
        If `out` is the table itself, a folder, or of an unknown format.
    """
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns

    kind = SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise UserError(f"{out}: unknown format '{out.suffix}'; expected one of {', '.join(SUFFIXES)}")
    if out.is_dir() or out.resolve().is_relative_to(table.resolve()):
        what = "a folder" if out.is_dir() else "the table that is to be labelled, or inside it"
        raise UserError(f"{out}: is {what}; --out names a file to write.")
    progress.step("reading the table")
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
    inputs = frame.select(sf.col(f"`{spec.id}`").alias(_ID), *passed, *feature_columns(spec, frame.columns))
    labelled = _labelled(inputs, spark.sparkContext.broadcast(blob), sha256, config.label, _rows_of(table))
    progress.step("writing the labels")
    labelled = labelled.rename_columns([spec.id, *labelled.column_names[1:]])
    units = [(label.name, label.unit) for label in manifest.labels]
    described = arrow_schema(label_columns(units, config.label.truth_intervals))
    schema = pa.schema(
        [
            f if described.get_field_index(f.name) < 0 else described.field(f.name).with_type(f.type)
            for f in labelled.schema
        ]
    )
    labelled = pa.Table.from_arrays(labelled.columns, schema=schema)
    return write_file([labelled], schema, out, kind, config.tiles)
