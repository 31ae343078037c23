"""The stage features: the labelled stars that pass every cut, with features, mask and split.

It is small (a few million rows at most) beside the catalogues it comes from, so after one join in Spark it comes to the
driver as Arrow and is written there, sorted, as a HATS catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stellarml.core import progress
from stellarml.core.config import Config, Split
from stellarml.core.errors import ConfigError, InputError
from stellarml.core.names import (
    BP_MAG,
    DEC,
    EBV,
    EXTERNAL_ID,
    G_MAG,
    HEALPIX_COLUMN,
    MISSING_MASK,
    RA,
    RP_MAG,
    SOURCE_ID,
    SPLIT,
)
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.features.plausible_ranges import OutsideRange, told
from stellarml.features.spark_split import split_column
from stellarml.run.log import get_logger
from stellarml.run.marks import Record, read_record
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.stages.spectroscopic_labels import label_rows, match_by_position, resolved_labels
from stellarml.storage.hats_reader import read_leaves
from stellarml.storage.hats_writer import write_catalogue
from stellarml.storage.parquet import write_parquet
from stellarml.surveys.cuts import severe_cuts
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.training.read_lake import TARGET

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from stellarml.features.spark_ranges import RangeCounts

PASSED_THROUGH = (G_MAG, BP_MAG, RP_MAG, EBV)
TARGET_ROWS = 100_000
_IDENTITY = (HEALPIX_COLUMN, SOURCE_ID, EXTERNAL_ID, RA, DEC)


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Write ``lake/training/`` and return its run.json.

    Raises
    ------
    InputError
        If no matched star has a label and passes the cuts, or a feature names a column that is not there.
    """
    from stellarml.features.spark_columns import check_features

    lake = config.lake_folder
    out = lake / "training"
    features = load_feature_file(config.feature_file)
    tables = [load_descriptor(name, config.root) for name in config.surveys.labels]
    if not tables:
        raise ConfigError("surveys.labels is empty: there is nothing to learn from.")
    stars = load_descriptor(config.surveys.astrometry, config.root)
    relevant = {
        "features": features.model_dump(mode="json"),
        "labels": config.labels.model_dump(),
        "label_tables": [table.labels for table in tables],
        "split": config.split.model_dump(),
        "tiles": config.tiles.model_dump(),
    }
    derived = [lake / "matched", *(lake / table.name for table in tables)]
    with stage_run(
        Recipe("features", __name__, relevant, derived=derived), out, config, overwrite=overwrite
    ) as output:
        if output.complete:
            return output.record
        matched = read_leaves(spark, lake / "matched")
        check_features(matched, features)
        frames, outside = _label_frames(spark, output, features, tables, stars)
        progress.step("joining labels with matched stars")
        labels, counts = resolved_labels(frames, features.label_names, config.labels)
        training, lost = _training_frame(matched, labels, features, config.split)
        learnt = training.toArrow()
        found = counts.as_dict()
        odd = _told([*outside, lost] if learnt.num_rows else outside)
        if learnt.num_rows == 0:
            raise InputError(_nothing_to_learn(found, tables, _severe_cuts(config), odd))
        progress.step("writing the training set")
        tiles = write_catalogue(
            out, learnt, config.tiles, name="training", ra=RA, dec=DEC, id_column=SOURCE_ID
        )
        progress.step("drawing a sample of the stars to be labelled")
        matched_rows = read_record(lake / "matched")["rows"]["out"]
        wanted = _to_be_labelled(matched, matched_rows, features, config.split)
        write_parquet(out / TARGET, wanted, config.tiles)
        output.settle([*(p.relative_to(out) for p in (out / "dataset").rglob("*.parquet")), Path(TARGET)])
        return output.finish(
            {"in": found["label_rows"], "out": learnt.num_rows, **found},
            units=0,
            tiles=tiles,
            split={part["values"]: part["counts"] for part in _counted(learnt[SPLIT])},
            target=wanted.num_rows,
            missing={n: learnt[n].null_count for n in features.feature_names},
            outside_range=[one.model_dump(mode="json") for one in odd],
        )


def _label_frames(
    spark: SparkSession,
    output: StageRun,
    features: FeatureFile,
    tables: Sequence[Descriptor],
    stars: Descriptor,
) -> tuple[list[DataFrame], list[RangeCounts]]:
    """Return the usable rows of each label table, the most trusted first, and the counts of odd labels.

    Tables without source_id are matched by position.
    """
    config, lake = output.config, output.config.lake_folder
    radius = {"radius_arcsec": config.labels.match_radius_arcsec, "frame_offset": "none"}
    by_radius = config.crossmatch.model_copy(update=radius)
    frames, outside = [], []
    for rank, table in enumerate(tables):
        pairs = None
        if table.has_positions:
            pairs = match_by_position(spark, output, lake, table, stars, by_radius)
        usable, lost = label_rows(spark, lake / table.name, table, rank, features, pairs)
        frames.append(usable)
        outside.append(lost)
    return frames, outside


