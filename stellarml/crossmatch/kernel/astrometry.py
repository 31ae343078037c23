"""Where is a source at another epoch, and how well is that known? Rows in, vectors and variances out.

A source that moves carries its covariance as a quadratic in the interval dt, nine numbers a row (mas^2):
``V_xy(dt) = c0 + c1 dt + c2 dt^2`` for aa, dd and ad, with

- V_aa = s_a^2 + 2 dt r(ra,pmra) s_a s_ma + dt^2 s_ma^2, V_dd likewise,
- V_ad = r(ra,dec) s_a s_d + dt [r(ra,pmdec) s_a s_md + r(dec,pmra) s_d s_ma] + dt^2 r(pmra,pmdec) s_ma s_md,

plus parallax^2 / 2 on aa and dd (the star is somewhere on its parallactic ellipse), plus (sigma_mu dt)^2 on both where
no proper motion is known. The quadratic is convex along every direction, so over an interval of epochs the largest
variance is at one of its ends: that is what makes the search radius of `widest_variance_mas2` safe.

Missing values: a proper motion counts only when both components are there; a missing error or correlation of a proper
motion counts as zero, a missing parallax as none. Trigonometry is compiled here rather than left to NumPy, whose vector
code may round differently from one array layout to another: results must not depend on how rows are cut into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.core.match_flags import MatchFlag
from stellarml.core.sky import MAS_PER_RAD
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.settings import Floats, MatchSettings, PositionErrors, Sources

Flags = NDArray[np.int16]
Mask = NDArray[np.bool_]

Columns = tuple[Floats, ...]

RAD_PER_DEG = math.pi / 180.0

_SERIES_RAD = 1e-4
_NO_PROPER_MOTION, _COVARIANCE_PARTIAL = int(MatchFlag.NO_PROPER_MOTION), int(MatchFlag.COVARIANCE_PARTIAL)
_ERROR_REPLACED, _ERROR_AT_FLOOR = int(MatchFlag.ERROR_REPLACED), int(MatchFlag.ERROR_AT_FLOOR)
_EPOCH_REPLACED = int(MatchFlag.EPOCH_REPLACED)


@dataclass(frozen=True)
class Moving:
    """Rows of the side that moves, ready for the kernel."""

    ra_deg: Floats
    dec_deg: Floats
    vector: Floats
    motion_rad_yr: Floats
    speed_rad_yr: Floats
    covariance: Floats
    half_parallax_mas2: Floats
    epoch_yr: Floats
    usable: Mask
    flags: Flags
    with_errors: bool = True


@dataclass(frozen=True)
class Staying:
    """Rows of the side that stays at its own epochs, ready for the kernel."""

    ra_deg: Floats
    dec_deg: Floats
    vector: Floats
    variance: Floats
    epoch_yr: Floats
    usable: Mask
    flags: Flags


def prepare_moving(rows: Sources, settings: MatchSettings, *, placed: bool = True) -> Moving:
    """Vectors, motions and covariance polynomials, shape (n, 9), of the side that moves.

    With `placed` false vectors and motions stay zero, for who needs only how far edges reach.
    """
    vector, motion, speed = _vectors_and_motions(
        rows.ra_deg, rows.dec_deg, rows.pmra_mas_yr, rows.pmdec_mas_yr, placed
    )
    with_errors = settings.radius_arcsec is None
    covariance, half_parallax, admitted, marks = _covariances(
        (rows.ra_error_mas, rows.dec_error_mas),
        (rows.pmra_mas_yr, rows.pmdec_mas_yr, rows.pmra_error_mas_yr, rows.pmdec_error_mas_yr),
        rows.parallax_mas,
        (
            rows.ra_dec_corr,
            rows.ra_pmra_corr,
            rows.ra_pmdec_corr,
            rows.dec_pmra_corr,
            rows.dec_pmdec_corr,
            rows.pmra_pmdec_corr,
        ),
        _numbers(settings.moving_errors),
        settings.sigma_mu_mas_yr,
        with_errors,
    )
    return Moving(
        ra_deg=rows.ra_deg,
        dec_deg=rows.dec_deg,
        vector=vector,
        motion_rad_yr=motion,
        speed_rad_yr=speed,
        covariance=covariance,
        half_parallax_mas2=half_parallax,
        epoch_yr=rows.epoch_yr,
        usable=on_sky(rows) & admitted,
        flags=marks,
        with_errors=with_errors,
    )


def prepare_staying(
    rows: Sources, settings: MatchSettings, mean_epoch_yr: float, *, placed: bool = True
) -> Staying:
    """Vectors, variances (aa, dd, ad, largest; shape (n, 4)) and filled epochs of the side that stays."""
    variance, admitted, marks, epoch = _variances(
        rows.ra_error_mas,
        rows.dec_error_mas,
        rows.ra_dec_corr,
        rows.epoch_yr,
        _numbers(settings.staying_errors),
        mean_epoch_yr,
        settings.radius_arcsec is None,
    )
    return Staying(
        ra_deg=rows.ra_deg,
        dec_deg=rows.dec_deg,
        vector=vectors(rows.ra_deg, rows.dec_deg) if placed else np.zeros((len(rows), 3)),
        variance=variance,
        epoch_yr=epoch,
        usable=on_sky(rows) & admitted,
        flags=marks,
    )


def widest_variance_mas2(moving: Moving, first_yr: float, last_yr: float) -> Floats:
    """Largest variance, in any direction, of each moving row at any epoch between two; without epochs, at its own."""
    if not moving.with_errors:
        return np.zeros(len(moving.ra_deg))
    return _widest(moving.covariance, moving.epoch_yr, first_yr, last_yr)


def longest_shift_rad(moving: Moving, first_yr: float, last_yr: float) -> Floats:
    """How far a moving row travels at most between its own epoch and any between two epochs."""
    if not moving.speed_rad_yr.any():
        return np.zeros(len(moving.speed_rad_yr))
    longest = np.maximum(np.abs(first_yr - moving.epoch_yr), np.abs(last_yr - moving.epoch_yr))
    shift: Floats = moving.speed_rad_yr * np.where(np.isfinite(longest), longest, 0.0)
    return shift


def on_sky(rows: Sources) -> Mask:
    """Rows with a position."""
    usable: Mask = np.isfinite(rows.ra_deg) & (np.abs(rows.dec_deg) <= 90.0)
    return usable


@compiled
def vectors(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Make unit vectors, shape (n, 3)."""
    out = np.empty((len(ra_deg), 3))
    for i in range(len(ra_deg)):
        ra, dec = ra_deg[i] * RAD_PER_DEG, dec_deg[i] * RAD_PER_DEG
        cos_dec = math.cos(dec)
        out[i, 0] = cos_dec * math.cos(ra)
        out[i, 1] = cos_dec * math.sin(ra)
        out[i, 2] = math.sin(dec)
    return out


