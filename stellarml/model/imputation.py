"""What a missing input most likely was, given those that are there.

The mean of a Gaussian fitted to the training features (by EM, since training stars lack values too), conditional on the
star's other features: without the u band, the median of u would say nothing and throw every colour off, while the
other bands predict it to a few hundredths. On 34,000 simulated stars this took the [Fe/H] error of stars that lack a
band from 0.159 to 0.128 dex, with the same network. For each pattern of missing values it is one linear map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.features.missing_patterns import any_in_row, patterns_of

EM_STEPS = 50
EM_SOLUTIONS = 20_000  # bounds the steps where patterns are many: one linear system a pattern and step
EM_TOLERANCE = 1e-3  # of the largest change of a scaled covariance
EM_ROWS = 20_000  # an evenly spaced subset is enough for k (k + 3) / 2 numbers
RIDGE = 1e-6  # added to the variance of every scaled feature: twelve magnitudes span seven dimensions
GROUP_ROWS = 64  # rows of one pattern go through BLAS in blocks of exactly this size
CACHED_PATTERNS = 4096


@dataclass(frozen=True)
class Gaussian:
    """Mean (k,) and covariance (k, k) of the scaled training features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def fit_gaussian(z: NDArray[np.float64], missing: NDArray[np.bool_]) -> Gaussian:
    """Fit a Gaussian to rows with missing values by expectation-maximisation.

    Parameters
    ----------
    z
        Scaled features, shape (n, k); the values under `missing` do not matter.
    missing
        Shape (n, k).
    """
    step = max(1, -(-len(z) // EM_ROWS))
    z, missing = z[::step], missing[::step]
    n, k = z.shape
    kinds, index = patterns_of(missing)
    groups = [np.flatnonzero(index == p) for p in range(len(kinds))]
    current = _first_guess(z, missing)
    for _ in range(int(np.clip(EM_SOLUTIONS // len(groups), 2, EM_STEPS))):
        filled = np.where(missing, 0.0, z)
        spread = np.zeros((k, k))
        for rows in groups:
            pattern = missing[rows[0]]
            matrix, offset = pattern_map(current, pattern)
            filled[rows] = filled[rows] @ matrix + offset
            spread += len(rows) * _conditional_covariance(current, pattern)
        mean = filled.mean(axis=0)
        centred = filled - mean
        before = current
        current = Gaussian(mean, (centred.T @ centred + spread) / n + RIDGE * np.eye(k))
        if np.abs(current.covariance - before.covariance).max() < EM_TOLERANCE:
            break
    return current


def pattern_map(g: Gaussian, missing: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix (k, k) and offset (k,) such that ``x @ matrix + offset`` fills what is missing in x, 0 there."""
    k = len(missing)
    matrix, offset = np.eye(k), np.zeros(k)
    seen = ~missing
    slope = np.linalg.solve(g.covariance[np.ix_(seen, seen)], g.covariance[np.ix_(seen, missing)])
    matrix[np.ix_(seen, missing)] = slope
    matrix[missing, missing] = 0.0
    offset[missing] = g.mean[missing] - g.mean[seen] @ slope
    return matrix, offset


class Imputer:
    """Fills missing values with the conditional mean; keeps the map of every pattern it has met.

    Parameters
    ----------
    gaussian
        Of the scaled features; None puts 0, the training median, for every missing value.
    scale
        Units of the features that `fill` is given, per scaled feature.
    """

    def __init__(self, gaussian: Gaussian | None, scale: NDArray[np.float64]) -> None:
        self._gaussian = gaussian
        self._scale = scale
        self._maps: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def fill(self, x: NDArray[np.float64], missing: NDArray[np.bool_]) -> None:
        """Fill in place. `x`: centred features (n, k), 0 where `missing`."""
        if self._gaussian is None:
            return
        incomplete = np.flatnonzero(any_in_row(missing))
        if not len(incomplete):
            return
        kinds, index = patterns_of(missing[incomplete])
        order = np.argsort(index, kind="stable")
        bounds = np.searchsorted(index[order], np.arange(len(kinds) + 1))
        block = np.zeros((GROUP_ROWS, x.shape[1]))
        for p, kind in enumerate(kinds):
            rows = incomplete[order[bounds[p] : bounds[p + 1]]]
            matrix, offset = self._map(kind, missing[rows[0]])
            for start in range(0, len(rows), GROUP_ROWS):
                chosen = rows[start : start + GROUP_ROWS]
                block[: len(chosen)] = x[chosen]
                x[chosen] = (block @ matrix)[: len(chosen), : x.shape[1]] + offset

    def _map(self, kind: str, missing: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if kind not in self._maps:
            if len(self._maps) >= CACHED_PATTERNS:
                self._maps.clear()
            assert self._gaussian is not None
            matrix, offset = pattern_map(self._gaussian, missing)
            matrix = matrix / self._scale[:, None] * self._scale
            width = -len(missing) % 16
            self._maps[kind] = np.pad(matrix, [(0, 0), (0, width)]), offset * self._scale
        return self._maps[kind]


def _conditional_covariance(g: Gaussian, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    spread = np.zeros_like(g.covariance)
    if missing.any():
        seen = ~missing
        across = g.covariance[np.ix_(seen, missing)]
        slope = np.linalg.solve(g.covariance[np.ix_(seen, seen)], across)
        spread[np.ix_(missing, missing)] = g.covariance[np.ix_(missing, missing)] - across.T @ slope
    return spread


def _first_guess(z: NDArray[np.float64], missing: NDArray[np.bool_]) -> Gaussian:
    """Start from the complete rows where they suffice: from independent features EM takes many more steps."""
    k = z.shape[1]
    complete = z[~missing.any(axis=1)]
    if len(complete) >= 10 * k:
        covariance = np.cov(complete, rowvar=False).reshape(k, k)
        return Gaussian(complete.mean(axis=0), covariance + RIDGE * np.eye(k))
    present = np.where(missing, 0.0, z)
    counts = np.maximum(1, (~missing).sum(axis=0))
    mean = present.sum(axis=0) / counts
    variance = (np.where(missing, 0.0, z - mean) ** 2).sum(axis=0) / counts
    return Gaussian(mean, np.diag(variance) + RIDGE * np.eye(k))
