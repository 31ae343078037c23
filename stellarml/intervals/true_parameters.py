"""Intervals for the true parameter of a star, instead of for a new measurement of it: a product of its own.

Label minus prediction is truth minus prediction plus the error of the label. What is known of that error
(`label_noise`) is taken away cell by cell: the truth's part is a Student-t distribution about the prediction, whose
width and tails, and a small share of labels that belong to other stars, make the calibration residuals most likely
once each is blurred with its own label's error; a cell is drawn towards all stars together. Labels of other stars are
spread like all labels. What stars measured twice leave open about the size and the tails of label errors, the
residuals decide: both likelihoods are multiplied. (Free shares of many scales, Kiefer & Wolfowitz 1956, were tried:
where label errors are larger than the network's they fell apart into spikes, and 68 % intervals held 51 %.) Unlike the
conformal intervals for labels this rests on a model of the errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section
from stellarml.intervals.cells import POOLED, CellClass, Cells, factors, split_into_cells
from stellarml.intervals.conformal import LEVELS
from stellarml.intervals.label_noise import LabelNoise, gaussians, mixture_quantile, most_likely

MIN_ROWS = 500
MAX_BINS = (4, 5)  # of the predicted label, and of the width within each
IMPOSSIBLE = 1.5  # usual errors of labels, in units of the usual half-width that holds 68 % of the labels
WIDTH_FLOOR = 0.3  # a truth's interval is not narrower than this share of the label's
ALIKE = 0.15  # of the factors' logarithms: how far cells scatter about all stars (0.1 where residuals measure it well)
_SCALES = np.geomspace(0.02, 30.0, 60)
_FARTHEST = 1e6  # residuals and label errors beyond are no numbers of a star
_WIDTHS = np.geomspace(0.05, 4.0, 61)  # of the truth's distribution, in units of the star's own width
_TAILS = (3.0, 4.0, 6.0, 12.0, 0.0)  # its nu; 0 for a Gaussian
_PROFILED = 60_000  # rows
_PROFILED_IN_ALL = 1_200_000  # rows times noises
_WRONG_SHARES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04)
_WRONG_BINS = 60  # of the labels, for the density of other stars' labels
_NEVER = np.float32(1e-30)
_STRIDE = 3  # of the factors at which residuals are asked, for each nu
_ALIKE_SIZES = 0.01
_AT_ONCE = 2000  # rows: their products stay in a core's cache


class TruthTable(Section):
    """Intervals of one true parameter: widths without the label's usual error, times the factor of a cell.

    `to_68` makes of the label's widths what holds 68 % of all labels, as `usual_error` does of their errors.
    """

    label: str
    noise: LabelNoise
    usual_error: float
    cells: CellClass
    to_68: float = 1.0


@dataclass(frozen=True)
class Residuals:
    """Label minus prediction in units of the star's own width, the error of its label in the same units.

    `wrong`: density of the label among all labels, in these units and times the root of 2 pi; `weights`: what a row
    counts. Each has the shape (n,).
    """

    scores: NDArray[np.float32]
    blurs: NDArray[np.float32]
    wrong: NDArray[np.float32]
    weights: NDArray[np.float32]

    def take(self, rows: NDArray[np.intp] | slice) -> Residuals:
        """Return some rows."""
        return Residuals(self.scores[rows], self.blurs[rows], self.wrong[rows], self.weights[rows])


def fit_truth(
    noises: list[tuple[LabelNoise, float]],
    prediction: NDArray[np.float64],
    truth: NDArray[np.float64],
    stated_errors: NDArray[np.float64],
    widths: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    quantiles: bool = True,
) -> TruthTable | None:
    """Fit one label's table to calibration rows; None if too few state an error, or errors that cannot be true.

    Parameters
    ----------
    noises
        What the errors of labels may be like, each with the logarithm of its likelihood.
    prediction, truth, stated_errors
        Shape (n,), in the label's unit; `truth` is the label.
    widths
        Down and up, (n, 2), of the label's own intervals.
    weights
        Shape (n,); all 1 by default.
    quantiles
        Whether the widths are 16 and 84 % quantiles of the label's error, or only proportional to them.
    """
    known = np.isfinite(truth) & np.isfinite(stated_errors) & (stated_errors > 0)
    if known.sum() < MIN_ROWS:
        return None
    each = np.ones(int(known.sum())) if weights is None else weights[known]
    stars = _stating(
        prediction[known], truth[known], stated_errors[known], widths[known], quantiles=quantiles
    )
    noise = most_likely(noises)
    if len(noises) > 1:
        mean, _, found = stars.under(noise, np.ones(len(each)))
        cells = split_into_cells(stars.prediction, mean, MAX_BINS, MIN_ROWS)
        noise = _likely(noises, noise, found, [c for row in cells.rows for c in row])
    mean, usual, found = stars.under(noise, each)
    if usual > IMPOSSIBLE * np.median(stars.widths):
        return None
    table = _table_of(split_into_cells(stars.prediction, mean, MAX_BINS, MIN_ROWS), found, noise)
    return TruthTable(label=noise.label, noise=noise, usual_error=usual, to_68=stars.to_68, cells=table)


@dataclass(frozen=True)
class _Stating:
    """Calibration stars that state an error, (n,), and the widths of their labels' intervals, (n, 2), as 68 % ones.

    wrong
        Density of the labels at each star, for labels that are plainly wrong.
    to_68
        What makes 68 % half-widths of the widths that were given.
    """

    prediction: NDArray[np.float64]
    truth: NDArray[np.float64]
    errors: NDArray[np.float64]
    widths: NDArray[np.float64]
    wrong: NDArray[np.float64]
    to_68: float

    def under(
        self, noise: LabelNoise, each: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, Residuals]:
        """Return, if the labels' errors are like `noise`: widths without it, its usual half-width, and residuals."""
        scales = noise.scales(self.errors)
        usual = float(np.median(scales)) * noise.half_width_68
        mean = widths_without(self.widths, usual).mean(axis=1)
        residual = (self.truth - self.prediction) / mean
        columns = (residual, scales / mean, self.wrong * mean * np.sqrt(2 * np.pi), each)
        return (
            mean,
            usual,
            Residuals(*(np.clip(c, -_FARTHEST, _FARTHEST).astype(np.float32) for c in columns)),
        )


