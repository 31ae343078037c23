"""The archive's 152 columns for a block of sources.

One block of sources at a time: astrometry, photometry and GSP-Phot come from their own modules, everything else
(RVS, flags, class probabilities, coordinates) from here. A column that cannot be computed is drawn with the null
fraction and range of the real cone at (45, 0); no column is left out, because a reader that needs 152 must find 152.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stellarml.simulate.gaia_astrometry import astrometry, vbroad_columns
from stellarml.simulate.gaia_photometry import photometry
from stellarml.simulate.galaxy import galactic, lon_lat_deg, unit_vectors
from stellarml.simulate.gspphot import gspphot
from stellarml.simulate.settings import Realism
from stellarml.simulate.streams import Floats, stream
from stellarml.simulate.text import Column, nullable
from stellarml.simulate.truth import GALAXY, QUASAR, Truth

SOLUTION_ID = 1636148068921376768
QUOTED = frozenset({"designation", "phot_variable_flag", "libname_gspphot"})
_OBLIQUITY_DEG = 23.4392911
_RVS_LIMIT_MAG = 14.2


def gaia_rows(
    truth: Truth, random_index: np.ndarray, seed: int, block: str, realism: Realism
) -> dict[str, Column]:
    """Return all columns of `gaia_source` for a block of the true sky.

    Parameters
    ----------
    truth : dict of ndarray, shape (n,)
        The block's rows of `truth.draw_truth`.
    random_index : ndarray, shape (n,)
        The rows' places in a random permutation of the whole catalogue.
    seed : int
    block : str
        A name of the block, which keys its random stream.
    realism : Realism
    """
    draw = stream(seed, "gaia", block)
    n = len(truth["ra"])
    out: dict[str, Column] = {
        "solution_id": np.full(n, SOLUTION_ID),
        "source_id": truth["source_id"],
        "designation": pa.array([f"Gaia DR3 {i}" for i in truth["source_id"].tolist()]),
        "random_index": random_index,
        "ref_epoch": np.full(n, 2016.0),
    }
    out |= astrometry(truth, seed, realism.astrometric_noise, draw)
    out |= photometry(truth, realism.photometric_noise, draw)
    usable = np.isfinite(out["parallax"]) & np.isfinite(out["bp_rp"])
    out |= gspphot(truth, out["parallax_error"], usable, realism.correlated_gspphot, draw)
    out |= _radial_velocities(truth, draw)
    out |= _classes(truth, draw)
    out |= _coordinates(out["ra"], out["dec"])
    has_gspphot = np.isfinite(out["teff_gspphot"])
    out["has_mcmc_gspphot"] = has_gspphot & (draw.random(n) < 0.97)
    out["has_mcmc_msc"] = has_gspphot & (draw.random(n) < 0.8)
    out["has_xp_continuous"] = usable & (truth["m_G"] < 17.65)
    out["has_xp_sampled"] = usable & (truth["m_G"] < 15.0)
    return out


def _radial_velocities(truth: Truth, draw: np.random.Generator) -> dict[str, Column]:
    n = len(truth["ra"])
    star = truth["component"] < QUASAR
    grvs = truth["m_RP"] - 0.15 * truth["bp_rp_0"]
    has = star & (grvs < _RVS_LIMIT_MAG) & (draw.random(n) < 0.9) & ~truth["close_pair"]
    bright = has & (grvs < 12.0)
    snr = 10 ** (-0.2 * (grvs - 13.5)) * 6.0 * np.exp(draw.normal(0, 0.15, n))
    error = 0.15 + 18.0 / np.maximum(snr, 1.0) ** 1.3
    teff = np.where(star, truth["teff"], 5500.0)
    logg = np.where(star, truth["logg"], 4.5)
    feh = np.where(star, truth["feh"], 0.0)

    def real(values: Floats, mask: np.ndarray = has) -> np.ndarray:
        return np.where(mask, values, np.nan).astype(np.float32)

    def count(low: int, high: int, mask: np.ndarray = has) -> pa.Array:
        return nullable(draw.integers(low, high, n).astype(np.int16), mask)

    grvs_has = has & (draw.random(n) < 0.96)
    out: dict[str, Column] = {
        "radial_velocity": real(truth["radial_velocity"] + error * draw.standard_normal(n)),
        "radial_velocity_error": real(error),
        "rv_method_used": nullable(np.where(bright, 1, 2).astype(np.int8), has),
        "rv_nb_transits": count(4, 18),
        "rv_nb_deblended_transits": count(0, 6),
        "rv_visibility_periods_used": count(4, 15),
        "rv_expected_sig_to_noise": real(snr),
        "rv_renormalised_gof": real(draw.normal(0.5, 1.5, n), bright),
        "rv_chisq_pvalue": real(draw.random(n), bright),
        "rv_time_duration": real(draw.uniform(620, 912, n)),
        "rv_amplitude_robust": real(draw.exponential(6.0, n) + 0.7, bright),
        "rv_template_teff": real(np.round(teff / 250.0) * 250.0),
        "rv_template_logg": real(np.round(logg * 2) / 2),
        "rv_template_fe_h": real(np.clip(np.round(feh * 4) / 4, -2.0, 0.5)),
        "rv_atm_param_origin": nullable(draw.choice(np.array([111, 222, 444, 555], dtype=np.int16), n), has),
        "grvs_mag": real(grvs, grvs_has),
        "grvs_mag_error": real(np.clip(0.3 / np.maximum(snr, 1.0), 0.004, 0.3), grvs_has),
        "grvs_mag_nb_transits": nullable(draw.integers(4, 16, n).astype(np.int16), grvs_has),
        "rvs_spec_sig_to_noise": real(2.5 * snr, bright & (snr > 8)),
        "has_rvs": np.asarray(bright & (snr > 20)),
    }
    return out | vbroad_columns(bright & (draw.random(n) < 0.3), draw)


def _classes(truth: Truth, draw: np.random.Generator) -> dict[str, Column]:
    n = len(truth["ra"])
    kind = truth["component"]
    giant = np.nan_to_num(truth["logg"], nan=5.0) < 2.2
    variable = draw.random(n) < np.where(giant, 0.06, 0.011) + 0.25 * (kind == QUASAR)
    quasar = np.where(
        kind == QUASAR, draw.random(n) < 0.9, draw.random(n) < 0.0025 + 0.01 * (truth["m_G"] > 19.5)
    )
    galaxy_like = np.where(kind == GALAXY, draw.random(n) < 0.85, draw.random(n) < 0.001)
    multiple = (truth["is_binary"] == 1) & (draw.random(n) < 0.012) & (truth["m_G"] < 18)
    bit = draw.choice(np.array([1, 2, 3, 4]), n, p=[0.45, 0.4, 0.08, 0.07])
    small = 10.0 ** draw.uniform(-13, -3, (2, n))
    p_quasar = np.where(kind == QUASAR, 1.0 - small[0], small[0])
    p_galaxy = np.where(kind == GALAXY, 1.0 - small[1], small[1] * (kind != QUASAR))
    classified = draw.random(n) < 0.991

    def probability(values: Floats) -> np.ndarray:
        return np.where(classified, values, np.nan).astype(np.float32)

    return {
        "phot_variable_flag": np.where(variable, "VARIABLE", "NOT_AVAILABLE").astype(object),
        "in_qso_candidates": np.asarray(quasar, dtype=np.bool_),
        "in_galaxy_candidates": np.asarray(galaxy_like, dtype=np.bool_),
        "non_single_star": np.where(multiple, bit, 0).astype(np.int16),
        "has_epoch_photometry": np.asarray(variable),
        "has_epoch_rv": np.zeros(n, dtype=np.bool_),
        "in_andromeda_survey": np.zeros(n, dtype=np.bool_),
        "classprob_dsc_combmod_quasar": probability(p_quasar),
        "classprob_dsc_combmod_galaxy": probability(p_galaxy),
        "classprob_dsc_combmod_star": probability(np.maximum(1.0 - p_quasar - p_galaxy, 0.0)),
    }


def _coordinates(ra_deg: Floats, dec_deg: Floats) -> dict[str, Column]:
    lon, lat = galactic(ra_deg, dec_deg)
    x, y, z = unit_vectors(ra_deg, dec_deg)[0].T
    tilt = np.radians(_OBLIQUITY_DEG)
    ecl = np.stack([x, y * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - y * np.sin(tilt)], axis=1)
    ecl_lon, ecl_lat = lon_lat_deg(ecl)
    return {
        "l": lon,
        "b": lat,
        "ecl_lon": ecl_lon,
        "ecl_lat": ecl_lat,
    }
