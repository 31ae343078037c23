"""How far a star is from all that the network has learnt from.

Two distances. `joint`: of a star's inputs from those of the training stars, all features together (Mahalanobis): each
may lie in its own range, and all of them where no star is. `colours`: of a star's inputs from those that training stars
of the same labels have, a cubic function of the labels: a white dwarf or a quasar gets labels too, but no star of these
labels has its colours. Faint stars scatter more, so the logarithm of either is compared with what is usual for a star
of such inputs (a linear fit, believed up to the largest scatter that training stars have: what is fainter than all of
them is not excused by it). The limits are percentiles of the part that calibrates the intervals.

Everything is a linear function of the inputs, which `forward` computes in its one pass, and sums of squares of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section

KINDS = ("joint", "colours")
LIMIT_PERCENTILE = 99.5
USUAL_PERCENTILE = 95.0
TRIMMED_PERCENTILE = 99.0  # training rows beyond are left out when the distances are fitted a second time
MIN_VARIANCE = 1e-6
RIDGE = 1e-3
BLOCK_ROWS = 1024
LABEL_REACH = 4.0  # labels are clipped to so many standard deviations


class Novelty(Section):
    """Limits of the distances, how labels are brought to a common scale, and how much scatter is believed."""

    limits: tuple[float, float]
    label_mean: tuple[float, ...]
    label_std: tuple[float, ...]
    bias: tuple[float, float]
    usual_high: tuple[float, float]


@dataclass(frozen=True)
class NoveltyMaps:
    """Linear functions of the scaled inputs, (n_inputs, 2 m + 2), and what labels predict of the second m, (t, m).

    The columns: axes whose squares make the joint distance; axes whose squares, less what the labels predict, make the
    distance in colours; and the usual logarithm of either.
    """

    linear: NDArray[np.float64]
    predicted: NDArray[np.float64]

    @property
    def axes(self) -> int:
        """Number of axes m of each distance."""
        return int(self.predicted.shape[1])


def fit_novelty(
    inputs: NDArray[np.float64], n_features: int, labels: NDArray[np.float64]
) -> tuple[NoveltyMaps, Novelty]:
    """Fit both distances to the training part; limits are open until `with_limits`.

    Parameters
    ----------
    inputs
        From `scaling.design`, (n, n_features + masks).
    labels
        What the networks give these rows, (n, n_labels), in their units.
    """
    mean, std = labels.mean(axis=0), np.maximum(labels.std(axis=0), 1e-9)
    terms = _terms(labels, mean, std).T
    x = inputs[:, :n_features]
    kept: NDArray[np.bool_] = np.ones(len(x), dtype=bool)
    for _ in range(2):
        axes = _whitening(x[kept] - x[kept].mean(axis=0))
        offset = x[kept].mean(axis=0) @ axes
        coefficients = _least_squares(terms[kept], x[kept])
        own = _whitening(x[kept] - terms[kept] @ coefficients, axes.shape[1])
        joint, colours = x @ axes - offset, x @ own - terms @ (coefficients @ own)
        distances = np.stack([_log_square(joint.T), _log_square(colours.T)], axis=1)
        kept = np.atleast_1d((distances <= np.percentile(distances, TRIMMED_PERCENTILE, axis=0)).all(axis=1))
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    usual = _least_squares(design[kept], distances[kept])
    high = np.percentile(design[kept] @ usual, USUAL_PERCENTILE, axis=0)
    linear = np.zeros((inputs.shape[1], 2 * axes.shape[1] + 2))
    linear[:n_features, : axes.shape[1]] = axes
    linear[:n_features, axes.shape[1] : -2] = own
    linear[:, -2:] = usual[:-1]
    predicted = np.vstack([coefficients @ own, offset])
    novelty = Novelty(
        limits=(np.finfo(np.float32).max, np.finfo(np.float32).max),
        label_mean=tuple(mean.tolist()),
        label_std=tuple(std.tolist()),
        bias=(float(usual[-1, 0]), float(usual[-1, 1])),
        usual_high=(float(high[0]), float(high[1])),
    )
    return NoveltyMaps(linear, predicted), novelty


def with_limits(novelty: Novelty, scores: NDArray[np.float64]) -> Novelty:
    """Set the limits from the scores of rows that nothing was fitted to, (n, 2)."""
    joint, colours = np.percentile(scores, LIMIT_PERCENTILE, axis=0)
    return novelty.model_copy(update={"limits": (float(joint), float(colours))})


def novelty_scores(
    maps: NoveltyMaps, novelty: Novelty, linear: NDArray[np.float64], labels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much the logarithms of both squared distances exceed what is usual, (n, 2).

    Rows go through in blocks of exactly `BLOCK_ROWS`, the last one padded, so that a row's score does not depend on the
    rows beside it.

    Parameters
    ----------
    linear
        The inputs times `maps.linear`, (n, 2 m + 2).
    labels
        Shape (n, n_labels), in their units.
    """
    m, n = maps.axes, len(labels)
    mean, std = np.asarray(novelty.label_mean), np.asarray(novelty.label_std)
    bias, high = np.array(novelty.bias)[:, None], np.array(novelty.usual_high)[:, None]
    predicted, offset = np.ascontiguousarray(maps.predicted[:-1].T), maps.predicted[-1][:, None]
    scores = np.empty((n, 2))
    block, own = np.zeros((2 * m + 2, BLOCK_ROWS)), np.zeros((BLOCK_ROWS, labels.shape[1]))
    for start in range(0, n, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, n))
        size = rows.stop - start
        block[:, :size], own[:size] = linear[rows].T, labels[rows]
        joint = block[:m] - offset
        colours = block[m : 2 * m] - predicted @ _terms(own, mean, std)
        distances = np.stack([_log_square(joint), _log_square(colours)])
        usual = np.minimum(block[2 * m :] + bias, high)
        scores[rows] = (distances - usual)[:, :size].T
    return scores


def terms_of(n_labels: int) -> int:
    """Return how many terms labels make: 1, each, and their products of two and three.

    >>> terms_of(1), terms_of(3)
    (4, 20)
    """
    return math.comb(n_labels + 3, 3)


def _terms(
    labels: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return 1, the scaled labels and their products of two and three, (t, n)."""
    z = np.clip((labels - mean) / std, -LABEL_REACH, LABEL_REACH).T
    rows = [np.ones(z.shape[1]), *z]
    for degree in (2, 3):
        for chosen in combinations_with_replacement(z, degree):
            rows.append(math.prod(chosen[1:], start=chosen[0]))
    return np.stack(rows)


def _whitening(x: NDArray[np.float64], most: int | None = None) -> NDArray[np.float64]:
    """Return axes (n_features, m) on which the rows of `x` have unit variance; the smallest of them last."""
    variance, axes = np.linalg.eigh(x.T @ x / max(len(x), 1))
    kept = variance > MIN_VARIANCE * max(float(variance[-1]), 1e-300)
    if most is not None and kept.sum() != most:
        kept = np.arange(len(variance)) >= len(variance) - most
    floor = np.maximum(variance[kept], MIN_VARIANCE * max(float(variance[-1]), 1e-300))
    return np.asarray(axes[:, kept] / np.sqrt(floor), dtype=np.float64)


def _least_squares(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y), dtype=np.float64)


def _log_square(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the sum of squares of every column of `x`, (m, n)."""
    return np.asarray(np.log(np.einsum("mn,mn->n", x, x) + 1e-12), dtype=np.float64)
