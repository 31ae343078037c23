"""Conformal intervals: the finite-sample quantile, coverage on exchangeable data, cells and what is merged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stellarml.features.missing_patterns import patterns_of
from stellarml.intervals.cells import POOLED, CellClass, factors
from stellarml.intervals.conformal import LEVELS, Calibration, LabelCalibration, conformal_quantile, widths_of
from stellarml.intervals.fit_conformal import (
    FOLDS,
    MIN_ROWS,
    Rows,
    cross_fitted,
    fit_calibration,
    folds_of,
)


def survey(n: int, rng: np.random.Generator, rare: float = 0.2) -> Rows:
    """Residuals of a spread that depends on the inputs, on the label and on what is missing; heavy tails."""
    z = rng.normal(size=(n, 3))
    missing = np.zeros((n, 2), dtype=bool)
    missing[:, 1] = rng.random(n) < rare
    label = 5500 + 600 * rng.normal(size=n)
    spread = 40 * np.exp(0.7 * z[:, 0]) * np.where(missing[:, 1], 2.0, 1.0) * (1 + (label < 5000))
    truth = label + spread * rng.standard_t(4, size=n)
    return Rows(z, missing, label[:, None], truth[:, None])


def half_width_of(c: Calibration, rows: Rows, level: int) -> np.ndarray:
    table: LabelCalibration = c.labels[0]
    widths = widths_of(table, None, rows.inputs @ np.array(table.difficulty_weights))
    difficulty = widths.mean(axis=1)
    kinds, index = patterns_of(rows.missing)
    codes = np.array(kinds)[index]
    half = np.full(len(codes), np.nan)
    for cells in table.classes:
        chosen = np.isnan(half) & ((codes == cells.pattern) | (cells.pattern == POOLED))
        factor, _ = factors(cells, rows.prediction[chosen, 0], difficulty[chosen], level)
        half[chosen] = factor * difficulty[chosen]
    return half


def test_the_quantile_is_the_order_statistic_of_split_conformal() -> None:
    scores = np.arange(1.0, 100.0)[::-1]  # n = 99
    assert conformal_quantile(scores, 0.68) == 68
    assert conformal_quantile(scores, 0.90) == 90
    assert conformal_quantile(scores, 0.95) == 95
    assert conformal_quantile(np.arange(1.0, 10.0), 0.95) == 9, "too few: the largest, and no promise"


def test_the_quantile_is_exact_on_average() -> None:
    rng = np.random.default_rng(0)
    inside = [rng.normal() ** 2 <= conformal_quantile(rng.normal(size=30) ** 2, 0.9) for _ in range(6000)]
    # ceil(31 x 0.9) = 28 of 31
    assert np.mean(inside) == pytest.approx(28 / 31, abs=0.012)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_overall_and_in_every_kind_of_star(level: int) -> None:
    rng = np.random.default_rng(7)
    fitted = fit_calibration(("teff",), np.array([5500.0]), survey(8000, rng), survey(20_000, rng))
    new = survey(60_000, rng)
    half = half_width_of(fitted, new, level)
    inside = np.abs(new.truth[:, 0] - new.prediction[:, 0]) <= half
    assert inside.mean() == pytest.approx(level / 100, abs=0.01)
    bright = new.inputs[:, 0] < -1
    for kind in (bright, new.inputs[:, 0] > 1, new.missing[:, 1], new.prediction[:, 0] < 4800):
        assert inside[kind].mean() == pytest.approx(level / 100, abs=0.035)


def thin(n: int, rng: np.random.Generator, inputs: int = 60) -> Rows:
    """Few rows for many inputs, as a small validation part has: residuals of one spread, whatever the inputs."""
    label = 5500 + 600 * rng.normal(size=n)
    truth = label + 40 * rng.standard_t(4, size=n)
    return Rows(rng.normal(size=(n, inputs)), np.zeros((n, 2), bool), label[:, None], truth[:, None])


def test_rows_that_also_teach_the_widths_need_cross_fitting() -> None:
    """Widths fitted to the residuals that they divide are too narrow for new stars; those of other folds are not."""
    rng = np.random.default_rng(12)
    covered: dict[str, list[float]] = {"plain": [], "crossed": []}
    new = thin(20_000, rng)
    for _ in range(12):
        rows = thin(500, rng)
        for name, scored in (("plain", rows), ("crossed", replace(rows, folds=folds_of(np.arange(500))))):
            fitted = fit_calibration(("teff",), np.array([5500.0]), rows, scored)
            half = half_width_of(fitted, new, 90)
            covered[name].append(float((np.abs(new.truth[:, 0] - new.prediction[:, 0]) <= half).mean()))
    assert np.mean(covered["crossed"]) == pytest.approx(0.9, abs=0.012)
    assert np.mean(covered["plain"]) < 0.88


@pytest.mark.parametrize("n", [290, 120])
def test_where_a_fold_leaves_too_few_rows_all_stars_have_one_width(n: int) -> None:
    """290 rows are enough for 55 inputs, nine tenths of them are not: scored and new stars are treated alike."""
    rng = np.random.default_rng(5)
    rows = thin(n, rng, inputs=55)
    rows = replace(rows, folds=folds_of(np.arange(n)))
    fitted = fit_calibration(("teff",), np.array([5500.0]), rows, rows)
    assert set(fitted.labels[0].difficulty_weights) == {0.0}
    linear, enough = cross_fitted(rows, 0)
    assert not enough and np.ptp(linear) < 0.3


def test_rows_of_one_star_are_in_one_fold() -> None:
    ids = np.repeat(np.random.default_rng(6).permutation(10_000)[:300] * 10**12, 2)
    folds = folds_of(ids)
    assert np.array_equal(folds[::2], folds[1::2])
    assert np.bincount(folds).tolist() == [60] * FOLDS


def test_intervals_are_wide_where_residuals_are() -> None:
    rng = np.random.default_rng(8)
    fitted = fit_calibration(("teff",), np.array([5500.0]), survey(8000, rng), survey(20_000, rng))
    new = survey(20_000, rng)
    half = half_width_of(fitted, new, 68)
    quiet, loud = new.inputs[:, 0] < -1, new.inputs[:, 0] > 1
    assert np.median(half[loud]) > 2.5 * np.median(half[quiet])
    assert np.median(half[new.missing[:, 1]]) > 1.6 * np.median(half[~new.missing[:, 1]])


def two_sided(n: int, rng: np.random.Generator) -> Rows:
    """Skewed residuals, and widths such as a network would give: right in shape, a third of their size."""
    z = rng.normal(size=(n, 3))
    label = 5500 + 600 * rng.normal(size=n)
    down, up = 20 * np.exp(0.5 * z[:, 0]), 80 * np.exp(0.5 * z[:, 1])
    side = rng.random(n) < 0.5
    size = np.abs(rng.standard_t(5, size=n))
    truth = label + np.where(side, -down * size, up * size)
    widths = np.log(np.stack([down, up], axis=1) / 3)[:, :, None]
    return Rows(z, np.zeros((n, 2), bool), label[:, None], truth[:, None], widths)


@pytest.mark.parametrize("level", LEVELS)
def test_widths_of_the_network_give_intervals_that_are_not_symmetric(level: int) -> None:
    rng = np.random.default_rng(21)
    fitted = fit_calibration(("teff",), np.array([5500.0]), two_sided(5000, rng), two_sided(20_000, rng))
    new = two_sided(60_000, rng)
    (table,) = fitted.labels
    assert table.difficulty_weights == ()
    assert new.log_widths is not None
    widths = widths_of(table, new.log_widths[:, :, 0], None)
    factor, _ = factors(table.classes[0], new.prediction[:, 0], widths.mean(axis=1), level)
    low, high = new.prediction[:, 0] - factor * widths[:, 0], new.prediction[:, 0] + factor * widths[:, 1]
    truth = new.truth[:, 0]
    assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(level / 100, abs=0.01)
    assert np.mean(truth < low) == pytest.approx(np.mean(truth > high), abs=0.02), "both ends miss alike"
    assert np.median(high - new.prediction[:, 0]) > 3 * np.median(new.prediction[:, 0] - low)


def test_widths_beyond_those_of_the_validation_part_are_not_believed() -> None:
    rng = np.random.default_rng(22)
    fitted = fit_calibration(("teff",), np.array([5500.0]), two_sided(5000, rng), two_sided(5000, rng))
    found = widths_of(fitted.labels[0], np.array([[-50.0, 50.0]]), None)
    usual = np.exp(two_sided(5000, rng).log_widths)
    assert usual.min() / 4 < found[0, 0] < found[0, 1] < usual.max() * 4


def test_every_cell_has_enough_rows() -> None:
    rng = np.random.default_rng(9)
    for n in (500, 1999, 12_000):
        fitted = fit_calibration(("teff",), np.array([0.0]), survey(3000, rng), survey(n, rng))
        for cells in fitted.labels[0].classes:
            counts = [c for row in cells.rows for c in row]
            assert min(counts) >= min(MIN_ROWS, n) - 1
            assert len(cells.rows) == len(cells.label_edges) + 1


def test_the_cell_is_found_by_prediction_and_difficulty() -> None:
    cells = CellClass(
        pattern="00",
        label_edges=(5000.0,),
        inner_edges=((2.0, 3.0), ()),
        rows=((10, 20, 30), (40,)),
        quantiles={"68": ((1.0, 10.0, 100.0), (1000.0,))},
    )
    prediction = np.array([4000.0, 4000.0, 4999.9, 4000.0, 5000.0, 9000.0])
    difficulty = np.array([1.9, 2.0, 2.5, 3.5, 0.5, 7.0])
    factor, rows = factors(cells, prediction, difficulty, 68)
    assert factor.tolist() == [1.0, 10.0, 10.0, 100.0, 1000.0, 1000.0]
    assert rows.tolist() == [10, 20, 20, 30, 40, 40]


def test_patterns_with_too_few_rows_share_a_class() -> None:
    rng = np.random.default_rng(10)
    fitted = fit_calibration(("teff",), np.array([0.0]), survey(3000, rng), survey(3000, rng, rare=0.02))
    assert fitted.patterns == ("00",)
    assert fitted.seen == ("00", "40")
    assert [c.pattern for c in fitted.labels[0].classes] == ["00", POOLED]
    pooled = sum(c for row in fitted.labels[0].classes[1].rows for c in row)
    assert pooled == 3000, "too few of their own: the pooled class takes all rows"
    assert fitted.labels[0].pooled_borrows
    plenty = fit_calibration(("teff",), np.array([0.0]), survey(3000, rng), survey(3000, rng, rare=0.3))
    assert plenty.patterns == ("00", "40")


@pytest.mark.slow
def test_a_rare_pattern_borrows_unless_it_is_another() -> None:
    """Rows alike but for what they lack; then three times as far off where something is missing."""
    rng = np.random.default_rng(16)
    alone, borrowing, other = [], [], []
    for _ in range(60):
        n = 6000
        z = rng.normal(size=(n, 3))
        missing = np.zeros((n, 2), dtype=bool)
        missing[:300, 1] = True
        label = 5500 + 600 * rng.normal(size=n)
        error = 40 * rng.standard_t(4, size=n)
        for found, far in ((borrowing, 1.0), (other, 3.0)):
            own = np.where(missing[:, 1], far, 1.0) * error
            rows = Rows(z, missing, label[:, None], (label + own)[:, None], np.full((n, 2, 1), np.log(40.0)))
            (rare,) = [
                c
                for c in fit_calibration(("teff",), np.array([0.0]), rows, rows).labels[0].classes
                if c.pattern == "40"
            ]
            found.append(rare.quantiles["68"][0][0])
        alone.append(conformal_quantile(np.abs(error[:300]) / 40, 0.68))
    assert np.std(borrowing) < 0.7 * np.std(alone)
    assert np.mean(borrowing) == pytest.approx(np.mean(alone), rel=0.03)
    assert np.mean(other) == pytest.approx(3 * np.mean(alone), rel=0.03)


def test_a_handful_of_rows_gives_one_cell() -> None:
    rng = np.random.default_rng(11)
    fitted = fit_calibration(("teff",), np.array([5500.0]), survey(12, rng), survey(25, rng, rare=0.0))
    assert fitted.patterns == ()
    (cells,) = fitted.labels[0].classes
    assert cells.rows == ((25,),)
    assert fitted.labels[0].difficulty_weights == (0.0, 0.0, 0.0), "too few rows to fit a difficulty"


def test_equal_predictions_are_one_cell() -> None:
    rng = np.random.default_rng(12)
    rows = survey(4000, rng, rare=0.0)
    constant = Rows(rows.inputs, rows.missing, np.full((4000, 1), 5500.0), rows.truth)
    fitted = fit_calibration(("teff",), np.array([5500.0]), constant, constant)
    assert fitted.labels[0].classes[0].label_edges == ()


def test_unknown_labels_take_no_part() -> None:
    rng = np.random.default_rng(13)
    rows = survey(2000, rng)
    truth = rows.truth.copy()
    truth[::2] = np.nan
    half = Rows(rows.inputs, rows.missing, rows.prediction, truth)
    fitted = fit_calibration(("teff",), np.array([5500.0]), half, half)
    known = np.isfinite(truth[:, 0])
    only = Rows(rows.inputs[known], rows.missing[known], rows.prediction[known], truth[known])
    again = fit_calibration(("teff",), np.array([5500.0]), only, only)
    assert fitted.labels[0].classes == again.labels[0].classes
    assert fitted.labels[0].without_features == again.labels[0].without_features
    assert np.isfinite([q for c in fitted.labels[0].classes for r in c.quantiles["95"] for q in r]).all()


def test_a_star_without_features_gets_the_spread_of_the_labels() -> None:
    rng = np.random.default_rng(14)
    rows = survey(5000, rng)
    fitted = fit_calibration(("teff",), np.array([5500.0]), rows, rows)
    assert fitted.labels[0].without_features["68"] == conformal_quantile(
        np.abs(rows.truth[:, 0] - 5500), 0.68
    )
