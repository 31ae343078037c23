"""Which sources of two catalogues are good neighbours? The compiled search, and the formulas of one pair.

The numbers of a pair come from its two rows and the settings alone. For each moving row the search takes all candidates
within the farthest it can reach, drops those beyond the pair's own bound without any trigonometry, and evaluates the
rest on the tangent plane at the moved source: offsets D east and north, covariance ``C = V(dt) + C_staying``,
``d2 = D^T C^-1 D``, and the part of the figure of merit that ranks candidates,
``ln F rho = -d2 / 2 - ln(2 pi sqrt(det C))`` in mas^-2. Errors refer to local east and north at the moved source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stellarml.crossmatch import settings as bits
from stellarml.crossmatch.astrometry import (
    RAD_PER_DEG,
    Flags,
    Moving,
    Staying,
    longest_shift_rad,
    moved,
    widest_variance_mas2,
    zero_if_missing,
)
from stellarml.crossmatch.compiled import compiled
from stellarml.crossmatch.settings import Floats, Integers, MatchSettings
from stellarml.crossmatch.zones import (
    Zones,
    build_zones,
    first_at_least,
    ra_half_width_deg,
    ra_windows,
    zone_span,
)
from stellarml.sky import ARCSEC_PER_RAD, MAS_PER_RAD

Numbers = tuple[Integers, Integers, Floats, Floats, Floats, Flags]

SAFETY = 1.0 + 1e-9
_TINY_RAD = 1e-14
_LN_TWO_PI = math.log(2.0 * math.pi)
_MOVED_FAR_RAD = 1.0 / ARCSEC_PER_RAD
_NO_PM, _PARALLAX, _FAR = bits.NO_PROPER_MOTION, bits.PARALLAX_LEADS, bits.MOVED_FAR


@dataclass(frozen=True)
class Pairs:
    """Good neighbours, one element a pair; `rank` is the larger the better the pair.

    With errors `rank` is ln F before the density and `d2` the squared Mahalanobis distance; in fixed-radius mode
    `rank` is minus the distance in arcsec and `d2` is NaN.
    """

    moving_row: Integers
    staying_row: Integers
    distance_arcsec: Floats
    d2: Floats
    rank: Floats
    flags: Flags


def search_radius_rad(
    moving: Moving, settings: MatchSettings, epochs_yr: tuple[float, float], widest_staying_mas2: float
) -> Floats:
    """How far from its stored position a moving row's good neighbours can lie; the bound of all its edges."""
    shift = longest_shift_rad(moving, *epochs_yr)
    if settings.radius_arcsec is not None:
        return (settings.radius_arcsec / ARCSEC_PER_RAD + shift) * SAFETY
    variance = widest_variance_mas2(moving, *epochs_yr) + widest_staying_mas2
    reach = np.sqrt(settings.limit) * np.sqrt(variance) / MAS_PER_RAD
    bound: Floats = (reach + shift) * SAFETY
    return bound


def index_staying(staying: Staying, reach_deg: float) -> Zones:
    """Index the usable rows of the side that stays for searches of a typical radius."""
    return build_zones(staying.ra_deg, staying.dec_deg, staying.vector, staying.usable, reach_deg)


def find_pairs(moving: Moving, staying: Staying, zones: Zones, settings: MatchSettings) -> Pairs:
    """All good neighbours among the usable rows of both sides, ordered by moving row."""
    details = np.column_stack([staying.variance, staying.epoch_yr])[zones.row]
    epochs = epoch_limits(details[:, 4])
    widest_staying = float(details[:, 3].max(initial=0.0))
    radius_deg = search_radius_rad(moving, settings, epochs, widest_staying) / RAD_PER_DEG
    found = _search(
        moving.ra_deg,
        moving.dec_deg,
        moving.vector,
        moving.motion_rad_yr,
        moving.speed_rad_yr,
        moving.covariance,
        moving.half_parallax_mas2,
        moving.epoch_yr,
        moving.flags,
        widest_variance_mas2(moving, *epochs),
        np.where(moving.usable, radius_deg, -1.0),
        zones,
        details,
        staying.flags,
        settings.limit,
        -1.0 if settings.radius_arcsec is None else settings.radius_arcsec,
    )
    return Pairs(*found)


def epoch_limits(epoch_yr: Floats) -> tuple[float, float]:
    """First and last finite epoch; NaN twice where there is none."""
    finite = epoch_yr[np.isfinite(epoch_yr)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (math.nan, math.nan)


@compiled
def tangent_offsets(
    x: float, y: float, z: float, dx: float, dy: float, dz: float, depth: float
) -> tuple[float, float]:
    """Offsets east and north, radians on the tangent plane at (x, y, z), of the point at (x + dx, y + dy, z + dz)."""
    rho = math.sqrt(x * x + y * y)
    if rho == 0.0:
        cos_ra, sin_ra = 1.0, 0.0
    else:
        cos_ra, sin_ra = x / rho, y / rho
    east = dy * cos_ra - dx * sin_ra
    north = rho * dz - z * (dx * cos_ra + dy * sin_ra)
    return east / depth, north / depth


@compiled
def _search(
    ra_deg: Floats,
    dec_deg: Floats,
    vector: Floats,
    motion: Floats,
    speed: Floats,
    covariance: Floats,
    half_parallax: Floats,
    epoch: Floats,
    moving_flags: Flags,
    widest_mas2: Floats,
    radius_deg: Floats,
    zones: Zones,
    details: Floats,
    staying_flags: Flags,
    limit: float,
    fixed_arcsec: float,
) -> Numbers:
    capacity = max(1024, len(ra_deg) + len(ra_deg) // 4)
    rows, others = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    marks, numbers = np.empty(capacity, dtype=np.int16), np.empty((3, capacity))
    count = 0
    reach = math.sqrt(limit) / MAS_PER_RAD
    fixed = fixed_arcsec > 0.0
    for i in range(len(ra_deg)):
        radius = radius_deg[i]
        if not radius >= 0.0:
            continue
        low_zone, high_zone = zone_span(zones, dec_deg[i], radius)
        if low_zone >= high_zone:
            continue
        farthest = radius * RAD_PER_DEG * SAFETY + _TINY_RAD
        x0, y0, z0 = vector[i, 0], vector[i, 1], vector[i, 2]
        low, high, low2, high2 = ra_windows(ra_deg[i], ra_half_width_deg(dec_deg[i], radius))
        for zone in range(low_zone, high_zone):
            begin, end = zones.start[zone], zones.start[zone + 1]
            for window in range(2):
                if window == 1:
                    if high2 < low2:
                        break
                    low, high, low2, high2 = low2, high2, low, high
                k = first_at_least(zones.ra_deg, begin, end, low) - 1
                while k + 1 < end and zones.ra_deg[k + 1] <= high:
                    k += 1
                    qx, qy, qz = zones.vector[k, 0], zones.vector[k, 1], zones.vector[k, 2]
                    dx, dy, dz = qx - x0, qy - y0, qz - z0
                    chord2 = dx * dx + dy * dy + dz * dz
                    if chord2 > farthest * farthest:
                        continue
                    interval = zero_if_missing(details[k, 4] - epoch[i])
                    shift = speed[i] * abs(interval)
                    if fixed:
                        bound = fixed_arcsec / ARCSEC_PER_RAD + shift
                    else:
                        bound = reach * math.sqrt(widest_mas2[i] + details[k, 3]) + shift
                    bound = bound * SAFETY + _TINY_RAD
                    if chord2 > bound * bound:
                        continue
                    x, y, z = moved(
                        x0, y0, z0, motion[i, 0], motion[i, 1], motion[i, 2], speed[i], interval
                    )
                    dx, dy, dz = qx - x, qy - y, qz - z
                    chord2 = dx * dx + dy * dy + dz * dz
                    distance = ARCSEC_PER_RAD * angle_of_chord(math.sqrt(chord2))
                    flag = moving_flags[i] | staying_flags[zones.row[k]]
                    if interval == 0.0:
                        flag &= ~_NO_PM
                    if shift > _MOVED_FAR_RAD:
                        flag |= _FAR
                    if fixed:
                        if distance > fixed_arcsec:
                            continue
                        d2, rank = math.nan, -distance
                    else:
                        depth = 1.0 - chord2 / 2.0
                        if depth <= 0.0:
                            continue
                        east, north = tangent_offsets(x, y, z, dx, dy, dz, depth)
                        east, north = east * MAS_PER_RAD, north * MAS_PER_RAD
                        c = covariance[i]
                        aa = c[0] + interval * (c[1] + interval * c[2]) + details[k, 0]
                        dd = c[3] + interval * (c[4] + interval * c[5]) + details[k, 1]
                        ad = c[6] + interval * (c[7] + interval * c[8]) + details[k, 2]
                        determinant = aa * dd - ad * ad
                        if not (determinant > 0.0 and aa > 0.0):
                            continue
                        d2 = (dd * east * east - 2.0 * ad * east * north + aa * north * north) / determinant
                        if not d2 <= limit:
                            continue
                        rank = -0.5 * d2 - _LN_TWO_PI - 0.5 * math.log(determinant)
                        if 2.0 * half_parallax[i] > min(aa, dd):
                            flag |= _PARALLAX
                    if count == capacity:
                        capacity *= 2
                        rows, others, marks, numbers = _longer(rows, others, marks, numbers, capacity)
                    rows[count], others[count], marks[count] = i, zones.row[k], flag
                    numbers[0, count], numbers[1, count], numbers[2, count] = distance, d2, rank
                    count += 1
                if window == 1:
                    low, high, low2, high2 = low2, high2, low, high
    distances, d2s, ranks = numbers[0, :count], numbers[1, :count], numbers[2, :count]
    return rows[:count].copy(), others[:count].copy(), distances.copy(), d2s.copy(), ranks.copy(), marks[:count].copy()


@compiled
def angle_of_chord(chord: float) -> float:
    """Angle in radians that a chord of the unit sphere spans; exact to rounding for small ones too."""
    if chord < 1e-4:
        return chord * (1.0 + chord * chord / 24.0)
    return 2.0 * math.asin(min(1.0, chord / 2.0))


@compiled
def _longer(
    rows: Integers, others: Integers, marks: Flags, numbers: Floats, capacity: int
) -> tuple[Integers, Integers, Flags, Floats]:
    count = len(rows)
    more_rows, more_others = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
    more_marks, more_numbers = np.empty(capacity, dtype=np.int16), np.empty((3, capacity))
    more_rows[:count], more_others[:count], more_marks[:count] = rows, others, marks
    more_numbers[:, :count] = numbers
    return more_rows, more_others, more_marks, more_numbers
