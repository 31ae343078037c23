"""How crowded is the right catalogue about a left source? A count of sources within a radius, compiled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stellarml.crossmatch.astrometry import RAD_PER_DEG, moved, zero_if_missing
from stellarml.crossmatch.compiled import compiled
from stellarml.crossmatch.settings import Floats, Integers
from stellarml.crossmatch.zones import Zones, ra_half_width_deg, ra_windows, window_span, zone_span
from stellarml.sky import ARCSEC_PER_RAD, MAS_PER_RAD

Counts = NDArray[np.int32]
Motions = tuple[Floats, Floats, Floats]


def count_within(
    wanted: Integers,
    place: tuple[Floats, Floats, Floats],
    motions: Motions,
    epoch_yr: float,
    zones: Zones,
    radius_arcsec: float,
) -> Counts:
    """Count the indexed sources within `radius_arcsec` of each wanted row, moved to `epoch_yr`.

    Parameters
    ----------
    wanted : ndarray of int64, shape (n_wanted,)
        Rows to count for.
    place : tuple
        Right ascension and declination in degrees and unit vectors, shape (n, 3), of all rows.
    motions : tuple
        Motion vectors (n, 3) and speeds (n,) in rad/yr, and the rows' own epochs (n,).

    Returns
    -------
    ndarray of int32, shape (n,)
        Zero in rows that are not wanted.
    """
    return _count(wanted, *place, *motions, epoch_yr, zones, radius_arcsec / ARCSEC_PER_RAD)


def ln_density_per_mas2(count: Counts, radius_arcsec: float) -> Floats:
    """Take ln of the surface density of `count` sources in the disc, one source at least, per square mas."""
    area = math.pi * (radius_arcsec * MAS_PER_RAD / ARCSEC_PER_RAD) ** 2
    table: Floats = np.array([math.log(max(1, n) / area) for n in range(int(count.max(initial=0)) + 1)])
    density: Floats = table[count]
    return density


@compiled
def _count(
    wanted: Integers,
    ra_deg: Floats,
    dec_deg: Floats,
    vector: Floats,
    motion: Floats,
    speed: Floats,
    epoch: Floats,
    epoch_yr: float,
    zones: Zones,
    radius_rad: float,
) -> Counts:
    counts = np.zeros(len(ra_deg), dtype=np.int32)
    chord = 2.0 * math.sin(radius_rad / 2.0)
    for i in wanted:
        interval = zero_if_missing(epoch_yr - epoch[i])
        x, y, z = moved(
            vector[i, 0], vector[i, 1], vector[i, 2], motion[i, 0], motion[i, 1], motion[i, 2], speed[i], interval
        )
        reach = (radius_rad + speed[i] * abs(interval)) / RAD_PER_DEG
        low_zone, high_zone = zone_span(zones, dec_deg[i], reach)
        low, high, low2, high2 = ra_windows(ra_deg[i], ra_half_width_deg(dec_deg[i], reach))
        total = 0
        for zone in range(low_zone, high_zone):
            begin, end = window_span(zones.ra_deg, zones.start[zone], zones.start[zone + 1], low, high)
            total += _inside(zones.x, zones.y, zones.z, begin, end, x, y, z, chord * chord)
            if low2 <= high2:
                begin, end = window_span(zones.ra_deg, zones.start[zone], zones.start[zone + 1], low2, high2)
                total += _inside(zones.x, zones.y, zones.z, begin, end, x, y, z, chord * chord)
        counts[i] = total
    return counts


@compiled
def _inside(
    xs: Floats, ys: Floats, zs: Floats, begin: int, end: int, x: float, y: float, z: float, chord2: float
) -> int:
    total = 0
    for k in range(begin, end):
        dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
        total += 1 if dx * dx + dy * dy + dz * dz <= chord2 else 0
    return total
