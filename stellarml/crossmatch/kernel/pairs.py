"""Which sources of two catalogues are good neighbours? The compiled search, and the formulas of one pair.

The numbers of a pair come from its two rows and the settings alone. For each moving row the search takes all candidates
within the farthest it can reach, drops those beyond the pair's own bound without any trigonometry, and evaluates the
rest on the tangent plane at the moved source: offsets D east and north, covariance ``C = V(dt) + C_staying``,
``d2 = D^T C^-1 D``, and the part of the figure of merit that ranks candidates,
``ln F rho = -d2 / 2 - ln(2 pi sqrt(det C))`` in mas^-2. Errors refer to east and north where and when their own source
was catalogued, and are carried along great circles to where the two meet: about a pole, east itself would turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stellarml.core.match_flags import MatchFlag
from stellarml.core.sky import ARCSEC_PER_RAD, MAS_PER_RAD
from stellarml.crossmatch.kernel.astrometry import (
    RAD_PER_DEG,
    Flags,
    Moving,
    Staying,
    longest_shift_rad,
    moved,
    widest_variance_mas2,
    zero_if_missing,
)
from stellarml.crossmatch.kernel.candidates import SAFETY, candidates
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.occupancy import mark_occupied
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings
from stellarml.crossmatch.kernel.zones import Zones, build_zones

_LN_TWO_PI = math.log(2.0 * math.pi)
_MOVED_FAR_RAD = 1.0 / ARCSEC_PER_RAD
_NO_PM, _PARALLAX = int(MatchFlag.NO_PROPER_MOTION), int(MatchFlag.PARALLAX_LEADS)
_FAR = int(MatchFlag.MOVED_FAR)


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


ALL = np.iinfo(np.int64).max


class Search:
    """The search for good neighbours among the usable rows of both sides, in one go or chunk by chunk."""

    def __init__(self, moving: Moving, staying: Staying, zones: Zones, settings: MatchSettings) -> None:
        self._moving, self._staying, self._zones, self._settings = moving, staying, zones, settings
        self._details = _details(staying.variance, staying.epoch_yr, zones.row)
        epochs = epoch_limits(self._details[:, 4])
        self._span = settings.unknown_epochs_yr or (math.nan, math.nan)
        if not math.isfinite(epochs[0]):
            epochs = self._span
        widest_staying = float(self._details[:, 3].max(initial=0.0))
        radius_deg = search_radius_rad(moving, settings, epochs, widest_staying) / RAD_PER_DEG
        self._radius_deg = np.where(moving.usable, radius_deg, -1.0)
        self._widest_mas2 = widest_variance_mas2(moving, *epochs)
        farthest = float(self._radius_deg.max(initial=0.0))
        self._occupied = mark_occupied(zones, staying.dec_deg[zones.row], farthest)

    def pairs(self, first: int = 0, most: int = ALL) -> tuple[Pairs, int]:
        """Return the pairs of the moving rows from `first` on, in their order, and the first row not looked at.

        The search pauses after a row with which it has looked at `most` candidates or more; all pairs of a row come
        together.
        """
        moving, settings = self._moving, self._settings
        reach = -1.0 if settings.radius_arcsec is not None else math.sqrt(settings.limit) / MAS_PER_RAD
        fixed = settings.radius_arcsec if settings.radius_arcsec is not None else -1.0
        rows, places, following = candidates(
            moving.ra_deg,
            moving.dec_deg,
            moving.vector,
            moving.speed_rad_yr,
            moving.epoch_yr,
            self._widest_mas2,
            self._radius_deg,
            self._zones,
            self._occupied,
            self._details,
            reach,
            fixed / ARCSEC_PER_RAD,
            self._span,
            first,
            most,
        )
        found = _evaluate(
            rows,
            places,
            moving.vector,
            moving.motion_rad_yr,
            moving.speed_rad_yr,
            moving.covariance,
            moving.half_parallax_mas2,
            moving.epoch_yr,
            moving.flags,
            self._zones,
            self._details,
            self._staying.flags,
            settings.limit,
            fixed,
            self._span,
        )
        return Pairs(*found), following


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
def turn(ax: float, ay: float, az: float, bx: float, by: float, bz: float) -> tuple[float, float]:
    """Cosine and sine of how far east at b, carried along the great circle to a, is turned from east at a to north."""
    near, far = math.sqrt(ax * ax + ay * ay), math.sqrt(bx * bx + by * by)
    if near == 0.0 or far == 0.0:
        return 1.0, 0.0
    cosine, sine = (ax * bx + ay * by) / (near * far), (ax * by - ay * bx) / (near * far)
    lean = near * sine / (1.0 + ax * bx + ay * by + az * bz)
    return cosine + lean * far * sine, az * sine + lean * (near * bz - az * far * cosine)


@compiled
def _details(variance: Floats, epoch: Floats, row: Integers) -> Floats:
    """Variances and epoch in the order of the index: one cache line a candidate."""
    out = np.empty((len(row), 5))
    for k in range(len(row)):
        for column in range(4):
            out[k, column] = variance[row[k], column]
        out[k, 4] = epoch[row[k]]
    return out


@compiled
def _nearest_interval(
    dx: float, dy: float, dz: float, mx: float, my: float, mz: float, first: float, last: float
) -> float:
    """Years, from `first` to `last`, after which a source with this motion is nearest to a point (dx, dy, dz) away."""
    speed2 = mx * mx + my * my + mz * mz
    if speed2 == 0.0:
        return 0.0
    return min(max((dx * mx + dy * my + dz * mz) / speed2, first), last)


@compiled
def _evaluate(
    rows: Integers,
    places: Integers,
    vector: Floats,
    motion: Floats,
    speed: Floats,
    covariance: Floats,
    half_parallax: Floats,
    epoch: Floats,
    moving_flags: Flags,
    zones: Zones,
    details: Floats,
    staying_flags: Flags,
    limit: float,
    fixed_arcsec: float,
    span_yr: tuple[float, float],
) -> tuple[Integers, Integers, Floats, Floats, Floats, Flags]:
    """Keep the good neighbours among the candidates, and work out their numbers."""
    distances, d2s, ranks = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows))
    marks = np.empty(len(rows), dtype=np.int16)
    staying_row, xs, ys, zs = zones.row, zones.x, zones.y, zones.z
    count = 0
    for e in range(len(rows)):
        i, k = rows[e], places[e]
        interval = zero_if_missing(details[k, 4] - epoch[i])
        if not math.isfinite(details[k, 4]) and math.isfinite(span_yr[0]):
            interval = _nearest_interval(
                xs[k] - vector[i, 0],
                ys[k] - vector[i, 1],
                zs[k] - vector[i, 2],
                motion[i, 0],
                motion[i, 1],
                motion[i, 2],
                zero_if_missing(span_yr[0] - epoch[i]),
                zero_if_missing(span_yr[1] - epoch[i]),
            )
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
        dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
        chord2 = dx * dx + dy * dy + dz * dz
        distance = ARCSEC_PER_RAD * angle_of_chord(math.sqrt(chord2))
        mark = moving_flags[i] | staying_flags[staying_row[k]]
        if interval == 0.0:
            mark &= ~_NO_PM
        if speed[i] * abs(interval) > _MOVED_FAR_RAD:
            mark |= _FAR
        if fixed_arcsec > 0.0:
            good, d2, rank = distance <= fixed_arcsec, math.nan, -distance
        else:
            east, north = tangent_offsets(x, y, z, dx, dy, dz, 1.0 - chord2 / 2.0)
            c1, s1 = turn(x, y, z, vector[i, 0], vector[i, 1], vector[i, 2])
            east, north = (east * c1 + north * s1) * MAS_PER_RAD, (north * c1 - east * s1) * MAS_PER_RAD
            c2, s2 = turn(x, y, z, xs[k], ys[k], zs[k])
            c, s = c1 * c2 + s1 * s2, c1 * s2 - s1 * c2
            across = 2.0 * c * s * details[k, 2]
            there_aa = c * c * details[k, 0] - across + s * s * details[k, 1]
            there_dd = s * s * details[k, 0] + across + c * c * details[k, 1]
            there_ad = c * s * (details[k, 0] - details[k, 1]) + (c * c - s * s) * details[k, 2]
            aa = covariance[i, 0] + interval * (covariance[i, 1] + interval * covariance[i, 2]) + there_aa
            dd = covariance[i, 3] + interval * (covariance[i, 4] + interval * covariance[i, 5]) + there_dd
            ad = covariance[i, 6] + interval * (covariance[i, 7] + interval * covariance[i, 8]) + there_ad
            determinant = aa * dd - ad * ad
            d2 = (dd * east * east - 2.0 * ad * east * north + aa * north * north) / determinant
            good = determinant > 0.0 and aa > 0.0 and chord2 < 2.0 and d2 <= limit
            rank = -0.5 * d2 - _LN_TWO_PI - 0.5 * math.log(determinant) if good else 0.0
            if 2.0 * half_parallax[i] > min(aa, dd):
                mark |= _PARALLAX
        if good:
            rows[count], places[count], marks[count] = i, staying_row[k], mark
            distances[count], d2s[count], ranks[count] = distance, d2, rank
            count += 1
    return rows[:count], places[:count], distances[:count], d2s[:count], ranks[:count], marks[:count]


@compiled
def angle_of_chord(chord: float) -> float:
    """Angle in radians that a chord of the unit sphere spans; exact to rounding for small ones too."""
    if chord < 1e-4:
        return chord * (1.0 + chord * chord / 24.0)
    return 2.0 * math.asin(min(1.0, chord / 2.0))
