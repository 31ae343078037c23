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

from stellarml.crossmatch.astrometry import RAD_PER_DEG, Mask
from stellarml.crossmatch.compiled import compiled
from stellarml.crossmatch.settings import Floats, Integers

SLACK_DEG = 1e-10
_RA_BITS = 40


class Zones(NamedTuple):
    """Rows sorted by zone and right ascension; `row` leads back to the caller's arrays."""

    first_dec_deg: float
    height_deg: float
    start: Integers
    ra_deg: Floats
    row: Integers


def build_zones(ra_deg: Floats, dec_deg: Floats, usable: Mask, height_deg: float) -> Zones:
    """Index the usable rows; O(n) memory whatever height is asked for."""
    rows = np.flatnonzero(usable).astype(np.int64)
    ra = ra_deg[rows] % 360.0
    dec = dec_deg[rows]
    if not len(rows):
        return Zones(0.0, 1.0, np.zeros(2, dtype=np.int64), ra, rows)
    first, last = float(dec.min()), float(dec.max())
    height = max(height_deg, (last - first) / (len(rows) + 1.0), SLACK_DEG)
    zone = ((dec - first) / height).astype(np.int64)
    count = int(zone.max()) + 1
    quantised = (ra * (2.0**_RA_BITS / 360.0)).astype(np.int64)
    order = np.argsort((zone << (_RA_BITS + 1)) | quantised)
    start = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(zone, minlength=count), out=start[1:])
    return Zones(first, height, start, ra[order], rows[order])


@compiled
def zone_span(zones: Zones, dec_deg: float, radius_deg: float) -> tuple[int, int]:
    """First zone and the one after the last that a disc touches."""
    count = len(zones.start) - 1
    low = math.floor((dec_deg - radius_deg - SLACK_DEG - zones.first_dec_deg) / zones.height_deg)
    high = math.floor((dec_deg + radius_deg + SLACK_DEG - zones.first_dec_deg) / zones.height_deg) + 1
    return max(0, low), min(count, high)


@compiled
def ra_half_width_deg(dec_deg: float, radius_deg: float) -> float:
    """Half the window in right ascension that a disc spans, 180 where it holds a pole."""
    if abs(dec_deg) + radius_deg + SLACK_DEG >= 90.0:
        return 180.0
    sine = math.sin(radius_deg * RAD_PER_DEG) / math.cos(dec_deg * RAD_PER_DEG)
    return min(180.0, math.asin(min(1.0, sine)) / RAD_PER_DEG * (1.0 + 1e-9) + SLACK_DEG)


@compiled
def ra_windows(ra_deg: float, half_width_deg: float) -> tuple[float, float, float, float]:
    """One or two windows [low, high] of right ascension in [0, 360]; an unused one has high < low."""
    if half_width_deg >= 180.0:
        return 0.0, 360.0, 1.0, 0.0
    ra = ra_deg % 360.0
    low, high = ra - half_width_deg, ra + half_width_deg
    if low < 0.0:
        return 0.0, high, low + 360.0, 360.0
    if high > 360.0:
        return low, 360.0, 0.0, high - 360.0
    return low, high, 1.0, 0.0


@compiled
def first_at_least(values: Floats, begin: int, end: int, least: float) -> int:
    """First position in sorted values[begin:end] whose value is at least `least`."""
    while begin < end:
        middle = (begin + end) // 2
        if values[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin
