"""Figures of how the catalogue was made: training curves and the cut-flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from stellarml.report.plot_style import BAND, LINE, QUIET, new_figure, plain, styled, symbol, words


@styled
def training_curves(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training and validation loss of every network by epoch; a new phase starts a new scale.

    Parameters
    ----------
    curves
        One mapping a network: label, unit, epochs, loss, val_loss, phase (a name an epoch).
    """
    phases = _phases(curves)
    figure = new_figure(4.2 * max(len(curves), 1), 2.9 * len(phases) + 0.2)
    grid = figure.subplots(len(phases), len(curves), squeeze=False)
    for row, phase in zip(grid, phases, strict=True):
        for axes, curve in zip(row, curves, strict=True):
            _curve_panel(axes, curve, phase)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    named: dict[str, Any] = {}
    for axes in grid.flat:
        named |= {str(label): handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=len(named))
    return figure


def _phases(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    order = [str(key) for curve in curves for key, _ in groupby(curve.get("phase") or [""])]
    return list(dict.fromkeys(order)) or [""]


def _curve_panel(axes: Axes, curve: Mapping[str, Any], phase: str) -> None:
    epochs = np.asarray(curve["epochs"], dtype=np.float64)
    names = [str(name) for name in curve.get("phase") or [""] * len(epochs)]
    mine = np.array([name == phase for name in names], dtype=bool)
    shown: list[Any] = []
    for key, colour, label in (("loss", LINE, "training"), ("val_loss", BAND, "validation")):
        values = np.array([np.nan if v is None else v for v in curve.get(key) or []], dtype=np.float64)
        if len(values) == len(epochs) and np.isfinite(values[mine]).any():
            axes.plot(epochs[mine], values[mine], color=colour, lw=1.3, label=label)
            shown.append(values[mine])
            if key == "val_loss":
                best = int(np.nanargmin(values[mine]))
                style: Any = {"ms": 6, "mfc": "white", "mec": colour, "ls": "none"}
                style["label"] = "lowest validation loss"
                axes.plot(epochs[mine][best], values[mine][best], "o", **style)
    if not shown:
        axes.text(0.5, 0.5, "no epoch in this phase", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    lowest, highest = float(np.nanmin(shown)), float(np.nanmax(shown))
    if lowest > 0 and highest > 4 * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(", ".join(symbol(name) for name in str(curve["label"]).split(", ")))
    axes.set_ylabel(f"loss ({words(phase)})" if phase else "loss")


@styled
def cut_flow(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the rows left after each cut, one panel a survey.

    Parameters
    ----------
    rows
        Mappings with survey, cut and rows_left, in order; the first row of a survey counts all its rows.
    """
    surveys = [(str(name), list(steps)) for name, steps in groupby(rows, key=lambda row: str(row["survey"]))]
    heights = [len(steps) for _, steps in surveys]
    figure = new_figure(9.2, 0.27 * sum(heights) + 0.95 * len(surveys) + 0.2)
    panels = figure.subplots(len(surveys), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (survey, steps) in zip(panels, surveys, strict=True):
        left = np.array([int(step["rows_left"] or 0) for step in steps])
        before = np.concatenate([left[:1], left[:-1]])
        at = np.arange(len(steps))
        axes.barh(at, left, color=LINE, alpha=0.75, height=0.72, label="left")
        axes.barh(at, before - left, left=left, color=BAND, alpha=0.55, height=0.72, label="removed here")
        whole = max(int(left.max(initial=1)), 1)
        for y, value in zip(at, left, strict=True):
            axes.text(whole * 1.012, y, f"{value:,}  ({value / whole:.1%})", va="center", fontsize=8)
        axes.set_yticks(at, [words(str(step["cut"])) for step in steps])
        axes.tick_params(axis="y", which="both", length=0, right=False)
        axes.minorticks_off()
        axes.invert_yaxis()
        axes.set_xlim(0, whole * 1.24)
        ticks = [tick for tick in MaxNLocator(5).tick_values(0, whole) if tick <= whole]
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.spines["bottom"].set_bounds(0, whole)
        axes.set_title(words(survey), loc="left", fontweight="bold", fontsize=10)
        axes.spines[["right", "top"]].set_visible(False)
        axes.tick_params(axis="x", top=False)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    panels[-1].set_xlabel("rows")
    return figure
