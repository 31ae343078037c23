"""How the conformal intervals of every label are learnt from calibration rows; `conformal` says what they promise.

Calibration rows are a part of their own, or the validation rows. These have chosen the epoch and teach the widths.
Widths fitted to the very residuals that they divide make intervals too narrow: on 40 splits of a simulated sky, 95 %
intervals from 500 validation stars held 94.33 +- 0.11 % of the test stars. So each fold of the rows gets its widths
from the other folds, and new stars get them from all: 95.10 +- 0.10 %. That the rows have chosen the epoch does not
show: with 4,750 of them, coverage differs from that of a calibration part as large by 0.06 +- 0.08 points at 68 %, by
0.03 +- 0.05 at 90 % and by -0.01 +- 0.04 at 95 % (tests/bench/bench_calibrating_part.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.features.missing_patterns import patterns_of
from stellarml.features.split import CALIBRATION, VALIDATION
from stellarml.intervals.cells import POOLED, CellClass, factors, split_into_cells
from stellarml.intervals.conformal import LEVELS, Calibration, LabelCalibration, conformal_quantile
from stellarml.intervals.covariate_shift import fit_covariate_shift, weights_of

MIN_ROWS = 200


MAX_BINS = (16, 4)  # of the predicted label, and of the width within each


RARE_ROWS = 1000  # a pattern with fewer calibration rows, of less than a tenth of all, borrows


BORROWED = 400  # at most so many rows for each of its cells, and their own number, spread like the scores of all stars


OTHERS = 4.0  # none where its share within the 68 % factor of all stars is off by so many standard errors


_BORROWED_POINTS = 200


MAX_BINS_SHIFTED = (4, 10)  # of the predicted label, and of the ratio within each


RIDGE = 10.0


ROWS_A_WEIGHT = 5  # fewer rows than this for each input: one width for all


FOLDS = 10


WIDE_FACTOR = 3.0


@dataclass(frozen=True)
class Rows:
    """Rows of one part: scaled inputs (n, d), missing features (n, k), predictions and labels (n, n_labels).

    `log_widths`, (n, 2, n_labels), are the network's, down and up; None where it gives none. `folds`, (n,), are 0 to
    `FOLDS` - 1 where the same rows teach the widths and are scored; None where other rows teach them.
    """

    inputs: NDArray[np.float64]
    missing: NDArray[np.bool_]
    prediction: NDArray[np.float64]
    truth: NDArray[np.float64]
    log_widths: NDArray[np.float64] | None = None
    folds: NDArray[np.intp] | None = None


def folds_of(ids: NDArray[Any]) -> NDArray[np.intp]:
    """Return the fold of each row, (n,), by the rank of its id: rows of one star are never in two folds."""
    return np.asarray(np.unique(ids, return_inverse=True)[1].reshape(-1) % FOLDS, dtype=np.intp)


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
        Rows that nothing else has seen; or the validation rows once more, with `folds`.
    target
        Inputs of a sample of the stars that are to be labelled, (m, d); None if they are like the labelled ones.
    """
    covariate_shift = None if target is None else fit_covariate_shift(calibration.inputs, target)
    log_ratio = (
        None
        if covariate_shift is None
        else calibration.inputs @ np.asarray(covariate_shift.weights) + covariate_shift.bias
    )
    kinds, index = patterns_of(calibration.missing)
    counts = np.bincount(index, minlength=len(kinds))
    patterns = tuple(sorted(k for k, n in zip(kinds, counts, strict=True) if n >= MIN_ROWS))
    own = _Patterns(patterns, np.array(kinds)[index], log_ratio)
    crossed = calibration.folds is not None and calibration.log_widths is None
    return Calibration(
        part=CALIBRATION if calibration.folds is None else VALIDATION,
        method=f"split conformal, |residual| / width{' (cross-fitted)' if crossed else ''}, "
        "cells of pattern x predicted label x "
        + ("width" if covariate_shift is None else "density ratio, weighted with it"),
        levels=LEVELS,
        min_rows=MIN_ROWS,
        patterns=patterns,
        seen=tuple(sorted(kinds)),
        shift=covariate_shift,
        labels=tuple(
            _fit_label(name, j, float(medians[j]), own, validation, calibration)
            for j, name in enumerate(names)
        ),
    )


def _fit_label(
    name: str, j: int, median: float, patterns: _Patterns, validation: Rows, calibration: Rows
) -> LabelCalibration:
    """Fit one label, the `j`-th: how wide its errors are, then the factors of each class of stars."""
    known = np.isfinite(calibration.truth[:, j])
    difficulty = _fit_difficulty_of(j, validation, calibration, known)
    truth, prediction = calibration.truth[known, j], calibration.prediction[known, j]
    widths = np.exp(np.clip(difficulty.log_widths, difficulty.low, difficulty.high))
    log_ratio = None if patterns.log_ratio is None else patterns.log_ratio[known]
    scored = _Scored(
        prediction,
        inner=widths.mean(axis=1) if log_ratio is None else log_ratio,
        scores=np.abs(truth - prediction) / np.where(truth < prediction, widths[:, 0], widths[:, 1]),
        weights=np.ones(len(truth)) if log_ratio is None else weights_of(log_ratio),
        most_bins=MAX_BINS if log_ratio is None else MAX_BINS_SHIFTED,
    )
    classes, members, borrows = _fit_classes(scored, patterns.names, patterns.codes[known])
    return LabelCalibration(
        label=name,
        difficulty_weights=tuple(float(w) for w in difficulty.weights),
        difficulty_bias=difficulty.bias,
        difficulty_low=difficulty.low,
        difficulty_high=difficulty.high,
        classes=tuple(classes),
        pooled_borrows=borrows,
        wide=_wide(classes, members, scored, widths.mean(axis=1)),
        without_features={str(v): conformal_quantile(np.abs(truth - median), v / 100) for v in LEVELS},
    )


