"""Intervals for the true parameter of a star, instead of for a new measurement of it: a product of its own.

Label minus prediction is truth minus prediction plus the error of the label. What is known of that error
(`label_noise`) is taken away cell by cell: the truth's part is a mixture of Gaussians about the prediction, on a grid
of scales, whose shares make the calibration residuals most likely once each is blurred with its own label's error (the
nonparametric estimate of Kiefer & Wolfowitz 1956, by expectation maximisation). Unlike the conformal intervals for
labels this rests on a model of the errors, and labels of a wrong star count as truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stellarml.calibration import LEVELS, POOLED, CellClass, factors, inner_edges
from stellarml.label_noise import LabelNoise, gaussians, mixture_quantile
from stellarml.layers import Section

MIN_ROWS = 500
MAX_BINS = (4, 5)  # of the predicted label, and of the width within each
WIDTH_FLOOR = 0.3  # a truth's interval is not narrower than this share of the label's
_SCALES = np.geomspace(0.02, 12.0, 24)
_STEPS = 300


class TruthTable(Section):
    """Intervals of one true parameter: widths without the label's usual error, times the factor of a cell."""

    label: str
    noise: LabelNoise
    usual_error: float
    cells: CellClass


def fit_truth(
    noise: LabelNoise,
    prediction: NDArray[np.float64],
    truth: NDArray[np.float64],
    stated_errors: NDArray[np.float64],
    widths: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> TruthTable | None:
    """Fit one label's table to calibration rows; None if too few of them state an error.

    Parameters
    ----------
    prediction, truth, stated_errors
        Shape (n,), in the label's unit; `truth` is the label.
    widths
        Down and up, (n, 2), of the label's own intervals.
    weights
        Shape (n,); all 1 by default.
    """
    known = np.isfinite(truth) & np.isfinite(stated_errors) & (stated_errors > 0)
    if known.sum() < MIN_ROWS:
        return None
    each = np.ones(len(truth)) if weights is None else weights
    prediction, truth, errors, each = prediction[known], truth[known], stated_errors[known], each[known]
    scales = noise.scales(errors)
    usual = float(np.median(scales)) * noise.half_width_68
    own = widths_without(widths[known], usual)
    scores = (truth - prediction) / np.where(truth < prediction, own[:, 0], own[:, 1])
    mean = own.mean(axis=1)
    blurs = scales / mean
    label_edges = inner_edges(
        prediction, int(np.clip(len(truth) // (2 * MIN_ROWS), 1, MAX_BINS[0])), MIN_ROWS
    )
    bins = np.searchsorted(label_edges, prediction, side="right")
    edges, counts = [], []
    quantiles: dict[str, list[tuple[float, ...]]] = {str(level): [] for level in LEVELS}
    for b in range(len(label_edges) + 1):
        inside = np.flatnonzero(bins == b)
        cell_edges = inner_edges(
            mean[inside], int(np.clip(len(inside) // MIN_ROWS, 1, MAX_BINS[1])), MIN_ROWS
        )
        place = np.searchsorted(cell_edges, mean[inside], side="right")
        found = []
        for c in range(len(cell_edges) + 1):
            rows = inside[place == c]
            shares = deconvolved(scores[rows], blurs[rows], each[rows], noise.nu)
            found.append([mixture_quantile(_SCALES, shares, level / 100) for level in LEVELS])
        edges.append(tuple(float(e) for e in cell_edges))
        counts.append(tuple(int((place == c).sum()) for c in range(len(cell_edges) + 1)))
        for n, level in enumerate(LEVELS):
            quantiles[str(level)].append(tuple(f[n] for f in found))
    cells = CellClass(
        pattern=POOLED,
        label_edges=tuple(float(e) for e in label_edges),
        inner_edges=tuple(edges),
        rows=tuple(counts),
        quantiles={level: tuple(table) for level, table in quantiles.items()},
    )
    return TruthTable(label=noise.label, noise=noise, usual_error=usual, cells=cells)


def truth_half_widths(
    table: TruthTable, prediction: NDArray[np.float64], widths: NDArray[np.float64], level: int
) -> NDArray[np.float64]:
    """Return by how much the interval of the true parameter reaches down and up, (n, 2).

    Parameters
    ----------
    prediction
        Shape (n,).
    widths
        Down and up, (n, 2), of the label's own intervals.
    level
        68, 90 or 95.
    """
    own = widths_without(widths, table.usual_error)
    factor, _ = factors(table.cells, prediction, own.mean(axis=1), level)
    return np.asarray(factor[:, None] * own)


def widths_without(widths: NDArray[np.float64], usual_error: float) -> NDArray[np.float64]:
    """Return widths with the label's usual error taken away in quadrature, never less than a share of them."""
    return np.sqrt(np.maximum(widths**2 - usual_error**2, (WIDTH_FLOOR * widths) ** 2))


def deconvolved(
    scores: NDArray[np.float64], blurs: NDArray[np.float64], weights: NDArray[np.float64], nu: float
) -> NDArray[np.float64]:
    """Return the shares of the scales on the grid that make the blurred scores most likely, (n_scales,).

    Parameters
    ----------
    scores, blurs, weights
        Shape (n,): residuals, the scales of their labels' errors, and what each row counts.
    nu
        Of the errors' Student-t distribution; 0 for a Gaussian.
    """
    parts, shares_of_parts = gaussians(nu)
    likelihood = np.zeros((len(scores), len(_SCALES)))
    for part, share in zip(parts, shares_of_parts, strict=True):
        variance = _SCALES**2 + (part * blurs[:, None]) ** 2
        likelihood += share * np.exp(-0.5 * scores[:, None] ** 2 / variance) / np.sqrt(variance)
    likelihood /= likelihood.max(axis=1, keepdims=True)
    shares = np.full(len(_SCALES), 1.0 / len(_SCALES))
    for _ in range(_STEPS):
        responsible = likelihood * shares
        responsible *= (weights / responsible.sum(axis=1))[:, None]
        shares = responsible.sum(axis=0) / weights.sum()
    return shares
