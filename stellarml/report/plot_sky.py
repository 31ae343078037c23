"""Figures on the sky: HEALPix maps, Mollweide for a wide catalogue, zoomed for a patch or a few small fields.

Drawn from pixel borders (zoomed) or looked up in the map (Mollweide); healpy's own plotting goes through pyplot and
prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import healpy
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator

from stellarml.core.histograms import FloatArray, IntArray
from stellarml.report.accuracy import Label
from stellarml.report.catalogue_counts import SkyMap
from stellarml.report.plot_style import DENSITY_MAP, axis_label, new_figure, plain, styled

PATCH_RADIUS_DEG = 35.0
FIELD_RADIUS_DEG = 8.0
MAX_FIELDS = 6
MEDIAN_MAP = "plasma"
_COARSE_ORDER = 4
_POLAR_DEC_DEG = 70.0
_GRID = (1200, 600)


@dataclass(frozen=True)
class _Panel:
    """One map: a value a pixel, its colour scale and the name of that scale."""

    values: FloatArray
    norm: Normalize
    cmap: str
    title: str


@styled
def sky_maps(sky: SkyMap, labels: Sequence[Label]) -> Figure:
    """Draw star counts per square degree, and the median of each label, by HEALPix pixel."""
    panels = _panels(sky, labels)
    fields = separate_fields(sky)
    if 1 < len(fields) <= MAX_FIELDS and all(_extent(_part(sky, f))[1] < FIELD_RADIUS_DEG for f in fields):
        return _field_maps(sky, panels, fields)
    centre, radius = _extent(sky)
    zoomed = radius < PATCH_RADIUS_DEG
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.6 * columns, (4.7 if zoomed else 3.5) * rows)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        drawn = _patch(axes, sky, panel, centre) if zoomed else _mollweide(axes, sky, panel)
        extend = "neither" if isinstance(panel.norm, LogNorm) else "both"
        if zoomed:
            beside = axes.inset_axes((1.03, 0, 0.045, 1))
            bar = figure.colorbar(drawn, cax=beside, label=panel.title, extend=extend)
        else:
            below: Any = {"location": "bottom", "shrink": 0.66, "aspect": 28, "pad": 0.02}
            bar = figure.colorbar(drawn, ax=axes, label=panel.title, extend=extend, **below)
        _settle(bar, panel)
    return figure


def separate_fields(sky: SkyMap) -> list[IntArray]:
    """Return the groups of occupied pixels that touch on a coarse grid: indices into `sky.pixels`, largest first."""
    shift = 2 * max(sky.order - _COARSE_ORDER, 0)
    order = min(sky.order, _COARSE_ORDER)
    coarse = sky.pixels >> shift
    left, groups = set(coarse.tolist()), []
    while left:
        group, edge = set(), {left.pop()}
        while edge:
            group |= edge
            around = healpy.get_all_neighbours(2**order, np.array(sorted(edge)), nest=True)
            edge = set(around.ravel().tolist()) & left
            left -= edge
        groups.append(np.flatnonzero(np.isin(coarse, list(group))))
    return sorted(groups, key=lambda group: (-int(sky.stars[group].sum()), int(group[0])))


def _part(sky: SkyMap, rows: IntArray) -> SkyMap:
    return SkyMap(sky.order, sky.pixels[rows], sky.stars[rows], {k: v[rows] for k, v in sky.medians.items()})


def _field_maps(sky: SkyMap, panels: Sequence[_Panel], fields: Sequence[IntArray]) -> Figure:
    """Draw a catalogue of a few small fields: a row a map, a column a field, one colour scale a row."""
    figure = new_figure(2.9 * len(fields) + 0.9, 2.9 * len(panels))
    grid = figure.subplots(len(panels), len(fields), squeeze=False)
    for row, panel in enumerate(panels):
        for column, rows in enumerate(fields):
            axes, part = grid[row, column], _part(sky, rows)
            centre, _ = _extent(part)
            drawn = _patch(axes, part, replace(panel, values=panel.values[rows]), centre)
            axes.locator_params(nbins=4)
            if row == 0:
                axes.set_title(f"RA {centre[0]:.1f}°, Dec {centre[1]:.1f}°".replace("-", "−"), fontsize=9)
            if row < len(panels) - 1:
                axes.set_xlabel("")
            if column and abs(centre[1]) <= _POLAR_DEC_DEG:
                axes.set_ylabel("")
        extend = "neither" if isinstance(panel.norm, LogNorm) else "both"
        _settle(
            figure.colorbar(drawn, ax=list(grid[row]), label=panel.title, extend=extend, pad=0.015), panel
        )
    return figure


def _settle(bar: Any, panel: _Panel) -> None:
    if isinstance(panel.norm, LogNorm):
        bar.locator = LogLocator(subs=(1, 2, 5))
        bar.minorticks_off()
    bar.formatter = FuncFormatter(plain)
    bar.update_ticks()


def _panels(sky: SkyMap, labels: Sequence[Label]) -> list[_Panel]:
    area_deg2 = healpy.nside2pixarea(2**sky.order, degrees=True)
    surface = sky.stars / area_deg2
    faint, bright = np.percentile(surface, [2, 100])
    norm = LogNorm(float(faint), max(float(bright), float(faint) * 1.01))
    panels = [_Panel(surface, norm, DENSITY_MAP, "stars per square degree")]
    # Pixels that the catalogue's border cuts hold few stars: their medians would set the colour scale.
    enough = float(np.clip(0.2 * np.median(sky.stars), 1, 10))
    for label in labels:
        values = sky.medians.get(label.name)
        if values is None or not np.isfinite(values).any():
            continue
        values = np.where(sky.stars >= enough, values, np.nan)
        lo, hi = np.nanpercentile(values, [2, 98])
        scale = Normalize(float(lo), float(hi) if hi > lo else float(lo) + 1)
        panels.append(_Panel(values, scale, MEDIAN_MAP, axis_label(label.name, label.unit, "median ")))
    return panels


def _extent(sky: SkyMap) -> tuple[tuple[float, float], float]:
    """Return the middle (RA, Dec) of the occupied pixels and the radius that holds 99 % of them, in degrees."""
    x, y, z = healpy.pix2vec(2**sky.order, sky.pixels, nest=True)
    middle = np.array([x.mean(), y.mean(), z.mean()])
    length = float(np.linalg.norm(middle))
    if length < 1e-6:
        return (0.0, 0.0), 180.0
    middle /= length
    away = np.degrees(np.arccos(np.clip(x * middle[0] + y * middle[1] + z * middle[2], -1, 1)))
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])) % 360, np.degrees(np.arcsin(middle[2]))
    return (float(ra), float(dec)), float(np.percentile(away, 99))


def _patch(axes: Axes, sky: SkyMap, panel: _Panel, centre: tuple[float, float]) -> Any:
    """Draw pixel borders: RA and Dec as they are, or offsets from the centre near a pole."""
    corners = healpy.boundaries(2**sky.order, sky.pixels, step=1, nest=True).reshape(len(sky.pixels), 3, 4)
    if abs(centre[1]) > _POLAR_DEC_DEG:
        x, y = _offsets_deg(corners, centre)
        axes.set_xlabel(f"east of RA {centre[0]:.2f}° [deg]")
        axes.set_ylabel(f"north of Dec {centre[1]:.2f}° [deg]")
        aspect = 1.0
    else:
        ra = np.degrees(np.arctan2(corners[:, 1], corners[:, 0]))
        x = centre[0] + (ra - centre[0] + 180) % 360 - 180
        y = np.degrees(np.arcsin(np.clip(corners[:, 2], -1, 1)))
        axes.set_xlabel("right ascension [deg]")
        axes.set_ylabel("declination [deg]")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
        aspect = 1 / float(np.cos(np.radians(centre[1])))
    known = np.isfinite(panel.values)
    polygons = PolyCollection(
        list(np.stack([x, y], axis=-1)[known]),
        array=panel.values[known],
        norm=panel.norm,
        cmap=panel.cmap,
        edgecolors="face",
        linewidths=0.3,
    )
    axes.add_collection(polygons)
    margin_x, margin_y = 0.03 * np.ptp(x), 0.03 * np.ptp(y)
    axes.set_xlim(x.max() + margin_x, x.min() - margin_x)
    axes.set_ylim(y.min() - margin_y, y.max() + margin_y)
    axes.set_aspect(aspect)
    return polygons


def _offsets_deg(corners: FloatArray, centre: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Return gnomonic offsets (east, north) in degrees of unit vectors of shape ``(n, 3, 4)``."""
    ra, dec = np.radians(centre)
    middle = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.cross(middle, east)
    depth = np.einsum("i,nij->nj", middle, corners)
    return (
        np.degrees(np.einsum("i,nij->nj", east, corners) / depth),
        np.degrees(np.einsum("i,nij->nj", north, corners) / depth),
    )