@compiled
def moved(
    x: float, y: float, z: float, mx: float, my: float, mz: float, speed: float, interval: float
) -> tuple[float, float, float]:
    """Move a unit vector for `interval` years along the great circle of the motion (mx, my, mz), rad/yr."""
    angle = speed * interval
    if abs(angle) < _SERIES_RAD:
        square = angle * angle
        along = 1.0 - square * (0.5 - square / 24.0)
        across = interval * (1.0 - square / 6.0)
    else:
        along, across = math.cos(angle), math.sin(angle) / speed
    return x * along + mx * across, y * along + my * across, z * along + mz * across


@compiled
def _vectors_and_motions(
    ra_deg: Floats, dec_deg: Floats, pmra_mas_yr: Floats, pmdec_mas_yr: Floats, placed: bool
) -> tuple[Floats, Floats, Floats]:
    place = np.zeros((len(ra_deg), 3))
    motion = np.zeros((len(ra_deg), 3))
    speed = np.zeros(len(ra_deg))
    for i in range(len(ra_deg)):
        moves = math.isfinite(pmra_mas_yr[i]) and math.isfinite(pmdec_mas_yr[i])
        east = pmra_mas_yr[i] / MAS_PER_RAD if moves else 0.0
        north = pmdec_mas_yr[i] / MAS_PER_RAD if moves else 0.0
        speed[i] = math.sqrt(east * east + north * north)
        if not placed:
            continue
        ra, dec = ra_deg[i] * RAD_PER_DEG, dec_deg[i] * RAD_PER_DEG
        cos_ra, sin_ra, cos_dec, sin_dec = math.cos(ra), math.sin(ra), math.cos(dec), math.sin(dec)
        place[i, 0] = cos_dec * cos_ra
        place[i, 1] = cos_dec * sin_ra
        place[i, 2] = sin_dec
        if speed[i] > 0.0:
            motion[i, 0] = -east * sin_ra - north * sin_dec * cos_ra
            motion[i, 1] = east * cos_ra - north * sin_dec * sin_ra
            motion[i, 2] = north * cos_dec
    return place, motion, speed


