"""Figures of the whole catalogue: Kiel diagram, colour-magnitude diagram, separations."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stellarml.core.histograms import Counts, quantiles
from stellarml.report.plot_style import (
    BAND,
    LINE,
    QUIET,
    axis_label,
    coarsen,
    count_bar,
    density,
    density_factor,
    new_figure,
    occupied_limits,
    styled,
)

METALLICITY_MAP = "plasma"
MIN_STARS_A_CELL = 3


@styled
def kiel(counts: Counts) -> Figure:
    """Draw log g against Teff, axes inverted: stars per bin, and where there is a value its mean."""
    has_value = counts.histogram.value is not None
    figure = new_figure(11.4 if has_value else 5.8, 4.9)
    panels = figure.subplots(1, 2 if has_value else 1, squeeze=False)[0]
    x, y = (axis.edges for axis in counts.histogram.axes)
    factor = density_factor(counts.rows)
    count_bar(figure, density(panels[0], counts.n, x, y, factor=factor), panels[0], "stars per bin")
    if has_value:
        factor = 4 if factor == 4 else 2
        n, total = coarsen(counts.n, factor), coarsen(counts.total, factor)
        mean = np.ma.masked_where(n < MIN_STARS_A_CELL, total / np.maximum(n, 1))
        shown = mean.compressed()
        lo, hi = np.percentile(shown, [2, 98]) if len(shown) else (-2.0, 0.5)
        mesh = panels[1].pcolormesh(
            x[::factor][: n.shape[0] + 1],
            y[::factor][: n.shape[1] + 1],
            mean.T,
            cmap=METALLICITY_MAP,
            vmin=lo,
            vmax=hi,
            rasterized=True,
        )
        beside = panels[1].inset_axes((1.03, 0, 0.045, 1))
        figure.colorbar(mesh, cax=beside, label=axis_label("feh", "dex", "mean "), extend="both")
    for axes in panels:
        axes.set_xlim(*reversed(occupied_limits(counts.n, x, 0)))
        axes.set_ylim(*reversed(occupied_limits(counts.n, y, 1)))
        axes.set_xlabel(axis_label("teff", "K"))
        axes.set_ylabel(axis_label("logg", "dex"))
    return figure


@styled
def colour_magnitude(counts: Counts) -> Figure:
    """Draw absolute G against BP - RP, faint stars below."""
    figure = new_figure(5.8, 5.6)
    axes = figure.subplots()
    x, y = (axis.edges for axis in counts.histogram.axes)
    mesh = density(axes, counts.n, x, y, factor=density_factor(counts.rows))
    count_bar(figure, mesh, axes, "stars per bin")
    axes.set_xlim(*occupied_limits(counts.n, x, 0))
    axes.set_ylim(*reversed(occupied_limits(counts.n, y, 1)))
    axes.set_xlabel(axis_label("bp_rp"))
    axes.set_ylabel(r"$M_G = G - 5\,\log_{10}(r_\mathrm{med,geo}/10\,\mathrm{pc})$ [mag]")
    return figure


@styled
def separations(separation: Counts, offsets: Counts | None) -> Figure:
    """Draw the histogram of separations, and the offsets on the sky where they are known."""
    figure = new_figure(10.2 if offsets is not None else 5.8, 4.2)
    panels = figure.subplots(1, 2 if offsets is not None else 1, squeeze=False)[0]
    _separation_panel(panels[0], separation)
    if offsets is not None:
        x, y = (axis.edges for axis in offsets.histogram.axes)
        count_bar(figure, density(panels[1], offsets.n, x, y), panels[1], "pairs per bin")
        reach = max(
            abs(v) for axis, e in ((0, x), (1, y)) for v in occupied_limits(offsets.n, e, axis, 0.999)
        )
        panels[1].set_xlim(reach, -reach)
        panels[1].set_ylim(-reach, reach)
        panels[1].set_aspect("equal")
        panels[1].axhline(0, color=QUIET, lw=0.7)
        panels[1].axvline(0, color=QUIET, lw=0.7)
        panels[1].set_xlabel(r"$\Delta\alpha\cos\delta$ [mas]")
        panels[1].set_ylabel(r"$\Delta\delta$ [mas]")
    return figure


def _separation_panel(axes: Axes, separation: Counts) -> None:
    edges = separation.histogram.axes[0].edges
    median, ninety, nearly_all = quantiles(separation.n, edges, [0.5, 0.9, 0.9995])
    last = int(np.clip(np.searchsorted(edges, nearly_all * 1.15), 20, len(edges) - 1))
    per_bar = max(last // 80, 1)
    bars = last // per_bar
    n = separation.n[: bars * per_bar].reshape(bars, per_bar).sum(axis=1)
    at = edges[: bars * per_bar + 1 : per_bar]
    axes.stairs(n, at, fill=True, color=LINE, alpha=0.25)
    axes.stairs(n, at, color=LINE, lw=1.2)
    axes.axvline(median, color=BAND, lw=1.3, label=f"median {median:.3f}″")
    axes.axvline(ninety, color=BAND, lw=1.3, ls="--", label=f"90 % below {ninety:.3f}″")
    axes.set_yscale("log")
    axes.set_ylim(0.6, max(float(n.max(initial=1)) * 3, 10))
    axes.set_xlim(0, float(at[-1]))
    axes.set_xlabel("angular separation [arcsec]")
    axes.set_ylabel("pairs per bin")
    axes.legend(loc="upper right")
