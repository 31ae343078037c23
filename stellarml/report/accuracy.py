"""How well spectroscopic labels are reproduced on stars that no network has seen.

The test part of the training table is joined with the published labels, and residuals (predicted minus
spectroscopic) are counted into histograms where they lie: one job finds the scale of each residual, a second fills
every histogram. Means and standard deviations come from sums and are exact; medians and MADs come from bins 0.24 %
of a residual's width fine (see `stellarml.core.histograms` for the error that leaves: 0.3 % of the MAD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

from stellarml.core.histograms import (
    Axis,
    Counts,
    Histogram,
    asinh_axis,
    linear_axis,
    log_axis,
    mean_and_std,
    median_and_mad,
    quantiles,
)
from stellarml.core.names import (
    BIN_EDGES,
    BP_MAG,
    G_MAG,
    RP_MAG,
    SOURCE_ID,
    interval_names,
    value_and_interval,
)
from stellarml.report import regression_to_mean
from stellarml.report.spark_histograms import bin_table

COLOUR = "bp_rp"
DENSITY_BINS = 160
BAND_BINS = 40
ERROR_BINS = 100
ERROR_REACH = 10  # widths of the residuals to either side of zero
QUARTILE_IN_SIGMA = 0.6745
_RANK_ACCURACY = 10_000


@dataclass(frozen=True)
class Label:
    """One stellar parameter: its column in the tables and its unit."""

    name: str
    unit: str


@dataclass(frozen=True)
class Scale:
    """Where the residuals of one label lie, and its range: all in the label's unit."""

    centre: float
    width: float
    lo: float
    hi: float


@dataclass(frozen=True, eq=False)
class Metrics:
    """Everything measured on the test part; `counts` holds the histograms that the figures draw.

    `test`, `by_bin`, `regression` and `coverage` are what `metrics.json` shows under these names. Numbers that do not
    exist (no test star) are None.
    """

    labels: tuple[Label, ...]
    level: float
    test: dict[str, dict[str, float | int | None]]
    by_bin: list[dict[str, Any]]
    regression: list[dict[str, Any]]
    coverage: dict[str, Any]
    scales: dict[str, Scale]
    ranges: dict[str, tuple[float, float]]
    counts: dict[str, Counts]
    stars: int

    @classmethod
    def nothing(cls, labels: Sequence[Label], level: float) -> Metrics:
        """Return what is known without a test star."""
        return _metrics(labels, level, 0, {}, {}, {})


def evaluate(training: DataFrame, labelled: DataFrame, labels: Sequence[Label], level: float) -> Metrics:
    """Compare the labels of the test part with what the networks say of the same stars.

    Parameters
    ----------
    training
        source_id, split, the labels, and where present phot_g_mean_mag, phot_bp_mean_mag, phot_rp_mean_mag.
    labelled
        source_id and for each label NAME, NAME_lo, NAME_hi.
    labels
        The parameters to compare, each a column of both tables.
    level
        Nominal coverage of ``[lo, hi]``, in per cent.

    Returns
    -------
    Metrics
        Over the stars found in both tables; a star without a finite prediction counts for no label.
    """
    pairs = _pairs(training, labelled, labels).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        stars, scales, ranges = _scales(pairs, labels)
        histograms = [h for label in labels for h in _histograms(label, scales, ranges)]
        counts = bin_table(pairs, histograms, {name: F.col(name) for name in pairs.columns})
    finally:
        pairs.unpersist()
    return _metrics(labels, level, stars, scales, ranges, counts)


def number(value: float | None) -> float | None:
    """Return `value` to seven significant digits, or None where JSON has no word for it.

    Sums of floats depend on the order of tasks in their last digits; the file must not.
    """
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.7g}")


def _pairs(training: DataFrame, labelled: DataFrame, labels: Sequence[Label]) -> DataFrame:
    """Return one row a test star: spectroscopic labels, residuals, inside flags, colour, magnitude."""
    known = set(training.columns)
    has_colour = {BP_MAG, RP_MAG} <= known
    colour = F.col(BP_MAG) - F.col(RP_MAG) if has_colour else F.lit(None)
    magnitude = F.col(G_MAG) if G_MAG in known else F.lit(None)
    truth = training.where(F.col("split") == "test").select(
        "source_id",
        colour.cast("double").alias(COLOUR),
        magnitude.cast("double").alias(G_MAG),
        *(F.col(label.name).cast("double").alias(f"true_{label.name}") for label in labels),
    )
    predicted = labelled.select(
        SOURCE_ID, *(name for label in labels for name in value_and_interval(label.name))
    )
    joined = predicted.join(F.broadcast(truth), SOURCE_ID)
    derived: list[Column] = []
    for label in labels:
        true, lo, hi = (F.col(c) for c in (f"true_{label.name}", *interval_names(label.name)))
        given = ~F.isnan(true) & ~F.isnan(lo) & ~F.isnan(hi)
        derived += [
            true.alias(label.name),
            F.col(label.name).cast("double").alias(f"predicted_{label.name}"),
            (F.col(label.name).cast("double") - true).alias(f"residual_{label.name}"),
            F.when(given, ((true >= lo) & (true <= hi)).cast("double")).alias(f"inside_{label.name}"),
            ((hi - lo) / 2).cast("double").alias(f"half_width_{label.name}"),
        ]
    return joined.select(COLOUR, G_MAG, *derived)


