"""Figures of the test part: predicted against spectroscopic, errors, residual trends, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stellarml.core.histograms import Counts, FloatArray, band
from stellarml.core.names import G_MAG
from stellarml.report.accuracy import COLOUR, Label, Metrics
from stellarml.report.plot_style import (
    BAND,
    LINE,
    SERIES,
    axis_label,
    coarsen,
    count_bar,
    density,
    density_factor,
    new_figure,
    plain,
    styled,
    symbol,
    words,
)

MIN_ROWS_A_BAND = 12
MIN_ROWS_A_FRACTION = 20
_ROOM_FOR_LEGEND = 0.4  # of the height of the histogram, on the logarithmic scale
_END_BIN = 3  # bins wide, drawn where the axis ends for what lies beyond it


@styled
def one_to_one(metrics: Metrics) -> Figure:
    """Draw Figure 1: density of predicted against spectroscopic values, with the running median."""
    measured = _measured(metrics)
    figure = new_figure(4.1 * len(measured) + 0.8, 4.1)
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    factor, top = _shared_scale(metrics, [f"one_to_one/{label.name}" for label in measured])
    mesh = None
    for axes, label in zip(panels, measured, strict=True):
        counts = metrics.counts[f"one_to_one/{label.name}"]
        x, y = counts.histogram.axes
        mesh = density(axes, counts.n, x.edges, y.edges, factor=factor, vmax=top)
        limits = [float(x.edges[0]), float(x.edges[-1])]
        axes.plot(limits, limits, color="black", lw=1, ls="--", label="1:1")
        at, quantiles = _trend(metrics.counts[f"band/{label.name}/{label.name}"])
        axes.plot(at, at + quantiles[:, 1], color=BAND, lw=1.8, label="running median")
        axes.set_aspect("equal")
        axes.set_xlabel(axis_label(label.name, label.unit, "spectroscopic "))
        axes.set_ylabel(axis_label(label.name, label.unit, "predicted "))
        axes.text(
            *(0.97, 0.04, _numbers(metrics.test[label.name], label)),
            **{
                "transform": axes.transAxes,
                "ha": "right",
                "va": "bottom",
                "fontsize": 8.5,
                "linespacing": 1.35,
            },
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
        )
    panels[0].legend(loc="upper left")
    count_bar(figure, mesh, panels[-1], "stars per bin")
    return figure


@styled
def error_histogram(metrics: Metrics, published_std: Mapping[str, float]) -> Figure:
    """Draw Figure 2: the density of errors, stars per unit of the label over all test stars, on a logarithmic scale.

    Divided by the number of stars and the width of a bin, parts and runs of different size compare. The tails are kept:
    what lies beyond the axis is drawn as one hatched bin at either end, with its number of stars. Two Gaussians of unit
    area stand beside it: one as wide as the MAD, one with the paper's standard deviation (`published_std`, in the
    label's unit) where there is one.
    """
    measured = _measured(metrics)
    figure = new_figure(4.1 * len(measured) + 0.3, 3.9)
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    for axes, label in zip(panels, measured, strict=True):
        counts = metrics.counts[f"errors/{label.name}"]
        edges = counts.histogram.axes[0].edges[1:-1]
        centres, step = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
        one_star = 1 / (counts.rows * step)
        shares = counts.n * one_star
        axes.stairs(shares[1:-1], edges, fill=True, color=LINE, alpha=0.25)
        axes.stairs(shares[1:-1], edges, color=LINE, lw=1.2, label=f"{counts.rows:,} test stars")
        _draw_beyond(axes, counts, edges, one_star)
        median, mad = metrics.test[label.name]["median"], metrics.test[label.name]["mad"]
        if mad and median is not None:
            axes.plot(
                centres,
                _gaussian(centres, median, mad),
                color=BAND,
                lw=1.4,
                label=f"Gaussian, MAD {_short(mad)} {words(label.unit)}",
            )
        if label.name in published_std:
            width = published_std[label.name]
            axes.plot(
                centres,
                _gaussian(centres, 0.0, width),
                color="black",
                lw=1.1,
                ls="--",
                label=f"Gaussian, paper's $\\sigma$ {_short(width)} {words(label.unit)}",
            )
        axes.set_yscale("log")
        bottom, peak = 0.6 * one_star, float(shares.max())
        axes.set_ylim(bottom, peak * max((peak / bottom) ** _ROOM_FOR_LEGEND, 2.0))
        axes.set_xlim(float(edges[0]) - _END_BIN * step, float(edges[-1]) + _END_BIN * step)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"{symbol(label.name)}: predicted − spectroscopic [{words(label.unit)}]")
        axes.set_ylabel(f"share of test stars per {words(label.unit) or 'unit'}")
        axes.legend(loc="upper center", fontsize=8, ncols=1)
    return figure


def _draw_beyond(axes: Axes, counts: Counts, edges: FloatArray, one_star: float) -> None:
    """Draw what lies below and above the axis: a hatched bin at either end, as high as a bin with as many stars."""
    below, above = int(counts.n[0]), int(counts.n[-1])
    if not below + above:
        return
    step = edges[1] - edges[0]
    name = f"beyond the axis: {below:,} below, {above:,} above ({100 * (below + above) / counts.rows:.2g} %)"
    axes.bar(
        [edges[0] - _END_BIN * step, edges[-1]],
        [below * one_star, above * one_star],
        _END_BIN * step,
        align="edge",
        facecolor="white",
        edgecolor=LINE,
        hatch="////",
        lw=0.8,
        label=name,
    )


@styled
def residual_trends(metrics: Metrics) -> Figure:
    """Draw residuals against the label itself, the colour and the magnitude, with 16/50/84 % bands."""
    measured = _measured(metrics)
    columns = [by for by in ("", COLOUR, G_MAG) if not by or by in metrics.ranges]
    figure = new_figure(4.3 * len(columns), 2.75 * len(measured) + 0.2)
    grid = figure.subplots(len(measured), len(columns), squeeze=False)
    names = [f"density/{by or label.name}/{label.name}" for label in measured for by in columns]
    scale = _shared_scale(metrics, names)
    for row, label in zip(grid, measured, strict=True):
        meshes = [
            _residual_panel(axes, metrics, label, by or label.name, scale)
            for axes, by in zip(row, columns, strict=True)
        ]
        count_bar(figure, meshes[-1], row[-1], "stars per bin")
        row[0].set_ylabel(f"Δ {axis_label(label.name, label.unit)}")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _residual_panel(axes: Axes, metrics: Metrics, label: Label, by: str, scale: tuple[int, int]) -> Any:
    counts = metrics.counts[f"density/{by}/{label.name}"]
    x, y = counts.histogram.axes
    mesh = density(axes, counts.n, x.edges, y.edges, factor=scale[0], vmax=scale[1])
    at, quantiles = _trend(metrics.counts[f"band/{by}/{label.name}"])
    axes.axhline(0, color="black", lw=0.9)
    axes.plot(at, quantiles[:, 1], color=BAND, lw=1.8, label="median")
    axes.plot(at, quantiles[:, 0], color=BAND, lw=1.2, ls="--", label="16, 84 %")
    axes.plot(at, quantiles[:, 2], color=BAND, lw=1.2, ls="--")
    units = {known.name: known.unit for known in metrics.labels}
    axes.set_xlabel(axis_label(by, units.get(by), "spectroscopic " if by in units else ""))
    return mesh


@styled
def coverage(metrics: Metrics) -> Figure:
    """Draw the fraction of spectroscopic values inside the interval, by magnitude and by each label."""
    measured = _measured(metrics)
    names = [G_MAG, *(label.name for label in measured)]
    shown = [by for by in names if f"inside/{by}/{measured[0].name}" in metrics.counts]
    figure = new_figure(3.6 * len(shown) + 0.4, 3.6)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    units = {label.name: label.unit for label in metrics.labels}
    lowest = metrics.level / 100
    for axes, by in zip(panels, shown, strict=True):
        axes.axhline(metrics.level / 100, color="black", lw=1, ls="--", label=f"nominal {metrics.level:g} %")
        edges = metrics.counts[f"inside/{by}/{measured[0].name}"].histogram.axes[0].edges
        for i, label in enumerate(measured):
            inside = metrics.counts[f"inside/{by}/{label.name}"]
            enough = inside.n >= MIN_ROWS_A_FRACTION
            n = np.where(enough, inside.n, 1)
            fraction = np.where(enough, inside.total / n, np.nan)
            # A fraction of exactly 0 or 1 is not known without error: Laplace's estimate for the bar.
            guess = (np.where(enough, inside.total, 0) + 1) / (n + 2)
            error = np.sqrt(guess * (1 - guess) / n)
            # The same bin is shown once a label: set the points apart, or their error bars hide each other.
            place = np.arange(len(n)) + (i - (len(measured) - 1) / 2) * 0.16
            axes.errorbar(
                place,
                fraction,
                error,
                color=SERIES[i % len(SERIES)],
                fmt="o-",
                ms=4,
                lw=1.2,
                label=symbol(label.name),
            )
            lowest = min(lowest, float(np.nanmin(fraction - error, initial=1.0)))
        axes.set_xlim(-0.5, len(edges) - 1.5)
        axes.set_xticks(np.arange(len(edges)) - 0.5, [plain(edge) for edge in edges], fontsize=8)
        axes.tick_params(axis="x", which="minor", bottom=False, top=False)
        axes.set_xlabel(axis_label(by, units.get(by), "spectroscopic " if by in units else ""))
    panels[0].set_ylabel("spectroscopic values inside the interval")
    panels[0].set_ylim(max(0.0, np.floor(lowest * 10) / 10 - 0.05), 1.0)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[0].legend(loc="upper left", ncols=2, fontsize=8)
    return figure


def _measured(metrics: Metrics) -> list[Label]:
    return [label for label in metrics.labels if label.name in metrics.scales]


def _shared_scale(metrics: Metrics, names: Sequence[str]) -> tuple[int, int]:
    """Return how many bins to join in these panels, and the highest count they then hold."""
    tables = [metrics.counts[name].n for name in names]
    factor = density_factor(max(int(table.sum()) for table in tables))
    return factor, max(int(coarsen(table, factor).max(initial=2)) for table in tables)


def _trend(counts: Counts) -> tuple[FloatArray, FloatArray]:
    """Return bin centres and 16/50/84 % quantiles, NaN in bins that hold too few stars to have any."""
    rows, size = counts.rows, counts.n.shape[0]
    joined = 1 if rows >= 8000 else 2 if rows >= 2000 else 4
    n = counts.n.reshape(size // joined, joined, -1).sum(axis=1)
    x, y = counts.histogram.axes
    quantiles = band(n, y.edges)
    quantiles[n.sum(axis=1) < MIN_ROWS_A_BAND] = np.nan
    return x.centres.reshape(-1, joined).mean(axis=1), quantiles


def _gaussian(x: np.ndarray[Any, Any], centre: float, width: float) -> np.ndarray[Any, Any]:
    height = 1 / (width * np.sqrt(2 * np.pi))
    return np.asarray(height * np.exp(-0.5 * ((x - centre) / width) ** 2))


def _numbers(summary: Mapping[str, float | int | None], label: Label) -> str:
    parts = [f"{name} {_short(summary[name])} {words(label.unit)}" for name in ("median", "std", "mad")]
    return "\n".join([*parts, f"n {summary['n']:,}"]).replace("mad", "MAD").replace("-", "−")


def _short(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.3g}"