def _told(counts: Sequence[RangeCounts]) -> list[OutsideRange]:
    """Log which labels and features have values outside their range, and return them."""
    log, odd = get_logger(), [one for count in counts for one in count.found()]
    messages, warnings = told(odd)
    for message in messages:
        log.info(message, stage="features")
    for warning in warnings:
        log.warning(warning, stage="features")
    return odd


def _counted(column: pa.ChunkedArray) -> list[dict[str, Any]]:
    counted: list[dict[str, Any]] = column.combine_chunks().value_counts().to_pylist()
    return counted


def _severe_cuts(config: Config) -> list[str]:
    """Return what the cuts of all surveys of a run say that remove nearly all rows."""
    names = [load_descriptor(name, config.root).name for name in config.surveys.names]
    flows = [read_record(config.lake_folder / name).get("cut_flow", []) for name in names]
    return [line for flow in flows for line in severe_cuts(flow)]


def _nothing_to_learn(
    found: dict[str, int],
    tables: Sequence[Descriptor],
    severe: Sequence[str],
    odd: Sequence[OutsideRange],
) -> str:
    if severe:
        return (
            f"no star can be used for training: of {found['labelled_stars']} labelled stars none passes every cut; "
            f"{'; '.join(severe)}. Correct the cut in the survey's descriptor, or switch it off with cuts.disable."
        )
    return (
        f"no star can be used for training: of {found['labelled_stars']} labelled stars "
        f"({', '.join(table.name for table in tables)}) none is matched and passes every cut. Check that the label "
        "tables give source_ids of this Gaia release (or positions), and that both cover the same sky."
        + "".join(f" {one.message().capitalize()}." for one in odd)
    )


def passes_all_cuts(frame: DataFrame) -> Column:
    """Return whether a matched star passes the cuts of both surveys."""
    from pyspark.sql import functions as sf

    failed = [name for name in frame.columns if name.startswith("cuts_failed_")]
    passes = sf.lit(True)
    for name in failed:
        passes = passes & (sf.col(name) == 0)
    return passes


def _training_frame(
    matched: DataFrame, labels: DataFrame, features: FeatureFile, split: Split
) -> tuple[DataFrame, RangeCounts]:
    """Return the labelled stars that pass every cut, and the counts of features outside their range."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import feature_columns
    from stellarml.features.spark_ranges import within_ranges

    stars = matched.where(passes_all_cuts(matched))
    names = [f.name for f in features.features]
    labelled = list(labels.columns)[1:]
    passed = [sf.col(n) for n in PASSED_THROUGH if n in matched.columns and n not in names]
    inputs = stars.select(
        *(sf.col(n) for n in _IDENTITY),
        *passed,
        *feature_columns(features, matched.columns, ranges=False),
    )
    joined, outside = within_ranges(inputs.join(labels, "source_id"), features.features)
    mask = sf.lit(0).cast("long")
    for bit, name in enumerate(names):
        mask = mask + sf.when(sf.col(name).isNull(), sf.lit(1 << bit)).otherwise(sf.lit(0)).cast("long")
    training = joined.select(
        *_IDENTITY,
        *(sf.col(n) for n in PASSED_THROUGH if n in inputs.columns and n not in names),
        *names,
        mask.alias(MISSING_MASK),
        *labelled,
        split_column("source_id", split).alias("split"),
    )
    return training, outside


def _to_be_labelled(matched: DataFrame, rows: int, features: FeatureFile, split: Split) -> pa.Table:
    """Return the features of about `TARGET_ROWS` matched stars, drawn by hash, less those that fail a cut."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import feature_columns

    stars = matched.where(passes_all_cuts(matched))
    digits = sf.substring(
        sf.sha2(sf.concat_ws(":", sf.lit(split.salt), sf.lit(TARGET), "source_id"), 256), 1, 8
    )
    share = min(1.0, TARGET_ROWS / max(rows, 1))
    chosen = stars.where(digits < f"{min(round(share * 16**8), 16**8 - 1):08x}")
    return (
        chosen.select("source_id", *feature_columns(features, matched.columns)).orderBy("source_id").toArrow()
    )
