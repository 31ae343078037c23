"""What Gaia's own classifier, GSP-Phot, says of a star.

Its errors are not independent noise: one A0-Teff error is shared (measured correlations Teff-A0 0.73, Teff-logg 0.67),
log g follows the distance, and [M/H] saturates towards metal-poor stars. Drawn independently, metal-poor labels come
out too good (bias at [Fe/H] = -2.3 of +0.19 instead of +0.29 dex). Published half-widths are as small as the real
ones, several times smaller than the true errors.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.streams import Bools, Floats
from stellarml.simulate.text import Column
from stellarml.simulate.truth import QUASAR, Truth

TEFF_ERROR_K = 110.0
LOGG_ERROR_DEX = 0.20
MH_ERROR_DEX = 0.30
NULL_SHARE = 0.08
FAINT_LIMIT_MAG = 19.0

_TEFF_A0, _TEFF_LOGG = 0.73, 0.67
_HALF_WIDTH = {"teff": 20.0, "logg": 0.02, "mh": 0.04}


def gspphot(
    truth: Truth, parallax_error: Floats, usable: Bools, correlated: bool, draw: np.random.Generator
) -> dict[str, Column]:
    """Return the GSP-Phot columns for a block of sources; NaN and null strings where there is no solution.

    Parameters
    ----------
    truth : dict of ndarray
        Columns of the true sky.
    parallax_error : ndarray, shape (n,)
        In mas, NaN without a parallax.
    usable : ndarray of bool, shape (n,)
        Whether the source has a parallax, BP and RP.
    correlated : bool
        Share errors between parameters, as in the real catalogue.
    draw : numpy.random.Generator
    """
    n = len(truth["ra"])
    star = truth["component"] < QUASAR
    has = (
        usable
        & (truth["m_G"] < FAINT_LIMIT_MAG)
        & (draw.random(n) > NULL_SHARE)
        & (star | (draw.random(n) < 0.3))
    )
    found = _solutions(truth, parallax_error, star, correlated, draw)
    out: dict[str, Column] = {}

    def interval(name: str, value: Floats, half: Floats) -> None:
        low, high = half * draw.uniform(0.6, 1.4, n), half * draw.uniform(0.6, 1.4, n)
        for suffix, x in (("", value), ("_lower", value - low), ("_upper", value + high)):
            out[f"{name}_gspphot{suffix}"] = np.where(has, x, np.nan).astype(np.float32)

    for name in ("teff", "logg", "mh"):
        interval(name, found[name], _HALF_WIDTH[name] * np.exp(draw.normal(0, 0.5, n)))
    interval("distance", found["distance"], found["distance"] * np.clip(found["relative"], 0.005, 0.3))
    a0 = found["azero"]
    interval("azero", a0, 0.4 * np.minimum(a0, 0.06))
    interval("ag", 0.79 * a0, 0.32 * np.minimum(a0, 0.06))
    interval("ebpminrp", 0.40 * a0, 0.16 * np.minimum(a0, 0.06))
    library = np.where(found["teff"] > 8000, "A", np.where(draw.random(n) < 0.32, "PHOENIX", "MARCS")).astype(
        object
    )
    library[~has] = None
    out["libname_gspphot"] = library
    return out


def _solutions(
    truth: Truth, parallax_error: Floats, star: Bools, correlated: bool, draw: np.random.Generator
) -> dict[str, Floats]:
    """Return what GSP-Phot finds for each source, (n,): the truth with its errors, which share their causes."""
    n = len(truth["ra"])
    teff0 = np.where(star, truth["teff"], 6500.0)
    logg0 = np.where(star, truth["logg"], 4.3)
    feh0 = np.where(star, truth["feh"], -0.5)
    shared, own_t, own_g, own_m, own_a = draw.standard_normal((5, n))
    if not correlated:
        shared = own_t
    heat = np.clip(teff0 / 5500.0, 0.7, 1.8) ** 2
    teff = teff0 + TEFF_ERROR_K * heat * shared
    relative = np.clip(
        np.nan_to_num(parallax_error, nan=1.0) * np.minimum(truth["distance_pc"], 3e4) / 1000.0, 0.005, 1.5
    )
    log_distance = 0.5 * np.log10(1.0 + relative) * draw.standard_normal(n)
    independent = LOGG_ERROR_DEX * own_g
    together = LOGG_ERROR_DEX * (_TEFF_LOGG * shared + np.sqrt(1 - _TEFF_LOGG**2) * own_g) - 2 * log_distance
    logg = np.clip(logg0 + (together if correlated else independent), -0.2, 5.4)
    metal_error = 0.35 * shared + np.sqrt(1 - 0.35**2) * own_m if correlated else own_m
    mh = np.clip(0.6 * feh0 - 0.2 + MH_ERROR_DEX * metal_error, -4.1, 0.8)
    a0_error = _TEFF_A0 * shared + np.sqrt(1 - _TEFF_A0**2) * own_a if correlated else own_a
    a0 = np.abs(3.1 * truth["ebv_true"] + 0.12 * a0_error) + 0.001
    distance = np.minimum(truth["distance_pc"], 2e4) * 10.0**log_distance
    return {"teff": teff, "logg": logg, "mh": mh, "distance": distance, "azero": a0, "relative": relative}