def _scales(
    pairs: DataFrame, labels: Sequence[Label]
) -> tuple[int, dict[str, Scale], dict[str, tuple[float, float]]]:
    """Find the centre and width of each residual and the range of every quantity, in one aggregate."""

    def spread(name: str, *probabilities: float) -> Column:
        finite = F.when(~F.isnan(name) & (F.abs(name) < float("inf")), F.col(name))
        return F.percentile_approx(finite, list(probabilities), _RANK_ACCURACY)

    wanted = [spread(name, 0.001, 0.999).alias(name) for name in (COLOUR, G_MAG)]
    for label in labels:
        wanted.append(spread(label.name, 0.001, 0.01, 0.99, 0.999).alias(label.name))
        wanted.append(spread(f"residual_{label.name}", 0.25, 0.5, 0.75).alias(f"residual_{label.name}"))
    row = pairs.agg(F.count(F.lit(1)).alias("stars"), *wanted).first()
    found: dict[str, Any] = row.asDict() if row else {"stars": 0}
    scales: dict[str, Scale] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for name in (COLOUR, G_MAG):
        if found.get(name):
            ranges[name] = _padded(*found[name])
    for label in labels:
        residual, span = found.get(f"residual_{label.name}"), found.get(label.name)
        if not residual or not span:
            continue
        lo, hi = _padded(span[1], span[2])
        ranges[label.name] = _padded(span[0], span[3])
        # Quartiles, not the 16 and 84 % levels: with a fifth of the stars wrong, those would be the tails.
        width = (residual[2] - residual[0]) / (2 * QUARTILE_IN_SIGMA) or abs(residual[1]) or 1.0
        scales[label.name] = Scale(centre=residual[1], width=width, lo=lo, hi=hi)
    return int(found["stars"]), scales, ranges


def _padded(lo: float, hi: float) -> tuple[float, float]:
    margin = 0.03 * (hi - lo) or 0.5
    return lo - margin, hi + margin


def _metrics(
    labels: Sequence[Label],
    level: float,
    stars: int,
    scales: dict[str, Scale],
    ranges: dict[str, tuple[float, float]],
    counts: dict[str, Counts],
) -> Metrics:
    measured = [label for label in labels if label.name in scales]
    return Metrics(
        labels=tuple(labels),
        level=level,
        test={label.name: _overall(label, counts) for label in labels},
        by_bin=[row for by in _bin_names(labels) for label in measured for row in _bins(by, label, counts)],
        regression=[
            {key: number(value) if isinstance(value, float) else value for key, value in row.items()}
            for label in measured
            for row in regression_to_mean.rows(label.name, counts)
        ],
        coverage=_coverage(labels, counts, level),
        scales=scales,
        ranges=ranges,
        counts=counts,
        stars=stars,
    )


def _bin_names(labels: Sequence[Label]) -> list[str]:
    return [*(label.name for label in labels), G_MAG]


def _bin_axis(by: str, scales: Mapping[str, Scale], ranges: Mapping[str, tuple[float, float]]) -> Axis | None:
    if by not in ranges:
        return None
    if by in BIN_EDGES:
        return Axis(by, np.array(BIN_EDGES[by], dtype=np.float64))
    return linear_axis(by, scales[by].lo, scales[by].hi, 6) if by in scales else None


def _error_axis(residual: str, width: float) -> Axis:
    """Return the bins of Figure 2: 100 within ten widths of zero, and one for all that lies below and above."""
    inner = np.linspace(-ERROR_REACH * width, ERROR_REACH * width, ERROR_BINS + 1)
    return Axis(residual, np.concatenate([[-np.inf], inner, [np.inf]]))


