"""Where is it, how far apart, and which index ranges hold the neighbourhood? The one door to HEALPix.

Positions are ICRS degrees, indices HEALPix NESTED. A tile is ``(order, pixel)``; every set of pixels is handed over as
sorted, disjoint, half-open ranges of ``_healpix_29``, because leaves are sorted by it: a halo is then a handful of
binary searches in files, whatever tiles the other catalogue is cut into.

A source moves along the great circle of its proper motion and carries its direction with it. The linear formula does
not come back on itself: it errs by 1.07 mas for 1 arcsec/yr at declination -60 over 16 yr, this one by less than
1 microarcsec.
"""

from __future__ import annotations

from typing import Any

import healpy
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stellarml.core.errors import InputError
from stellarml.core.tiles import INDEX_ORDER, pixel_range

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ARCSEC_PER_RAD = 180.0 * 3600.0 / np.pi
MAS_PER_RAD = 1000.0 * ARCSEC_PER_RAD
SIDE_ARCSEC = 211_076.0
"""Square root of the area of a pixel of order 0."""

_MAX_CUTS = 7
ROUNDING_ARCSEC = 1e-4
_SMALLEST_DISC_ARCSEC = 0.1


def healpix_29(ra_deg: ArrayLike, dec_deg: ArrayLike) -> Integers:
    """HEALPix NESTED index of order 29 of each position.

    Parameters
    ----------
    ra_deg, dec_deg : array_like, shape (n,)
        ICRS position in degrees; right ascension may be any finite number, 360 is 0.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    InputError
        Where a position is not finite or a declination lies beyond a pole.
    """
    ra, dec = np.atleast_1d(_floats(ra_deg)), np.atleast_1d(_floats(dec_deg))
    bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{int(bad.sum())} of {bad.size} positions are not on the sky, the first in row {first}: "
            f"ra = {ra[first]}, dec = {dec[first]}; expected finite degrees with |dec| <= 90: reject such rows first"
        )
    index: Integers = healpy.ang2pix(1 << INDEX_ORDER, ra, dec, nest=True, lonlat=True).astype(np.int64)
    return index


def pixel_at_order(index: ArrayLike, order: int) -> Integers:
    """Pixel of `order` that holds each ``_healpix_29`` index."""
    pixel: Integers = np.asarray(index, dtype=np.int64) >> (2 * (INDEX_ORDER - order))
    return pixel


def merge_ranges(ranges: ArrayLike) -> Integers:
    """Sort half-open ranges, shape (n, 2), and join those that overlap or touch."""
    found = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    found = found[found[:, 1] > found[:, 0]]
    if not len(found):
        return found
    found = found[np.argsort(found[:, 0], kind="stable")]
    reach = np.maximum.accumulate(found[:, 1])
    starts = np.flatnonzero(np.concatenate([[True], found[1:, 0] > reach[:-1]]))
    ends = np.concatenate([starts[1:], [len(found)]]) - 1
    return np.column_stack([found[starts, 0], reach[ends]])


def intersect_ranges(first: Integers, second: Integers) -> Integers:
    """Intersect two lists of sorted disjoint half-open ranges, shapes (n, 2) and (m, 2)."""
    begin = np.searchsorted(second[:, 1], first[:, 0], side="right")
    end = np.maximum(np.searchsorted(second[:, 0], first[:, 1], side="left"), begin)
    counts = end - begin
    a = np.repeat(np.arange(len(first)), counts)
    b = np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begin, counts)
    low, high = np.maximum(first[a, 0], second[b, 0]), np.minimum(first[a, 1], second[b, 1])
    return np.column_stack([low, high])


def in_ranges(index: ArrayLike, ranges: Integers) -> NDArray[np.bool_]:
    """Which indices lie in sorted disjoint half-open `ranges`, shape (n, 2)."""
    position = np.searchsorted(ranges.ravel(), np.asarray(index, dtype=np.int64), side="right")
    inside: NDArray[np.bool_] = position % 2 == 1
    return inside


def tiles_in_ranges(orders: ArrayLike, pixels: ArrayLike, ranges: Integers) -> NDArray[np.bool_]:
    """Which tiles share at least one index with sorted disjoint half-open `ranges`, shape (n, 2)."""
    shift = 2 * (INDEX_ORDER - np.asarray(orders, dtype=np.int64))
    first = np.asarray(pixels, dtype=np.int64) << shift
    last = first + (np.int64(1) << shift) - 1
    inside = np.searchsorted(ranges.ravel(), first, side="right")
    touched: NDArray[np.bool_] = (inside % 2 == 1) | (
        np.searchsorted(ranges.ravel(), last, side="right") != inside
    )
    return touched


