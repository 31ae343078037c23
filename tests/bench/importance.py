"""Adaptive importance sampling: kernels around the samples of one generation are where the next are drawn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
KERNELS = 192
NEIGHBOURS = 60  # samples that tell the width of a kernel
_WIDE = 8  # every so manieth kernel is as wide as so many times the neighbours
_LARGER = 1.5  # the covariances of kernels, against their neighbours'
_NU = 5.0


def propose(
    population: Floats, chance: Floats, least: Floats, count: int, draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw from a mixture of Student-t kernels with local covariances.

    Parameters
    ----------
    population, chance
        Samples, (n, k), and how often each is to be a kernel's centre, (n,), adding up to 1.
    least
        The least width of a kernel along each axis, (k,).
    count
        How many to draw.

    Returns
    -------
    Draws, (count, k), and the logarithm of the mixture's density there, (count,), up to a constant.
    """
    sample = population[draw.choice(len(population), 8 * KERNELS, p=chance)]
    centres = sample[:KERNELS]
    size = np.maximum(sample.std(axis=0), least)
    away = (((centres[:, None] - sample[None]) / size) ** 2).sum(axis=2)
    spreads = [
        _spreads(sample, away[0::_WIDE], least, _WIDE * NEIGHBOURS),
        *(_spreads(sample, away[k::_WIDE], least, NEIGHBOURS) for k in range(1, _WIDE)),
    ]
    centres = np.concatenate([centres[k::_WIDE] for k in range(_WIDE)])
    root = np.linalg.cholesky(_LARGER * np.concatenate(spreads))
    own = draw.integers(0, KERNELS, count)
    tail = np.sqrt(_NU / draw.chisquare(_NU, count))
    step = draw.standard_normal((count, len(least))) * tail[:, None]
    found = centres[own] + np.einsum("nij,nj->ni", root[own], step)
    inverse = np.linalg.inv(root)
    log_volume = np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(axis=1)
    density = np.zeros(count)
    for centre, whitener, volume in zip(centres, inverse, log_volume, strict=True):
        square = (((found - centre) @ whitener.T) ** 2).sum(axis=1)
        density += np.exp(volume - 0.5 * (_NU + len(least)) * np.log1p(square / _NU))
    return found, np.log(density)


def _spreads(sample: Floats, away: Floats, least: Floats, neighbours: int) -> Floats:
    """Return the covariance matrices of the samples nearest to some kernels, by distances (kernels, samples)."""
    near = np.argpartition(away, neighbours, axis=1)[:, :neighbours]
    around = sample[near] - sample[near].mean(axis=1, keepdims=True)
    return np.asarray(np.einsum("kni,knj->kij", around, around) / neighbours + np.diag(least**2))


def normal(log_weight: Floats) -> Floats:
    """Return weights, adding up to 1."""
    weights = np.exp(log_weight - log_weight.max())
    return np.asarray(weights / weights.sum())


def tempered(log_weight: Floats, least: float) -> Floats:
    """Return weights raised to the largest power (at most 1) that leaves `least` effective samples."""
    finite = np.where(np.isfinite(log_weight), log_weight, -1e30)
    power = 1.0
    for _ in range(40):
        weights = normal(power * finite)
        if effective(weights) >= least:
            break
        power *= 0.75
    return weights


def effective(weights: Floats) -> float:
    """Return the effective number of weighted samples."""
    return float(1.0 / (weights**2).sum())


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Return the median of every column of `values`, (n, k)."""
    out = np.empty(values.shape[1])
    for j, column in enumerate(values.T):
        order = np.argsort(column)
        out[j] = column[order][np.searchsorted(np.cumsum(weights[order]), 0.5)]
    return out
