"""How far predictions are drawn towards the middle: residuals of each label in bins of the label and of the prediction.

A median regressor gives the extremes of a label values too close to the mean: bins of the spectroscopic label show
it as a bias and a slope of opposite sign to the label's own offset. Part of that is no fault of the network, because a
bin chosen by a noisy label holds more stars whose noise points outwards; bins of the prediction are free of it, and
there a calibrated median has no bias. Both are needed to judge metal-poor stars. Slopes are least squares of the
residual over what the bin is of, from counts in `STEPS` steps a bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.histograms import Axis, Counts, Histogram, median_and_mad

STEPS = 40
LEAST_STARS = 30
AXES = {"label": "", "prediction": "predicted_"}


def declare(label: str, bins: Axis, residual: Axis) -> list[Histogram]:
    """Return what has to be counted for one label.

    Parameters
    ----------
    label
        Its column; ``predicted_LABEL`` and ``residual_LABEL`` lie beside it.
    bins
        Bins of the label.
    residual
        Fine bins of the residual.
    """
    steps = np.concatenate(
        [
            np.linspace(lo, hi, STEPS, endpoint=False)
            for lo, hi in zip(bins.edges, bins.edges[1:], strict=False)
        ]
        + [bins.edges[-1:]]
    )
    declared = []
    for by, prefix in AXES.items():
        column = f"{prefix}{label}"
        declared += [
            Histogram(f"regression/{by}/{label}", (Axis(column, bins.edges), residual)),
            Histogram(f"slope/{by}/{label}", (Axis(column, steps),), value=residual.column),
        ]
    return declared


def rows(label: str, counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Return label, by ("label" or "prediction"), lo, hi, n, median, mad and slope of each bin, and of all together.

    Of all together, lo and hi are NaN. median and mad are in the label's unit, of prediction minus label; slope has
    none, and is NaN below `LEAST_STARS`.
    """
    records: list[dict[str, Any]] = []
    for by in AXES:
        found, steps = counts.get(f"regression/{by}/{label}"), counts.get(f"slope/{by}/{label}")
        if found is None or steps is None:
            continue
        bins, residual = found.histogram.axes
        parts = [slice(STEPS * i, STEPS * (i + 1)) for i in range(bins.size)]
        places = list(zip(bins.edges[:-1], bins.edges[1:], found.n, parts, strict=True))
        for lo, hi, n, part in [*places, (np.nan, np.nan, found.n.sum(axis=0), slice(None))]:
            median, mad = median_and_mad(n, residual.edges)
            slope = _slope(steps.histogram.axes[0].centres[part], steps.n[part], steps.total[part])
            place = {"label": label, "by": by, "lo": float(lo), "hi": float(hi), "n": int(n.sum())}
            records.append({**place, "median": median, "mad": mad, "slope": slope})
    return records


def _slope(x: NDArray[np.float64], n: NDArray[np.int64], total: NDArray[np.float64]) -> float:
    stars = n.sum()
    if stars < LEAST_STARS:
        return float("nan")
    offset = x - (n @ x) / stars
    square = float(n @ offset**2)
    return float(total @ offset) / square if square > 0 else float("nan")