@compiled
def _covariances(
    position_errors: Columns,
    motions: Columns,
    parallax: Floats,
    correlations: Columns,
    errors: tuple[float, float, float, float],
    sigma_mu: float,
    with_errors: bool,
) -> tuple[Floats, Floats, Mask, Flags]:
    rows = len(parallax)
    covariance = np.zeros((rows, 9))
    half_parallax = np.zeros(rows)
    admitted = np.ones(rows, dtype=np.bool_)
    marks = np.zeros(rows, dtype=np.int16)
    for i in range(rows):
        known = math.isfinite(motions[0][i]) and math.isfinite(motions[1][i])
        if not known:
            marks[i] |= _NO_PROPER_MOTION
        if not with_errors:
            continue
        s_a, mark_a, ok_a = believed(position_errors[0][i], errors)
        s_d, mark_d, ok_d = believed(position_errors[1][i], errors)
        admitted[i] = ok_a and ok_d
        marks[i] |= (mark_a | mark_d) & _ERROR_REPLACED
        if math.isfinite(parallax[i]):
            half_parallax[i] = parallax[i] * parallax[i] / 2.0
        added = errors[2] * errors[2] + half_parallax[i]
        c = covariance[i]
        c[0], c[3] = s_a * s_a + added, s_d * s_d + added
        c[6] = zero_if_missing(correlations[0][i]) * s_a * s_d
        if not known:
            c[2], c[5] = sigma_mu * sigma_mu, sigma_mu * sigma_mu
            continue
        s_ma, s_md = zero_if_missing(motions[2][i]), zero_if_missing(motions[3][i])
        r_a_ma, r_a_md = zero_if_missing(correlations[1][i]), zero_if_missing(correlations[2][i])
        r_d_ma, r_d_md = zero_if_missing(correlations[3][i]), zero_if_missing(correlations[4][i])
        c[1], c[2] = 2.0 * r_a_ma * s_a * s_ma, s_ma * s_ma
        c[4], c[5] = 2.0 * r_d_md * s_d * s_md, s_md * s_md
        c[7] = r_a_md * s_a * s_md + r_d_ma * s_d * s_ma
        c[8] = zero_if_missing(correlations[5][i]) * s_ma * s_md
        every = motions[2][i] + motions[3][i] + correlations[0][i] + correlations[1][i] + correlations[2][i]
        every += correlations[3][i] + correlations[4][i] + correlations[5][i]
        if not math.isfinite(every):
            marks[i] |= _COVARIANCE_PARTIAL
    return covariance, half_parallax, admitted, marks


@compiled
def _variances(
    ra_error: Floats,
    dec_error: Floats,
    correlation: Floats,
    epoch: Floats,
    errors: tuple[float, float, float, float],
    mean_epoch: float,
    with_errors: bool,
) -> tuple[Floats, Mask, Flags, Floats]:
    rows = len(epoch)
    variance = np.zeros((rows, 4))
    admitted = np.ones(rows, dtype=np.bool_)
    marks = np.zeros(rows, dtype=np.int16)
    filled = epoch.copy()
    for i in range(rows):
        if not math.isfinite(epoch[i]):
            filled[i] = mean_epoch
            if math.isfinite(mean_epoch):
                marks[i] |= _EPOCH_REPLACED
        if with_errors:
            s_a, mark_a, ok_a = believed(ra_error[i], errors)
            s_d, mark_d, ok_d = believed(dec_error[i], errors)
            admitted[i] = ok_a and ok_d
            marks[i] |= mark_a | mark_d
            variance[i, 0] = s_a * s_a + errors[2] * errors[2]
            variance[i, 1] = s_d * s_d + errors[2] * errors[2]
            variance[i, 2] = zero_if_missing(correlation[i]) * s_a * s_d
            variance[i, 3] = max(variance[i, 0], variance[i, 1]) + abs(variance[i, 2])
    return variance, admitted, marks, filled


@compiled
def _widest(covariance: Floats, epoch: Floats, first: float, last: float) -> Floats:
    widest = np.zeros(len(epoch))
    for i in range(len(epoch)):
        c = covariance[i]
        for limit in (first, last):
            t = zero_if_missing(limit - epoch[i])
            aa, dd = c[0] + t * (c[1] + t * c[2]), c[3] + t * (c[4] + t * c[5])
            ad = c[6] + t * (c[7] + t * c[8])
            half = (aa - dd) / 2.0
            widest[i] = max(widest[i], (aa + dd) / 2.0 + math.sqrt(half * half + ad * ad))
    return widest


@compiled
def believed(given: float, errors: tuple[float, float, float, float]) -> tuple[float, int, bool]:
    """One position error as the catalogue's `PositionErrors` have it: sigma, flag bits, whether it is admitted."""
    floor, reject_above, _, missing = errors
    mark = 0
    if not given >= 0.0:
        given = missing
        mark |= _ERROR_REPLACED
    if given < floor:
        mark |= _ERROR_AT_FLOOR
    if not (math.isfinite(given) and given <= reject_above):
        return 0.0, mark, False
    return max(given, floor), mark, True


@compiled
def zero_if_missing(value: float) -> float:
    """Return the value, or 0 where it is NaN or infinite."""
    return value if math.isfinite(value) else 0.0


def _numbers(errors: PositionErrors) -> tuple[float, float, float, float]:
    return (
        float(errors.floor_mas),
        float(errors.reject_above_mas),
        float(errors.systematic_mas),
        float(errors.missing_mas),
    )
