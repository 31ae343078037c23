"""SkyMapper's measurement of an object's light: which bands, how bright, how sure.

Errors have the LSST form sigma^2 = floor^2 + (0.04 - gamma) y + gamma y^2, y = 10^(0.4 (m - m5)) (Ivezic et al. 2019),
with the depth m5 of the shallow or the main survey, which differs by sky cell. A band is missing where the object is
too faint or too bright for the cell's exposures, and here and there by chance.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.settings import Realism
from stellarml.simulate.streams import Floats, Ints, cell_normal, cell_uniform, stream

BANDS = ("u", "v", "g", "r", "i", "z")
FLOOR_MAG = {"u": 0.010, "v": 0.010, "g": 0.007, "r": 0.007, "i": 0.007, "z": 0.007}
ZERO_POINT_MAG = {"u": 0.020, "v": 0.020, "g": 0.010, "r": 0.010, "i": 0.010, "z": 0.010}
GAMMA = 0.038
# 5-sigma depths of cells with the Shallow Survey only, and of those with the Main Survey as well.
SHALLOW_M5 = {"u": 19.2, "v": 19.3, "g": 19.8, "r": 19.7, "i": 19.3, "z": 19.0}
MAIN_M5 = {"u": 20.4, "v": 20.5, "g": 21.5, "r": 21.4, "i": 20.6, "z": 19.8}
SATURATION = {"u": 10.0, "v": 10.5, "g": 13.0, "r": 13.0, "i": 11.0, "z": 10.5}

_MAIN_SHARE, _DEEP_ONLY_SHARE = 0.55, 0.05
_LOST_SHARE = {"u": 0.03, "v": 0.025, "g": 0.015, "r": 0.015, "i": 0.01, "z": 0.015}
_DETECTION = -1.2
# The release quotes the scatter of visits, which misses part of the floor: 5 to 7 mmag for bright real stars.
_QUOTED_FLOOR_MAG = 0.005


def psf_error_mag(magnitude: Floats, m5: Floats, floor: float) -> Floats:
    """Return the magnitude error (mag) for these magnitudes and 5-sigma depths, shape (n,)."""
    y = 10.0 ** (0.4 * np.clip(magnitude - m5, -15.0, 3.0))
    return np.asarray(np.sqrt(floor**2 + (0.04 - GAMMA) * y + GAMMA * y * y))


def depth(band: str, cell: Ints, seed: int) -> Floats:
    """Return the 5-sigma depth of a band in each object's sky cell (mag), shape (n,)."""
    main = cell_uniform(seed, "main_survey", cell) < _MAIN_SHARE
    base = np.where(main, MAIN_M5[band], SHALLOW_M5[band])
    return base + 0.2 * np.clip(cell_normal(seed, f"depth_{band}", cell), -2, 2)


def observe(magnitude: dict[str, Floats], cell: Ints, seed: int, realism: Realism) -> dict[str, np.ndarray]:
    """Return the measured magnitudes and quoted errors of each band, X_mag (NaN: not measured) and X_err.

    `faintness` is how many magnitudes the object is above the r-band depth minus 4 (at least zero): position errors
    grow with it.
    """
    draw = stream(seed, "skymapper_light")
    n = len(cell)
    deep_only = cell_uniform(seed, "main_survey", cell) < _DEEP_ONLY_SHARE
    out: dict[str, np.ndarray] = {}
    for band in BANDS:
        m5 = depth(band, cell, seed)
        sigma = psf_error_mag(magnitude[band], m5, FLOOR_MAG[band]) * np.exp(draw.normal(0.0, 0.2, n))
        observed = magnitude[band].copy()
        if realism.zero_points:
            observed += ZERO_POINT_MAG[band] * cell_normal(seed, f"zero_point_{band}", cell)
        if realism.photometric_noise:
            observed += sigma * draw.standard_normal(n)
        if realism.missing_bands:
            limit = m5 + _DETECTION + draw.normal(0, 0.25, n)
            lost = (observed > limit) | (draw.random(n) < _LOST_SHARE[band])
            lost |= deep_only & (observed < SATURATION[band])
            observed[lost] = np.nan
        out[f"{band}_mag"] = observed
        quoted = psf_error_mag(magnitude[band], m5, _QUOTED_FLOOR_MAG)
        out[f"{band}_err"] = quoted * np.exp(draw.normal(0.0, 0.25, n))
    out["faintness"] = np.maximum(magnitude["r"] - depth("r", cell, seed) + 4.0, 0.0)
    return out