def _histograms(
    label: Label, scales: Mapping[str, Scale], ranges: Mapping[str, tuple[float, float]]
) -> list[Histogram]:
    """Declare what is counted for one label; nothing where no test star has both values."""
    if label.name not in scales:
        return []
    scale, name = scales[label.name], label.name
    residual, inside, width = f"residual_{name}", f"inside_{name}", f"half_width_{name}"
    fine = asinh_axis(residual, scale.centre, scale.width)
    coarse = asinh_axis(residual, scale.centre, scale.width, size=1024, reach=1e3)
    everything = Axis(name, np.array([-np.inf, np.inf]))
    reach = 6 * scale.width
    declared = [
        Histogram(f"residual/{name}", (fine,), value=residual),
        Histogram(f"errors/{name}", (_error_axis(residual, scale.width),)),
        Histogram(f"inside/{name}", (everything,), value=inside),
        Histogram(f"half_width/{name}", (log_axis(width, 1e-4 * scale.width, 1e4 * scale.width, 4096),)),
        Histogram(
            f"one_to_one/{name}",
            (
                linear_axis(name, *ranges[name], DENSITY_BINS),
                linear_axis(f"predicted_{name}", *ranges[name], DENSITY_BINS),
            ),
        ),
    ]
    for by in (name, COLOUR, G_MAG):
        if by in ranges:
            across = linear_axis(residual, scale.centre - reach, scale.centre + reach, DENSITY_BINS)
            declared += [
                Histogram(f"density/{by}/{name}", (linear_axis(by, *ranges[by], DENSITY_BINS), across)),
                Histogram(f"band/{by}/{name}", (linear_axis(by, *ranges[by], BAND_BINS), coarse)),
            ]
    for by in [*scales, G_MAG]:
        axis = _bin_axis(by, scales, ranges)
        if axis is not None:
            declared += [
                Histogram(f"by/{by}/{name}", (axis, fine), value=residual),
                Histogram(f"inside/{by}/{name}", (axis,), value=inside),
            ]
    own = _bin_axis(name, scales, ranges)
    return declared if own is None else [*declared, *regression_to_mean.declare(name, own, fine)]


def _summary(n: Any, total: Any, squares: Any, edges: Any) -> dict[str, float | int | None]:
    rows = int(n.sum())
    mean, std = mean_and_std(rows, float(total.sum()), float(squares.sum()))
    median, mad = median_and_mad(n, edges)
    return {"mean": number(mean), "median": number(median), "std": number(std), "mad": number(mad), "n": rows}


def _overall(label: Label, counts: Mapping[str, Counts]) -> dict[str, float | int | None]:
    found = counts.get(f"residual/{label.name}")
    if found is None:
        return {"mean": None, "median": None, "std": None, "mad": None, "n": 0}
    return _summary(found.n, found.total, found.squares, found.histogram.axes[0].edges)


def _bins(by: str, label: Label, counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    found, inside = counts.get(f"by/{by}/{label.name}"), counts.get(f"inside/{by}/{label.name}")
    if found is None or inside is None:
        return []
    axis, fine = found.histogram.axes
    rows = []
    for i in range(axis.size):
        measured = _summary(found.n[i], found.total[i], found.squares[i], fine.edges)
        covered = number(inside.total[i] / inside.n[i]) if inside.n[i] else None
        place = {"by": by, "lo": number(axis.edges[i]), "hi": number(axis.edges[i + 1]), "label": label.name}
        rows.append({**place, **measured, "coverage": covered})
    return rows


def _coverage(labels: Sequence[Label], counts: Mapping[str, Counts], level: float) -> dict[str, Any]:
    """Return, for each label, the fraction of spectroscopic values inside the interval, overall and by G."""
    shown: dict[str, Any] = {"level": number(level / 100)}
    for label in labels:
        inside, width = counts.get(f"inside/{label.name}"), counts.get(f"half_width/{label.name}")
        if inside is None or width is None:
            shown[label.name] = {"fraction": None, "n": 0, "median_half_width": None, "by_g": []}
            continue
        n = inside.rows
        half = quantiles(width.n, width.histogram.axes[0].edges, [0.5])[0]
        by_g = counts.get(f"inside/{G_MAG}/{label.name}")
        shown[label.name] = {
            "fraction": number(float(inside.total.sum()) / n) if n else None,
            "n": n,
            "median_half_width": number(half),
            "by_g": [] if by_g is None else coverage_rows(by_g),
        }
    return shown


def coverage_rows(inside: Counts) -> list[dict[str, float | int | None]]:
    """Return covered fraction and rows of every bin of a one-dimensional ``inside`` histogram."""
    edges = inside.histogram.axes[0].edges
    return [
        {
            "lo": number(edges[i]),
            "hi": number(edges[i + 1]),
            "fraction": number(inside.total[i] / inside.n[i]) if inside.n[i] else None,
            "n": int(inside.n[i]),
        }
        for i in range(len(inside.n))
    ]
