"""Gaia's measurement of a source's light, and its errors.

Magnitude errors are PyGaia's DR3 splines scaled to the mean number of transits of DR3; the observed magnitudes also
carry the few-mmag systematics that the published errors leave out. BP and RP are missing for 1 % of bright and 10 % of
the faintest sources.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np
from scipy.interpolate import BSpline

from stellarml.simulate.streams import Floats
from stellarml.simulate.text import Column, nullable
from stellarml.simulate.truth import QUASAR, Truth

ZERO_POINT = {"G": 25.6874, "BP": 25.3385, "RP": 24.7479}
_SYSTEMATIC_MAG = {"G": 0.002, "BP": 0.003, "RP": 0.003}
_REFERENCE_TRANSITS = {"G": 200.0, "BP": 20.0, "RP": 20.0}
_MEAN_TRANSITS = {"G": 351.0, "BP": 40.0, "RP": 40.0}
_MAGNITUDE_RANGE = (4.0, 20.9)


@cache
def _splines() -> dict[str, BSpline]:
    text = (
        resources.files("stellarml.simulate")
        .joinpath("data", "gaia_edr3_photerr_spline.csv")
        .read_text(encoding="utf-8")
    )
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    out = {}
    for band in ("G", "BP", "RP"):
        knots = np.array([float(r[f"knots_{band}"]) for r in rows if r[f"knots_{band}"]])
        coefficients = np.array([float(r[f"coeff_{band}"]) for r in rows if r[f"coeff_{band}"]])
        out[band] = BSpline(knots, coefficients[: len(knots) - 4], 3)
    return out


def magnitude_error_mag(band: str, magnitude: Floats) -> Floats:
    """Return the DR3 error (mag) of G, BP or RP at magnitudes of the same band, shape (n,)."""
    at = np.clip(magnitude, *_MAGNITUDE_RANGE)
    scale = np.sqrt(_REFERENCE_TRANSITS[band] / _MEAN_TRANSITS[band])
    return np.asarray(10.0 ** _splines()[band](at) * scale, dtype=np.float64)


def photometry(truth: Truth, noise: bool, draw: np.random.Generator) -> dict[str, Column]:
    """Return the photometric columns of `gaia_source` for a block of sources; NaN stands for null."""
    n = len(truth["ra"])
    g_true = truth["m_G"]
    lost = 0.006 + 0.10 / (1 + np.exp(-3.0 * (g_true - 20.6))) + 0.08 * truth["close_pair"]
    present = {
        "G": draw.random(n) > 0.0005,
        "BP": draw.random(n) > lost,
        "RP": draw.random(n) > lost * 0.7,
    }
    out: dict[str, Column] = {}
    magnitude: dict[str, Floats] = {}
    for band, has in present.items():
        true = truth[f"m_{band}"]
        error = magnitude_error_mag(band, true) * np.exp(draw.normal(0, 0.2, n))
        blurred = np.hypot(error, _SYSTEMATIC_MAG[band]) * draw.standard_normal(n) * (1.0 if noise else 0.0)
        observed = np.where(has, true + blurred, np.nan)
        flux = 10.0 ** (-0.4 * (observed - ZERO_POINT[band]))
        flux_error = (flux * error / 1.0857).astype(np.float32)
        key = f"phot_{band.lower()}"
        transits = draw.integers(150, 260, n) if band == "G" else draw.integers(12, 30, n)
        out[f"{key}_n_obs"] = np.where(has, transits, 0).astype(np.int16)
        out[f"{key}_mean_flux"] = flux
        out[f"{key}_mean_flux_error"] = flux_error
        out[f"{key}_mean_flux_over_error"] = (flux / flux_error).astype(np.float32)
        magnitude[band] = observed.astype(np.float32)
        out[f"{key}_mean_mag"] = magnitude[band]
    out["bp_rp"] = magnitude["BP"] - magnitude["RP"]
    out["bp_g"] = magnitude["BP"] - magnitude["G"]
    out["g_rp"] = magnitude["G"] - magnitude["RP"]
    colour = np.nan_to_num(out["bp_rp"], nan=1.0)
    extended = (truth["component"] > QUASAR) * draw.exponential(1.2, n)
    excess = 1.15 + 0.06 * colour + 0.012 * colour**2 + np.abs(draw.normal(0, 0.015, n)) + extended
    excess += np.where(g_true > 19.5, draw.exponential(0.12, n), 0.0)
    both = present["BP"] & present["RP"] & present["G"]
    out["phot_bp_rp_excess_factor"] = np.where(both, excess, np.nan).astype(np.float32)
    for band in ("bp", "rp"):
        has = present[band.upper()]
        for kind in ("contaminated", "blended"):
            count = np.where(truth["close_pair"], draw.integers(0, 20, n), 0) + (draw.random(n) < 0.03)
            out[f"phot_{band}_n_{kind}_transits"] = nullable(count.astype(np.int16), has)
    out["phot_proc_mode"] = np.where(both, 0, 1).astype(np.int8)
    return out
