"""How wide an interval must be to hold a new spectroscopic measurement in 68, 90 or 95 % of cases.

Split conformal, per cell. Rows that took no part in the fit give absolute residuals; divided by a difficulty (a linear
fit of log |residual| to the inputs, made on the validation part) they are comparable between bright and faint stars;
within each cell of missing-value pattern, predicted label and difficulty their ceil((n + 1) level)-th smallest value is
the factor that holds for the next star drawn like them, whatever the network (Vovk et al. 2005; Lei et al. 2018).
Cells have at least `MIN_ROWS` calibration rows, or are merged with their neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.layers import Section
from stellarml.patterns import patterns_of

LEVELS = (68, 90, 95)
MIN_ROWS = 200
MAX_LABEL_BINS = 8
MAX_DIFFICULTY_BINS = 3
RIDGE = 10.0
WIDE_FACTOR = 3.0
POOLED = "*"  # the class of every pattern that has no class of its own

Table = tuple[tuple[float, ...], ...]


class CellClass(Section):
    """Cells of the rows with one pattern of missing features, or of all others (`pattern` "*").

    `label_edges` are inner edges in the label's unit; for each label bin there is a row in `difficulty_edges` (inner
    edges), `rows` (calibration rows) and `quantiles[level]` (half-width per unit of difficulty).
    """

    pattern: str
    label_edges: tuple[float, ...]
    difficulty_edges: Table
    rows: tuple[tuple[int, ...], ...]
    quantiles: dict[str, Table]


class LabelCalibration(Section):
    """Intervals of one label; half-widths are in its unit.

    `pooled_borrows`: fewer than `MIN_ROWS` calibration rows were without a class of their own, so the pooled class was
    made from all rows and promises nothing for the patterns that fall into it.
    """

    label: str
    difficulty_weights: tuple[float, ...]
    difficulty_bias: float
    difficulty_low: float
    difficulty_high: float
    classes: tuple[CellClass, ...]
    pooled_borrows: bool
    wide: dict[str, float]
    without_features: dict[str, float]


class Calibration(Section):
    """Intervals of all labels; `patterns` are those with a class of their own, `seen` all in the calibration rows."""

    method: str
    levels: tuple[int, ...]
    min_rows: int
    patterns: tuple[str, ...]
    seen: tuple[str, ...]
    labels: tuple[LabelCalibration, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of one part: scaled inputs (n, d), missing features (n, k), predictions and labels (n, n_labels)."""

    inputs: NDArray[np.float64]
    missing: NDArray[np.bool_]
    prediction: NDArray[np.float64]
    truth: NDArray[np.float64]


def fit_calibration(
    names: tuple[str, ...], medians: NDArray[np.float64], validation: Rows, calibration: Rows
) -> Calibration:
    """Make the tables of all labels.

    Parameters
    ----------
    names
        Labels, in the order of the columns.
    medians
        Training medians, the prediction for a star without any feature, (n_labels,).
    validation
        Rows for the difficulty; the network has already been chosen on them.
    calibration
        Rows that nothing else has seen.
    """
    kinds, index = patterns_of(calibration.missing)
    counts = np.bincount(index, minlength=len(kinds))
    patterns = tuple(sorted(k for k, n in zip(kinds, counts, strict=True) if n >= MIN_ROWS))
    codes = np.array(kinds)[index]
    return Calibration(
        method="split conformal, |residual| / difficulty, cells of pattern x predicted label x difficulty",
        levels=LEVELS,
        min_rows=MIN_ROWS,
        patterns=patterns,
        seen=tuple(sorted(kinds)),
        labels=tuple(
            _fit_label(name, j, float(medians[j]), patterns, codes, validation, calibration)
            for j, name in enumerate(names)
        ),
    )


