"""From raw features to the network's inputs: scale, gaps, rotation."""

from __future__ import annotations

import numpy as np
import pytest

from stellarml.features.missing_patterns import any_in_row, missing_of, patterns_of
from stellarml.model.imputation import Gaussian, Imputer, fit_gaussian, pattern_map
from stellarml.model.scaling import centred, design, fit_imputation, fit_rotation, fit_scaler, network_inputs

RNG = np.random.default_rng(3)


def correlated(n: int) -> np.ndarray:
    mixing = np.array([[1.0, 0.9, 0.2], [0.0, 0.3, 0.5], [0.0, 0.0, 0.8]])
    return (RNG.normal(size=(n, 3)) @ mixing * [1.0, 100.0, 5.0] + [10.0, 5000.0, 0.0]).astype(np.float32)


def test_scaled_features_have_median_zero_and_unit_spread() -> None:
    x = correlated(4000)
    z = design(x, fit_scaler(x))
    low, middle, high = np.percentile(z, [15.865, 50, 84.135], axis=0)
    assert middle == pytest.approx([0, 0, 0], abs=1e-6)
    assert (high - low) / 2 == pytest.approx([1, 1, 1], rel=1e-5)


def test_values_beyond_the_training_stars_are_clipped() -> None:
    x = correlated(500)
    scaler = fit_scaler(x)
    far = np.array([[1e30, -1e30, 1e30]], dtype=np.float32)
    edge = np.array([[x[:, 0].max(), x[:, 1].min(), x[:, 2].max()]], dtype=np.float32)
    assert design(far, scaler) == pytest.approx(design(edge, scaler))


def test_infinity_is_missing() -> None:
    x = correlated(300)
    x[::3, 1] = np.nan
    scaler = fit_scaler(x)
    holes = np.array([[10.0, np.inf, 0.0], [10.0, -np.inf, 0.0], [10.0, np.nan, 0.0]], dtype=np.float32)
    z = design(holes, scaler)
    assert (z == z[0]).all()
    assert z[0, 1] == 0.0
    assert z[0, 3] == 1.0


def test_masks_are_for_features_that_training_stars_lack() -> None:
    x = correlated(400)
    x[::4, 2] = np.nan
    x[::4, 0] = np.nan  # the same stars: one mask says it all
    x[0, 1] = np.nan  # one star alone cannot teach a weight
    scaler = fit_scaler(x)
    assert scaler.masked == (0,)
    assert scaler.never_missing == (False, False, False)


def test_constant_and_empty_features_do_no_harm() -> None:
    x = correlated(200)
    x[:, 0] = 7.0
    x[:, 1] = np.nan
    scaler = fit_scaler(x)
    z = design(x, scaler, fit_imputation(x, scaler))
    assert np.isfinite(z).all()
    assert np.allclose(z[:, :2], 0.0)
    later = design(np.array([[7.0, 123.0, 0.0]], dtype=np.float32), scaler)
    assert later[0, 1] == 0.0, "a feature that no training star had must say nothing later"


def test_the_conditional_mean_is_the_regression_on_what_is_there() -> None:
    z = RNG.multivariate_normal([1, 2, 3], [[2, 1, 0.5], [1, 3, 0.2], [0.5, 0.2, 1]], size=40_000)
    gaussian = Gaussian(z.mean(axis=0), np.cov(z, rowvar=False))
    matrix, offset = pattern_map(gaussian, np.array([False, True, False]))
    regressors = np.column_stack([np.ones(len(z)), z[:, [0, 2]]])
    slope, *_ = np.linalg.lstsq(regressors, z[:, 1], rcond=None)
    star = np.array([0.3, 0.0, 2.0])
    assert (star @ matrix + offset)[1] == pytest.approx(slope @ [1, 0.3, 2.0], rel=1e-6)
    assert (star @ matrix + offset)[[0, 2]] == pytest.approx([0.3, 2.0])


