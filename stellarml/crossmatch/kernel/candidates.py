"""Which pairs are worth a closer look? The compiled search of the index, in chunks of bounded size."""

from __future__ import annotations

import math

import numpy as np

from stellarml.crossmatch.kernel.astrometry import RAD_PER_DEG, zero_if_missing
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.occupancy import Occupancy, may_have_candidate
from stellarml.crossmatch.kernel.settings import Floats, Integers
from stellarml.crossmatch.kernel.zones import Zones, ra_half_width_deg, ra_windows, window_span, zone_span

SAFETY = 1.0 + 1e-9
_TINY_RAD = 1e-14


@compiled
def candidates(
    ra_deg: Floats,
    dec_deg: Floats,
    vector: Floats,
    speed: Floats,
    epoch: Floats,
    widest_mas2: Floats,
    radius_deg: Floats,
    zones: Zones,
    occupied: Occupancy,
    details: Floats,
    reach: float,
    fixed_rad: float,
    span_yr: tuple[float, float],
    first: int,
    enough: int,
) -> tuple[Integers, Integers, int]:
    """Rows and places in the index of all pairs that lie within their own bound of each other's stored positions.

    From the row `first` on, until there are `enough` pairs or more; which row is next is returned, too.
    """
    todo = len(ra_deg) - first
    rows = np.empty(max(1024, min(todo + todo // 4, enough)), dtype=np.int64)
    places = np.empty_like(rows)
    # members of a tuple of arrays, looked up inside the loop, make it half as fast
    start, sorted_ra, xs, ys, zs = zones.start, zones.ra_deg, zones.x, zones.y, zones.z
    bits = occupied.bits
    count = 0
    for i in range(first, len(ra_deg)):
        if count >= enough:
            return rows[:count], places[:count], i
        radius = radius_deg[i]
        if not radius >= 0.0 or not may_have_candidate(occupied, bits, ra_deg[i], dec_deg[i]):
            continue
        low_zone, high_zone = zone_span(zones, dec_deg[i], radius)
        farthest = radius * RAD_PER_DEG * SAFETY + _TINY_RAD
        low, high, low2, high2 = ra_windows(ra_deg[i], ra_half_width_deg(dec_deg[i], radius))
        height = max(0, high_zone - low_zone)
        for turn in range(2 * height if low2 <= high2 else height):
            wrapped = turn >= height
            zone = low_zone + turn - (height if wrapped else 0)
            least, most = (low2, high2) if wrapped else (low, high)
            begin, end = window_span(sorted_ra, start[zone], start[zone + 1], least, most)
            if count + end - begin > len(rows):
                rows, places = _longer(rows, count + end - begin), _longer(places, count + end - begin)
            for k in range(begin, end):
                dx, dy, dz = xs[k] - vector[i, 0], ys[k] - vector[i, 1], zs[k] - vector[i, 2]
                chord2 = dx * dx + dy * dy + dz * dz
                if chord2 > farthest * farthest:
                    continue
                interval = _longest_interval(details[k, 4], epoch[i], span_yr)
                bound = speed[i] * interval + _TINY_RAD
                if reach > 0.0:
                    bound += reach * math.sqrt(widest_mas2[i] + details[k, 3])
                else:
                    bound += fixed_rad
                bound *= SAFETY
                if chord2 <= bound * bound:
                    rows[count], places[count] = i, k
                    count += 1
    return rows[:count], places[:count], len(ra_deg)


@compiled
def _longest_interval(there_yr: float, epoch_yr: float, span_yr: tuple[float, float]) -> float:
    """Years between two epochs; to the farther end of the span where the first one is not known."""
    if math.isfinite(there_yr):
        return abs(zero_if_missing(there_yr - epoch_yr))
    return max(abs(zero_if_missing(span_yr[0] - epoch_yr)), abs(zero_if_missing(span_yr[1] - epoch_yr)))


@compiled
def _longer(values: Integers, needed: int) -> Integers:
    longer = np.empty(2 * needed, dtype=np.int64)
    longer[: len(values)] = values
    return longer
