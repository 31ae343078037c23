"""Intervals for stars that are fainter than those with spectra."""

from __future__ import annotations

import numpy as np
import pytest

from stellarml.intervals.cells import factors
from stellarml.intervals.conformal import LEVELS, Calibration, conformal_quantile, widths_of
from stellarml.intervals.covariate_shift import WEIGHT_LIMIT, fit_covariate_shift, weights_of
from stellarml.intervals.fit_conformal import Rows, fit_calibration


def survey(n: int, rng: np.random.Generator, faint: float = 0.0) -> Rows:
    """Residuals grow with the first input in a way that the widths, which are constant, do not tell."""
    z = rng.normal(size=(n, 3))
    z[:, 0] += faint
    label = 5500 + 600 * rng.normal(size=n)
    truth = label + 40 * np.exp(0.5 * z[:, 0]) * rng.standard_t(6, size=n)
    widths = np.full((n, 2, 1), np.log(40.0))
    return Rows(z, np.zeros((n, 2), bool), label[:, None], truth[:, None], widths)


def inside(fitted: Calibration, rows: Rows, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the labels are inside, and the log ratio of each row."""
    table = fitted.labels[0]
    assert rows.log_widths is not None
    widths = widths_of(table, rows.log_widths[:, :, 0], None)
    ratio = widths.mean(axis=1)
    if fitted.shift is not None:
        ratio = rows.inputs @ np.array(fitted.shift.weights) + fitted.shift.bias
    factor, _ = factors(table.classes[0], rows.prediction[:, 0], ratio, level)
    error = rows.truth[:, 0] - rows.prediction[:, 0]
    return np.abs(error) <= factor * widths[:, 0], ratio


def test_weights_of_one_change_nothing() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 99, 250):
        scores = rng.exponential(size=n)
        for level in (0.5, 0.68, 0.9, 0.95):
            assert conformal_quantile(scores, level, np.ones(n)) == conformal_quantile(scores, level)


def test_the_weighted_quantile_is_that_of_repeated_scores() -> None:
    scores, weights = np.array([3.0, 1.0, 2.0, 5.0]), np.array([1.0, 4.0, 3.0, 2.0])
    # sum 10, and the new star of weight 4: 0.68 x 14 = 9.52 is first reached by the largest
    assert conformal_quantile(scores, 0.68, weights) == 5.0
    assert conformal_quantile(scores, 0.28, weights) == 1.0
    assert conformal_quantile(scores, 0.30, weights) == 2.0


def test_the_ratio_of_two_normal_distributions_is_found() -> None:
    rng = np.random.default_rng(1)
    shift = fit_covariate_shift(rng.normal(size=(40_000, 2)), rng.normal(loc=(1.0, 0.0), size=(40_000, 2)))
    assert shift.weights == pytest.approx([1.0, 0.0], abs=0.05)
    assert shift.bias == pytest.approx(-0.5, abs=0.05)
    ratio = rng.normal(size=200_000) - 0.5
    assert np.mean(weights_of(ratio)) == pytest.approx(1.0, abs=0.01)
    assert weights_of(np.array([50.0]))[0] == pytest.approx(WEIGHT_LIMIT)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_of_fainter_stars(level: int) -> None:
    rng = np.random.default_rng(2)
    bright, target = survey(20_000, rng), survey(20_000, rng, faint=1.0)
    plain = fit_calibration(("teff",), np.array([5500.0]), survey(5000, rng), bright)
    weighted = fit_calibration(("teff",), np.array([5500.0]), survey(5000, rng), bright, target.inputs)
    new = survey(60_000, rng, faint=1.0)
    without, _ = inside(plain, new, level)
    hit, ratio = inside(weighted, new, level)
    assert weighted.shift is not None
    promised = ratio <= weighted.shift.high
    assert 0.9 < promised.mean() < 1
    assert hit[promised].mean() == pytest.approx(level / 100, abs=0.03)
    assert abs(without.mean() - level / 100) > 0.04, "unweighted, the intervals are too short"
    like_before, _ = inside(weighted, survey(60_000, rng), level)
    assert like_before.mean() == pytest.approx(level / 100, abs=0.03)