def test_em_finds_the_covariance_behind_the_gaps() -> None:
    mean, covariance = np.array([0.5, -1.0, 0.0]), np.array([[1, 0.8, 0.3], [0.8, 1, 0.1], [0.3, 0.1, 1]])
    z = RNG.multivariate_normal(mean, covariance, size=15_000)
    missing = RNG.random(z.shape) < [0.0, 0.4, 0.2]
    missing[:, 1] |= z[:, 0] > 1.0  # missing where another feature is large: a plain mean is biased
    fitted = fit_gaussian(np.where(missing, np.nan, z), missing)
    assert fitted.mean == pytest.approx(mean, abs=0.05)
    assert fitted.covariance == pytest.approx(covariance, abs=0.06)
    plain = z[~missing[:, 1], 1].mean()
    assert abs(plain - mean[1]) > 0.15


def test_imputation_does_not_depend_on_the_company() -> None:
    x = correlated(3000)
    x[RNG.random(x.shape) < 0.3] = np.nan
    scaler = fit_scaler(x)
    gaussian = fit_imputation(x, scaler)
    whole, missing = centred(x, scaler)
    Imputer(gaussian, np.asarray(scaler.scale)).fill(whole, missing)
    for start, stop in ((0, 1), (5, 6), (100, 163), (100, 164), (7, 2999)):
        part, gaps = centred(x[start:stop], scaler)
        Imputer(gaussian, np.asarray(scaler.scale)).fill(part, gaps)
        assert np.array_equal(part, whole[start:stop])


def test_gaps_are_filled_in_the_features_own_units() -> None:
    gaussian = Gaussian(np.array([0.5, -0.2]), np.array([[1.0, 0.6], [0.6, 1.0]]))
    x = np.array([[30.0, 0.0], [0.0, 0.0], [30.0, 7.0]])
    missing = np.array([[False, True], [True, True], [False, False]])
    Imputer(gaussian, np.array([10.0, 100.0])).fill(x, missing)
    # scaled: 3.0 is 2.5 above its mean, so the other is -0.2 + 0.6 x 2.5
    assert x == pytest.approx(np.array([[30.0, 130.0], [5.0, -20.0], [30.0, 7.0]]))


def test_rotated_axes_are_uncorrelated_and_redundant_ones_are_dropped() -> None:
    z = RNG.normal(size=(5000, 2)) @ np.array([[1.0, 1.0, 0.5], [0.0, 0.02, 0.3]])
    rotation = fit_rotation(z)
    assert rotation.shape == (3, 2)
    assert np.cov(z @ rotation, rowvar=False) == pytest.approx(np.eye(2), abs=1e-8)


def test_masks_are_not_rotated() -> None:
    z = np.hstack([RNG.normal(size=(50, 3)), RNG.integers(0, 2, size=(50, 2))])
    inputs = network_inputs(z, fit_rotation(z[:, :3]))
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs[:, -2:], z[:, 3:])
    assert np.array_equal(network_inputs(z, None), z.astype(np.float32))


@pytest.mark.parametrize("k", [1, 8, 27, 64, 70])
def test_patterns_tell_rows_apart(k: int) -> None:
    missing = RNG.random((300, k)) < 0.1
    kinds, index = patterns_of(missing)
    assert len(set(kinds)) == len(kinds)
    for kind, row in zip(np.array(kinds)[index], missing, strict=True):
        assert f"{int(kind, 16):0{4 * len(kind)}b}"[:k] == "".join("1" if m else "0" for m in row)


@pytest.mark.parametrize("k", [1, 8, 27, 64, 70, 129])
@pytest.mark.parametrize("n", [0, 300])
def test_what_rows_have_in_common_is_told_by_their_patterns(n: int, k: int) -> None:
    missing = RNG.random((n, k)) < 1 / k
    kinds, index = patterns_of(missing)
    assert np.array_equal(missing_of(kinds, k)[index], missing)
    assert np.array_equal(any_in_row(missing), missing.any(axis=1))
