"""How far apart are the two sources of a pair, and how is an offset taken off a position? On the sphere, pole included.

East and north turn from star to star, close to a pole by any angle. An offset that shall hold for a whole HEALPix cell
is therefore given at the cell's centre and carried from there to each star along the great circle between them
(parallel transport), which keeps its length and makes neighbouring stars agree. Far from the poles these are the star's
own d_alpha* and d_delta to a degree or so of direction.

Compiled, like the rest of the kernel: a position must not depend on where in an array its row stands.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stellarml.core import sky
from stellarml.core.sky import MAS_PER_RAD
from stellarml.crossmatch.kernel.astrometry import (
    RAD_PER_DEG,
    moved,
    prepare_moving,
    prepare_staying,
    zero_if_missing,
)
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.pairs import tangent_offsets
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings, Sources

Axes = tuple[Floats, Floats, Floats]


def runs_of_cells(healpix_29: Integers, order: int) -> tuple[Integers, Integers]:
    """Cells of `order` along the rows, shape (n_runs,), and the run of each row; -1 for a row that is not on the sky.

    A cell may come up in several runs; for rows in the order of the sky it is in one.
    """
    cells = np.where(healpix_29 >= 0, sky.pixel_at_order(healpix_29, order), -1)
    if not len(cells):
        return cells, cells
    starts = np.concatenate([[True], cells[1:] != cells[:-1]])
    run = np.where(cells >= 0, np.cumsum(starts) - 1, -1)
    return cells[starts], run


def cell_axes(order: int, cells: Integers) -> Axes:
    """Centre, east and north of each cell, unit vectors of shape (n_cells, 3); of a cell below 0, of cell 0."""
    centre = sky.pixel_centres(order, np.maximum(cells, 0))
    x, y, z = centre.T
    across = np.sqrt(x * x + y * y)
    cos_ra, sin_ra = x / across, y / across
    east = np.column_stack([-sin_ra, cos_ra, np.zeros_like(x)])
    north = np.column_stack([-z * cos_ra, -z * sin_ra, across])
    return np.ascontiguousarray(centre), east, north


def pair_offsets_mas(
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    mean_epoch_yr: float,
    order: int | None = None,
) -> Floats:
    """Offsets of each right source from its left one, both at one epoch.

    Parameters
    ----------
    left, right : Sources
        The two sources of each pair, row by row.
    mean_epoch_yr : float
        Stands in for a missing epoch of the side that stays.
    order : int, optional
        East and north are those at the centre of the right source's cell of this order (by its stored index), carried
        to the source; by default those at the source itself.

    Returns
    -------
    ndarray, shape (n_pairs, 2)
        d_alpha*, d_delta, right minus left, mas.
    """
    fixed = replace(settings, radius_arcsec=1.0)
    of_left = settings.moving == "left"
    moving = prepare_moving(left if of_left else right, fixed)
    staying = prepare_staying(right if of_left else left, fixed, mean_epoch_yr)
    if order is None:
        run = np.full(len(left), -1, dtype=np.int64)
        axes: Axes = (np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3)))
    else:
        cells, run = runs_of_cells(right.healpix_29, order)
        axes = cell_axes(order, cells)
    motions = (moving.vector, moving.motion_rad_yr, moving.speed_rad_yr, moving.epoch_yr)
    return _offsets(*motions, staying.vector, staying.epoch_yr, of_left, run, *axes)


def shifted(
    ra_deg: Floats, dec_deg: Floats, run: Integers, offset_mas: Floats, axes: Axes
) -> tuple[Floats, Floats]:
    """Subtract from each position the offset of its cell.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray, shape (n,)
    run : ndarray of int64, shape (n,)
        Which of the cells holds each row; a negative one, and an offset of zero, leave the row as it is.
    offset_mas : ndarray, shape (n_cells, 2)
        East and north at the cell's centre.
    axes : tuple
        As `cell_axes` gives them.
    """
    return _shifted(ra_deg, dec_deg, run, offset_mas, *axes)


@compiled
def _carried(
    ax: float, ay: float, az: float, cx: float, cy: float, cz: float, x: float, y: float, z: float
) -> tuple[float, float, float]:
    """Carry a tangent vector at c along the great circle to r."""
    share = (ax * x + ay * y + az * z) / (1.0 + cx * x + cy * y + cz * z)
    return ax - share * (cx + x), ay - share * (cy + y), az - share * (cz + z)


@compiled
def _offsets(
    vector: Floats,
    motion: Floats,
    speed: Floats,
    epoch: Floats,
    staying: Floats,
    staying_epoch: Floats,
    of_left: bool,
    run: Integers,
    centre: Floats,
    east: Floats,
    north: Floats,
) -> Floats:
    out = np.empty((len(vector), 2))
    for i in range(len(vector)):
        interval = zero_if_missing(staying_epoch[i] - epoch[i])
        x, y, z = moved(
            vector[i, 0],
            vector[i, 1],
            vector[i, 2],
            motion[i, 0],
            motion[i, 1],
            motion[i, 2],
            speed[i],
            interval,
        )
        dx, dy, dz = staying[i, 0] - x, staying[i, 1] - y, staying[i, 2] - z
        if of_left:
            x, y, z = staying[i, 0], staying[i, 1], staying[i, 2]
        else:
            dx, dy, dz = -dx, -dy, -dz
        k = run[i]
        if k < 0:
            along, up = tangent_offsets(x, y, z, dx, dy, dz, 1.0)
        else:
            c = centre[k]
            ex, ey, ez = _carried(east[k, 0], east[k, 1], east[k, 2], c[0], c[1], c[2], x, y, z)
            nx, ny, nz = _carried(north[k, 0], north[k, 1], north[k, 2], c[0], c[1], c[2], x, y, z)
            along, up = dx * ex + dy * ey + dz * ez, dx * nx + dy * ny + dz * nz
        out[i, 0], out[i, 1] = along * MAS_PER_RAD, up * MAS_PER_RAD
    return out


@compiled
def _shifted(
    ra_deg: Floats,
    dec_deg: Floats,
    run: Integers,
    offset_mas: Floats,
    centre: Floats,
    east: Floats,
    north: Floats,
) -> tuple[Floats, Floats]:
    new_ra, new_dec = ra_deg.copy(), dec_deg.copy()
    for i in range(len(ra_deg)):
        k = run[i]
        if k < 0 or (offset_mas[k, 0] == 0.0 and offset_mas[k, 1] == 0.0):
            continue
        ra, dec = ra_deg[i] * RAD_PER_DEG, dec_deg[i] * RAD_PER_DEG
        x, y, z = math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)
        c = centre[k]
        ex, ey, ez = _carried(east[k, 0], east[k, 1], east[k, 2], c[0], c[1], c[2], x, y, z)
        nx, ny, nz = _carried(north[k, 0], north[k, 1], north[k, 2], c[0], c[1], c[2], x, y, z)
        a, b = offset_mas[k, 0] / MAS_PER_RAD, offset_mas[k, 1] / MAS_PER_RAD
        angle = math.sqrt(a * a + b * b)
        along, across = math.cos(angle), math.sin(angle) / angle
        x = x * along - (a * ex + b * nx) * across
        y = y * along - (a * ey + b * ny) * across
        z = z * along - (a * ez + b * nz) * across
        turned = math.atan2(y, x) / RAD_PER_DEG
        new_ra[i] = turned + 360.0 if turned < 0.0 else turned
        new_dec[i] = math.atan2(z, math.sqrt(x * x + y * y)) / RAD_PER_DEG
    return new_ra, new_dec
