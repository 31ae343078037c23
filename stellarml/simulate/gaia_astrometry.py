"""Gaia's measurement of a source's place and motion, and its errors.

Errors follow the DR3 model of PyGaia with a scatter that is partly common to a sky cell (scanning law) and partly the
source's own; `astrometric_sigma5d_max` is computed from the covariance, since it reproduces the real column to 0.01 %
and because the paper cuts on it. Poor solutions (RUWE, several peaks) follow binaries and close pairs.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.fields import shift, sky_cell
from stellarml.simulate.streams import Bools, Floats, cell_normal
from stellarml.simulate.text import Column, nullable
from stellarml.simulate.truth import QUASAR, Truth

TWO, FIVE, SIX = 3, 31, 95
# sigma / sigma(parallax) of ra, dec, parallax, pmra, pmdec (PyGaia, DR3; positions mas, motions mas/yr).
ERROR_RATIO = np.array([0.80, 0.70, 1.0, 1.03, 0.89])
# Half the 2.76383 yr that (E)DR3 spans weights the motions: with 2.76 the real column comes out 0.14 % too small.
SIGMA5D_SCALE = np.array([1.0, 1.0, np.sin(np.radians(45.0)), 2.76383 / 2, 2.76383 / 2])
PARAMETERS = ("ra", "dec", "parallax", "pmra", "pmdec")

_CELL_SCATTER, _OWN_SCATTER = 0.10, 0.10
_MEAN_CORRELATION = {(1, 0): 0.06, (2, 0): 0.17, (2, 1): -0.32, (4, 3): 0.18, (4, 1): -0.08, (3, 1): -0.04}


def parallax_error_mas(g_mag: Floats) -> Floats:
    """Return the sky-averaged parallax error (mas) at these G magnitudes; PyGaia 3.2.2, DR3."""
    z = np.maximum(10 ** (0.4 * (13.0 - 15.0)), 10 ** (0.4 * (g_mag - 15.0)))
    return np.asarray(np.sqrt(40.0 + 800.0 * z + 30.0 * z * z) / 1000.0)


def sigma5d_max_mas(errors: Floats, factor: Floats) -> Floats:
    """Return the longest semi-axis of the scaled five-parameter error ellipsoid (mas), shape (n,).

    Parameters
    ----------
    errors : ndarray, shape (n, 5)
        Standard errors in the order of `PARAMETERS` (mas, mas/yr).
    factor : ndarray, shape (n, 5, 5)
        A square root F of the correlation matrix, F F^T.
    """
    root = (errors * SIGMA5D_SCALE)[:, :, None] * factor
    return np.asarray(np.sqrt(np.linalg.eigvalsh(root @ np.swapaxes(root, 1, 2))[:, -1]))


def correlation_factor(cell: np.ndarray, seed: int, draw: np.random.Generator) -> Floats:
    """Return lower-triangular F with F F^T a correlation matrix, shape (n, 5, 5): alike inside a sky cell."""
    n = len(cell)
    factor = np.zeros((n, 5, 5))
    for i in range(5):
        factor[:, i, i] = 1.0
        for j in range(i):
            common = 0.14 * cell_normal(seed, f"correlation{i}{j}", cell)
            factor[:, i, j] = _MEAN_CORRELATION.get((i, j), 0.0) + common + draw.normal(0, 0.06, n)
    return np.asarray(factor / np.sqrt((factor**2).sum(axis=2))[:, :, None])


def solution(g_mag: Floats, poor: Bools, draw: np.random.Generator) -> np.ndarray:
    """Return `astrometric_params_solved`, shape (n,): two parameters for 25 % at G 20 to 21 and 1 % of bright ones."""
    two = draw.random(len(g_mag)) < 0.012 + 0.4 / (1 + np.exp(-4.5 * (g_mag - 20.6))) + 0.12 * poor
    six = draw.random(len(g_mag)) < 0.035 + 0.62 / (1 + np.exp(-2.2 * (g_mag - 18.9)))
    return np.where(two, TWO, np.where(six, SIX, FIVE))


def astrometry(truth: Truth, seed: int, noise: bool, draw: np.random.Generator) -> dict[str, Column]:
    """Return the astrometric columns of `gaia_source` for a block of sources; NaN stands for null."""
    n = len(truth["ra"])
    g_mag = truth["m_G"]
    cell = sky_cell(truth["ra"], truth["dec"])
    poor, ruwe, peaks, odd = _quality(truth, draw)
    solved = solution(g_mag, truth["close_pair"], draw)
    has_motion = solved != TWO
    scatter = _CELL_SCATTER * cell_normal(seed, "scan", cell) + _OWN_SCATTER * draw.standard_normal(n)
    sigma = parallax_error_mas(g_mag) * np.exp(scatter) * np.maximum(ruwe, 1.0) ** 0.7
    sigma *= np.where(solved == SIX, 1.12, 1.0)
    sigma_two = np.exp(draw.normal(np.log(1.6), 0.8, n)) * (1 + 10 ** (0.4 * (g_mag - 20.5)))
    errors = sigma[:, None] * ERROR_RATIO * np.exp(draw.normal(0, 0.03, (n, 5)))
    errors[~has_motion, :2] = sigma_two[~has_motion, None] * np.exp(
        draw.normal(0, 0.15, (int((~has_motion).sum()), 2))
    )
    factor = correlation_factor(cell, seed, draw)
    error32 = errors.astype(np.float32)
    pulls = np.einsum("nij,nj->ni", factor, draw.standard_normal((n, 5)))
    offset = pulls * errors * (1.0 if noise else 0.0)
    # Parallax and motion of an unsolved binary are biased by more than the quoted errors.
    offset[:, 2:] *= np.where(poor, 1.0 + 1.5 * (ruwe - 1.0), 1.0)[:, None]
    ra, dec = shift(truth["ra"], truth["dec"], offset[:, 0], offset[:, 1])
    moved = {name: truth[name] + offset[:, i + 2] for i, name in enumerate(PARAMETERS[2:])}
    correlation = (factor @ np.swapaxes(factor, 1, 2)).astype(np.float32)
    sigma5d = sigma5d_max_mas(error32.astype(np.float64), factor)
    sigma5d = np.where(has_motion, sigma5d, sigma_two * np.exp(draw.normal(1.5, 0.9, n)))

    def solved_only(values: Floats) -> Floats:
        return np.where(has_motion, values, np.nan)

    out: dict[str, Column] = {"ra": ra, "dec": dec, "ra_error": error32[:, 0], "dec_error": error32[:, 1]}
    for i, name in enumerate(PARAMETERS[2:], start=2):
        out[name] = solved_only(moved[name])
        out[f"{name}_error"] = solved_only(error32[:, i]).astype(np.float32)
    out["parallax_over_error"] = solved_only(moved["parallax"] / error32[:, 2]).astype(np.float32)
    out["pm"] = solved_only(np.hypot(moved["pmra"], moved["pmdec"])).astype(np.float32)
    for i in range(5):
        for j in range(i):
            values = correlation[:, i, j].astype(np.float64)
            name = f"{PARAMETERS[j]}_{PARAMETERS[i]}_corr"
            out[name] = (values if (i, j) == (1, 0) else solved_only(values)).astype(np.float32)
    out["astrometric_sigma5d_max"] = sigma5d.astype(np.float32)
    out["astrometric_params_solved"] = solved.astype(np.int8)
    out["ruwe"] = solved_only(ruwe).astype(np.float32)
    out["ipd_frac_multi_peak"], out["ipd_frac_odd_win"] = peaks, odd
    return out | _bookkeeping(truth, solved, ruwe, draw)


def _quality(truth: Truth, draw: np.random.Generator) -> tuple[Bools, Floats, np.ndarray, np.ndarray]:
    """Return which solutions are poor, RUWE, and the two IPD percentages."""
    n = len(truth["ra"])
    near = truth["close_pair"]
    chance = np.select(
        [near, truth["is_binary"] == 1, truth["component"] >= QUASAR], [0.45, 0.13, 0.10], 0.02
    )
    poor = np.asarray(draw.random(n) < chance)
    ruwe = np.exp(draw.normal(0.02, 0.06, n)) + np.where(poor, 0.25 + draw.exponential(1.6, n), 0.0)
    crowded = (near & (draw.random(n) < 0.6)) | (poor & (draw.random(n) < 0.35))
    peaks = np.where(crowded, draw.integers(5, 100, n), draw.geometric(0.62, n) - 1)
    odd = np.where(draw.random(n) < 0.022 + 0.2 * near, draw.integers(1, 101, n), 0)
    return poor, ruwe, peaks.astype(np.int8), odd.astype(np.int8)


def _bookkeeping(
    truth: Truth, solved: np.ndarray, ruwe: Floats, draw: np.random.Generator
) -> dict[str, Column]:
    """Return the counts and diagnostics that no cut of the paper reads."""
    n = len(truth["ra"])
    has_motion = solved != TWO
    transits = np.where(has_motion, draw.integers(17, 30, n), draw.integers(5, 17, n))
    along = transits * 9 - draw.integers(0, 12, n)
    bad = np.minimum(draw.geometric(0.5, n) - 1, along)
    five, six = solved == FIVE, solved == SIX
    nu_eff = np.clip(1.90 - 0.42 * truth["bp_rp_0"] + 0.07 * truth["bp_rp_0"] ** 2, 1.0, 2.0)
    matched = transits + draw.integers(0, 3, n)
    excess = np.where(ruwe > 1.25, 0.3 * (ruwe - 1.0), np.maximum(draw.normal(0.0, 0.1, n), 0.0))
    out: dict[str, Column] = {
        "astrometric_n_obs_al": along.astype(np.int16),
        "astrometric_n_obs_ac": np.where(truth["m_G"] < 13, along, 0).astype(np.int16),
        "astrometric_n_good_obs_al": (along - bad).astype(np.int16),
        "astrometric_n_bad_obs_al": bad.astype(np.int16),
        "astrometric_gof_al": ((ruwe - 1.0) * 12 + draw.normal(0.6, 1.0, n)).astype(np.float32),
        "astrometric_chi2_al": (along * ruwe**2 * np.exp(draw.normal(0.1, 0.1, n))).astype(np.float32),
        "astrometric_excess_noise": excess.astype(np.float32),
        "astrometric_excess_noise_sig": (excess * 20).astype(np.float32),
        "astrometric_primary_flag": np.asarray(five & (draw.random(n) < 0.3)),
        "nu_eff_used_in_astrometry": np.where(five, nu_eff, np.nan).astype(np.float32),
        "pseudocolour": np.where(six, nu_eff + draw.normal(0, 0.1, n), np.nan).astype(np.float32),
        "pseudocolour_error": np.where(six, np.exp(draw.normal(np.log(0.12), 0.5, n)), np.nan).astype(
            np.float32
        ),
        "astrometric_matched_transits": transits.astype(np.int16),
        "visibility_periods_used": np.where(has_motion, draw.integers(10, 21, n), 6).astype(np.int16),
        "matched_transits": matched.astype(np.int16),
        "new_matched_transits": draw.integers(0, 12, n).astype(np.int16),
        "matched_transits_removed": (draw.random(n) < 0.04).astype(np.int16),
        "ipd_gof_harmonic_amplitude": np.exp(draw.normal(np.log(0.03), 0.7, n)).astype(np.float32),
        "ipd_gof_harmonic_phase": draw.uniform(0, 180, n).astype(np.float32),
        "duplicated_source": np.asarray(draw.random(n) < 0.005),
    }
    for name in PARAMETERS:
        values = np.where(six, np.clip(draw.normal(-0.05, 0.2, n), -0.95, 0.95), np.nan)
        out[f"{name}_pseudocolour_corr"] = values.astype(np.float32)
    scanned = draw.random(n) < 0.97
    for k, (low, high) in enumerate(((0.15, 0.5), (0.1, 0.4), (0.2, 0.6), (0.8, 0.95)), start=1):
        out[f"scan_direction_strength_k{k}"] = np.where(scanned, draw.uniform(low, high, n), np.nan).astype(
            np.float32
        )
        out[f"scan_direction_mean_k{k}"] = np.where(
            scanned, draw.uniform(-180 / k, 180 / k, n), np.nan
        ).astype(np.float32)
    return out


def vbroad_columns(has: Bools, draw: np.random.Generator) -> dict[str, Column]:
    """Return the RVS line broadening (km/s) where measured; 6 % of the measured exceed the paper's 30 km/s."""
    n = len(has)
    value = np.exp(draw.normal(np.log(11.0), 0.65, n)) + 3.0
    return {
        "vbroad": np.where(has, value, np.nan).astype(np.float32),
        "vbroad_error": np.where(has, value * draw.uniform(0.05, 0.9, n), np.nan).astype(np.float32),
        "vbroad_nb_transits": nullable(draw.integers(6, 15, n).astype(np.int16), has),
    }
