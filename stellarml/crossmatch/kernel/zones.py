"""Which sources may lie within reach of a position? A declination-zone index, exact at RA = 0 and at the poles.

Rows are sorted by zone of declination, and by right ascension inside. A disc of radius R about (ra, dec) touches the
zones of [dec - R, dec + R] and in each of them right ascensions within asin(sin R / cos dec); where the disc holds a
pole that is every right ascension. A window that crosses RA = 0 is two windows. Candidates are superfluous at worst:
the caller tests each. Results never depend on the zone height, which only decides how many candidates are looked at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stellarml.crossmatch.kernel.astrometry import RAD_PER_DEG, Mask
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.settings import Floats, Integers

SLACK_DEG = 1e-10
_RA_BITS = 40
_SAMPLE = 4096


class Zones(NamedTuple):
    """Rows sorted by zone and right ascension, with their unit vectors; `row` leads back to the caller's arrays."""

    first_dec_deg: float
    height_deg: float
    start: Integers
    ra_deg: Floats
    x: Floats
    y: Floats
    z: Floats
    row: Integers


def build_zones(ra_deg: Floats, dec_deg: Floats, vector: Floats, usable: Mask, reach_deg: float) -> Zones:
    """Index the usable rows for searches of a typical radius `reach_deg`; O(n) memory whatever that is."""
    rows = np.flatnonzero(usable)
    if not len(rows):
        none = np.empty(0)
        return Zones(0.0, 1.0, np.zeros(2, dtype=np.int64), none, none, none, none, rows)
    dec = dec_deg[rows]
    first, last = float(dec.min()), float(dec.max())
    height = max(_height_deg(dec, reach_deg), (last - first) / (len(rows) + 1.0), SLACK_DEG)
    zone, key = _keys(ra_deg, dec_deg, rows, first, height)
    order = np.argsort(key)
    start = np.zeros(int(zone.max()) + 2, dtype=np.int64)
    np.cumsum(np.bincount(zone), out=start[1:])
    row = rows[order]
    return Zones(first, height, start, *_gather(ra_deg, vector, row), row)


def _height_deg(dec_deg: Floats, reach_deg: float) -> float:
    """Take the diameter of a search; up to four times that where sources are sparse, so that a window holds one."""
    sample = dec_deg[:: max(1, len(dec_deg) // _SAMPLE)]
    low, high = np.quantile(sample, [0.1, 0.9])
    extent = float(high - low) / 0.8
    sparse = extent * extent / (4.0 * len(dec_deg) * max(reach_deg, SLACK_DEG))
    return float(np.clip(sparse, 2.0 * reach_deg, 8.0 * reach_deg))


@compiled
def _keys(
    ra_deg: Floats, dec_deg: Floats, rows: Integers, first_dec_deg: float, height_deg: float
) -> tuple[Integers, Integers]:
    zone = np.empty(len(rows), dtype=np.int64)
    key = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        zone[i] = int((dec_deg[rows[i]] - first_dec_deg) / height_deg)
        turned = (ra_deg[rows[i]] % 360.0) * (2.0**_RA_BITS / 360.0)
        key[i] = (zone[i] << (_RA_BITS + 1)) | int(turned)
    return zone, key


@compiled
def _gather(ra_deg: Floats, vector: Floats, row: Integers) -> tuple[Floats, Floats, Floats, Floats]:
    ra, x, y, z = np.empty(len(row)), np.empty(len(row)), np.empty(len(row)), np.empty(len(row))
    for i in range(len(row)):
        ra[i] = ra_deg[row[i]] % 360.0
        x[i], y[i], z[i] = vector[row[i], 0], vector[row[i], 1], vector[row[i], 2]
    return ra, x, y, z


@compiled
def zone_span(zones: Zones, dec_deg: float, radius_deg: float) -> tuple[int, int]:
    """First zone and the one after the last that a disc touches."""
    count = len(zones.start) - 1
    low = math.floor((dec_deg - radius_deg - SLACK_DEG - zones.first_dec_deg) / zones.height_deg)
    high = math.floor((dec_deg + radius_deg + SLACK_DEG - zones.first_dec_deg) / zones.height_deg) + 1
    return max(0, low), min(count, high)


@compiled
def ra_half_width_deg(dec_deg: float, radius_deg: float) -> float:
    """Half the window in right ascension that a disc spans, 180 where it holds a pole; never less, hardly more."""
    if abs(dec_deg) + radius_deg + SLACK_DEG >= 90.0:
        return 180.0
    sine = radius_deg * RAD_PER_DEG / math.cos(dec_deg * RAD_PER_DEG)
    if sine < 0.05:
        return sine * (1.0 + 0.2 * sine * sine) / RAD_PER_DEG + SLACK_DEG
    sine = math.sin(radius_deg * RAD_PER_DEG) / math.cos(dec_deg * RAD_PER_DEG)
    return min(180.0, math.asin(min(1.0, sine)) / RAD_PER_DEG * (1.0 + 1e-9) + SLACK_DEG)


@compiled
def ra_windows(ra_deg: float, half_width_deg: float) -> tuple[float, float, float, float]:
    """One or two windows [low, high] of right ascension in [0, 360]; an unused one has high < low."""
    if half_width_deg >= 180.0:
        return 0.0, 360.0, 1.0, 0.0
    ra = ra_deg if 0.0 <= ra_deg < 360.0 else ra_deg % 360.0
    low, high = ra - half_width_deg, ra + half_width_deg
    if low < 0.0:
        return 0.0, high, low + 360.0, 360.0
    if high > 360.0:
        return low, 360.0, 0.0, high - 360.0
    return low, high, 1.0, 0.0


@compiled
def window_span(values: Floats, begin: int, end: int, low: float, high: float) -> tuple[int, int]:
    """First position in sorted values[begin:end] whose value is at least `low`, and the first beyond `high`.

    The bisection has no branch to mispredict; the end of the window is walked to, it is a few steps off.
    """
    left = end - begin
    while left > 1:
        half = left >> 1
        begin = begin + half if values[begin + half - 1] < low else begin
        left -= half
    if left == 1 and values[begin] < low:
        begin += 1
    last = begin
    while last < end and values[last] <= high:
        last += 1
    return begin, last
