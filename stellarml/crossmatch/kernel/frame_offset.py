"""By how much is one catalogue's frame off the other's, cell by cell? Measured on bright pairs, then taken off.

Real SkyMapper fields are off Gaia's frame by up to 180 mas as a whole. The offset is the median, in HEALPix cells, of
right minus left over pairs nobody can doubt: bright on both sides, alone within a few arcsec of each other, at one
epoch. A median cannot be added up, a histogram can: tiles report counts in bins of 5 mas, whose sums are the same
whatever the tiles. Chance pairs scatter over the whole search disc: bins beyond 3 robust sigma of the median are left
out, and a cell whose pairs do not gather at all is not believed. Such a cell, like one with few pairs, takes the offset
of its parent cell, of that one's parent, ..., of the whole catalogue, or none.

Offsets are taken off the right catalogue's positions before anything else, by the cell of the stored index; stored
columns and indices stay. Halos therefore reach further by the largest offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from stellarml.core import sky
from stellarml.core.histograms import median_and_mad
from stellarml.crossmatch.kernel.astrometry import Mask
from stellarml.crossmatch.kernel.limits import Limits
from stellarml.crossmatch.kernel.match_tile import Bounds, match_parts
from stellarml.crossmatch.kernel.pair_offsets import cell_axes, pair_offsets_mas, runs_of_cells, shifted
from stellarml.crossmatch.kernel.settings import Floats, FrameSettings, Integers, MatchSettings, Sources

BIN_MAS = 5
WHOLE = -1
"""The order that stands for the whole catalogue as one cell."""

_CLIP_SIGMA = 3.0
_CLIP_ROUNDS = 20
_GATHERED = 6.0
_LISTED_CELLS = 12_288
_MEDIAN_ERROR = math.sqrt(math.pi / 2.0)


@dataclass(frozen=True)
class FrameLevel:
    """Cells of one order whose pairs were enough, ascending: offsets (east, north), errors of both axes, pairs."""

    order: int
    pixel: Integers
    offset_mas: Floats
    error_mas: Floats
    pairs: Integers


@dataclass(frozen=True)
class FrameOffsets:
    """Measured offsets: levels from the order of the cells up to the whole catalogue, and the pairs of each cell."""

    order: int
    levels: tuple[FrameLevel, ...]
    pixel: Integers
    pairs: Integers

    @property
    def largest_arcsec(self) -> float:
        """How far a row is shifted at most; rounding included."""
        lengths = [np.hypot(*level.offset_mas.T).max(initial=0.0) for level in self.levels]
        largest = float(max(lengths, default=0.0)) / 1000.0
        return largest + sky.ROUNDING_ARCSEC if largest > 0.0 else 0.0

    def of_cells(self, cells: Integers) -> tuple[Floats, Floats, Integers]:
        """Offset, shape (n, 2), error, (n, 2), and the order it comes from for each cell; without one 0, NaN, -2."""
        offset, error = np.zeros((len(cells), 2)), np.full((len(cells), 2), np.nan)
        source = np.full(len(cells), WHOLE - 1, dtype=np.int64)
        for level in self.levels:
            open_rows = np.flatnonzero((source < WHOLE) & (cells >= 0))
            if not len(level.pixel) or not len(open_rows):
                continue
            wanted = _coarser(cells[open_rows], self.order, level.order)
            place = np.minimum(np.searchsorted(level.pixel, wanted), len(level.pixel) - 1)
            known = level.pixel[place] == wanted
            rows, place = open_rows[known], place[known]
            offset[rows], error[rows], source[rows] = (
                level.offset_mas[place],
                level.error_mas[place],
                level.order,
            )
        return offset, error, source

    def removed_from(self, rows: Sources) -> Sources:
        """Rows of the right catalogue with the offset of their cell subtracted; their stored index stays."""
        cells, run = runs_of_cells(rows.healpix_29, self.order)
        offset, _, _ = self.of_cells(cells)
        ra, dec = shifted(rows.ra_deg, rows.dec_deg, run, offset, cell_axes(self.order, cells))
        return replace(rows, ra_deg=ra, dec_deg=dec)


def frame_search(settings: MatchSettings, limits: Limits) -> tuple[MatchSettings, Limits]:
    """Give settings and limits of the search for the pairs that measure the frame; also for `halo.plan_tile`.

    Stars that move further than the search radius between the catalogues take no part.
    """
    radius = _frame(settings).radius_arcsec
    wide = replace(limits, edge_radius_arcsec=2.0 * radius, shift_arcsec=radius, movers=0, frame_arcsec=0.0)
    return replace(settings, radius_arcsec=radius), wide


def frame_part(
    left: Sources, right: Sources, settings: MatchSettings, limits: Limits, owned: Mask | None = None
) -> dict[str, list[int]]:
    """One tile's share: counts of pairs by cell, axis (0 east, 1 north) and bin of `BIN_MAS`.

    Parameters
    ----------
    left, right : Sources
        Bright rows within the ranges that `halo.plan_tile` gives for the settings and limits of `frame_search`.
    settings, limits
        Of the match itself; `limits` need know no more than `limits.merge_staying` gives.
    owned : ndarray of bool, shape (n_left,), optional
        Left rows of the tile; all by default.
    """
    order = _frame(settings).order
    search, wide = frame_search(settings, limits)
    parts = match_parts(left, right, search, owned=owned, limits=wide, bounds=Bounds(only_best=True))
    unique = [(found.left_row[found.unique], found.right_row[found.unique]) for found in parts]
    a = left.take(np.concatenate([rows for rows, _ in unique]))
    b = right.take(np.concatenate([rows for _, rows in unique]))
    offset = pair_offsets_mas(a, b, settings, limits.mean_epoch_yr, order)
    cell = np.repeat(sky.pixel_at_order(b.healpix_29, order), 2)
    axis = np.tile(np.arange(2), len(a))
    bins = np.floor(offset / BIN_MAS).astype(np.int64).ravel()
    table = _added_up(cell, axis, bins, np.ones(len(cell), dtype=np.int64))
    return {
        name: column.tolist() for name, column in zip(("cell", "axis", "bin", "count"), table, strict=True)
    }


def merge_frame(parts: Iterable[dict[str, list[int]]], frame: FrameSettings) -> FrameOffsets:
    """Join the tiles' shares, in any order, to the offsets of every level."""
    given = [part for part in parts if part["cell"]]
    columns = [
        np.concatenate(
            [np.empty(0, dtype=np.int64), *(np.array(part[name], dtype=np.int64) for part in given)]
        )
        for name in ("cell", "axis", "bin", "count")
    ]
    cell, axis, bins, count = _added_up(*columns)
    levels = tuple(
        _measured(order, _added_up(_coarser(cell, frame.order, order), axis, bins, count), frame)
        for order in range(frame.order, WHOLE - 1, -1)
    )
    east = axis == 0
    pixel, owner = np.unique(cell[east], return_inverse=True)
    pairs = np.zeros(len(pixel), dtype=np.int64)
    np.add.at(pairs, owner, count[east])
    return FrameOffsets(frame.order, levels, pixel, pairs)