def cone_ranges(ra_deg: ArrayLike, dec_deg: ArrayLike, radius_arcsec: ArrayLike) -> Integers:
    """Index ranges that hold every source within `radius_arcsec` of one of the positions (one radius, or one each).

    Conservative: pixels that only touch a cone are taken whole, at an order whose pixels are about half the radius.
    """
    vectors = unit_vectors(np.atleast_1d(_floats(ra_deg)), np.atleast_1d(_floats(dec_deg)))
    radii = np.broadcast_to(np.maximum(_floats(radius_arcsec), _SMALLEST_DISC_ARCSEC), (len(vectors),))
    found = [
        _disc(vector, float(radius), order_of_side(float(radius) / 2.0))
        for vector, radius in zip(vectors, radii, strict=True)
    ]
    return merge_ranges(np.concatenate(found)) if found else np.empty((0, 2), dtype=np.int64)


def halo_ranges(order: int, pixel: int, radius_arcsec: float) -> Integers:
    """Index ranges of a tile and of everything within `radius_arcsec` of any of its points.

    The pixels along the inside of the tile's border and all their neighbours, at the finest order whose pixels are
    nowhere narrower than the halo: the narrowest HEALPix pixel, near the poles, is 0.67 of the mean side wide (found
    over whole orders), so one of twice the radius is wide enough. Tiles are cut into 128 x 128 at most, which makes
    the halo at least a 128th of the tile.

    Returns
    -------
    ndarray of int64, shape (n_ranges, 2)
        Sorted, disjoint, half-open ranges of ``_healpix_29``; never too few, some pixels more than needed.
    """
    tile = np.array([pixel_range(order, pixel)], dtype=np.int64)
    if radius_arcsec <= 0.0:
        return tile
    needed = 2.0 * (radius_arcsec + ROUNDING_ARCSEC)
    if needed > SIDE_ARCSEC:
        return np.array([[0, 12 << 2 * INDEX_ORDER]], dtype=np.int64)
    fine = min(int(np.floor(np.log2(SIDE_ARCSEC / needed))), order + _MAX_CUTS, INDEX_ORDER)
    inside = _inner_border(order, pixel, fine)
    around = healpy.get_all_neighbours(1 << fine, inside, nest=True).ravel()
    first = np.concatenate([inside, around[around >= 0]]).astype(np.int64)
    shift = 2 * (INDEX_ORDER - fine)
    return merge_ranges(np.concatenate([tile, np.column_stack([first << shift, (first + 1) << shift])]))


def _inner_border(order: int, pixel: int, fine: int) -> Integers:
    """Pixels of order `fine` along the border of a tile, inside; the one that holds the tile where that is larger."""
    if fine <= order:
        return np.array([pixel >> 2 * (order - fine)], dtype=np.int64)
    cuts = fine - order
    along = np.arange(1 << cuts, dtype=np.int64)
    spread = np.zeros_like(along)
    for bit in range(cuts):
        spread |= ((along >> bit) & 1) << (2 * bit)
    last = spread[-1]
    edges = np.concatenate([spread, spread << 1, spread | (last << 1), last | (spread << 1)])
    return np.unique(edges) + (np.int64(pixel) << 2 * cuts)


def pixel_centres(order: int, pixels: ArrayLike) -> Floats:
    """Make unit vectors, shape (n, 3), of the centres of pixels of `order`."""
    centres = healpy.pix2vec(1 << order, np.asarray(pixels, dtype=np.int64), nest=True)
    return np.stack([_floats(axis) for axis in centres], axis=-1)


def order_of_side(side_arcsec: float) -> int:
    """Deepest order, 27 at most, whose pixels are on average at least `side_arcsec` wide."""
    if side_arcsec <= 0.0:
        return INDEX_ORDER - 2
    return int(np.clip(np.floor(np.log2(SIDE_ARCSEC / side_arcsec)), 0, INDEX_ORDER - 2))


def unit_vectors(ra_deg: ArrayLike, dec_deg: ArrayLike) -> Floats:
    """Make unit vectors, shape (..., 3), of positions in degrees."""
    ra, dec = np.radians(_floats(ra_deg)), np.radians(_floats(dec_deg))
    ra, dec = np.broadcast_arrays(ra, dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def from_unit_vectors(vectors: ArrayLike) -> tuple[Floats, Floats]:
    """Right ascension in [0, 360) and declination, degrees, of vectors of shape (..., 3) and any length."""
    x, y, z = np.moveaxis(_floats(vectors), -1, 0)
    ra = np.degrees(np.arctan2(y, x)) % 360.0
    ra = np.where(ra >= 360.0, 0.0, ra)
    return ra, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation_arcsec(
    ra1_deg: ArrayLike, dec1_deg: ArrayLike, ra2_deg: ArrayLike, dec2_deg: ArrayLike
) -> Floats:
    """Great-circle distance in arcsec, exact to rounding from 0 to 180 degrees (Kahan's form, broadcasting)."""
    first, second = unit_vectors(ra1_deg, dec1_deg), unit_vectors(ra2_deg, dec2_deg)
    return ARCSEC_PER_RAD * _angle(first, second)


def tangent_offsets_mas(
    ra0_deg: ArrayLike, dec0_deg: ArrayLike, ra_deg: ArrayLike, dec_deg: ArrayLike
) -> tuple[Floats, Floats]:
    """Offsets (east, north) in mas on the plane that touches the sky at (ra0, dec0): the gnomonic projection."""
    origin, target = unit_vectors(ra0_deg, dec0_deg), unit_vectors(ra_deg, dec_deg)
    east, north = _triad(ra0_deg, dec0_deg)
    depth = np.sum(origin * target, axis=-1)
    difference = target - origin
    return (
        MAS_PER_RAD * np.sum(difference * east, axis=-1) / depth,
        MAS_PER_RAD * np.sum(difference * north, axis=-1) / depth,
    )


def propagate(
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    pmra_mas_yr: ArrayLike,
    pmdec_mas_yr: ArrayLike,
    interval_yr: ArrayLike,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Move sources along the great circles of their proper motions; the direction of motion is carried along.

    Parameters
    ----------
    ra_deg, dec_deg : array_like
        Position at the first epoch, degrees.
    pmra_mas_yr, pmdec_mas_yr : array_like
        Proper motion, mas/yr; `pmra_mas_yr` includes cos(dec). NaN in either leaves the source where it is.
    interval_yr : array_like
        Second epoch minus first, Julian years; NaN counts as 0.

    Returns
    -------
    ra_deg, dec_deg, pmra_mas_yr, pmdec_mas_yr : ndarray
        At the second epoch. Applied with ``-interval_yr`` to its own result it returns to the start.
    """
    given_pmra, given_pmdec, interval = _floats(pmra_mas_yr), _floats(pmdec_mas_yr), _floats(interval_yr)
    known = np.isfinite(given_pmra) & np.isfinite(given_pmdec)
    pmra = np.where(known, given_pmra, 0.0) / MAS_PER_RAD
    pmdec = np.where(known, given_pmdec, 0.0) / MAS_PER_RAD
    start = unit_vectors(ra_deg, dec_deg)
    east, north = _triad(ra_deg, dec_deg)
    motion = pmra[..., None] * east + pmdec[..., None] * north
    speed = np.hypot(pmra, pmdec)
    angle = (speed * np.where(np.isfinite(interval), interval, 0.0))[..., None]
    direction = motion / np.where(speed > 0.0, speed, 1.0)[..., None]
    end = start * np.cos(angle) + direction * np.sin(angle)
    carried = speed[..., None] * (direction * np.cos(angle) - start * np.sin(angle))
    ra, dec = from_unit_vectors(end)
    still = (angle[..., 0] == 0.0) & np.isfinite(ra)
    ra, dec = np.where(still, _floats(ra_deg), ra), np.where(still, _floats(dec_deg), dec)
    new_east, new_north = _triad(ra, dec)
    return (
        ra,
        dec,
        np.where(known, MAS_PER_RAD * np.sum(carried * new_east, axis=-1), given_pmra),
        np.where(known, MAS_PER_RAD * np.sum(carried * new_north, axis=-1), given_pmdec),
    )


def mjd_to_jyear(mjd: ArrayLike) -> Floats:
    """Turn a modified Julian date into a Julian year: 2000 + (MJD - 51544.5) / 365.25."""
    year: Floats = 2000.0 + (_floats(mjd) - 51544.5) / 365.25
    return year


def jyear_to_mjd(jyear: ArrayLike) -> Floats:
    """Turn a Julian year into a modified Julian date."""
    mjd: Floats = 51544.5 + (_floats(jyear) - 2000.0) * 365.25
    return mjd


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _angle(first: Floats, second: Floats) -> Floats:
    apart = np.sqrt(np.sum((first - second) ** 2, axis=-1))
    along = np.sqrt(np.sum((first + second) ** 2, axis=-1))
    angle: Floats = 2.0 * np.arctan2(apart, along)
    return angle


def _triad(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
    ra, dec = np.broadcast_arrays(np.radians(_floats(ra_deg)), np.radians(_floats(dec_deg)))
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    return east, north


def _disc(vector: Floats, radius_arcsec: float, order: int) -> Integers:
    # healpy compares cosines: below 0.1 arcsec they no longer resolve a radius, at 0.1 arcsec they err by 4e-5 arcsec
    radius = min((radius_arcsec + ROUNDING_ARCSEC) / ARCSEC_PER_RAD, np.pi)
    pixels = healpy.query_disc(1 << order, vector, radius, inclusive=True, fact=4, nest=True)
    shift = 2 * (INDEX_ORDER - order)
    first = pixels.astype(np.int64) << shift
    return np.column_stack([first, first + (np.int64(1) << shift)])
