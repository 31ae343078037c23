"""Positions near which there is nothing at all: a bitmap, so that most of a sparse match costs one look each.

Where one catalogue is sparser than the other, most sources have no candidate. Each row of the side that stays marks
the cells of a grid in right ascension and declination that a disc of the largest search radius about it touches; a row
of the other side in an unmarked cell has no candidate. Nothing is lost: that disc and the search's are of one radius.
Tiles that hold a pole, span RA = 0 or are too large for a bitmap are searched without.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.settings import Floats
from stellarml.crossmatch.kernel.zones import SLACK_DEG, Zones, ra_half_width_deg

_CELL_RADII = 3.0
_MOST_CELLS = 1 << 27
_STEEPEST_DEG = 85.0


class Occupancy(NamedTuple):
    """Marked cells; without a column nothing is known and every position may have a candidate."""

    first_ra_deg: float
    first_dec_deg: float
    ra_cells_per_deg: float
    dec_cells_per_deg: float
    columns: int
    bits: NDArray[np.uint8]


def mark_occupied(zones: Zones, dec_deg: Floats, radius_deg: float) -> Occupancy:
    """Mark the cells within `radius_deg` of an indexed row; `dec_deg` are the declinations in the index's order."""
    nothing = Occupancy(0.0, 0.0, 0.0, 0.0, 0, np.zeros(1, dtype=np.uint8))
    if not len(dec_deg):
        return nothing
    south, north = float(dec_deg.min()) - radius_deg, float(dec_deg.max()) + radius_deg
    steepest = max(abs(south), abs(north)) + radius_deg
    west, east = float(zones.ra_deg.min()), float(zones.ra_deg.max())
    if steepest > _STEEPEST_DEG or east - west > 180.0 or not radius_deg > 0.0:
        return nothing
    reach = ra_half_width_deg(steepest, radius_deg)
    if west - reach < 0.0 or east + reach >= 360.0:
        return nothing
    height = _CELL_RADII * radius_deg
    width = height / math.cos(math.radians(steepest))
    columns = int((east - west + 2.0 * reach) / width) + 2
    rows = int((north - south) / height) + 2
    if columns * rows > _MOST_CELLS or columns * rows < 4 * len(dec_deg):
        return nothing
    empty = Occupancy(
        west - reach - SLACK_DEG,
        south - SLACK_DEG,
        1.0 / width,
        1.0 / height,
        columns,
        np.zeros((columns * rows + 7) // 8, dtype=np.uint8),
    )
    return _mark(empty, zones.ra_deg, dec_deg, radius_deg)


@compiled
def _mark(grid: Occupancy, ra_deg: Floats, dec_deg: Floats, radius_deg: float) -> Occupancy:
    bits, reach_dec = grid.bits, radius_deg + SLACK_DEG
    for k in range(len(ra_deg)):
        reach_ra = ra_half_width_deg(dec_deg[k], radius_deg)
        low = max(0, int((dec_deg[k] - reach_dec - grid.first_dec_deg) * grid.dec_cells_per_deg))
        high = int((dec_deg[k] + reach_dec - grid.first_dec_deg) * grid.dec_cells_per_deg)
        west = max(0, int((ra_deg[k] - reach_ra - grid.first_ra_deg) * grid.ra_cells_per_deg))
        east = int((ra_deg[k] + reach_ra - grid.first_ra_deg) * grid.ra_cells_per_deg)
        for row in range(low, high + 1):
            for column in range(west, east + 1):
                cell = row * grid.columns + column
                bits[cell >> 3] |= np.uint8(1 << (cell & 7))
    return grid


@compiled
def may_have_candidate(grid: Occupancy, bits: NDArray[np.uint8], ra_deg: float, dec_deg: float) -> bool:
    """Whether a position lies in a marked cell; `bits` are those of `grid`, passed apart for speed."""
    if grid.columns == 0:
        return True
    row = math.floor((dec_deg - grid.first_dec_deg) * grid.dec_cells_per_deg)
    ra = ra_deg if 0.0 <= ra_deg < 360.0 else ra_deg % 360.0
    column = math.floor((ra - grid.first_ra_deg) * grid.ra_cells_per_deg)
    if row < 0 or column < 0 or column >= grid.columns:
        return False
    cell = row * grid.columns + column
    return cell >> 3 < len(bits) and (bits[cell >> 3] >> (cell & 7)) & 1 == 1
