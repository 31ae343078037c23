"""How crowded is the right catalogue about a left source? A count of sources within a radius, compiled."""

from __future__ import annotations

import math

import numpy as np

from stellarml.crossmatch.astrometry import RAD_PER_DEG, Mask
from stellarml.crossmatch.compiled import compiled
from stellarml.crossmatch.settings import Floats, Integers
from stellarml.crossmatch.zones import (
    Zones,
    build_zones,
    first_at_least,
    ra_half_width_deg,
    ra_windows,
    zone_span,
)
from stellarml.sky import ARCSEC_PER_RAD, MAS_PER_RAD


def count_within(
    ra_deg: Floats,
    dec_deg: Floats,
    centre: Floats,
    shift_rad: Floats,
    others: tuple[Floats, Floats, Floats, Mask],
    radius_arcsec: float,
) -> Integers:
    """Count the usable others within `radius_arcsec` of each centre.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray, shape (n,)
        Stored positions, about which the index is searched.
    centre : ndarray, shape (n, 3)
        Unit vectors about which to count; at most `shift_rad`, shape (n,), from the stored positions.
    others : tuple
        Right ascension and declination in degrees, unit vectors of shape (m, 3), and who is to be counted.
    """
    other_ra, other_dec, other_vector, usable = others
    zones = build_zones(other_ra, other_dec, usable, radius_arcsec / 3600.0)
    return _count(
        ra_deg, dec_deg, centre, shift_rad, zones, other_vector[zones.row], radius_arcsec / ARCSEC_PER_RAD
    )


def ln_density_per_mas2(count: Integers, radius_arcsec: float) -> Floats:
    """ln of the surface density of `count` sources in the disc, one source at least, per square mas."""
    area = math.pi * (radius_arcsec * MAS_PER_RAD / ARCSEC_PER_RAD) ** 2
    table: Floats = np.array([math.log(max(1, n) / area) for n in range(int(count.max(initial=0)) + 1)])
    density: Floats = table[count]
    return density


@compiled
def _count(
    ra_deg: Floats,
    dec_deg: Floats,
    centre: Floats,
    shift_rad: Floats,
    zones: Zones,
    other_vector: Floats,
    radius_rad: float,
) -> Integers:
    counts = np.zeros(len(ra_deg), dtype=np.int64)
    chord = 2.0 * math.sin(radius_rad / 2.0)
    for i in range(len(ra_deg)):
        reach = (radius_rad + shift_rad[i]) / RAD_PER_DEG
        low_zone, high_zone = zone_span(zones, dec_deg[i], reach)
        low, high, low2, high2 = ra_windows(ra_deg[i], ra_half_width_deg(dec_deg[i], reach))
        x, y, z = centre[i, 0], centre[i, 1], centre[i, 2]
        total = 0
        for zone in range(low_zone, high_zone):
            begin, end = zones.start[zone], zones.start[zone + 1]
            for window in range(2):
                if window == 1:
                    if high2 < low2:
                        break
                    least, most = low2, high2
                else:
                    least, most = low, high
                j = first_at_least(zones.ra_deg, begin, end, least)
                while j < end and zones.ra_deg[j] <= most:
                    dx, dy, dz = other_vector[j, 0] - x, other_vector[j, 1] - y, other_vector[j, 2] - z
                    if dx * dx + dy * dy + dz * dz <= chord * chord:
                        total += 1
                    j += 1
        counts[i] = total
    return counts


@compiled
def moved_vectors(vector: Floats, motion: Floats, speed: Floats, interval_yr: Floats) -> Floats:
    """Unit vectors, shape (n, 3), after each row's interval along the great circle of its motion."""
    out = np.empty_like(vector)
    for i in range(len(vector)):
        angle = speed[i] * interval_yr[i]
        if angle == 0.0:
            out[i] = vector[i]
        else:
            out[i] = vector[i] * math.cos(angle) + motion[i] * (math.sin(angle) / speed[i])
    return out