def conformal_quantile(scores: NDArray[np.float64], level: float) -> float:
    """Return the ceil((n + 1) level)-th smallest score; the largest where there are too few to promise the level.

    Parameters
    ----------
    scores
        Shape (n,), n >= 1.
    level
        In (0, 1).
    """
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def half_widths(
    cells: CellClass, prediction: NDArray[np.float64], difficulty: NDArray[np.float64], level: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return half-widths in the label's unit and the number of calibration rows behind each, both (n,).

    Parameters
    ----------
    prediction, difficulty
        Shape (n,); difficulty as a factor, not its logarithm.
    """
    bins = np.searchsorted(np.asarray(cells.label_edges), prediction, side="right")
    widest = max(len(row) for row in cells.rows)
    edges = np.array([(*row, *[np.inf] * (widest - 1 - len(row))) for row in cells.difficulty_edges])
    inner = (difficulty[:, None] >= edges[bins]).sum(axis=1) if widest > 1 else np.zeros(len(bins), np.int64)
    quantiles = np.array([(*row, *[0.0] * (widest - len(row))) for row in cells.quantiles[str(level)]])
    rows = np.array([(*row, *[0] * (widest - len(row))) for row in cells.rows])
    return quantiles[bins, inner] * difficulty, rows[bins, inner]


def _fit_label(
    name: str,
    j: int,
    median: float,
    patterns: tuple[str, ...],
    codes: NDArray[np.str_],
    validation: Rows,
    calibration: Rows,
) -> LabelCalibration:
    weights, bias, low, high = _fit_difficulty(
        validation.inputs, validation.truth[:, j] - validation.prediction[:, j]
    )
    known = np.isfinite(calibration.truth[:, j])
    truth, prediction = calibration.truth[known, j], calibration.prediction[known, j]
    difficulty = np.exp(np.clip(calibration.inputs[known] @ weights + bias, low, high))
    scores = np.abs(truth - prediction) / difficulty
    codes = codes[known]
    members = {pattern: codes == pattern for pattern in patterns}
    members = {pattern: rows for pattern, rows in members.items() if rows.sum() >= MIN_ROWS}
    own = np.isin(codes, list(members))
    classes = [
        _fit_class(pattern, prediction[rows], difficulty[rows], scores[rows])
        for pattern, rows in members.items()
    ]
    borrows = bool((~own).sum() < MIN_ROWS)
    rest = np.ones(len(own), bool) if borrows else ~own
    classes.append(_fit_class(POOLED, prediction[rest], difficulty[rest], scores[rest]))
    members[POOLED] = ~own
    wide = {}
    for level in LEVELS:
        widths = [
            half_widths(c, prediction[members[c.pattern]], difficulty[members[c.pattern]], level)[0]
            for c in classes
        ]
        wide[str(level)] = WIDE_FACTOR * float(np.median(np.concatenate(widths)))
    return LabelCalibration(
        label=name,
        difficulty_weights=tuple(float(w) for w in weights),
        difficulty_bias=bias,
        difficulty_low=low,
        difficulty_high=high,
        classes=tuple(classes),
        pooled_borrows=borrows,
        wide=wide,
        without_features={str(v): conformal_quantile(np.abs(truth - median), v / 100) for v in LEVELS},
    )


def _fit_class(
    pattern: str,
    prediction: NDArray[np.float64],
    difficulty: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> CellClass:
    n_label = int(np.clip(len(scores) // (2 * MIN_ROWS), 1, MAX_LABEL_BINS))
    label_edges = _inner_edges(prediction, n_label)
    bins = np.searchsorted(label_edges, prediction, side="right")
    difficulty_edges, rows = [], []
    quantiles: dict[str, list[tuple[float, ...]]] = {str(level): [] for level in LEVELS}
    for b in range(len(label_edges) + 1):
        inside = bins == b
        edges = _inner_edges(
            difficulty[inside], int(np.clip(inside.sum() // MIN_ROWS, 1, MAX_DIFFICULTY_BINS))
        )
        inner = np.searchsorted(edges, difficulty[inside], side="right")
        cells = [scores[inside][inner == c] for c in range(len(edges) + 1)]
        difficulty_edges.append(tuple(float(e) for e in edges))
        rows.append(tuple(len(c) for c in cells))
        for level in LEVELS:
            quantiles[str(level)].append(tuple(conformal_quantile(c, level / 100) for c in cells))
    return CellClass(
        pattern=pattern,
        label_edges=tuple(float(e) for e in label_edges),
        difficulty_edges=tuple(difficulty_edges),
        rows=tuple(rows),
        quantiles={level: tuple(table) for level, table in quantiles.items()},
    )


def _inner_edges(values: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Return quantile edges such that no bin is empty; ties merge bins."""
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    while len(edges) and counts.min() < min(MIN_ROWS, len(values) // n_bins):
        thin = int(counts.argmin())
        edges = np.delete(edges, min(thin, len(edges) - 1))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return edges


def _fit_difficulty(
    inputs: NDArray[np.float64], residual: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, float, float]:
    known = np.isfinite(residual)
    x, size = inputs[known], np.abs(residual[known])
    floor = 0.05 * float(np.median(size)) or 1e-12
    y = np.log(np.maximum(size, floor))
    bias = float(y.mean())
    if len(y) < 5 * x.shape[1]:
        return np.zeros(x.shape[1]), bias, bias, bias
    offset = x.mean(axis=0)
    centred = x - offset
    normal = centred.T @ centred + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, centred.T @ (y - bias))
    bias -= float(offset @ weights)
    low, high = np.percentile(x @ weights + bias, [1, 99])
    return weights, bias, float(low), float(high)
