"""How far stars moved from one labelled catalogue to another, by label and by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stellarml.core.errors import UserError
from stellarml.core.files import literal
from stellarml.core.names import BIN_EDGES, QUALITY_FLAGS, SOURCE_ID, interval_names, value_and_interval
from stellarml.labelling.versions import Version
from stellarml.storage.hats_layout import partition_list

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


_RANK_ACCURACY = 10_000


@dataclass(frozen=True)
class Moved:
    """How far one label moved from a version to another, over the stars of both, in one bin of the first's value.

    `low`, `high`: the bin, None for all stars. `quantiles`: 16, 50 and 84 % of second minus first. `beyond`: share that
    left the first's interval.
    """

    label: str
    low: float | None
    high: float | None
    stars: int
    quantiles: tuple[float, float, float]
    largest: float
    beyond: float


@dataclass(frozen=True)
class Difference:
    """Two versions: stars of both and of either alone, share whose flags differ, and how far each label moved."""

    both: int
    only_first: int
    only_second: int
    flags_differ: float
    moved: tuple[Moved, ...]


def compare(spark: SparkSession, first: Version, second: Version) -> Difference:
    """Count how far stars moved from one version to another; labels that both have.

    Raises
    ------
    UserError
        If they share no label.
    """
    from pyspark.sql import functions as sf

    a, b = _rows(spark, first), _rows(spark, second)
    names = [n for n in a.columns if {*interval_names(n)} <= {*a.columns} & {*b.columns}]
    if not names:
        raise UserError(f"{first.id} and {second.id} share no label: there is nothing to compare.")
    ends = [end for name in names for end in value_and_interval(name)]
    left = a.select(SOURCE_ID, QUALITY_FLAGS, *ends)
    right = b.select(
        sf.col(SOURCE_ID),
        sf.col(QUALITY_FLAGS).alias("flags_after"),
        *(sf.col(n).alias(f"{n}_after") for n in names),
    )
    joined = left.join(right, SOURCE_ID).persist()
    try:
        row = joined.agg(
            sf.count(sf.lit(1)).alias("n"),
            sf.avg((sf.col(QUALITY_FLAGS) != sf.col("flags_after")).cast("double")).alias("flags"),
        ).first()
        both, flags = (int(row["n"]), float(row["flags"] or 0.0)) if row else (0, 0.0)
        moved = [m for name in names for m in _moved(joined, name)] if both else []
    finally:
        joined.unpersist()
    rows = first.record["rows"]["out"], second.record["rows"]["out"]
    return Difference(both, rows[0] - both, rows[1] - both, flags, tuple(moved))


def _rows(spark: SparkSession, version: Version) -> DataFrame:
    tiles = partition_list(version.folder / "partition_info.csv")
    if not tiles:
        raise UserError(f"{version.folder}: holds no star, there is nothing to compare.")
    return spark.read.parquet(*(literal(version.folder / tile.path) for tile in tiles))


def _moved(joined: DataFrame, name: str) -> list[Moved]:
    from pyspark.sql import functions as sf

    step = sf.col(f"{name}_after").cast("double") - sf.col(name)
    inside = sf.col(f"{name}_after").between(*(sf.col(end) for end in interval_names(name)))
    wanted = [
        sf.count(sf.lit(1)).alias("n"),
        sf.percentile_approx(step, [0.16, 0.5, 0.84], _RANK_ACCURACY).alias("q"),
        sf.max(sf.abs(step)).alias("largest"),
        sf.avg((~inside).cast("double")).alias("beyond"),
    ]
    edges = BIN_EDGES.get(name, ())
    moved = [_moved_from(name, None, None, row) for row in joined.agg(*wanted).collect()]
    if edges:
        rows = joined.groupBy(_bin(sf.col(name), edges).alias("bin")).agg(*wanted).collect()
        for row in sorted((row for row in rows if row["bin"] is not None), key=lambda row: row["bin"]):
            moved.append(_moved_from(name, edges[row["bin"]], edges[row["bin"] + 1], row))
    return moved


def _bin(value: Column, edges: Sequence[float]) -> Column:
    from pyspark.sql import functions as sf

    found = sf.lit(None).cast("int")
    for i in range(len(edges) - 1):
        found = sf.when((value >= edges[i]) & (value < edges[i + 1]), sf.lit(i)).otherwise(found)
    return found


def _moved_from(name: str, low: float | None, high: float | None, row: Any) -> Moved:
    quantiles = tuple(float(q) for q in row["q"])
    assert len(quantiles) == 3
    return Moved(name, low, high, int(row["n"]), quantiles, float(row["largest"]), float(row["beyond"]))