def _mollweide(axes: Axes, sky: SkyMap, panel: _Panel) -> Any:
    """Draw the whole sky in ICRS, RA = 0 in the middle and increasing to the left.

    The picture is looked up pixel by pixel through the inverse projection: a mesh of curved cells takes seven times
    as long and shows moire near the poles.
    """
    full = np.full(12 * 4**sky.order + 1, np.nan)
    full[sky.pixels] = panel.values
    image = axes.imshow(
        np.ma.masked_invalid(full[_lookup(sky.order)]),
        extent=(-2, 2, -1, 1),
        origin="lower",
        norm=panel.norm,
        cmap=panel.cmap,
        interpolation="nearest",
    )
    _graticule(axes)
    return image


@lru_cache(maxsize=1)
def _lookup(order: int) -> IntArray:
    """Return the HEALPix pixel under each pixel of the picture, one past the last outside the ellipse."""
    columns, rows = _GRID
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns * 4 - 2, (np.arange(rows) + 0.5) / rows * 2 - 1)
    theta = np.arcsin(y)
    longitude = np.pi * x / (2 * np.cos(theta))
    dec = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
    inside = np.abs(longitude) <= np.pi
    pixels = np.full(x.shape, 12 * 4**order, dtype=np.int64)
    pixels[inside] = healpy.ang2pix(2**order, np.pi / 2 - dec[inside], -longitude[inside], nest=True)
    return pixels