@dataclass(frozen=True)
class _Patterns:
    """Patterns of missing features: those that may have a class, each calibration star's own, and its density ratio."""

    names: tuple[str, ...]
    codes: NDArray[np.str_]
    log_ratio: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Difficulty:
    """How wide the errors of a label are: a function of the inputs, or what the networks say; (n, 2) of known rows."""

    weights: NDArray[np.float64]
    bias: float
    low: float
    high: float
    log_widths: NDArray[np.float64]


def _fit_difficulty_of(j: int, validation: Rows, calibration: Rows, known: NDArray[np.bool_]) -> _Difficulty:
    if validation.log_widths is not None and calibration.log_widths is not None:
        low, high = _limits(validation.log_widths[:, :, j])
        return _Difficulty(np.empty(0), 0.0, low, high, calibration.log_widths[known, :, j])
    residual = validation.truth[:, j] - validation.prediction[:, j]
    if calibration.folds is None:
        weights, bias, low, high = _fit_difficulty(validation.inputs, residual)
        linear = calibration.inputs @ weights + bias
    else:
        linear, enough = cross_fitted(calibration, j)
        weights, bias, low, high = _fit_difficulty(validation.inputs, residual, enough=enough)
    log_widths = np.repeat(linear[known, None], 2, axis=1)
    return _Difficulty(weights, bias, low, high, log_widths)


def cross_fitted(rows: Rows, j: int) -> tuple[NDArray[np.float64], bool]:
    """Return the logarithm of the width of the `j`-th label for each row, (n,), learnt from the other folds.

    The second value tells whether every fold left enough rows to learn it from; if not, it is the same for all rows.
    """
    if rows.folds is None:
        raise ValueError("rows without folds cannot be cross-fitted")
    residual = rows.truth[:, j] - rows.prediction[:, j]
    known = np.isfinite(residual)
    others = [rows.folds != fold for fold in range(FOLDS)]
    enough = all((known & rest).sum() >= ROWS_A_WEIGHT * rows.inputs.shape[1] for rest in others)
    linear = np.empty(len(residual))
    for rest in others:
        weights, bias, _, _ = _fit_difficulty(rows.inputs[rest], residual[rest], enough=enough)
        linear[~rest] = rows.inputs[~rest] @ weights + bias
    return linear, enough


@dataclass(frozen=True)
class _Scored:
    """Calibration rows with a known label: what cells are cut by, their scores and weights, and how many cells."""

    prediction: NDArray[np.float64]
    inner: NDArray[np.float64]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    most_bins: tuple[int, int]

    def fitted(
        self, pattern: str, rows: NDArray[np.bool_], usual: NDArray[np.float64] | None = None
    ) -> CellClass:
        """Fit the class of a pattern to its `rows`."""
        scored = _Scored(
            self.prediction[rows], self.inner[rows], self.scores[rows], self.weights[rows], self.most_bins
        )
        return _fit_class(pattern, scored, usual)


def _fit_classes(
    scored: _Scored, patterns: tuple[str, ...], codes: NDArray[np.str_]
) -> tuple[list[CellClass], dict[str, NDArray[np.bool_]], bool]:
    """Return a class for each pattern that is frequent enough and one for the rest, their rows, and if that borrows."""
    members = {pattern: codes == pattern for pattern in patterns}
    members = {pattern: rows for pattern, rows in members.items() if rows.sum() >= MIN_ROWS}
    own = np.isin(codes, list(members))
    usual = _usual(scored.scores, scored.weights)
    classes = [
        scored.fitted(pattern, rows, usual if rows.sum() < min(RARE_ROWS, 0.1 * len(rows)) else None)
        for pattern, rows in members.items()
    ]
    borrows = bool((~own).sum() < MIN_ROWS)
    classes.append(scored.fitted(POOLED, np.ones(len(own), bool) if borrows else ~own))
    members[POOLED] = ~own
    return classes, members, borrows


def _wide(
    classes: list[CellClass],
    members: dict[str, NDArray[np.bool_]],
    scored: _Scored,
    mean_width: NDArray[np.float64],
) -> dict[str, float]:
    """Return, by level, the half-width beyond which an interval counts as wide."""
    wide = {}
    for level in LEVELS:
        halves = [
            factors(c, scored.prediction[rows], scored.inner[rows], level)[0] * mean_width[rows]
            for c in classes
            for rows in (members[c.pattern],)
        ]
        wide[str(level)] = WIDE_FACTOR * float(np.median(np.concatenate(halves)))
    return wide


def _fit_class(pattern: str, scored: _Scored, usual: NDArray[np.float64] | None = None) -> CellClass:
    """Make the cells of rows of one class; with the `usual` scores of all stars, they borrow."""
    scores, weights = scored.scores, scored.weights
    cells = split_into_cells(scored.prediction, scored.inner, scored.most_bins, MIN_ROWS)

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
    inputs: NDArray[np.float64], residual: NDArray[np.float64], *, enough: bool = True
) -> tuple[NDArray[np.float64], float, float, float]:
    known = np.isfinite(residual)
    x, size = inputs[known], np.abs(residual[known])
    floor = 0.05 * float(np.median(size)) or 1e-12
    y = np.log(np.maximum(size, floor))
    bias = float(y.mean())
    if not enough or len(y) < ROWS_A_WEIGHT * x.shape[1]:
        return np.zeros(x.shape[1]), bias, bias, bias
    offset = x.mean(axis=0)
    centred = x - offset
    normal = centred.T @ centred + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, centred.T @ (y - bias))
    bias -= float(offset @ weights)
    return weights, bias, *_limits(x @ weights + bias)
