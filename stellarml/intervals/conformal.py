"""How wide an interval must be to hold a new spectroscopic measurement in 68, 90 or 95 % of cases.

Split conformal, per cell. Rows that took no part in the fit give residuals; divided by a width, one for stars above the
prediction and one for those below, they are comparable between bright and faint stars; within each cell of
missing-value pattern, predicted label and width the ceil((n + 1) level)-th smallest of their absolute values is the
factor that holds for the next star drawn like them, whatever the network (Vovk et al. 2005; Lei et al. 2018; with
widths that are quantiles, Romano et al. 2019). Cells have at least `MIN_ROWS` calibration rows, or are merged with
their neighbours. A few hundred rows tell a factor to some per cent only, so cells of rare patterns count scores of all
stars besides, unless theirs are plainly others; for them the promise is an approximate one. Where it is known which
stars are to be labelled, cells go by their likeness to the labelled ones (`shift`) instead of the width, and
calibration stars are weighted with it.

Widths come from the network where it gives them; else both are a linear fit of log |residual| to the inputs, made on
the validation part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section
from stellarml.features.missing_patterns import patterns_of
from stellarml.intervals.cells import POOLED, CellClass, factors, split_into_cells
from stellarml.intervals.covariate_shift import Shift, fit_shift, weights_of

LEVELS = (68, 90, 95)
MIN_ROWS = 200
MAX_BINS = (16, 4)  # of the predicted label, and of the width within each
RARE_ROWS = 1000  # a pattern with fewer calibration rows, of less than a tenth of all, borrows
BORROWED = 400  # at most so many rows for each of its cells, and their own number, spread like the scores of all stars
OTHERS = 4.0  # none where its share within the 68 % factor of all stars is off by so many standard errors
_BORROWED_POINTS = 200
MAX_BINS_SHIFTED = (4, 10)  # of the predicted label, and of the ratio within each
RIDGE = 10.0
WIDE_FACTOR = 3.0


class LabelCalibration(Section):
    """Intervals of one label; half-widths are in its unit.

    `difficulty_weights` and `difficulty_bias` make the logarithm of both widths from the inputs; they are empty where
    the network gives widths. `difficulty_low` and `difficulty_high` clip that logarithm.

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
    shift: Shift | None
    labels: tuple[LabelCalibration, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of one part: scaled inputs (n, d), missing features (n, k), predictions and labels (n, n_labels).

    `log_widths`, (n, 2, n_labels), are the network's, down and up; None where it gives none.
    """

    inputs: NDArray[np.float64]
    missing: NDArray[np.bool_]
    prediction: NDArray[np.float64]
    truth: NDArray[np.float64]
    log_widths: NDArray[np.float64] | None = None


def fit_calibration(
    names: tuple[str, ...],
    medians: NDArray[np.float64],
    validation: Rows,
    calibration: Rows,
    target: NDArray[np.float64] | None = None,
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
    target
        Inputs of a sample of the stars that are to be labelled, (m, d); None if they are like the labelled ones.
    """
    shift = None if target is None else fit_shift(calibration.inputs, target)
    log_ratio = None if shift is None else calibration.inputs @ np.asarray(shift.weights) + shift.bias
    kinds, index = patterns_of(calibration.missing)
    counts = np.bincount(index, minlength=len(kinds))
    patterns = tuple(sorted(k for k, n in zip(kinds, counts, strict=True) if n >= MIN_ROWS))
    codes = np.array(kinds)[index]
    return Calibration(
        method="split conformal, |residual| / width, cells of pattern x predicted label x "
        + ("width" if shift is None else "density ratio, weighted with it"),
        levels=LEVELS,
        min_rows=MIN_ROWS,
        patterns=patterns,
        seen=tuple(sorted(kinds)),
        shift=shift,
        labels=tuple(
            _fit_label(name, j, float(medians[j]), patterns, codes, validation, calibration, log_ratio)
            for j, name in enumerate(names)
        ),
    )


def conformal_quantile(
    scores: NDArray[np.float64], level: float, weights: NDArray[np.float64] | None = None
) -> float:
    """Return the smallest score up to which the weights reach `level` of their sum and the largest of them once more.

    Without weights that is the ceil((n + 1) level)-th smallest. It is the largest score where there are too few to
    promise the level.

    Parameters
    ----------
    scores
        Shape (n,), n >= 1.
    level
        In (0, 1).
    weights
        Shape (n,), positive; all 1 by default.
    """
    each = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(each[order])
    wanted = level * (reached[-1] + each.max()) * (1 - 1e-12)
    return float(scores[order][min(int(np.searchsorted(reached, wanted)), len(scores) - 1)])


def widths_of(
    table: LabelCalibration, log_widths: NDArray[np.float64] | None, linear: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the widths down and up, (n, 2), in the label's unit.

    Parameters
    ----------
    log_widths
        The network's, (n, 2).
    linear
        Inputs times `difficulty_weights`, (n,), where the network gives none.
    """
    if log_widths is None:
        if linear is None:
            raise ValueError("neither the network nor the inputs tell a width")
        log_widths = np.repeat((linear + table.difficulty_bias)[:, None], 2, axis=1)
    widths: NDArray[np.float64] = np.exp(np.clip(log_widths, table.difficulty_low, table.difficulty_high))
    return widths


def _fit_label(
    name: str,
    j: int,
    median: float,
    patterns: tuple[str, ...],
    codes: NDArray[np.str_],
    validation: Rows,
    calibration: Rows,
    log_ratio: NDArray[np.float64] | None,
) -> LabelCalibration:
    known = np.isfinite(calibration.truth[:, j])
    truth, prediction = calibration.truth[known, j], calibration.prediction[known, j]
    residual = validation.truth[:, j] - validation.prediction[:, j]
    if validation.log_widths is None or calibration.log_widths is None:
        weights, bias, low, high = _fit_difficulty(validation.inputs, residual)
        log_widths = np.repeat((calibration.inputs[known] @ weights + bias)[:, None], 2, axis=1)
    else:
        weights, bias = np.empty(0), 0.0
        low, high = _limits(validation.log_widths[:, :, j])
        log_widths = calibration.log_widths[known, :, j]
    widths = np.exp(np.clip(log_widths, low, high))
    mean_width = widths.mean(axis=1)
    inner = mean_width if log_ratio is None else log_ratio[known]
    most_bins = MAX_BINS if log_ratio is None else MAX_BINS_SHIFTED
    weights_in = np.ones(len(truth)) if log_ratio is None else weights_of(log_ratio[known])
    scores = np.abs(truth - prediction) / np.where(truth < prediction, widths[:, 0], widths[:, 1])
    codes = codes[known]
    members = {pattern: codes == pattern for pattern in patterns}
    members = {pattern: rows for pattern, rows in members.items() if rows.sum() >= MIN_ROWS}
    own = np.isin(codes, list(members))
    usual = _usual(scores, weights_in)
    classes = [
        _fit_class(
            pattern,
            prediction[rows],
            inner[rows],
            scores[rows],
            weights_in[rows],
            most_bins,
            usual if rows.sum() < min(RARE_ROWS, 0.1 * len(rows)) else None,
        )
        for pattern, rows in members.items()
    ]
    borrows = bool((~own).sum() < MIN_ROWS)
    rest = np.ones(len(own), bool) if borrows else ~own
    classes.append(
        _fit_class(POOLED, prediction[rest], inner[rest], scores[rest], weights_in[rest], most_bins)
    )
    members[POOLED] = ~own
    wide = {}
    for level in LEVELS:
        halves = [
            factors(c, prediction[rows], inner[rows], level)[0] * mean_width[rows]
            for c in classes
            for rows in (members[c.pattern],)
        ]
        wide[str(level)] = WIDE_FACTOR * float(np.median(np.concatenate(halves)))
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
    inner: NDArray[np.float64],
    scores: NDArray[np.float64],
    weights: NDArray[np.float64],
    most_bins: tuple[int, int],
    usual: NDArray[np.float64] | None = None,
) -> CellClass:
    """Make the cells of rows of one class; with the `usual` scores of all stars, they borrow."""
    cells = split_into_cells(prediction, inner, most_bins, MIN_ROWS)

    borrowed = 0.0 if usual is None else _borrowed(scores, weights, usual)

    def quantile(rows: NDArray[np.intp], level: float) -> float:
        if usual is None or not borrowed:
            return conformal_quantile(scores[rows], level, weights[rows])
        each = np.full(len(usual), min(borrowed, len(rows)) / len(usual) * weights[rows].mean())
        return conformal_quantile(np.append(scores[rows], usual), level, np.append(weights[rows], each))

    return CellClass(
        pattern=pattern,
        label_edges=cells.label_edges,
        inner_edges=cells.inner_edges,
        rows=tuple(
            tuple(round(weights[c].sum() ** 2 / (weights[c] ** 2).sum()) for c in row) for row in cells.rows
        ),
        quantiles={
            str(level): tuple(tuple(quantile(c, level / 100) for c in row) for row in cells.rows)
            for level in LEVELS
        },
    )


def _usual(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of all scores, (`_BORROWED_POINTS`,)."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order])
    wanted = (np.arange(_BORROWED_POINTS) + 0.5) / _BORROWED_POINTS * reached[-1]
    return np.asarray(scores[order][np.searchsorted(reached, wanted)])


def _borrowed(scores: NDArray[np.float64], weights: NDArray[np.float64], usual: NDArray[np.float64]) -> float:
    """Return how many of the `usual` scores each cell of a class may borrow: the fewer, the less alike they are."""
    inside = float(weights @ (scores <= np.quantile(usual, 0.68)) / weights.sum())
    error = np.sqrt(0.68 * 0.32 * (weights**2).sum()) / weights.sum()
    return float(BORROWED * max(0.0, 1.0 - ((inside - 0.68) / (OTHERS * error)) ** 2))


def _limits(log_widths: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range that a width is believed in: that of the validation part, and half as much again."""
    low, high = np.percentile(log_widths, [0.1, 99.9])
    return float(low - np.log(1.5)), float(high + np.log(1.5))


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
    return weights, bias, *_limits(x @ weights + bias)
