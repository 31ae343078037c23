"""Values outside their range become missing, counted on the way: one Spark observation, no pass of its own.

A frame has its values as `spark_columns` gives them without ranges; they are counted, then those outside are taken
away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F  # noqa: N812

from stellarml.features.feature_file import FeatureSpec, LabelSpec
from stellarml.features.plausible_ranges import OutsideRange

_ACCURACY = 100  # of the median: good to 1 % of the rows, which tells a wrong unit, at a few bytes a column
Entry = LabelSpec | FeatureSpec


def without_odd(value: Column, limits: tuple[float, float] | Literal[False] | None) -> Column:
    """Return a float32 column with null for NaN, for infinity, and for what is outside `limits`, if there are any."""
    return F.when(_inside(value, limits) if limits else F.abs(value) < float("inf"), value)


def stated_error(value: Column) -> Column:
    """Return the float32 error of a label with null for what is no error: NaN, infinity, zero and below.

    Of a star's rows the one with the smallest error is taken: -9999 must not win.
    """
    return F.when((value > 0) & (value < float("inf")), value)


def _inside(value: Column, limits: tuple[float, float]) -> Column:
    # Spark takes NaN for larger than any number, so it is above every upper bound.
    low, high = (F.lit(bound).cast("float") for bound in limits)
    return (value >= low) & (value <= high)


@dataclass(frozen=True)
class RangeCounts:
    """Observed while the values are read: how many are outside the range of each entry."""

    entries: tuple[Entry, ...]
    observation: Observation | None
    table: str = ""

    def found(self) -> tuple[OutsideRange, ...]:
        """Return the entries with values outside; after the job only, which it otherwise waits for."""
        if self.observation is None:
            return ()
        counts: dict[str, Any] = self.observation.get
        return tuple(
            OutsideRange(
                kind="label" if isinstance(entry, LabelSpec) else "feature",
                name=entry.name,
                unit=entry.unit,
                low=entry.range[0],
                high=entry.range[1],
                outside=counts[f"outside_{j}"],
                values=counts[f"values_{j}"],
                median=counts[f"median_{j}"],
                table=self.table,
            )
            for j, entry in enumerate(self.entries)
            if entry.range and counts.get(f"outside_{j}")
        )


def within_ranges(
    frame: DataFrame, entries: Sequence[Entry], table: str = ""
) -> tuple[DataFrame, RangeCounts]:
    """Return a frame with null for what is outside the ranges, and their counts, which are known after its job.

    Parameters
    ----------
    frame
        With a float32 column of the name of each entry, finite or null; other columns stay.
    entries
        Labels and features.
    table
        Named in the messages.
    """
    ranged = tuple(entry for entry in entries if entry.range)
    if not ranged:
        return frame, RangeCounts((), None)
    aggregates = []
    for j, entry in enumerate(ranged):
        value = F.col(entry.name)
        outside = F.when(~_inside(value, entry.range or (0.0, 0.0)), F.lit(1))
        aggregates += [
            F.count(outside).alias(f"outside_{j}"),
            F.count(value).alias(f"values_{j}"),
            F.percentile_approx(value, 0.5, _ACCURACY).alias(f"median_{j}"),
        ]
    observation = Observation()
    counted = frame.observe(observation, *aggregates)
    bounded = counted.withColumns(
        {entry.name: without_odd(F.col(entry.name), entry.range) for entry in ranged}
    )
    return bounded, RangeCounts(ranged, observation, table)