def measure_frame(left: Sources, right: Sources, settings: MatchSettings, limits: Limits) -> FrameOffsets:
    """Measure the offsets of two catalogues that are in memory as a whole; only bright rows should be given."""
    return merge_frame([frame_part(left, right, settings, limits)], _frame(settings))


def frame_record(offsets: FrameOffsets) -> dict[str, Any]:
    """Return what run.json keeps: the offsets of every cell that has a pair, and of the catalogue as a whole.

    Offsets are right minus left, east and north at the cell's centre (ra, dec); `from_order` is the order of the cell
    that measured them, -1 for the whole catalogue, null where nothing could be measured and nothing is taken off. At
    most 12,288 cells are listed, those with most pairs.
    """
    chosen = np.sort(np.argsort(-offsets.pairs, kind="stable")[:_LISTED_CELLS])
    pixel = offsets.pixel[chosen]
    offset, error, source = offsets.of_cells(pixel)
    ra, dec = sky.from_unit_vectors(sky.pixel_centres(offsets.order, pixel))
    cells = [
        {"pixel": int(pixel[i]), "ra": round(float(ra[i]), 6), "dec": round(float(dec[i]), 6)}
        | _rounded(offset[i], error[i])
        | {
            "pairs": int(offsets.pairs[chosen[i]]),
            "from_order": int(source[i]) if source[i] >= WHOLE else None,
        }
        for i in range(len(pixel))
    ]
    whole = offsets.levels[-1]
    median = _rounded(whole.offset_mas[0], whole.error_mas[0]) if len(whole.pixel) else None
    return {
        "order": offsets.order,
        "pairs": int(offsets.pairs.sum()),
        "median": median,
        "largest_arcsec": round(offsets.largest_arcsec, 4),
        "number_of_cells": len(offsets.pixel),
        "cells": cells,
    }


