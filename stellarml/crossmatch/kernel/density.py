"""How crowded is the right catalogue about a left source? A count of sources within a radius, compiled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stellarml.core.sky import ARCSEC_PER_RAD, MAS_PER_RAD
from stellarml.crossmatch.kernel.astrometry import RAD_PER_DEG, Moving, Staying, moved, zero_if_missing
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings
from stellarml.crossmatch.kernel.zones import (
    Zones,
    build_zones,
    ra_half_width_deg,
    ra_windows,
    window_span,
    zone_span,
)

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


class Crowding:
    """Counts of right rows about left ones."""

    def __init__(
        self, moving: Moving, staying: Staying, settings: MatchSettings, mean_epoch_yr: float
    ) -> None:
        self._radius, self._mean_epoch_yr = settings.density_radius_arcsec, mean_epoch_yr
        left: Moving | Staying
        right: Moving | Staying
        if settings.moving == "left":
            left, right = moving, staying
            self._motions = (moving.motion_rad_yr, moving.speed_rad_yr, moving.epoch_yr)
        else:
            left, right = staying, moving
            self._motions = (np.zeros_like(staying.vector), np.zeros_like(staying.epoch_yr), staying.epoch_yr)
        # an index of its own: the zones of the pair search are a tenth as high, and each would cost a binary search
        self._zones = build_zones(
            right.ra_deg, right.dec_deg, right.vector, right.usable, self._radius / 3600.0
        )
        self._place = (left.ra_deg, left.dec_deg, left.vector)

    def about(self, left_row: Integers) -> Counts:
        """Count about each of the left rows, which may repeat."""
        wanted = np.zeros(len(self._place[0]), dtype=bool)
        wanted[left_row] = True
        counts = count_within(
            np.flatnonzero(wanted), self._place, self._motions, self._mean_epoch_yr, self._zones, self._radius
        )
        density: Counts = counts[left_row]
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
    start, sorted_ra, xs, ys, zs = zones.start, zones.ra_deg, zones.x, zones.y, zones.z
    for i in wanted:
        interval = zero_if_missing(epoch_yr - epoch[i])
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
        reach = (radius_rad + speed[i] * abs(interval)) / RAD_PER_DEG
        low_zone, high_zone = zone_span(zones, dec_deg[i], reach)
        low, high, low2, high2 = ra_windows(ra_deg[i], ra_half_width_deg(dec_deg[i], reach))
        height = max(0, high_zone - low_zone)
        total = 0
        for turn in range(2 * height if low2 <= high2 else height):
            wrapped = turn >= height
            zone = low_zone + turn - (height if wrapped else 0)
            least, most = (low2, high2) if wrapped else (low, high)
            begin, end = window_span(sorted_ra, start[zone], start[zone + 1], least, most)
            for k in range(begin, end):
                dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
                total += 1 if dx * dx + dy * dy + dz * dz <= chord * chord else 0
        counts[i] = total
    return counts
