"""How far is a position from a tile? Which positions belong to the margin of one.

The border of a HEALPix pixel is no great circle, so it is followed by chords: an edge cut into 1024 departs from them
by 0.034 arcsec in a pixel of order 0 and by less in smaller ones. The departure is measured and allowed
for: never too few, and at most that much too wide.
"""

from __future__ import annotations

import healpy
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stellarml.core import sky

_CHORDS_PER_EDGE = 1024


def near_border(
    order: int, pixel: int, ra_deg: ArrayLike, dec_deg: ArrayLike, radius_arcsec: float
) -> NDArray[np.bool_]:
    """Which positions lie within `radius_arcsec` of the border of a tile.

    Parameters
    ----------
    order, pixel
        The tile, NESTED.
    ra_deg, dec_deg : array_like, shape (n,)
        ICRS degrees. Of positions outside the tile, those are the ones within the radius of it.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    positions = sky.unit_vectors(np.atleast_1d(ra_deg), np.atleast_1d(dec_deg))
    near = np.zeros(len(positions), np.bool_)
    if not len(positions):
        return near
    twice = healpy.boundaries(1 << order, pixel, step=2 * _CHORDS_PER_EDGE, nest=True).T
    nodes, between = twice[::2], twice[1::2]
    slack = 2.0 * _departure(nodes, between)
    reach = (radius_arcsec + sky.ROUNDING_ARCSEC) / sky.ARCSEC_PER_RAD + slack
    for edge in range(4):
        rows = np.flatnonzero(~near)
        corners = np.arange(edge * _CHORDS_PER_EDGE, (edge + 1) * _CHORDS_PER_EDGE + 1) % len(nodes)
        near[rows] = _distance(positions[rows], nodes[corners]) <= 2.0 * np.sin(min(reach, np.pi) / 2.0)
    return near


def _departure(nodes: NDArray[np.float64], between: NDArray[np.float64]) -> float:
    middle = nodes + np.roll(nodes, -1, axis=0)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    return float(np.linalg.norm(middle - between, axis=1).max())


def _distance(positions: NDArray[np.float64], line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the length of the straight line from each position to the nearest of the chords along `line`."""
    if not len(positions):
        return np.empty(0)
    nearest = cKDTree(line).query(positions)[1]
    found = np.full(len(positions), np.inf)
    for first in (nearest - 1, nearest):
        first = np.clip(first, 0, len(line) - 2)
        start, along = line[first], line[first + 1] - line[first]
        part = np.sum((positions - start) * along, axis=1) / np.sum(along**2, axis=1)
        point = start + np.clip(part, 0.0, 1.0)[:, None] * along
        point /= np.linalg.norm(point, axis=1, keepdims=True)
        found = np.minimum(found, np.linalg.norm(positions - point, axis=1))
    return found
