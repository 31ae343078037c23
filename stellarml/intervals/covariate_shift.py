"""How unlike the labelled stars a star is, in the direction of those that are to be labelled.

Spectra exist for bright stars, labels are wanted for faint ones. A logistic regression separates calibration stars from
a sample of the stars to be labelled by their inputs; its log odds are, up to a constant, the logarithm of the ratio of
both densities. Weighted with that ratio, and in cells of it, calibration stars speak for those to be labelled
(Tibshirani et al. 2019); beyond the largest ratio that calibration stars reach, nobody speaks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section

STEPS = 30
RIDGE = 1.0
HIGH_PERCENTILE = 99.5
WEIGHT_LIMIT = (
    20.0  # a calibration star speaks for at most so many: beyond, intervals would rest on single stars
)


class CovariateShift(Section):
    """Log ratio of densities as a linear function of the scaled inputs; above `high` calibration stars are too few."""

    weights: tuple[float, ...]
    bias: float
    high: float


def fit_covariate_shift(labelled: NDArray[np.float64], target: NDArray[np.float64]) -> CovariateShift:
    """Fit the log ratio of the target's density to that of the labelled stars.

    Parameters
    ----------
    labelled, target
        From `scaling.design`: shapes (n, n_inputs) and (m, n_inputs).
    """
    x = np.vstack([labelled, target])
    x = np.hstack([x, np.ones((len(x), 1))])
    is_target = np.arange(len(x)) >= len(labelled)
    each = np.where(is_target, 0.5 / max(len(target), 1), 0.5 / max(len(labelled), 1)) * len(x)
    coefficients = np.zeros(x.shape[1])
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[-1, -1] = 0.0
    for _ in range(STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(x @ coefficients, -30, 30)))
        gradient = x.T @ (each * (is_target - chance)) - penalty @ coefficients
        curvature = (x * (each * chance * (1 - chance))[:, None]).T @ x + penalty + 1e-9 * np.eye(x.shape[1])
        step = np.linalg.solve(curvature, gradient)
        coefficients += step
        if np.abs(step).max() < 1e-8:
            break
    ratio = labelled @ coefficients[:-1] + coefficients[-1]
    return CovariateShift(
        weights=tuple(coefficients[:-1].tolist()),
        bias=float(coefficients[-1]),
        high=float(np.percentile(ratio, HIGH_PERCENTILE)),
    )


def weights_of(log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of calibration stars, bounded."""
    return np.asarray(
        np.exp(np.clip(log_ratio, -np.log(WEIGHT_LIMIT), np.log(WEIGHT_LIMIT))), dtype=np.float64
    )
