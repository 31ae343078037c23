"""How large label errors are, from stars that were measured twice.

A table states an error for every label, but what the errors are like has to be measured. The difference of two labels
of one star is that of two Student-t numbers of the same `nu`, scaled by ``factor * reference * (stated / reference) **
exponent``: the exponent is 1 where the stated error says how large an error is, 0 where it is only a number. It comes
from a regression of the logarithms with a prior about 1; how likely each `factor` and `nu` is, follows from all but the
largest 2 % of differences, among which there are contradictions between surveys.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section

MIN_PAIRS = 100
BELIEVED = 0.98
EXPONENT_PRIOR = 0.5  # standard deviation of the exponent about 1 before any pair is seen
_NU = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 0.0)
_FACTORS = np.geomspace(0.2, 5.0, 161)
_NODES = 24
_OUTERMOST = (1e-4, 1 - 1e-5)  # the scales of a Student-t's Gaussians, as probabilities
_PLAUSIBLE = 8.0  # of the logarithm of a likelihood below the largest
_POINTS = 200


class LabelNoise(Section):
    """Label minus truth is a Student-t number (`nu`; 0 for a Gaussian) times `scales` of the stated error.

    `pairs`: stars measured twice that this was learnt from; 0: the stated errors are taken at their word.
    """

    label: str
    factor: float
    reference: float
    exponent: float
    nu: float
    pairs: int

    def scales(self, stated: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scale of each error, (n,), in the label's unit."""
        return np.asarray(self.factor * self.reference * (stated / self.reference) ** self.exponent)

    @property
    def half_width_68(self) -> float:
        """Half of the interval that holds 68 % of errors, in units of their scale."""
        scales, weights = gaussians(self.nu)
        return mixture_quantile(scales, weights, 0.68)


def plausible_noises(
    label: str, differences: NDArray[np.float64], stated: NDArray[np.float64]
) -> list[tuple[LabelNoise, float]]:
    """Return what the errors of a label may be like, with the logarithms of the likelihoods, from stars measured twice.

    Parameters
    ----------
    differences, stated
        Differences of the two labels, and the roots of the sums of their squared stated errors, (n,); NaN where a star
        was measured once. With fewer than `MIN_PAIRS` the stated errors are taken at their word.
    """
    known = np.isfinite(differences) & np.isfinite(stated) & (stated > 0)
    size, stated = np.abs(differences[known]), stated[known]
    if len(size) < MIN_PAIRS or not np.median(size) > 0:
        return [(LabelNoise(label=label, factor=1.0, reference=1.0, exponent=1.0, nu=0.0, pairs=0), 0.0)]
    usual = float(np.median(stated))
    exponent = _exponent(np.log(np.maximum(size, 1e-3 * np.median(size))), np.log(stated / usual))
    scaled = size / (usual * (stated / usual) ** exponent)
    likelihoods = _log_likelihoods(scaled)
    reference = float(usual / np.sqrt(2.0))
    return [
        (
            LabelNoise(
                label=label, factor=factor, reference=reference, exponent=exponent, nu=nu, pairs=len(size)
            ),
            likelihood,
        )
        for (nu, factor), likelihood in likelihoods.items()
        if likelihood > max(likelihoods.values()) - _PLAUSIBLE
    ]


def most_likely(noises: list[tuple[LabelNoise, float]]) -> LabelNoise:
    """Return the most likely of `plausible_noises`, if nothing else is known."""
    return max(noises, key=lambda noise: noise[1])[0]


@cache
def gaussians(nu: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scales and weights of Gaussians that together make a Student-t of `nu` > 2; one of 1 for `nu` 0.

    The scale's square is `nu` over a chi-squared number; bins of its logarithm keep their probability and their mean
    square, so that the tails are there, too.
    """
    if not nu:
        return np.ones(1), np.ones(1)
    from scipy.special import chdtrc, chdtri

    low, high = np.sqrt(nu / chdtri(nu, np.array(_OUTERMOST)))
    scales = np.geomspace(low, high, _NODES + 1)
    edges = np.append(np.append(np.inf, nu / scales[1:-1] ** 2), 0.0)  # of chi-squared, falling
    weights = np.diff(chdtrc(nu, edges))
    squares = nu / (nu - 2) * np.diff(chdtrc(nu - 2, edges))
    return np.sqrt(squares / weights), weights


def mixture_quantile(scales: NDArray[np.float64], weights: NDArray[np.float64], level: float) -> float:
    """Return the half-width that holds a share `level` of a mixture of Gaussians about zero."""
    from scipy.special import ndtr, ndtri

    low, high = 0.0, float(scales.max() * ndtri(0.5 + level / 2) + 1e-300)
    for _ in range(60):
        middle = (low + high) / 2
        inside = float(weights @ (2 * ndtr(middle / scales) - 1)) / float(weights.sum())
        low, high = (middle, high) if inside < level else (low, middle)
    return high


def _exponent(log_size: NDArray[np.float64], log_stated: NDArray[np.float64]) -> float:
    spread = float(np.var(log_stated)) * len(log_stated)
    if spread <= 0:
        return 1.0
    slope = float((log_size - log_size.mean()) @ (log_stated - log_stated.mean())) / spread
    variance = float(np.var(log_size)) / spread
    prior = EXPONENT_PRIOR**2
    return float(np.clip((slope / variance + 1.0 / prior) / (1.0 / variance + 1.0 / prior), 0.0, 1.5))


def _log_likelihoods(scaled: NDArray[np.float64]) -> dict[tuple[float, float], float]:
    """Return those of each nu and factor of |a - b| / sqrt(2), a and b Student-t, from the smallest of the values."""
    from scipy.special import ndtr

    limit = float(np.quantile(scaled, BELIEVED))
    believed = scaled[scaled <= limit]
    points = np.quantile(believed, (np.arange(_POINTS) + 0.5) / _POINTS)
    likelihoods = {}
    for nu in _NU:
        scales, weights = gaussians(nu)
        pairs = np.sqrt((scales[:, None] ** 2 + scales[None, :] ** 2) / 2)
        upper = np.triu_indices(len(scales))
        each = pairs[upper]
        share = (np.outer(weights, weights) * (2.0 - np.eye(len(scales))))[upper]
        for factor in _FACTORS:
            own = factor * each
            density = np.exp(-0.5 * (points[:, None] / own) ** 2) @ (share / own)
            inside = float(share @ (2 * ndtr(limit / own) - 1))
            mean = np.log(np.maximum(density, 1e-300)).mean() - np.log(max(inside, 1e-300))
            likelihoods[nu, float(factor)] = len(believed) * float(mean)
    return likelihoods
