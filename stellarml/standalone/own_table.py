"""Training and labelling on any table, without the chain: one file in, a model or labels out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stellarml.core import progress
from stellarml.core.config import Config, Label, Split
from stellarml.core.expressions import quoted
from stellarml.core.names import CUTS_FAILED, EBV, SPLIT
from stellarml.core.progress import Count
from stellarml.core.schema import arrow_schema, label_columns
from stellarml.features.plausible_ranges import OutsideRange, told
from stellarml.features.spark_split import split_column
from stellarml.model.bundle import pack_bundle
from stellarml.model.manifest import Manifest
from stellarml.run.fingerprint import file_fingerprint
from stellarml.run.log import get_logger
from stellarml.run.ownership import claimed
from stellarml.run.row_tally import rows_told
from stellarml.run.scratch import scratch
from stellarml.standalone.own_table_checks import check_ids, check_labels
from stellarml.standalone.own_table_plan import (
    LabellingPlan,
    LearningPlan,
    plan_labelling,
    plan_learning,
    refuse_place,
)
from stellarml.standalone.own_table_reader import OwnTable, read_table, refuse_changed
from stellarml.storage.export import write_file

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
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train on the labelled rows of `table`; write the bundle to the folder `out` and return it.

    Rows without any label are taken for a sample of the stars that are to be labelled. A training that was killed goes
    on from what a hidden folder beside `out` keeps. Warnings are logged, and `tell` is called with them and with a line
    an epoch.

    Raises
    ------
    InputError, TrainingError
        If the table lacks a column, or cannot teach anything.
    """
    plan = plan_learning(table, features, out)
    with claimed(out):
        return learn_planned(spark, config, plan, tell)


