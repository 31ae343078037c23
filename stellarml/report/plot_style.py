"""What all figures share: size, fonts, colours, the names of quantities, and how one becomes PNG bytes.

Figures are Matplotlib `Figure` objects drawn by Agg, never pyplot's: no global state, no display, and the same
bytes for the same counts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator

from stellarml.core.histograms import FloatArray, IntArray
from stellarml.core.names import G_MAG
from stellarml.core.visible_text import visible

P = ParamSpec("P")

DPI = 150
DENSITY_MAP = "viridis"
LINE, BAND, WARN, QUIET = "#0b5fa5", "#d1495b", "#c8553d", "#6b7280"
SERIES = ("#0b5fa5", "#d1495b", "#2a9d5c", "#8a5fbf", "#c98a00", "#4b5563")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "white",
}
_SYMBOLS = {
    "teff": r"$T_\mathrm{eff}$",
    "logg": r"$\log\,g$",
    "feh": "[Fe/H]",
    "bp_rp": r"$G_\mathrm{BP}-G_\mathrm{RP}$",
    G_MAG: r"$G$",
}
_LONGEST = 48  # characters of a name: a longer one would leave no room for the figure
_UNITS = {"bp_rp": "mag", G_MAG: "mag"}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the house style, whatever the caller's Matplotlib settings are; they are put back."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure whose layout leaves room for every label."""
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07)
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Return `figure` as PNG; the same figure gives the same bytes."""
    target = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return target.getvalue()


def symbol(name: str) -> str:
    """Return how a quantity is written in a figure; a name that is not known is shown as it is."""
    return _SYMBOLS.get(name) or words(name)


def words(text: str) -> str:
    """Return a name or unit of somebody's choice as a figure shows it: no formula, nothing that cannot be printed."""
    shown = visible(text)
    return (shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…").replace("$", r"\$")


def axis_label(name: str, unit: str | None = None, prefix: str = "") -> str:
    """Return symbol and unit, ``T_eff [K]``."""
    unit = _UNITS.get(name, "") if unit is None else unit
    return f"{prefix}{symbol(name)}" + (f" [{words(unit)}]" if unit else "")


def density(
    axes: Axes, counts: IntArray, x_edges: FloatArray, y_edges: FloatArray, *, factor: int = 1, vmax: int = 0
) -> Any:
    """Draw counts of shape ``(n_x, n_y)`` on a logarithmic colour scale, white where there is no row.

    `factor` x `factor` bins are joined first; `vmax` (after joining) ties the colours of several panels together.
    """
    counts = coarsen(counts, factor)
    x_edges, y_edges = x_edges[::factor][: counts.shape[0] + 1], y_edges[::factor][: counts.shape[1] + 1]
    top = max(vmax or int(counts.max(initial=0)), 2)
    shown = np.ma.masked_less(counts.T, 1)
    mesh = axes.pcolormesh(
        x_edges, y_edges, shown, norm=LogNorm(1, top), cmap=DENSITY_MAP, rasterized=True, linewidth=0
    )
    axes.set_xlim(float(x_edges[0]), float(x_edges[-1]))
    axes.set_ylim(float(y_edges[0]), float(y_edges[-1]))
    return mesh


def count_bar(figure: Figure, mesh: Any, axes: Axes, label: str) -> None:
    """Set a colour bar of counts, as high as its panel, beside `axes`."""
    bar = figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0, 0.045, 1)), label=label)
    bar.locator = LogLocator(subs=(1, 2, 5) if mesh.norm.vmax < 500 * mesh.norm.vmin else (1,))
    bar.formatter = FuncFormatter(plain)
    bar.minorticks_off()
    bar.update_ticks()


def plain(value: float, _position: int | None = None) -> str:
    """Return a tick's number without powers of ten: 20000 as ``20,000``, 0.05 as ``0.05``."""
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"
    return text.replace("-", "−")


def density_factor(rows: int, wanted_rows: Sequence[int] = (40_000, 8_000)) -> int:
    """Return how many bins to join along each axis: 1, 2 or 4, so that few stars do not end as dust."""
    return 1 if rows >= wanted_rows[0] else 2 if rows >= wanted_rows[1] else 4


def occupied_limits(
    counts: IntArray, edges: FloatArray, axis: int, keep: float = 0.9995
) -> tuple[float, float]:
    """Return the range of `edges` that holds the central `keep` of the rows, with a margin of 4 %."""
    along = counts.sum(axis=1 - axis)
    if along.sum() == 0:
        return float(edges[0]), float(edges[-1])
    upto = np.cumsum(along) / along.sum()
    first = int(np.searchsorted(upto, (1 - keep) / 2, side="right"))
    last = int(np.searchsorted(upto, 1 - (1 - keep) / 2, side="left"))
    lo, hi = float(edges[first]), float(edges[min(last + 1, len(edges) - 1)])
    margin = 0.04 * (hi - lo)
    return lo - margin, hi + margin


def coarsen(counts: FloatArray | IntArray, factor: int) -> Any:
    """Sum blocks of ``factor x factor`` bins; the last rows and columns that fill no block are left out."""
    n_x, n_y = (size // factor for size in counts.shape)
    return counts[: n_x * factor, : n_y * factor].reshape(n_x, factor, n_y, factor).sum(axis=(1, 3))
