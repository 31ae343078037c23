"""Counts in bins against the rows themselves: NumPy is the oracle."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellarml.core.histograms import (
    MAD_TO_SIGMA,
    Axis,
    Histogram,
    add,
    asinh_axis,
    band,
    empty,
    fill,
    integer_axis,
    linear_axis,
    log_axis,
    mean_and_std,
    median_and_mad,
    quantiles,
)
from stellarml.report import spark_histograms as binning


def numpy_mad(values: np.ndarray) -> float:
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def residual_axis(values: np.ndarray) -> Axis:
    lo, centre, hi = np.quantile(values, [0.25, 0.5, 0.75])
    return asinh_axis("x", centre, (hi - lo) / 1.349)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(30, 1000),
    bias=st.floats(-100, 100),
    width=st.floats(1e-3, 1e3),
    outlier=st.sampled_from([0.0, 1e2, -5e3]),
)
@settings(max_examples=40, deadline=None)
def test_median_and_mad_agree_with_the_rows(
    seed: int, n: int, bias: float, width: float, outlier: float
) -> None:
    rng = np.random.default_rng(seed)
    values = width * (bias + rng.standard_t(3, n))
    values[0] += outlier * width
    counts = fill(Histogram("h", (residual_axis(values),), value="x"), {"x": values})

    median, mad = median_and_mad(counts.n, counts.histogram.axes[0].edges)
    mean, std = mean_and_std(counts.rows, counts.total.sum(), counts.squares.sum())

    assert counts.rows == n
    assert mad == pytest.approx(numpy_mad(values), rel=0.005)
    assert median == pytest.approx(np.median(values), abs=0.003 * numpy_mad(values))
    assert mean == pytest.approx(values.mean(), abs=1e-9 * width)
    assert std == pytest.approx(values.std(), rel=1e-9)


def test_mad_error_stays_below_a_third_of_a_percent_in_a_large_sample() -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_t(3, 20_000) * 60 - 7
    n = fill(Histogram("h", (residual_axis(values),)), {"x": values}).n
    median, mad = median_and_mad(n, residual_axis(values).edges)
    assert mad == pytest.approx(numpy_mad(values), rel=3e-3)
    assert median == pytest.approx(np.median(values), abs=0.003 * numpy_mad(values))


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [1.0, 2.0, 10.0], [0.0, 0.0, 5.0, 5.0]])
def test_quantiles_of_few_rows_interpolate_between_order_statistics(values: list[float]) -> None:
    axis = linear_axis("x", 0, 11, 11_000)
    n = fill(Histogram("h", (axis,)), {"x": np.array(values)}).n
    expected = np.quantile(values, [0.0, 0.25, 0.5, 0.9, 1.0])
    assert quantiles(n, axis.edges, [0.0, 0.25, 0.5, 0.9, 1.0]) == pytest.approx(expected, abs=1e-3)


def test_the_rows_of_a_bin_lie_evenly_over_it() -> None:
    assert quantiles(np.array([16]), np.array([0.0, 1.0]), [0.0, 0.5, 1.0]) == pytest.approx(
        [1 / 32, 0.5, 31 / 32]
    )
    assert quantiles(np.array([0, 1, 0]), np.array([0.0, 1.0, 3.0, 4.0]), [0.5]) == [2.0]
    many = quantiles(np.array([10**9]), np.array([0.0, 1.0]), [0.25])
    assert many == pytest.approx([0.25], abs=1 / 16)


def test_nothing_has_no_median() -> None:
    axis = linear_axis("x", 0, 1, 10)
    n = empty(Histogram("h", (axis,))).n
    assert np.isnan(quantiles(n, axis.edges, [0.5])[0])
    assert np.isnan(median_and_mad(n, axis.edges)).all()
    assert np.isnan(mean_and_std(0, 0.0, 0.0)).all()


def test_fill_agrees_with_numpy_in_two_dimensions_and_keeps_sums() -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(0, 1, 5000), "b": rng.normal(0, 1, 5000), "v": rng.normal(3, 1, 5000)}
    columns["a"][:50] = np.nan
    axes = (linear_axis("a", -2, 2, 13), linear_axis("b", -1, 3, 7))
    counts = fill(Histogram("h", axes, value="v"), columns)
    seen = ~np.isnan(columns["a"])
    a, b, v = (columns[name][seen] for name in "abv")
    edges = [axis.edges for axis in axes]
    assert np.array_equal(counts.n, np.histogram2d(a, b, edges)[0])
    assert np.allclose(counts.total, np.histogram2d(a, b, edges, weights=v)[0])
    assert np.allclose(counts.squares, np.histogram2d(a, b, edges, weights=v * v)[0])


def test_bins_are_half_open_and_infinite_edges_take_the_rest() -> None:
    axis = Axis("x", np.array([-np.inf, 0.0, 1.0, np.inf]))
    assert axis.index(np.array([-1e300, 0.0, 0.999, 1.0, 1e300, np.nan])).tolist() == [0, 1, 1, 2, 2, -1]
    closed = linear_axis("x", 0, 1, 2)
    assert closed.index(np.array([-0.1, 0.0, 0.5, 1.0, 1.1])).tolist() == [-1, 0, 1, -1, -1]
    assert integer_axis("x", 3).index(np.array([0.0, 2.0, 3.0])).tolist() == [0, 2, -1]


def test_a_row_without_the_value_is_not_counted() -> None:
    columns = {"x": np.array([0.5, 0.5, 0.5]), "v": np.array([1.0, np.nan, np.inf])}
    counts = fill(Histogram("h", (linear_axis("x", 0, 1, 1),), value="v"), columns)
    assert (counts.rows, counts.total[0]) == (1, 1.0)


def test_band_gives_quantiles_of_every_column_of_bins() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 3, 9000), rng.normal(0, 1, 9000)
    axes = (linear_axis("x", 0, 3, 3), linear_axis("y", -6, 6, 1200))
    counts = fill(Histogram("h", axes), {"x": x, "y": y + x})
    for i, got in enumerate(band(counts.n, axes[1].edges)):
        mine = (y + x)[(x >= i) & (x < i + 1)]
        assert got == pytest.approx(np.quantile(mine, [0.16, 0.5, 0.84]), abs=0.01)


@pytest.mark.parametrize("buffer", [1, 700, 10**6])
def test_batches_of_a_task_add_up_whatever_their_size(buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binning, "BUFFER_ROWS", buffer)
    rng = np.random.default_rng(2)
    columns = {"x": rng.normal(5, 2, 2000), "v": rng.normal(0, 1, 2000)}
    columns["x"][::7] = np.nan
    histograms = [
        Histogram("one", (log_axis("x", 0.1, 20, 30),)),
        Histogram("two", (linear_axis("x", 0, 10, 5), linear_axis("v", -2, 2, 4)), value="v"),
    ]
    whole = pa.RecordBatch.from_pydict({name: pa.array(a, from_pandas=True) for name, a in columns.items()})
    batches = [whole.slice(start, 333) for start in range(0, 2000, 333)]
    (bins,) = binning.occupied_bins(iter(batches), histograms)
    assembled = binning._assemble(pa.Table.from_batches([bins]), histograms)
    for histogram in histograms:
        expected = fill(histogram, columns)
        assert np.array_equal(assembled[histogram.name].n, expected.n)
        assert np.allclose(assembled[histogram.name].total, expected.total)
        assert np.allclose(assembled[histogram.name].squares, expected.squares)
    assert min(bins["n"].to_pylist()) > 0


def test_an_empty_task_yields_no_bin() -> None:
    (bins,) = binning.occupied_bins(iter([]), [Histogram("h", (linear_axis("x", 0, 1, 4),))])
    assert bins.num_rows == 0


def test_add_sums_every_part() -> None:
    histogram = Histogram("h", (linear_axis("x", 0, 4, 4),), value="x")
    left, right = (fill(histogram, {"x": np.array(values)}) for values in ([0.5, 1.5], [1.5, 3.5]))
    both = fill(histogram, {"x": np.array([0.5, 1.5, 1.5, 3.5])})
    summed = add(left, right)
    assert summed.n.tolist() == both.n.tolist() == [1, 2, 0, 1]
    assert summed.total.tolist() == both.total.tolist()
    assert summed.squares.tolist() == both.squares.tolist()
