"""Distances as Bailer-Jones et al. (2021, AJ 161, 147) would give them.

Geometric: median and 16/84 % of the posterior of parallax and the prior r^2 exp(-r/L) where the parallax is worse than
10 %, 1/parallax where it is better. Photogeometric: the same, sharpened by what colour and magnitude show (12 %).
Only sources with a parallax have a row; the photogeometric columns are null without a colour.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.streams import Bools, Floats
from stellarml.simulate.text import Column

COLUMNS = (
    "source_id", "r_med_geo", "r_lo_geo", "r_hi_geo", "r_med_photogeo", "r_lo_photogeo", "r_hi_photogeo", "flag",
)  # fmt: skip
PRIOR_LENGTH_PC = 1350.0
_GOOD_SNR = 10.0
_PHOTOMETRIC_ERROR = 0.12
_GRID_PC = np.geomspace(20.0, 40_000.0, 256)
_CHUNK = 4096


def geometric_quantiles_pc(parallax_mas: Floats, error_mas: Floats) -> Floats:
    """Return the 16, 50 and 84 % points of the distance posterior (pc), shape (n, 3)."""
    snr = parallax_mas / error_mas
    with np.errstate(divide="ignore"):
        simple = np.stack([parallax_mas + error_mas, parallax_mas, parallax_mas - error_mas], axis=1)
        out = 1000.0 / np.where(simple > 0, simple, np.nan)
    weak = np.flatnonzero(~(snr > _GOOD_SNR))
    log_prior = 3 * np.log(_GRID_PC) - _GRID_PC / PRIOR_LENGTH_PC
    for start in range(0, len(weak), _CHUNK):
        at = weak[start : start + _CHUNK]
        pull = (parallax_mas[at, None] - 1000.0 / _GRID_PC) / error_mas[at, None]
        log_density = log_prior - 0.5 * pull**2
        density = np.exp(log_density - log_density.max(axis=1)[:, None])
        cumulative = np.cumsum(density, axis=1)
        cumulative /= cumulative[:, -1:]
        for q, level in enumerate((0.15865, 0.5, 0.84135)):
            k = np.clip((cumulative < level).sum(axis=1), 1, len(_GRID_PC) - 1)
            row = np.arange(len(at))
            low, high = cumulative[row, k - 1], cumulative[row, k]
            f = np.clip((level - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
            out[at, q] = np.exp((1 - f) * np.log(_GRID_PC[k - 1]) + f * np.log(_GRID_PC[k]))
    return np.asarray(out)


def distance_rows(
    source_id: np.ndarray,
    parallax: Floats,
    error: Floats,
    has_colour: Bools,
    true_pc: Floats,
    draw: np.random.Generator,
) -> dict[str, Column]:
    """Return the distance table's columns for the sources of a block that have a parallax (mas; NaN: none)."""
    has = np.isfinite(parallax)
    geo = geometric_quantiles_pc(parallax[has], error[has].astype(np.float64))
    n = len(geo)
    log_geo = np.log(geo)
    variance = np.maximum((log_geo[:, 2] - log_geo[:, 0]) / 2, 1e-4) ** 2
    photometric = np.log(np.minimum(true_pc[has], 3e4)) + _PHOTOMETRIC_ERROR * draw.standard_normal(n)
    share = variance / (variance + _PHOTOMETRIC_ERROR**2)
    middle = log_geo[:, 1] + share * (photometric - log_geo[:, 1])
    width = np.sqrt(variance * (1 - share))
    colour = has_colour[has]
    out: dict[str, Column] = {"source_id": source_id[has]}
    for q, name in enumerate(("lo", "med", "hi")):
        out[f"r_{name}_geo"] = geo[:, q].astype(np.float32)
        out[f"r_{name}_photogeo"] = np.where(colour, np.exp(middle + (q - 1) * width), np.nan).astype(
            np.float32
        )
    weak = parallax[has] / error[has] < _GOOD_SNR
    out["flag"] = np.where(colour, np.where(weak, 10022, 10033), np.where(weak, 10099, 10199))
    return out
