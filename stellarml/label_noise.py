"""How large label errors are, from stars that were measured twice.

A table states an error for every label, but what the errors are like has to be measured. The difference of two labels
of one star, divided by their combined stated error, would be a standard normal number; instead it is `factor` times
the difference of two Student-t numbers, scaled alike, whose `nu` follows from the ratio of its 90 and 50 % points and
`factor` from the latter. Quantiles, because contradictory pairs are in every survey.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stellarml.layers import Section

MIN_PAIRS = 100
_NU = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0)
_NODES = 24


class LabelNoise(Section):
    """Label minus truth is `factor` times the stated error times a Student-t number; `nu` 0 stands for a Gaussian.

    `pairs`: stars measured twice that this was learnt from; 0: the stated errors are taken at their word.
    """

    label: str
    factor: float
    nu: float
    pairs: int

    @property
    def half_width_68(self) -> float:
        """Half of the interval that holds 68 % of errors, in units of the stated one."""
        scales, weights = gaussians(self.nu)
        return self.factor * mixture_quantile(scales, weights, 0.68)


def fit_label_noise(label: str, differences: NDArray[np.float64]) -> LabelNoise:
    """Learn the errors of a label from stars measured twice.

    Parameters
    ----------
    differences
        Differences of the two labels divided by the root of the sum of their squared stated errors, (n,); NaN where a
        star was measured once. With fewer than `MIN_PAIRS` the stated errors are taken at their word.
    """
    size = np.abs(differences[np.isfinite(differences)])
    if len(size) < MIN_PAIRS or not np.median(size) > 0:
        return LabelNoise(label=label, factor=1.0, nu=0.0, pairs=0)
    middle, high = np.quantile(size, [0.5, 0.9])
    candidates = (*_NU, 0.0)
    points = np.array([_difference_quantiles(nu) for nu in candidates])
    best = int(np.abs(np.log(points[:, 1] / points[:, 0]) - np.log(high / middle)).argmin())
    factor = float(middle / points[best, 0])
    return LabelNoise(label=label, factor=factor, nu=candidates[best], pairs=len(size))


@cache
def gaussians(nu: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scales and weights of Gaussians that together make a Student-t of `nu`; one of 1 for `nu` 0."""
    if not nu:
        return np.ones(1), np.ones(1)
    from scipy.special import chdtri

    above = (np.arange(_NODES) + 0.5) / _NODES
    return np.sqrt(nu / chdtri(nu, above)), np.full(_NODES, 1.0 / _NODES)


def mixture_quantile(scales: NDArray[np.float64], weights: NDArray[np.float64], level: float) -> float:
    """Return the half-width that holds a share `level` of a mixture of Gaussians about zero."""
    from scipy.special import ndtr, ndtri

    low, high = 0.0, float(scales.max() * ndtri(0.5 + level / 2) + 1e-300)
    for _ in range(60):
        middle = (low + high) / 2
        inside = float(weights @ (2 * ndtr(middle / scales) - 1)) / float(weights.sum())
        low, high = (middle, high) if inside < level else (low, middle)
    return high


@cache
def _difference_quantiles(nu: float) -> tuple[float, float]:
    """Return the 50 and 90 % points of |a - b| / sqrt(2), a and b Student-t of `nu`."""
    scales, weights = gaussians(nu)
    pairs = np.sqrt((scales[:, None] ** 2 + scales[None, :] ** 2) / 2).ravel()
    both = np.outer(weights, weights).ravel()
    return mixture_quantile(pairs, both, 0.5), mixture_quantile(pairs, both, 0.9)
