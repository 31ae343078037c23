"""What can be said of millions of stars from counts alone: means, quantiles, MAD.

Every plot and every robust number of the report comes from histograms that are filled next to the data and
added up, so that rows never travel. Residuals use bins that are even in asinh((x - centre) / width): 8192 of them
reach ten thousand widths and are 0.24 % of a width fine at the centre, so one outlier of 1e5 K costs no precision.
The rows of a bin are taken to lie evenly over it, and medians and MADs then agree with those of the rows to
better than 0.3 % of the MAD (tests/unit/report/test_histograms.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAD_TO_SIGMA = 1.4826
FINE_BINS = 8192
FINE_REACH = 1e4
_POINTS_PER_BIN = 16


@dataclass(frozen=True, eq=False)
class Axis:
    """Half-open bins ``edges[i] <= value < edges[i + 1]`` of one column; outer edges may be infinite."""

    column: str
    edges: FloatArray

    @property
    def size(self) -> int:
        """Return the number of bins."""
        return len(self.edges) - 1

    @property
    def centres(self) -> FloatArray:
        """Return the middle of every bin, shape ``(size,)``."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def index(self, values: FloatArray) -> IntArray:
        """Return the bin of every value, shape ``(n_rows,)``; -1 outside the edges and for NaN."""
        index = np.searchsorted(self.edges, values, side="right") - 1
        return np.where(index < self.size, index, -1)


