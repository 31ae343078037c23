"""Intervals for the true parameter of a star, instead of for a new measurement of it: a product of its own.

Label minus prediction is truth minus prediction plus the error of the label. What is known of that error
(`label_noise`) is taken away cell by cell: the truth's part is a Student-t distribution about the prediction, whose
width and tails, and a small share of labels that belong to other stars, make the calibration residuals most likely
once each is blurred with its own label's error; a cell is drawn towards all stars together. (Free shares of many
scales, Kiefer & Wolfowitz 1956, were tried: where label errors are larger than the network's they fell apart into
spikes, and 68 % intervals held 51 %.) Unlike the conformal intervals for labels this rests on a model of the errors.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stellarml.calibration import LEVELS
from stellarml.cells import POOLED, CellClass, factors, split_into_cells
from stellarml.label_noise import LabelNoise, gaussians, mixture_quantile
from stellarml.layers import Section

MIN_ROWS = 500
MAX_BINS = (4, 5)  # of the predicted label, and of the width within each
WIDTH_FLOOR = 0.3  # a truth's interval is not narrower than this share of the label's
ALIKE = 0.15  # of the factors' logarithms: how far cells scatter about all stars (0.1 where residuals tell it well)
_SCALES = np.geomspace(0.02, 30.0, 60)
_WIDTHS = np.geomspace(0.05, 4.0, 61)  # of the truth's distribution, in units of the star's own width
_TAILS = (3.0, 4.0, 6.0, 12.0, 0.0)  # its nu; 0 for a Gaussian
_WRONG_SCALE = 20.0  # labels of another star scatter by so much
_DOUBT = 1.7  # relative error of a scale from one pair
_PROFILED = 60_000
_WRONG_SHARES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04)


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
    cells = split_into_cells(prediction, mean, MAX_BINS, MIN_ROWS)
    blurs = blurs * _most_likely_scale(noise, [c for row in cells.rows for c in row], scores, blurs, each)
    some = slice(None, None, max(1, -(-len(scores) // _PROFILED)))
    _, _, usual_factor = deconvolved(scores[some], blurs[some], each[some], noise.nu)
    shares = [
        [deconvolved(scores[c], blurs[c], each[c], noise.nu, usual_factor)[0] for c in row]
        for row in cells.rows
    ]
    table = CellClass(
        pattern=POOLED,
        label_edges=cells.label_edges,
        inner_edges=cells.inner_edges,
        rows=tuple(tuple(len(c) for c in row) for row in cells.rows),
        quantiles={
            str(level): tuple(tuple(mixture_quantile(_SCALES, s, level / 100) for s in row) for row in shares)
            for level in LEVELS
        },
    )
    return TruthTable(label=noise.label, noise=noise, usual_error=usual, cells=table)


def _most_likely_scale(
    noise: LabelNoise,
    cells: list[NDArray[np.intp]],
    scores: NDArray[np.float64],
    blurs: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Return by what the errors learnt from few repeated stars are to be multiplied, by what residuals say of them.

    The likelihood of the residuals, on at most `_PROFILED` rows, times that of the repeated stars.
    """
    if not noise.pairs:
        return 1.0
    every = max(1, -(-sum(len(rows) for rows in cells) // _PROFILED))
    chosen = [rows[::every] for rows in cells]
    doubt = _DOUBT / np.sqrt(noise.pairs)
    found = []
    for factor in 1 + doubt * np.linspace(-2.5, 2.5, 9):
        told = sum(deconvolved(scores[r], factor * blurs[r], weights[r], noise.nu)[1] for r in chosen)
        found.append((every * told - 0.5 * ((factor - 1) / doubt) ** 2, float(factor)))
    return max(found)[1]


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
    scores: NDArray[np.float64],
    blurs: NDArray[np.float64],
    weights: NDArray[np.float64],
    nu: float,
    usual_factor: float | None = None,
) -> tuple[NDArray[np.float64], float, float]:
    """Return what makes the blurred scores most likely: shares of the scales, (n_scales,), log likelihood, width.

    Parameters
    ----------
    scores, blurs, weights
        Shape (n,): residuals, the scales of their labels' errors, and what each row counts.
    nu
        Of the errors' Student-t distribution; 0 for a Gaussian.
    usual_factor
        The middle of the log-normal distribution, `ALIKE` wide, of the width before the scores are looked at; None for
        none. Where the errors of labels are larger than the network's, a cell's scores alone hardly tell a width.
    """
    parts, shares_of_parts = gaussians(nu)
    likelihood = np.zeros((len(scores), len(_SCALES)))
    for part, share in zip(parts, shares_of_parts, strict=True):
        variance = _SCALES**2 + (part * blurs[:, None]) ** 2
        likelihood += share * np.exp(-0.5 * scores[:, None] ** 2 / variance) / np.sqrt(variance)
    wrong = np.exp(-0.5 * (scores / _WRONG_SCALE) ** 2) / _WRONG_SCALE
    families, factors_of_families = _families()
    prior = np.zeros(len(families))
    if usual_factor is not None:
        prior = -0.5 * (np.log(factors_of_families / usual_factor) / ALIKE) ** 2
    right = likelihood @ families.T
    best, found = -np.inf, 0
    for chance in _WRONG_SHARES:
        told = prior + weights @ np.log((1 - chance) * right + (chance * wrong + 1e-300)[:, None])
        family = int(told.argmax())
        if told[family] > best:
            best, found = float(told[family]), family
    return families[found], best, float(factors_of_families[found])


@cache
def _families() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of the grid's scales that make Student-t distributions, (n_families, n_scales), and widths."""
    families = []
    place = np.log(_SCALES)
    for nu in _TAILS:
        scales, weights = gaussians(nu)
        for width in _WIDTHS:
            shares = np.zeros(len(_SCALES))
            at = np.clip(
                np.interp(np.log(width * scales), place, np.arange(len(place))), 0, len(place) - 1.001
            )
            low = at.astype(np.intp)
            np.add.at(shares, low, weights * (1 - (at - low)))
            np.add.at(shares, low + 1, weights * (at - low))
            families.append(shares)
    return np.array(families), np.tile(_WIDTHS, len(_TAILS))