def _graticule(axes: Axes) -> None:
    axes.add_patch(Ellipse((0, 0), 4, 2, fill=False, lw=0.9, ec="black"))
    halo = [withStroke(linewidth=2.5, foreground="white")]
    grid: Any = {"color": "#6b7280", "lw": 0.4, "alpha": 0.7}
    fine = np.radians(np.linspace(-90, 90, 181))
    for ra_deg in range(-120, 121, 60):
        axes.plot(*_project(np.full_like(fine, np.radians(-ra_deg)), fine), **grid)
        (x,), (y,) = _project(np.radians([-ra_deg]), np.radians([1.5]))
        axes.text(x, y, f"{ra_deg % 360}°", ha="center", va="bottom", fontsize=8, path_effects=halo)
    for dec_deg in range(-60, 61, 30):
        x, y = _project(np.array([-np.pi, np.pi]), np.radians([dec_deg, dec_deg]))
        axes.plot(x, y, **grid)
        axes.text(x[0] - 0.05, y[0], f"{dec_deg}°".replace("-", "−"), ha="right", va="center", fontsize=8)
    axes.set_xlim(-2.28, 2.02)
    axes.set_ylim(-1.02, 1.02)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _project(longitude: FloatArray, dec: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Mollweide x in [-2, 2] and y in [-1, 1] of radians, by Newton's method on the auxiliary angle."""
    theta = np.clip(dec, -1.57, 1.57)
    for _ in range(30):
        slope = np.maximum(2 + 2 * np.cos(2 * theta), 1e-9)
        theta = theta - (2 * theta + np.sin(2 * theta) - np.pi * np.sin(dec)) / slope
        theta = np.clip(theta, -np.pi / 2, np.pi / 2)
    return 2 / np.pi * longitude * np.cos(theta), np.sin(theta)
