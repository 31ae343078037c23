"""Where is a source at another epoch, and how well is that known? Rows in, vectors and variances out.

A source that moves carries its covariance as a quadratic in the interval dt, nine numbers a row (mas^2):
``V_xy(dt) = c0 + c1 dt + c2 dt^2`` for aa, dd and ad, with

- V_aa = s_a^2 + 2 dt r(ra,pmra) s_a s_ma + dt^2 s_ma^2, V_dd likewise,
- V_ad = r(ra,dec) s_a s_d + dt [r(ra,pmdec) s_a s_md + r(dec,pmra) s_d s_ma] + dt^2 r(pmra,pmdec) s_ma s_md,

plus parallax^2 / 2 on aa and dd (the star is somewhere on its parallactic ellipse), plus (sigma_mu dt)^2 on both where
no proper motion is known. The quadratic is convex along every direction, so over an interval of epochs the largest
variance is at one of its ends: that is what makes the search radius of `widest_sigma_mas` safe.

Missing values: a proper motion counts only when both components are there; a missing error or correlation of a proper
motion counts as zero, a missing parallax as none. Trigonometry is compiled here rather than left to NumPy, whose vector
code may round differently from one array layout to another: results must not depend on how rows are cut into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.crossmatch import settings as flags
from stellarml.crossmatch.compiled import compiled
from stellarml.crossmatch.settings import Floats, MatchSettings, PositionErrors, Sources
from stellarml.sky import MAS_PER_RAD

Flags = NDArray[np.int16]
Mask = NDArray[np.bool_]

RAD_PER_DEG = math.pi / 180.0


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


def prepare_moving(rows: Sources, settings: MatchSettings) -> Moving:
    """Vectors, motions and covariance polynomials, shape (n, 9), of the side that moves."""
    known = np.isfinite(rows.pmra_mas_yr) & np.isfinite(rows.pmdec_mas_yr)
    pmra, pmdec = np.where(known, rows.pmra_mas_yr, 0.0), np.where(known, rows.pmdec_mas_yr, 0.0)
    vector, motion = _vectors_and_motions(rows.ra_deg, rows.dec_deg, pmra / MAS_PER_RAD, pmdec / MAS_PER_RAD)
    marks = np.where(known, 0, flags.NO_PROPER_MOTION).astype(np.int16)
    half_parallax = np.where(np.isfinite(rows.parallax_mas), rows.parallax_mas, 0.0) ** 2 / 2.0
    usable = on_sky(rows)
    covariance = np.zeros((len(rows), 9))
    if settings.radius_arcsec is None:
        s_a, s_d, admitted, error_marks = _believed(rows, settings.moving_errors)
        usable &= admitted
        marks |= error_marks & flags.ERROR_REPLACED
        covariance, partial = _covariance(rows, s_a, s_d, known, settings)
        covariance[:, (0, 3)] += half_parallax[:, None]
        marks |= np.where(partial, flags.COVARIANCE_PARTIAL, 0).astype(np.int16)
    return Moving(
        ra_deg=rows.ra_deg,
        dec_deg=rows.dec_deg,
        vector=vector,
        motion_rad_yr=motion,
        speed_rad_yr=np.sqrt(pmra * pmra + pmdec * pmdec) / MAS_PER_RAD,
        covariance=covariance,
        half_parallax_mas2=half_parallax,
        epoch_yr=rows.epoch_yr,
        usable=usable,
        flags=marks,
    )


def prepare_staying(rows: Sources, settings: MatchSettings, mean_epoch_yr: float) -> Staying:
    """Vectors, variances (aa, dd, ad, largest; shape (n, 4)) and filled epochs of the side that stays."""
    replaced = ~np.isfinite(rows.epoch_yr)
    vector = vectors(rows.ra_deg, rows.dec_deg)
    usable = on_sky(rows)
    variance = np.zeros((len(rows), 4))
    marks = np.where(replaced & math.isfinite(mean_epoch_yr), flags.EPOCH_REPLACED, 0).astype(np.int16)
    if settings.radius_arcsec is None:
        s_a, s_d, admitted, error_marks = _believed(rows, settings.staying_errors)
        usable &= admitted
        marks |= error_marks
        systematic = settings.staying_errors.systematic_mas**2
        correlation = _zero_if_missing(rows.ra_dec_corr)
        variance[:, 0] = s_a * s_a + systematic
        variance[:, 1] = s_d * s_d + systematic
        variance[:, 2] = correlation * s_a * s_d
        variance[:, 3] = np.maximum(variance[:, 0], variance[:, 1]) + np.abs(variance[:, 2])
    return Staying(
        ra_deg=rows.ra_deg,
        dec_deg=rows.dec_deg,
        vector=vector,
        variance=variance,
        epoch_yr=np.where(replaced, mean_epoch_yr, rows.epoch_yr),
        usable=usable,
        flags=marks,
    )


def intervals_yr(moving: Moving, first_yr: float, last_yr: float) -> tuple[Floats, Floats]:
    """Per moving row, the intervals to the first and the last epoch of the side that stays; NaN counts as 0."""
    return _zero_if_missing(first_yr - moving.epoch_yr), _zero_if_missing(last_yr - moving.epoch_yr)


def widest_sigma_mas(moving: Moving, first_yr: float, last_yr: float) -> Floats:
    """Largest standard deviation, in any direction, of a moving row between two epochs."""
    largest = np.zeros(len(moving.epoch_yr))
    for interval in intervals_yr(moving, first_yr, last_yr):
        aa, dd, ad = (_polynomial(moving.covariance[:, i : i + 3], interval) for i in (0, 3, 6))
        half = (aa - dd) / 2.0
        largest = np.maximum(largest, (aa + dd) / 2.0 + np.sqrt(half * half + ad * ad))
    return np.sqrt(largest)


def longest_shift_rad(moving: Moving, first_yr: float, last_yr: float) -> Floats:
    """How far a moving row travels at most between its own epoch and any between two epochs."""
    first, last = intervals_yr(moving, first_yr, last_yr)
    shift: Floats = moving.speed_rad_yr * np.maximum(np.abs(first), np.abs(last))
    return shift


def on_sky(rows: Sources) -> Mask:
    """Rows with a position."""
    usable: Mask = np.isfinite(rows.ra_deg) & (np.abs(rows.dec_deg) <= 90.0)
    return usable


def admitted_staying(rows: Sources, settings: MatchSettings) -> Mask:
    """Rows of the side that stays which take part in the match."""
    if settings.radius_arcsec is not None:
        return on_sky(rows)
    return on_sky(rows) & _believed(rows, settings.staying_errors)[2]


@compiled
def vectors(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Unit vectors, shape (n, 3)."""
    out = np.empty((len(ra_deg), 3))
    for i in range(len(ra_deg)):
        ra, dec = ra_deg[i] * RAD_PER_DEG, dec_deg[i] * RAD_PER_DEG
        cos_dec = math.cos(dec)
        out[i, 0] = cos_dec * math.cos(ra)
        out[i, 1] = cos_dec * math.sin(ra)
        out[i, 2] = math.sin(dec)
    return out


