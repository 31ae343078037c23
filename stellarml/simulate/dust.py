"""Light lost on the way, and what the published map says of it.

A sheet of dust 125 pc high: E(B-V)(d) = E_map (1 - exp(-d |sin b| / 125 pc)), so that stars nearer than 400 pc from
the plane are over-corrected when the map's value is applied, as the paper does. The map's own error of 16 % and the
scatter of R_V are separate terms. Coefficients are per unit of SFD E(B-V): SkyMapper's filter page, and Casagrande et
al. (2021, MNRAS 507, 2684; FSF law) for Gaia.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.fields import sky_cell
from stellarml.simulate.galaxy import galactic, unit_vectors
from stellarml.simulate.streams import Floats, cell_normal, stream

SKYMAPPER_COEFFICIENT = {"u": 4.294, "v": 4.026, "g": 2.986, "r": 2.288, "i": 1.588, "z": 1.206}
SHEET_HEIGHT_PC = 125.0
SFD_ERROR = 0.16
RV_ERROR = 0.05

_MAX_EBV = 3.0
_MAP_SCATTER_DEX = 0.25
# dA_X / dR_V per unit E(B-V), the a(x) of Cardelli, Clayton & Mathis (1989) at the bands' mean wavelengths.
_RV_SLOPE = {
    "u": 0.95,
    "v": 0.97,
    "g": 1.00,
    "r": 0.93,
    "i": 0.80,
    "z": 0.67,
    "G": 0.90,
    "BP": 1.0,
    "RP": 0.80,
}
_RV = 3.1
_SFD_SCALE = 0.86


def gaia_coefficients(bp_rp_0: Floats) -> dict[str, Floats]:
    """Return A_X / E(B-V) of G, BP, RP for stars of intrinsic colour `bp_rp_0` (mag), each of shape (n,)."""
    x = np.clip(bp_rp_0, -0.2, 2.6)
    return {
        "G": 2.609 - 0.475 * x + 0.053 * x**2,
        "BP": 2.998 - 0.140 * x - 0.175 * x**2 + 0.062 * x**3,
        "RP": 1.689 - 0.059 * x,
    }


def mean_map_ebv(b_deg: Floats) -> Floats:
    """Return the mean E(B-V) of the map at these latitudes (deg): 0.02 + 0.03 (1/|sin b| - 1) mag."""
    sine = np.maximum(np.abs(np.sin(np.radians(b_deg))), 0.05)
    return np.asarray(0.02 + 0.03 * (1.0 / sine - 1.0))


def true_map_ebv(ra_deg: Floats, dec_deg: Floats, seed: int) -> Floats:
    """Return the true E(B-V) of the whole column (mag), shape (n,): the mean with clouds of 0.25 dex, capped at 3."""
    clouds = 10.0 ** (_MAP_SCATTER_DEX * _waves(ra_deg, dec_deg, seed, "clouds", (120.0, 900.0)))
    return np.minimum(mean_map_ebv(galactic(ra_deg, dec_deg)[1]) * clouds, _MAX_EBV)


def published_ebv(ra_deg: Floats, dec_deg: Floats, seed: int, *, error: bool) -> Floats:
    """Return the SFD-like E(B-V) (mag), shape (n,): the true column, off by 16 % in patches of some arcminutes."""
    true = true_map_ebv(ra_deg, dec_deg, seed)
    if not error:
        return true
    return true * np.maximum(1.0 + SFD_ERROR * _waves(ra_deg, dec_deg, seed, "sfd", (300.0, 1500.0)), 0.3)


def _waves(ra_deg: Floats, dec_deg: Floats, seed: int, name: str, wavenumbers: tuple[float, float]) -> Floats:
    """Return a smooth random field of zero mean and unit variance on the sphere, shape (n,)."""
    draw = stream(seed, "waves", name)
    n_waves = 24
    k = np.exp(draw.uniform(np.log(wavenumbers[0]), np.log(wavenumbers[1]), n_waves))
    direction = draw.standard_normal((n_waves, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    phase = draw.uniform(0, 2 * np.pi, n_waves)
    v = unit_vectors(ra_deg, dec_deg)[0]
    total = np.zeros(len(ra_deg))
    for i in range(n_waves):
        total += np.cos(v @ (direction[i] * k[i]) + phase[i])
    return np.asarray(total * np.sqrt(2.0 / n_waves))


def sheet_fraction(distance_pc: Floats, b_deg: Floats) -> Floats:
    """Return the share of the column's dust in front of stars at these distances (pc) and latitudes (deg)."""
    return -np.expm1(-distance_pc * np.abs(np.sin(np.radians(b_deg))) / SHEET_HEIGHT_PC)


def extinction(
    ebv: Floats, bp_rp_0: Floats, ra_deg: Floats, dec_deg: Floats, seed: int, *, rv_error: bool
) -> dict[str, Floats]:
    """Return A_X (mag) in the six SkyMapper and three Gaia bands for true reddenings `ebv`, each of shape (n,)."""
    coefficient: dict[str, Floats] = {b: np.full(len(ebv), c) for b, c in SKYMAPPER_COEFFICIENT.items()}
    coefficient |= gaia_coefficients(bp_rp_0)
    if rv_error:
        offset = _RV * _SFD_SCALE * RV_ERROR * cell_normal(seed, "rv", sky_cell(ra_deg, dec_deg))
        coefficient = {b: c + _RV_SLOPE[b] * offset for b, c in coefficient.items()}
    return {b: c * ebv for b, c in coefficient.items()}
