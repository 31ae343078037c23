"""Intervals for true parameters: errors learnt from repeats, their removal, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.model_tables import TINY_SCALES, fit_bundle, matrix_of, stars, tiny_bundle

from stellarml.core.errors import InputError
from stellarml.intervals.label_noise import gaussians, mixture_quantile, most_likely, plausible_noises
from stellarml.intervals.true_parameters import fit_truth, truth_half_widths
from stellarml.labelling.spark_label import label_batch
from stellarml.model.bundle import load_bundle
from stellarml.model.predictor import Predictor


def student(rng: np.random.Generator, nu: float, n: int) -> np.ndarray:
    return rng.standard_t(nu, n) if nu else rng.normal(size=n)


@pytest.mark.slow
@pytest.mark.parametrize("informative", [True, False])
@pytest.mark.parametrize(("nu", "factor"), [(3.0, 0.7), (0.0, 1.6), (6.0, 1.0)])
def test_errors_are_learnt_from_stars_measured_twice(nu: float, factor: float, informative: bool) -> None:
    """With stated errors that scatter by a quarter, and contradictions in 2 % of the pairs."""
    rng = np.random.default_rng(0)
    n = 8000
    stated = 50 * np.exp(0.25 * rng.normal(size=(2, n)))
    each = factor * (stated if informative else 50.0)
    labels = each * np.stack([student(rng, nu, n), student(rng, nu, n)])
    labels[0, : n // 50] += 1000
    combined = np.append(np.hypot(*stated), np.nan)
    found = most_likely(plausible_noises("teff", np.append(labels[0] - labels[1], np.nan), combined))
    assert found.pairs == n
    assert found.exponent == pytest.approx(float(informative), abs=0.25)
    scales, weights = gaussians(nu)
    expected = 50 * factor * mixture_quantile(scales, weights, 0.68)
    assert found.scales(np.array([50.0]))[0] * found.half_width_68 == pytest.approx(expected, rel=0.05)
    assert (found.nu == 0 or found.nu > 7) == (nu == 0)


def test_few_pairs_teach_nothing() -> None:
    ((found, _),) = plausible_noises("teff", np.full(50, 3.0), np.full(50, 1.0))
    assert (found.factor, found.exponent, found.nu, found.pairs) == (1.0, 1.0, 0.0, 0)
    assert found.scales(np.array([7.0]))[0] == 7


def test_gaussians_add_up_to_students_t() -> None:
    """Far tails included: what they lack would be taken for labels of other stars."""
    from scipy.stats import t

    for nu in (2.5, 3.0, 5.0, 20.0):
        scales, weights = gaussians(nu)
        assert weights.sum() == pytest.approx(1)
        for level in (0.5, 0.68, 0.9, 0.99, 0.999):
            assert mixture_quantile(scales, weights, level) == pytest.approx(
                t.ppf(0.5 + level / 2, nu), rel=0.02
            )


@pytest.mark.slow
@pytest.mark.parametrize("nu", [0.0, 3.0])
def test_coverage_of_the_truth(nu: float) -> None:
    rng = np.random.default_rng(3)
    n = 12_000
    prediction = rng.uniform(4500, 7000, n)
    hot = prediction > 6000
    truth = prediction + np.where(hot, 90.0, 35.0) * rng.standard_t(6, n)
    stated = rng.uniform(30, 70, n)
    label = truth + 0.5 * stated * student(rng, nu, n)
    pairs = rng.uniform(30, 70, (2, 5000))
    twice = 0.5 * pairs * np.stack([student(rng, nu, 5000), student(rng, nu, 5000)])
    noises = plausible_noises("teff", twice[0] - twice[1], np.hypot(*pairs))
    size = [np.quantile(np.abs(label - prediction)[kind], 0.68) for kind in (hot, ~hot)]
    widths = np.where(hot, *size)[:, None].repeat(2, axis=1)
    table = fit_truth(noises, prediction, label, stated, widths)
    assert table is not None
    for level in (68, 90, 95):
        half = truth_half_widths(table, prediction, widths, level)[:, 1]
        inside = np.abs(truth - prediction) <= half
        assert inside.mean() == pytest.approx(level / 100, abs=0.02)
        for kind in (hot, ~hot):
            assert inside[kind].mean() == pytest.approx(level / 100, abs=0.035)
        with_noise = np.quantile(np.abs(label - prediction), level / 100)
        assert np.mean(half) < with_noise, "narrower than for a new measurement"


@pytest.mark.slow
def test_cells_whose_residuals_tell_little_are_like_the_others() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    prediction = rng.uniform(4500, 7000, n)
    truth = prediction + 20 * rng.normal(size=n)
    label = truth + 60 * student(rng, 3.0, n)
    twice = 60 * np.stack([student(rng, 3.0, 5000), student(rng, 3.0, 5000)])
    noises = plausible_noises("teff", twice[0] - twice[1], np.full(5000, 60 * np.sqrt(2)))
    widths = rng.uniform(0.8, 1.2, (n, 1)).repeat(2, axis=1) * np.quantile(np.abs(label - prediction), 0.68)
    table = fit_truth(noises, prediction, label, np.full(n, 60.0), widths)
    assert table is not None
    factors = np.array(table.cells.quantiles["68"])
    assert factors.shape == (4, 5)
    assert factors.std() < 0.25 * factors.mean()


@pytest.mark.slow
def test_what_few_repeats_leave_open_the_residuals_decide() -> None:
    """Repeated stars whose errors happened to be larger than those of all labels: residuals are too small for that."""
    rng = np.random.default_rng(8)
    n = 12_000
    prediction = rng.uniform(4500, 7000, n)
    own = 30 * np.exp(0.6 * rng.normal(size=n))
    truth = prediction + own * rng.standard_t(6, n)
    label = truth + 45 * rng.standard_t(3, n)
    wrong = rng.random(n) < 0.01
    label[wrong] = rng.permutation(label)[wrong]
    twice = 1.18 * 45 * rng.standard_t(3, (2, 400))
    noises = plausible_noises("teff", twice[0] - twice[1], np.full(400, 45 * np.sqrt(2)))
    widths = np.hypot(own, 1.2 * 45)[:, None].repeat(2, axis=1)
    held = []
    for given in (noises, [(most_likely(noises), 0.0)]):
        table = fit_truth(given, prediction, label, np.full(n, 45.0), widths)
        assert table is not None
        half = truth_half_widths(table, prediction, widths, 68)[:, 1]
        held.append(float((np.abs(truth - prediction) <= half).mean()))
    assert abs(held[0] - 0.68) < 0.5 * abs(held[1] - 0.68), held
    assert held[0] == pytest.approx(0.68, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("down", "up", "error"), [(30.0, 50.0, 50.0), (20.0, 60.0, 80.0), (40.0, 40.0, 10.0)]
)
def test_errors_that_reach_further_up_than_down(down: float, up: float, error: float) -> None:
    rng = np.random.default_rng(12)
    n = 12_000
    prediction, z = rng.uniform(4500, 7000, n), rng.normal(size=n)
    truth = prediction + np.where(z < 0, down, up) * z
    label = truth + error * rng.normal(size=n)
    ends = np.quantile(label - prediction, [0.16, 0.84])
    widths = np.tile([-ends[0], ends[1]], (n, 1))
    noises = plausible_noises(
        "teff", error * np.sqrt(2) * rng.normal(size=5000), np.full(5000, error * np.sqrt(2))
    )
    for given, quantiles in ((widths, True), (0.5 * widths, False)):
        table = fit_truth(noises, prediction, label, np.full(n, error), given, quantiles=quantiles)
        assert table is not None
        for level in (68, 90, 95):
            half = truth_half_widths(table, prediction, given, level)
            inside = (truth >= prediction - half[:, 0]) & (truth <= prediction + half[:, 1])
            assert inside.mean() == pytest.approx(level / 100, abs=0.03), level


def test_numbers_that_are_no_labels_do_not_narrow_the_intervals() -> None:
    rng = np.random.default_rng(13)
    n = 3000
    prediction = rng.uniform(4500, 7000, n)
    truth = prediction + 30 * rng.normal(size=n)
    label, stated = truth + 30 * rng.normal(size=n), np.full(n, 30.0)
    label[0], stated[0] = 9.97e36, 9.97e36
    widths = np.full((n, 2), 42.0)
    table = fit_truth(plausible_noises("teff", np.empty(0), np.empty(0)), prediction, label, stated, widths)
    assert table is not None
    half = truth_half_widths(table, prediction, widths, 68)[:, 1]
    assert (np.abs(truth - prediction) <= half).mean() == pytest.approx(0.68, abs=0.05)


def test_stated_errors_that_cannot_be_true_make_no_intervals() -> None:
    rng = np.random.default_rng(3)
    n = 3000
    truth = rng.normal(5000, 800, n)
    prediction, label = truth + rng.normal(0, 30, n), truth + rng.normal(0, 50, n)
    noises = plausible_noises("teff", np.empty(0), np.empty(0))
    widths = np.full((n, 2), 58.0)
    assert fit_truth(noises, prediction, label, np.full(n, 50.0), widths) is not None
    assert fit_truth(noises, prediction, label, np.full(n, 1500.0), widths) is None


@pytest.mark.slow
def test_labels_of_other_stars_do_not_widen_the_truth() -> None:
    rng = np.random.default_rng(4)
    n = 6000
    prediction = rng.uniform(4500, 7000, n)
    truth = prediction + 40 * rng.normal(size=n)
    label = truth + 40 * rng.normal(size=n)
    wrong = rng.random(n) < 0.02
    label[wrong] = rng.uniform(4000, 8000, wrong.sum())
    noises = plausible_noises("teff", 40 * np.sqrt(2) * rng.normal(size=4000), np.full(4000, 40 * np.sqrt(2)))
    widths = np.full((n, 2), float(np.quantile(np.abs(label - prediction), 0.68)))
    table = fit_truth(noises, prediction, label, np.full(n, 40.0), widths)
    assert table is not None
    half = truth_half_widths(table, prediction, widths, 95)[:, 1]
    assert (np.abs(truth - prediction) <= half).mean() == pytest.approx(0.95, abs=0.025)
    assert (np.abs(label - prediction) <= half).mean() < 0.88


@pytest.mark.tensorflow
def test_a_model_without_stated_errors_has_none(tmp_path: Path) -> None:
    predictor = Predictor(load_bundle(tiny_bundle()))
    with pytest.raises(InputError, match="no intervals for true parameters"):
        predictor.label(matrix_of(stars(20)), 68, truth=True)


@pytest.mark.tensorflow
def test_columns_of_a_table(tmp_path: Path) -> None:
    columns = stars(4000)
    rng = np.random.default_rng(1)
    for name, error in (("teff", 60.0), ("feh", 0.08)):
        columns[name] = (columns[name] + error * rng.normal(size=4000)).astype(columns[name].dtype)
        columns[f"e_{name}"] = np.full(4000, error, np.float32)
        columns[f"e_repeat_{name}"] = np.full(4000, error * np.sqrt(2), np.float32)
        difference = np.abs(error * np.sqrt(2) * rng.normal(size=4000))
        columns[f"repeat_{name}"] = np.where(rng.random(4000) < 0.2, difference, np.nan)
    bundle = fit_bundle(tmp_path, columns, TINY_SCALES)
    told = json.loads((bundle / "bundle.json").read_text())["truth"]
    assert [table["label"] for table in told] == ["teff", "feh"]
    assert told[0]["noise"]["factor"] == pytest.approx(1.0, abs=0.15)
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "Intervals for the true teff" in card and "stars with two labels" in card
    predictor = Predictor(load_bundle(bundle))
    x = matrix_of(stars(300, seed=9))
    x[5] = np.nan
    ids = pa.array(np.arange(300))
    batch = pa.record_batch([ids, *(pa.array(c) for c in x.T)], names=["star_id", *predictor.feature_names])
    found = label_batch(predictor, batch, "star_id", 68, truth=True)
    assert found.schema.names[-5:] == [
        "quality_flags",
        "teff_true_lo",
        "teff_true_hi",
        "feh_true_lo",
        "feh_true_hi",
    ]
    value, low, high = (found[name].to_numpy() for name in ("teff", "teff_true_lo", "teff_true_hi"))
    assert np.isfinite(low).all() and (low < value).all() and (value < high).all()
    plain = label_batch(predictor, batch, "star_id", 68)
    assert plain.schema.names[-1] == "quality_flags"
    ratio = np.median(high - low) / np.median(found["teff_hi"].to_numpy() - found["teff_lo"].to_numpy())
    assert 0.3 < ratio < 1.05