def _stating(
    prediction: NDArray[np.float64],
    truth: NDArray[np.float64],
    errors: NDArray[np.float64],
    widths: NDArray[np.float64],
    *,
    quantiles: bool,
) -> _Stating:
    side = np.where(truth < prediction, widths[:, 0], widths[:, 1])
    to_68 = 1.0 if quantiles else float(np.quantile(np.abs(truth - prediction) / side, 0.68))
    return _Stating(prediction, truth, errors, to_68 * widths, _density(truth), to_68)


def _table_of(cells: Cells, found: Residuals, noise: LabelNoise) -> CellClass:
    """Take the noise out of the residuals of each cell, and return the quantiles of what is left."""
    some = slice(None, None, max(1, -(-len(found.scores) // _PROFILED)))
    usual_factor, _ = deconvolved(found.take(some), noise.nu)
    left = [[deconvolved(found.take(c), noise.nu, usual_factor) for c in row] for row in cells.rows]
    return CellClass(
        pattern=POOLED,
        label_edges=cells.label_edges,
        inner_edges=cells.inner_edges,
        rows=tuple(tuple(len(c) for c in row) for row in cells.rows),
        quantiles={
            str(level): tuple(
                tuple(width * mixture_quantile(*gaussians(tail), level / 100) for width, tail in row)
                for row in left
            )
            for level in LEVELS
        },
    )


def _likely(
    noises: list[tuple[LabelNoise, float]],
    first: LabelNoise,
    residuals: Residuals,
    cells: list[NDArray[np.intp]],
) -> LabelNoise:
    """Return the middle of what stars measured twice and the residuals, on at most `_PROFILED` rows, leave open.

    Size and tails of the errors make up for each other: of all noises, weighted with both likelihoods, the mean of the
    interval that holds 68 % is taken, and of those about as wide the most likely one. `residuals` are blurred as by
    `first`. Their likelihood is computed at a few factors of each nu, and interpolated.
    """
    from scipy.interpolate import CubicSpline

    most = min(_PROFILED, _PROFILED_IN_ALL * _STRIDE // len(noises))
    every = max(1, -(-len(residuals.scores) // most))
    parts = [residuals.take(rows[::every]) for rows in cells]

    def log_likelihood_of(noise: LabelNoise) -> float:
        blur = np.float32(noise.factor / first.factor)
        return every * _log_likelihood([replace(p, blurs=p.blurs * blur) for p in parts], noise.nu)

    logs, sorted_noises = [], []
    for nu in dict.fromkeys(noise.nu for noise, _ in noises):
        ladder = sorted((n for n in noises if n[0].nu == nu), key=lambda n: n[0].factor)
        rungs = sorted({*range(0, len(ladder), _STRIDE), len(ladder) - 1})
        values = [log_likelihood_of(ladder[rung][0]) for rung in rungs]
        curve = CubicSpline(rungs, values) if len(rungs) > 1 else np.poly1d(values)
        logs += [likelihood + float(curve(place)) for place, (_, likelihood) in enumerate(ladder)]
        sorted_noises += [noise for noise, _ in ladder]
    chances = np.exp(np.array(logs) - max(logs))
    sizes = np.array([noise.factor * noise.half_width_68 for noise in sorted_noises])
    middle = chances @ sizes / chances.sum()
    alike = np.abs(np.log(sizes / middle)) <= max(_ALIKE_SIZES, np.abs(np.log(sizes / middle)).min())
    return sorted_noises[int(np.argmax(np.where(alike, chances, -1.0)))]


def _log_likelihood(cells: list[Residuals], nu: float) -> float:
    """Return the residuals' own, with the same tails and share of wrong labels in all cells, and similar widths."""
    by_cell = np.array([_log_likelihoods(cell, nu) for cell in cells])
    widths = [by_cell - 0.5 * (np.log(_WIDTHS / usual) / ALIKE) ** 2 for usual in _WIDTHS]
    heights = [_peaks(each)[0].sum(axis=0).max() for each in widths]
    return float(_peaks(np.array(heights))[0])


def _peaks(curves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the height and the place, in steps of the last axis, of parabolas through the largest value."""
    top = np.clip(curves.argmax(axis=-1), 1, curves.shape[-1] - 2)[..., None]
    left, middle, right = (np.take_along_axis(curves, top + step, -1)[..., 0] for step in (-1, 0, 1))
    bend, slope = left - 2 * middle + right, (right - left) / 2
    offset = np.where(bend < 0, np.clip(-slope / np.where(bend < 0, bend, -1.0), -1.0, 1.0), 0.0)
    highest = np.maximum(middle + slope * offset + 0.5 * bend * offset**2, curves.max(axis=-1))
    return highest, top[..., 0] + offset


def _density(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the density of all labels at each, (n,), per unit of the label; at least that of one star in a bin."""
    low, high = np.percentile(labels, [0.05, 99.95])
    edges = np.linspace(low, high if high > low else low + 1, _WRONG_BINS + 1)
    place = np.clip(np.searchsorted(edges, labels) - 1, 0, _WRONG_BINS - 1)
    counts = np.bincount(place, minlength=_WRONG_BINS)
    return np.asarray(counts[place] / (len(labels) * (edges[1] - edges[0])))


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
    own = widths_without(table.to_68 * widths, table.usual_error)
    factor, _ = factors(table.cells, prediction, own.mean(axis=1), level)
    return np.asarray(factor[:, None] * own)


def widths_without(widths: NDArray[np.float64], usual_error: float) -> NDArray[np.float64]:
    """Return widths with the label's usual error taken away in quadrature, never less than a share of them."""
    return np.sqrt(np.maximum(widths**2 - usual_error**2, (WIDTH_FLOOR * widths) ** 2))


def deconvolved(residuals: Residuals, nu: float, usual_factor: float | None = None) -> tuple[float, float]:
    """Return width and nu of the truth's Student-t distribution that makes the blurred scores most likely.

    Parameters
    ----------
    nu
        Of the labels' errors; 0 for a Gaussian.
    usual_factor
        The middle of the log-normal distribution, `ALIKE` wide, of the width before the scores are looked at; None for
        none. Where the errors of labels are larger than the network's, a cell's scores alone hardly determine a width.
    """
    log_likelihoods = _log_likelihoods(residuals, nu).max(axis=0)
    if usual_factor is not None:
        log_likelihoods -= 0.5 * (np.log(_WIDTHS / usual_factor) / ALIKE) ** 2
    heights, places = _peaks(log_likelihoods)
    tail = int(heights.argmax())
    width = float(np.exp(np.interp(places[tail], np.arange(len(_WIDTHS)), np.log(_WIDTHS))))
    return width, _TAILS[tail]


def _log_likelihoods(residuals: Residuals, nu: float) -> NDArray[np.float64]:
    """Return those of each share of wrong labels, each tail and each width, in this order of axes."""
    parts, shares_of_parts = (a.astype(np.float32) for a in gaussians(nu))
    scales = _SCALES.astype(np.float32) ** 2
    families = _families().reshape(-1, len(scales)).T.astype(np.float32)
    log_likelihoods = np.zeros((len(_WRONG_SHARES), families.shape[1]))
    for begin in range(0, len(residuals.scores), _AT_ONCE):
        rows = residuals.take(slice(begin, begin + _AT_ONCE))
        squares, blurs = -0.5 * rows.scores[:, None] ** 2, rows.blurs[:, None] ** 2
        likelihood = np.zeros((len(rows.scores), len(scales)), np.float32)
        for part, share in zip(parts, shares_of_parts, strict=True):
            precision = 1 / (scales + part**2 * blurs)
            likelihood += share * np.exp(squares * precision) * np.sqrt(precision)
        right = likelihood @ families
        for chance, line in zip(_WRONG_SHARES, log_likelihoods, strict=True):
            mixed = np.float32(1 - chance) * right + (np.float32(chance) * rows.wrong + _NEVER)[:, None]
            line += rows.weights @ np.log(mixed)
    return log_likelihoods.reshape(len(_WRONG_SHARES), len(_TAILS), len(_WIDTHS))


@cache
def _families() -> NDArray[np.float64]:
    """Return the shares of the grid's scales that make Student-t distributions, (n_tails, n_widths, n_scales)."""
    families = np.zeros((len(_TAILS), len(_WIDTHS), len(_SCALES)))
    place = np.log(_SCALES)
    for tail, nu in enumerate(_TAILS):
        scales, weights = gaussians(nu)
        for shares, width in zip(families[tail], _WIDTHS, strict=True):
            at = np.clip(
                np.interp(np.log(width * scales), place, np.arange(len(place))), 0, len(place) - 1.001
            )
            low = at.astype(np.intp)
            np.add.at(shares, low, weights * (1 - (at - low)))
            np.add.at(shares, low + 1, weights * (at - low))
    return families
