"""Spectroscopic labels: several tables joined into one row a star, by a stated rule.

A label table is keyed by source_id, or else matched to the stars by position. Of several rows of one star the one from
the table named first in ``surveys.labels`` is taken, among those of one table the one with the smallest stated error.
If any two rows of a star differ by more than ``labels.conflict_*``, they contradict each other and the star is left
out: a wrong label teaches more than a missing one. Rows that fail a cut of their table, or lack a label, take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Crossmatch, Labels
from stellarml.core.errors import ConfigError, did_you_mean
from stellarml.core.expressions import quoted
from stellarml.core.files import literal
from stellarml.core.names import CUTS_FAILED, ROW_NUMBER, error_name
from stellarml.crossmatch.match_rows import match_rows
from stellarml.crossmatch.plan import MatchPlan, plan_match
from stellarml.crossmatch.sides import side_of
from stellarml.crossmatch.source_columns import match_settings
from stellarml.features.feature_file import FeatureFile
from stellarml.features.spark_ranges import RangeCounts, stated_error, within_ranges, without_odd
from stellarml.run.log import get_logger
from stellarml.run.ownership import WORK
from stellarml.run.stage_run import StageRun
from stellarml.run.units import Unit, run_units
from stellarml.storage.hats_reader import Leaf, open_catalogue
from stellarml.storage.parquet import LeafParts
from stellarml.surveys.descriptor import Descriptor, Names
from stellarml.surveys.wanted_column import ingested_name

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_TASKS = 16
EPOCHS_YR = (1990.0, 2026.0)
"""When the positions of a label table were valid that does not say: from Hipparcos to the latest observations."""


@dataclass(frozen=True)
class LabelCounts:
    """Observed while the labels are read: rows that could serve, and stars whose rows contradict each other."""

    rows: Any
    stars: Any

    def as_dict(self) -> dict[str, int]:
        """Return the counts; after the job only."""
        return {"label_rows": int(self.rows.get["rows"]), **{k: int(v) for k, v in self.stars.get.items()}}


def resolved_labels(
    frames: Sequence[DataFrame], names: Sequence[str], settings: Labels
) -> tuple[DataFrame, LabelCounts]:
    """Return one row a star: source_id, every label, its error as e_<label>, and how far apart two rows of it are.

    That is repeat_<label>, the difference of a star's two labels, and e_repeat_<label>, the root of the sum of their
    squared stated errors; null for stars with one row, or more than two.

    Parameters
    ----------
    frames
        The usable rows of each label table (`label_rows`), the most trusted first.
    names
        Of the labels.
    settings
        How far two rows of a star may be apart before they contradict each other.
    """
    from pyspark.sql import DataFrame as SparkFrame
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    counts = LabelCounts(Observation("label rows"), Observation("labelled stars"))
    rows = reduce(SparkFrame.unionByName, frames).observe(counts.rows, sf.count(sf.lit(1)).alias("rows"))
    errors = [sf.coalesce(sf.col(error_name(name)), sf.lit(float("inf"))) for name in names]
    first = sf.min(sf.struct(sf.col("rank"), *errors, *(sf.col(n) for n in _columns(names))))
    spreads = [(sf.max(name) - sf.min(name)).alias(f"spread_{name}") for name in names]
    combined = [
        sf.sqrt(sf.sum(sf.coalesce(sf.pow(error_name(name), 2), sf.lit(float("nan"))))).alias(
            f"combined_{name}"
        )
        for name in names
    ]
    stars = rows.groupBy("source_id").agg(
        first.alias("best"), sf.count(sf.lit(1)).alias("rows"), *spreads, *combined
    )
    conflict = _conflict(settings, names)
    stars = stars.observe(
        counts.stars,
        sf.count(sf.lit(1)).alias("labelled_stars"),
        sf.coalesce(sf.sum(conflict.cast("int")), sf.lit(0)).alias("conflicting_stars"),
    )
    kept = stars.where(~conflict)
    twice = (sf.col("rows") == 2) & reduce(lambda a, b: a & b, (sf.col(f"combined_{n}") > 0 for n in names))
    repeats = [
        sf.when(twice, sf.col(f"{found}_{n}")).cast("float").alias(f"{name}_{n}")
        for n in names
        for found, name in (("spread", "repeat"), ("combined", "e_repeat"))
    ]
    best = [sf.col(f"best.{n}").alias(n) for n in _columns(names)]
    return kept.select("source_id", *best, *repeats), counts


def _columns(names: Sequence[str]) -> list[str]:
    return [column for name in names for column in (name, error_name(name))]


def _conflict(settings: Labels, names: Sequence[str]) -> Column:
    from pyspark.sql import functions as sf

    limits = {
        "teff": settings.conflict_teff_k,
        "logg": settings.conflict_logg_dex,
        "feh": settings.conflict_feh_dex,
    }
    found = sf.lit(False)
    for name in names:
        if name in limits:
            found = found | (sf.col(f"spread_{name}") > limits[name])
    return found


def label_rows(
    spark: SparkSession,
    folder: Path,
    table: Descriptor,
    rank: int,
    features: FeatureFile,
    pairs: Sequence[Path] | None,
) -> tuple[DataFrame, RangeCounts]:
    """Return the usable rows of one label table, source_id, rank, labels and their errors; and what they lost.

    The counts, of labels outside their range, are known after the job.

    Parameters
    ----------
    folder
        The ingested table.
    rank
        Its place among the label tables; of two rows of a star the one with the lower rank is taken.
    pairs
        Files of what `match_by_position` has found; None for a table that is keyed by source_id.

    Raises
    ------
    ConfigError
        If the table does not give a label that the feature file names.
    """
    from pyspark.sql import functions as sf

    rows = spark.read.option("recursiveFileLookup", "true").parquet(literal(folder / "dataset"))
    rows = rows.coalesce(_TASKS).where(sf.col(CUTS_FAILED) == 0)
    columns = []
    for label in features.labels:
        if label.name not in table.labels:
            raise ConfigError(
                f"label table '{table.name}' has no label '{label.name}', which the feature file names."
                f"{did_you_mean(label.name, table.labels)} Add [labels.{label.name}] to its descriptor."
            )
        given = table.labels[label.name]
        columns += [
            without_odd(_float_of(given.value), False).alias(label.name),
            stated_error(_float_of(given.error)).alias(error_name(label.name)),
        ]
    if pairs is not None:
        if not pairs:
            schema = "source_id long, rank int, " + ", ".join(
                f"{c} float" for c in _columns(features.label_names)
            )
            return spark.createDataFrame([], schema), RangeCounts((), None)
        found = spark.read.parquet(*(literal(pair) for pair in pairs)).coalesce(_TASKS)
        rows = rows.join(found, rows[ROW_NUMBER] == found["label_row"])
        key = sf.col("matched_source_id")
    else:
        key = sf.col(quoted(table.id_column))
    rows = rows.select(key.cast("long").alias("source_id"), sf.lit(rank).alias("rank"), *columns)
    rows, outside = within_ranges(rows, features.labels, table.name)
    complete = reduce(lambda a, b: a & b, (sf.col(n).isNotNull() for n in features.label_names))
    return rows.where(complete), outside


def _float_of(names: Names | None) -> Column:
    """Return an ingested column as float32; null where the descriptor names none."""
    from pyspark.sql import functions as sf

    value = sf.col(quoted(ingested_name(names))) if names else sf.lit(None)
    return value.cast("float")


@dataclass(frozen=True)
class _PositionTask:
    plan: MatchPlan
    leaf: Leaf
    path: Path


def match_by_position(
    spark: SparkSession, run: StageRun, lake: Path, table: Descriptor, stars: Descriptor, settings: Crossmatch
) -> list[Path]:
    """Match a label table to the stars of the lake within a fixed radius; return the files of pairs.

    A row with several stars within the radius is left out: its spectrum may be of any of them, or of all. Several rows
    of one star stay: it was observed again. The stars are moved to the epoch of the table's positions; where its
    descriptor gives none, to wherever their proper motions take them nearest to the row within `EPOCHS_YR`.
    """
    catalogues = open_catalogue(lake / table.name), open_catalogue(lake / "stars")
    position = table.position.model_copy(
        update={"id": None}
    )  # rows go by their number: ids of labels may repeat
    numbered = table.model_copy(update={"position": position})
    left, right = (
        side_of(catalogue, descriptor, "full", with_errors=False)
        for catalogue, descriptor in zip(catalogues, (numbered, stars), strict=True)
    )
    matching = replace(match_settings(settings, table, stars), unknown_epochs_yr=EPOCHS_YR)
    plan = plan_match(spark, run, left, right, matching)
    units = []
    for leaf in left.leaves:
        name = f"{table.name}-{leaf.tile.name}"
        units.append(Unit(name, leaf.rows, _PositionTask(plan, leaf, Path(WORK, f"{name}.parquet"))))
    marks = run_units(spark, run, units, _match_labels, step=f"matching {table.name}")
    ambiguous = sum(mark["ambiguous"] for mark in marks)
    if ambiguous:
        get_logger().warning(
            "label rows with several stars within the radius are left out",
            stage=run.stage,
            survey=table.name,
            rows=ambiguous,
            radius_arcsec=settings.radius_arcsec,
        )
    return [run.out / path for mark in marks for path in mark["files"]]


def _match_labels(task: _PositionTask) -> dict[str, Any]:
    plan, ambiguous = task.plan, 0
    with LeafParts(plan.out / task.path, plan.tiles) as leaf:
        for found in match_rows(plan, task.leaf.tile, only_best=True):
            result = found.result
            several = result.number_of_neighbours > 1
            alone = np.flatnonzero(result.best & ~several)
            ambiguous += int((result.best & several).sum())
            pairs = {
                "label_row": found.left.ids(result.left_row[alone]),
                "matched_source_id": found.right.ids(result.right_row[alone]),
            }
            leaf.write(pa.table(pairs))
    files = {str(task.path): leaf.bytes} if leaf.rows else {}
    return {"files": files, "rows": leaf.rows, "ambiguous": ambiguous}