def centre_of(bins: Integers, counts: Integers) -> tuple[float, float, float]:
    """Median, its standard error and the robust spread of binned offsets, in mas, free of a broad background.

    Bins beyond 3 x 1.4826 MAD of the median are left out until none is. The error is that of a normal distribution's
    median, ``sqrt(pi / 2) sigma / sqrt(n)``.
    """
    first = int(bins.min())
    n = np.zeros(int(bins.max()) - first + 1, dtype=np.int64)
    n[bins - first] = counts
    edges = BIN_MAS * (first + np.arange(len(n) + 1, dtype=np.float64))
    centres = edges[:-1] + BIN_MAS / 2.0
    least = BIN_MAS / math.sqrt(12.0)
    median, sigma = median_and_mad(n, edges)
    for _ in range(_CLIP_ROUNDS):
        near = np.abs(centres - median) <= _CLIP_SIGMA * max(sigma, least) + BIN_MAS / 2.0
        if not (n[~near] > 0).any():
            break
        n = np.where(near, n, 0)
        median, sigma = median_and_mad(n, edges)
    sigma = max(sigma, least)
    return median, _MEDIAN_ERROR * sigma / math.sqrt(float(n.sum())), sigma


def _frame(settings: MatchSettings) -> FrameSettings:
    return settings.frame if settings.frame is not None else FrameSettings()


def _rounded(offset: Floats, error: Floats) -> dict[str, float | None]:
    worst = float(np.max(error))
    return {
        "d_ra_mas": round(float(offset[0]), 2),
        "d_dec_mas": round(float(offset[1]), 2),
        "error_mas": round(worst, 2) if math.isfinite(worst) else None,
    }


def _coarser(cells: Integers, order: int, coarse: int) -> Integers:
    return np.zeros_like(cells) if coarse == WHOLE else cells >> 2 * (order - coarse)


def _added_up(
    cell: Integers, axis: Integers, bins: Integers, count: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """Sort by cell, axis and bin, and add the counts of equal ones."""
    if not len(cell):
        return cell, axis, bins, count
    order = np.lexsort((bins, axis, cell))
    cell, axis, bins, count = cell[order], axis[order], bins[order], count[order]
    new = (cell[1:] != cell[:-1]) | (axis[1:] != axis[:-1]) | (bins[1:] != bins[:-1])
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    return cell[starts], axis[starts], bins[starts], np.add.reduceat(count, starts)


def _measured(
    order: int, table: tuple[Integers, Integers, Integers, Integers], frame: FrameSettings
) -> FrameLevel:
    """Measure the cells of one order that have enough pairs, and whose pairs gather."""
    cell, axis, bins, count = table
    pixels, offsets, errors, pairs = [], [], [], []
    starts = np.concatenate([[0], np.flatnonzero(cell[1:] != cell[:-1]) + 1, [len(cell)]])
    for begin, end in pairwise(starts.tolist()):
        rows = slice(begin, end)
        total = int(count[rows].sum()) // 2
        if total < frame.min_pairs:
            continue
        both = [centre_of(bins[rows][axis[rows] == k], count[rows][axis[rows] == k]) for k in range(2)]
        if max(sigma for _, _, sigma in both) > 1000.0 * frame.radius_arcsec / _GATHERED:
            continue
        pixels.append(int(cell[begin]))
        offsets.append([median for median, _, _ in both])
        errors.append([error for _, error, _ in both])
        pairs.append(total)
    return FrameLevel(
        order,
        np.array(pixels, dtype=np.int64),
        np.array(offsets, dtype=np.float64).reshape(-1, 2),
        np.array(errors, dtype=np.float64).reshape(-1, 2),
        np.array(pairs, dtype=np.int64),
    )