@dataclass(frozen=True, eq=False)
class Histogram:
    """A declared histogram: one or two axes, and a column whose sum and sum of squares each bin keeps."""

    name: str
    axes: tuple[Axis, ...]
    value: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of bins along each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that filling it reads."""
        return tuple(axis.column for axis in self.axes) + ((self.value,) if self.value else ())


@dataclass(frozen=True, eq=False)
class Counts:
    """A filled histogram: rows, sum and sum of squares of the value a bin, each of shape ``histogram.shape``."""

    histogram: Histogram
    n: IntArray
    total: FloatArray
    squares: FloatArray

    @property
    def rows(self) -> int:
        """Return the number of rows inside the axes."""
        return int(self.n.sum())


def linear_axis(column: str, lo: float, hi: float, size: int) -> Axis:
    """Return `size` bins of equal width from `lo` to `hi`."""
    return Axis(column, np.linspace(lo, hi, size + 1))


def integer_axis(column: str, size: int) -> Axis:
    """Return one bin for each of the integers 0 to ``size - 1``."""
    return Axis(column, np.arange(size + 1, dtype=np.float64))


def asinh_axis(
    column: str, centre: float, width: float, size: int = FINE_BINS, reach: float = FINE_REACH
) -> Axis:
    """Return bins fine near `centre` and wide far from it, reaching `reach` times `width` to both sides."""
    limit = float(np.arcsinh(reach))
    return Axis(column, centre + width * np.sinh(np.linspace(-limit, limit, size + 1)))


def log_axis(column: str, lo: float, hi: float, size: int) -> Axis:
    """Return `size` bins of equal ratio from `lo` to `hi`, both positive."""
    return Axis(column, np.geomspace(lo, hi, size + 1))


def empty(histogram: Histogram) -> Counts:
    """Return `histogram` with no row in it."""
    return Counts(
        histogram,
        np.zeros(histogram.shape, dtype=np.int64),
        np.zeros(histogram.shape, dtype=np.float64),
        np.zeros(histogram.shape, dtype=np.float64),
    )


def fill(histogram: Histogram, columns: Mapping[str, FloatArray]) -> Counts:
    """Count rows into the bins of `histogram`.

    A row with NaN in any axis, or in the value, is in no bin.

    Parameters
    ----------
    histogram
        What to count.
    columns
        Float arrays of shape ``(n_rows,)``; NaN means missing.
    """
    size = int(np.prod(histogram.shape))
    flat: IntArray | None = None
    inside: NDArray[np.bool_] | None = None
    for axis in histogram.axes:
        index = axis.index(columns[axis.column])
        flat = index if flat is None else flat * axis.size + index
        inside = index >= 0 if inside is None else inside & (index >= 0)
    if flat is None or inside is None:
        raise ValueError(f"histogram '{histogram.name}' has no axis; give it at least one")
    if histogram.value is None:
        n = np.bincount(flat[inside], minlength=size)
        blank = np.zeros(histogram.shape, dtype=np.float64)
        return Counts(histogram, n.reshape(histogram.shape), blank, blank)
    inside = inside & np.isfinite(columns[histogram.value])
    flat, value = flat[inside], columns[histogram.value][inside]
    return Counts(
        histogram,
        np.bincount(flat, minlength=size).reshape(histogram.shape),
        np.bincount(flat, weights=value, minlength=size).reshape(histogram.shape).astype(np.float64),
        np.bincount(flat, weights=value * value, minlength=size).reshape(histogram.shape).astype(np.float64),
    )


def add(left: Counts, right: Counts) -> Counts:
    """Return the counts of both."""
    return Counts(left.histogram, left.n + right.n, left.total + right.total, left.squares + right.squares)


def quantiles(n: IntArray, edges: FloatArray, probabilities: Sequence[float]) -> list[float]:
    """Return quantiles of binned values, interpolated between order statistics as NumPy does.

    Parameters
    ----------
    n
        Rows a bin, shape ``(n_bins,)``.
    edges
        Finite bin edges, shape ``(n_bins + 1,)``.
    probabilities
        Each between 0 and 1.

    Returns
    -------
    list of float
        In the unit of `edges`; NaN each when there is no row.
    """
    points, weights = _spread(n, edges)
    return [_order_quantile(points, weights, p) for p in probabilities]


def median_and_mad(n: IntArray, edges: FloatArray) -> tuple[float, float]:
    """Return the median and ``1.4826 x median |x - median|`` of binned values; NaN when there is no row."""
    points, weights = _spread(n, edges)
    median = _order_quantile(points, weights, 0.5)
    deviation = np.abs(points - median)
    order = np.argsort(deviation, kind="stable")
    return median, MAD_TO_SIGMA * _order_quantile(deviation[order], weights[order], 0.5)


def band(n: IntArray, edges: FloatArray, probabilities: Sequence[float] = (0.16, 0.5, 0.84)) -> FloatArray:
    """Return quantiles along the second axis of `n`, shape ``(n_x, n_y)``, as ``(n_x, n_probabilities)``."""
    return np.array([quantiles(row, edges, probabilities) for row in n]).reshape(-1, len(probabilities))


def mean_and_std(n: int, total: float, squares: float) -> tuple[float, float]:
    """Return the mean and the standard deviation (divisor n) from sums; NaN when there is no row."""
    if n == 0:
        return float("nan"), float("nan")
    mean = total / n
    return mean, float(np.sqrt(max(squares / n - mean * mean, 0.0)))


def _spread(n: IntArray, edges: FloatArray) -> tuple[FloatArray, IntArray]:
    """Stand points in for the rows of each bin, evenly over it: ``(positions, rows each)``, ascending."""
    occupied = np.flatnonzero(n)
    rows = n[occupied]
    points = np.minimum(rows, _POINTS_PER_BIN)
    owner = np.repeat(np.arange(len(occupied)), points)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(points) - points, points)
    lo, hi = edges[occupied], edges[occupied + 1]
    position = lo[owner] + (rank + 0.5) / points[owner] * (hi - lo)[owner]
    share = rows[owner] // points[owner] + (rank < rows[owner] % points[owner])
    return position, share.astype(np.int64)


def _order_quantile(points: FloatArray, weights: IntArray, probability: float) -> float:
    if len(points) == 0:
        return float("nan")
    upto = np.cumsum(weights)
    place = (int(upto[-1]) - 1) * probability
    below = int(np.floor(place))
    above = min(below + 1, int(upto[-1]) - 1)
    first, second = points[np.searchsorted(upto, [below, above], side="right")]
    return float(first + (second - first) * (place - below))