def learn_planned(
    spark: SparkSession,
    config: Config,
    plan: LearningPlan,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train as `plan_learning` has settled; the caller holds the place of the model. See `train_on_table`."""
    from stellarml.training.fit import Task, train
    from stellarml.training.watch import Watch

    spec, out, table = plan.features, plan.out, plan.table.path
    refuse_place(out)  # another run may have ended in the meantime
    progress.step("reading the table")

    def warn(warning: str) -> None:
        get_logger().warning(warning, stage="train")
        tell(f"warning: {warning}")

    before = plan.table.fingerprints()
    rows, outside = _rows_to_learn(spark, config.split, plan, warn)
    refuse_changed(plan.table, before)
    for line in told(outside)[0]:
        get_logger().info(line, stage="train")
    labels = [pc.is_finite(pc.fill_null(rows[name], float("nan"))) for name in spec.label_names]
    labelled = reduce(pc.or_, labels)
    checkpoints = out.parent / f".{out.name}-checkpoints"
    logs = out.parent / f"{out.name}-logs" if config.train.tensorboard else None
    bundle = train(
        rows.filter(labelled),
        Task(spec, config.train, config.split),
        out,
        provenance={"table": _known_as(table)},
        target=rows.filter(pc.invert(labelled)),
        watch=Watch(tell, checkpoints, logs, warn=warn),
        outside_range=outside,
    )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return bundle


def _known_as(table: Path) -> dict[str, Any]:
    """Return what a bundle says of its table: not where it lay, so that the same rows make the same bundle."""
    return (file_fingerprint(table) if table.is_file() else {}) | {"path": table.name}


def _rows_to_learn(
    spark: SparkSession, split: Split, plan: LearningPlan, warn: Callable[[str], None]
) -> tuple[pa.Table, tuple[OutsideRange, ...]]:
    """Return id, features, labels and split of every row of a table that can teach, and what ranges took away."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns, spark_label_columns
    from stellarml.features.spark_ranges import within_ranges

    spec = plan.features
    frame = read_table(spark, plan.table, plan.wanted, spec.id)
    check_features(frame, spec, known=plan.table.names)
    check_labels(frame, spec)
    check_ids(frame, spec.id)
    if SPLIT in frame.columns:
        warn("the table's own column 'split' is not used; stars are split by a hash of their id")
    passed = [sf.col(EBV)] if EBV in frame.columns and EBV not in spec.feature_names else []
    values = [
        *feature_columns(spec, frame.columns, ranges=False),
        *spark_label_columns(spec, frame.columns, ranges=False),
    ]
    split_by_id = split_column(spec.id, split).alias(SPLIT)
    rows = frame.select(sf.col(quoted(spec.id)), *values, *passed, split_by_id)
    rows, counts = within_ranges(rows, (*spec.features, *spec.labels))
    table_rows = rows.toArrow()
    return table_rows, counts.found()


def _with_unsigned_ids(labelled: pa.Table, id_column: str) -> pa.Table:
    """Return the labels with the id under its own name, and as unsigned integers where the table has those."""
    labelled = labelled.rename_columns([id_column, *labelled.column_names[1:]])
    ids = labelled.column(0)
    if pa.types.is_decimal(ids.type) and ids.type.scale == 0 and ids.type.precision == 20:
        return labelled.set_column(0, id_column, ids.cast(pa.uint64()))
    return labelled


def _failed_cuts(frame: DataFrame) -> list[Column]:
    """Return one column with the bits of all cuts that a table says its rows fail; nothing where it says none."""
    from pyspark.sql import functions as sf

    integers = ("bigint", "int", "smallint", "tinyint")
    names = [
        name
        for name, kind in frame.dtypes
        if kind in integers and (name.lower() == CUTS_FAILED or name.lower().startswith(f"{CUTS_FAILED}_"))
    ]
    bits = [sf.coalesce(sf.col(quoted(name)).cast("long"), sf.lit(0).cast("long")) for name in names]
    return [reduce(lambda a, b: a.bitwiseOR(b), bits).alias(CUTS_FAILED)] if bits else []


def _rows_of(table: OwnTable) -> int:
    """Return the rows that Parquet files state, for the progress; 0 for other formats."""
    files = [header.file.path for header in table.headers if header.file.family == "parquet"]
    return sum(pq.read_metadata(file).num_rows for file in files)


def _labelled(
    inputs: DataFrame, packed: Broadcast[bytes], sha256: str, settings: Label, rows: int
) -> pa.Table:
    """Label the `rows` of a frame, and count them on the way."""
    from stellarml.labelling.spark_label import label_frame

    with tempfile.TemporaryDirectory(prefix="rows-", dir=scratch()) as folder:
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

    How many values are outside the ranges of the model's features, and so missing, is logged.

    Raises
    ------
    InputError, BundleError
        If the table lacks a column that a feature names, or the bundle is damaged.
    UserError
        If `out` is the table itself, a folder, or of an unknown format.
    """
    plan = plan_labelling(table, model, out)
    with claimed(out):
        return label_planned(spark, config, plan)


def label_planned(spark: SparkSession, config: Config, plan: LabellingPlan) -> int:
    """Label as `plan_labelling` has settled; the caller holds the file to write. See `label_table`."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import check_features, feature_columns
    from stellarml.features.spark_ranges import within_ranges

    spec, manifest = plan.features, plan.manifest
    progress.step("reading the table")
    before = plan.table.fingerprints()
    frame = read_table(spark, plan.table, plan.wanted, spec.id)
    check_features(frame, spec, known=plan.table.names)
    known = {name.lower() for name in frame.columns}
    check_ids(frame, spec.id)
    blob, sha256 = pack_bundle(plan.model)
    names = [f.name for f in spec.features]
    passed = [sf.col(EBV).alias(EBV)] if EBV in known - set(names) else []
    passed += _failed_cuts(frame) if CUTS_FAILED not in names else []
    values = feature_columns(spec, frame.columns, ranges=False)
    chosen = frame.select(sf.col(quoted(spec.id)).alias(_ID), *passed, *values)
    inputs, counts = within_ranges(chosen, spec.features)
    packed = spark.sparkContext.broadcast(blob)
    labelled = _labelled(inputs, packed, sha256, config.label, _rows_of(plan.table))
    refuse_changed(plan.table, before)
    _say(counts.found(), "label")
    progress.step("writing the labels")
    labelled = _described(_with_unsigned_ids(labelled, spec.id), manifest, config)
    return write_file([labelled], labelled.schema, plan.out, plan.kind, config.tiles)


def _say(outside: Sequence[OutsideRange], stage: str) -> None:
    messages, warnings = told(outside)
    for line in messages:
        get_logger().info(line, stage=stage)
    for line in warnings:
        get_logger().warning(line, stage=stage)


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