@compiled
def _vectors_and_motions(
    ra_deg: Floats, dec_deg: Floats, pmra_rad_yr: Floats, pmdec_rad_yr: Floats
) -> tuple[Floats, Floats]:
    place = np.empty((len(ra_deg), 3))
    motion = np.empty((len(ra_deg), 3))
    for i in range(len(ra_deg)):
        ra, dec = ra_deg[i] * RAD_PER_DEG, dec_deg[i] * RAD_PER_DEG
        cos_ra, sin_ra, cos_dec, sin_dec = math.cos(ra), math.sin(ra), math.cos(dec), math.sin(dec)
        place[i, 0] = cos_dec * cos_ra
        place[i, 1] = cos_dec * sin_ra
        place[i, 2] = sin_dec
        motion[i, 0] = -pmra_rad_yr[i] * sin_ra - pmdec_rad_yr[i] * sin_dec * cos_ra
        motion[i, 1] = pmra_rad_yr[i] * cos_ra - pmdec_rad_yr[i] * sin_dec * sin_ra
        motion[i, 2] = pmdec_rad_yr[i] * cos_dec
    return place, motion


def _covariance(
    rows: Sources, s_a: Floats, s_d: Floats, known: Mask, settings: MatchSettings
) -> tuple[Floats, Mask]:
    s_ma = np.where(known, _zero_if_missing(rows.pmra_error_mas_yr), settings.sigma_mu_mas_yr)
    s_md = np.where(known, _zero_if_missing(rows.pmdec_error_mas_yr), settings.sigma_mu_mas_yr)
    r_a_ma, r_a_md, r_d_ma, r_d_md, r_ma_md = (
        np.where(known, _zero_if_missing(correlation), 0.0)
        for correlation in (
            rows.ra_pmra_corr,
            rows.ra_pmdec_corr,
            rows.dec_pmra_corr,
            rows.dec_pmdec_corr,
            rows.pmra_pmdec_corr,
        )
    )
    systematic = settings.moving_errors.systematic_mas**2
    covariance = np.column_stack(
        [
            s_a * s_a + systematic,
            2.0 * r_a_ma * s_a * s_ma,
            s_ma * s_ma,
            s_d * s_d + systematic,
            2.0 * r_d_md * s_d * s_md,
            s_md * s_md,
            _zero_if_missing(rows.ra_dec_corr) * s_a * s_d,
            r_a_md * s_a * s_md + r_d_ma * s_d * s_ma,
            r_ma_md * s_ma * s_md,
        ]
    )
    needed = (
        rows.pmra_error_mas_yr,
        rows.pmdec_error_mas_yr,
        rows.ra_dec_corr,
        rows.ra_pmra_corr,
        rows.ra_pmdec_corr,
        rows.dec_pmra_corr,
        rows.dec_pmdec_corr,
        rows.pmra_pmdec_corr,
    )
    partial = known & np.isnan(np.sum(needed, axis=0))
    return covariance, partial


def _believed(rows: Sources, errors: PositionErrors) -> tuple[Floats, Floats, Mask, Flags]:
    admitted = np.ones(len(rows), dtype=bool)
    marks = np.zeros(len(rows), dtype=np.int16)
    sigmas = []
    for given in (rows.ra_error_mas, rows.dec_error_mas):
        missing = ~(given >= 0.0)
        sigma = np.where(missing, errors.missing_mas, given)
        admitted &= np.isfinite(sigma) & (sigma <= errors.reject_above_mas)
        marks[missing] |= flags.ERROR_REPLACED
        marks[sigma < errors.floor_mas] |= flags.ERROR_AT_FLOOR
        sigmas.append(np.where(np.isfinite(sigma), np.maximum(sigma, errors.floor_mas), 0.0))
    return sigmas[0], sigmas[1], admitted, marks


def _zero_if_missing(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, 0.0)


def _polynomial(coefficients: Floats, interval: Floats) -> Floats:
    value: Floats = coefficients[:, 0] + interval * (coefficients[:, 1] + interval * coefficients[:, 2])
    return value
