"""Stars in cells: bins of the predicted label, in each of them bins of an inner quantity, and numbers for each cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section

POOLED = "*"  # the class of every pattern that has no class of its own

Table = tuple[tuple[float, ...], ...]


class CellClass(Section):
    """Cells of the rows with one pattern of missing features, or of all others (`pattern` "*").

    `label_edges` are inner edges in the label's unit; for each label bin there is a row in `inner_edges`, `rows`
    (calibration rows) and `quantiles[level]` (half-width per unit of width). Inner edges are of the mean of a row's two
    widths; where there is a `CovariateShift`, of its log ratio, and rows are what the weighted ones are worth.
    """

    pattern: str
    label_edges: tuple[float, ...]
    inner_edges: Table
    rows: tuple[tuple[int, ...], ...]
    quantiles: dict[str, Table]


@dataclass(frozen=True)
class Cells:
    """Rows in bins of the predicted label, and within each in bins of an inner quantity.

    `label_edges` and, for each label bin, `inner_edges` are inner edges; `rows` are indices of each cell's rows.
    """

    label_edges: tuple[float, ...]
    inner_edges: Table
    rows: tuple[tuple[NDArray[np.intp], ...], ...]


def split_into_cells(
    prediction: NDArray[np.float64], inner: NDArray[np.float64], most_bins: tuple[int, int], least: int
) -> Cells:
    """Split rows by quantiles into cells of at least `least` rows where there are enough.

    Parameters
    ----------
    prediction, inner
        Shape (n,).
    most_bins
        Of the prediction, and of the inner quantity within each.
    least
        Rows of a cell.
    """
    label_edges = _edges(prediction, int(np.clip(len(prediction) // (2 * least), 1, most_bins[0])), least)
    bins = np.searchsorted(label_edges, prediction, side="right")
    edges: list[tuple[float, ...]] = []
    rows: list[tuple[NDArray[np.intp], ...]] = []
    for b in range(len(label_edges) + 1):
        inside = np.flatnonzero(bins == b)
        within = _edges(inner[inside], int(np.clip(len(inside) // least, 1, most_bins[1])), least)
        place = np.searchsorted(within, inner[inside], side="right")
        edges.append(tuple(float(e) for e in within))
        rows.append(tuple(inside[place == c] for c in range(len(within) + 1)))
    return Cells(tuple(float(e) for e in label_edges), tuple(edges), tuple(rows))


def _edges(values: NDArray[np.float64], n_bins: int, least: int) -> NDArray[np.float64]:
    """Return quantile edges such that bins hold `least` values where there are enough; ties merge bins."""
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    while len(edges) and counts.min() < min(least, len(values) // n_bins):
        thin = int(counts.argmin())
        edges = np.delete(edges, min(thin, len(edges) - 1))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return edges


def factors(
    cells: CellClass, prediction: NDArray[np.float64], inner: NDArray[np.float64], level: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return by what the widths are multiplied, and the number of calibration rows behind each factor, both (n,).

    Parameters
    ----------
    prediction, inner
        Shape (n,); `inner` is the mean of the widths, or the log ratio of the shift where there is one.
    """
    bins = np.searchsorted(np.asarray(cells.label_edges), prediction, side="right")
    widest = max(len(row) for row in cells.rows)
    edges = np.array([(*row, *[np.inf] * (widest - 1 - len(row))) for row in cells.inner_edges])
    place = (inner[:, None] >= edges[bins]).sum(axis=1) if widest > 1 else np.zeros(len(bins), np.int64)
    quantiles = np.array([(*row, *[0.0] * (widest - len(row))) for row in cells.quantiles[str(level)]])
    rows = np.array([(*row, *[0] * (widest - len(row))) for row in cells.rows])
    return quantiles[bins, place], rows[bins, place]
