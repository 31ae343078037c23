"""The star that has a given [Fe/H], age and evolutionary point.

MIST points are interpolated at a fixed evolutionary point between metallicities and ages: rows used as they stand
make [Fe/H] too easy (MAD 0.085 instead of 0.116 dex). On the main sequence the point is counted from the isochrone's
own faint end to the turn-off (MIST's isochrones start at different EEPs); from there on it is MIST's EEP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from stellarml.simulate.streams import Floats

BANDS = ("u", "v", "g", "r", "i", "z", "G", "BP", "RP")
QUANTITIES = ("initial_mass", "log_teff", "logg", "log_l", *(f"M_{b}" for b in BANDS))
TABLE = "mist_isochrones_skymapper_gaia.csv.gz"

# Stated calibration of MIST's magnitudes, in two parts. (1) 0.02 mag in BP-RP and what goes with it along the
# temperature sequence: MIST is 0.02-0.03 mag bluer at a given Teff than the relation of Casagrande et al. (2021), and
# its g-i was 0.02 bluer than the real high-latitude sky. (2) v fainter by 0.045, z brighter by 0.002: at equal g-i,
# u-v was 0.027 mag above and i-z 0.012 below 1,007 clean SkyMapper DR4 stars at b = -64 (g-r agreed to 0.004).
MODEL_OFFSET_MAG = {
    "u": 0.043, "v": 0.088, "g": 0.008, "r": -0.004, "i": -0.010, "z": -0.018, "G": 0.0, "BP": 0.010, "RP": -0.010,
}  # fmt: skip
_TURN_OFF_EEP = 454.0
_LAST_EEP = 806.0
_N_MAIN_SEQUENCE = 72
_FAINTEST_FLUX_MASS = 0.12


@dataclass(frozen=True)
class Grid:
    """The isochrones on common nodes.

    Attributes
    ----------
    feh, log_age : ndarray, shapes (n_feh,), (n_age,)
        Node metallicities (dex) and log10 of ages (yr).
    point : ndarray, shape (n_point,)
        Evolutionary points: 0 to 1 on the main sequence, then 1 + (EEP - 454) / 352.
    table : ndarray, shape (n_feh, n_age, n_point, n_quantity)
        The quantities of `QUANTITIES` at every node.
    imf : ndarray, shape (n_feh, n_age, n_point)
        Kroupa (2001) number of stars around the node, for one star formed above 0.08 Msun.
    """

    feh: Floats
    log_age: Floats
    point: Floats
    table: Floats
    imf: Floats


def kroupa_number(mass: Floats) -> Floats:
    """Return the fraction of stars formed below `mass` (Msun), Kroupa 2001 (MNRAS 322, 231), 0.08 to 100 Msun."""
    low, knee, high = 0.08, 0.5, 100.0
    below = (low**-0.3 - np.minimum(mass, knee) ** -0.3) / 0.3
    above = knee * (knee**-1.3 - np.maximum(mass, knee) ** -1.3) / 1.3
    total = (low**-0.3 - knee**-0.3) / 0.3 + knee * (knee**-1.3 - high**-1.3) / 1.3
    return np.asarray((below + above) / total, dtype=np.float64)


@cache
def grid() -> Grid:
    """Read the packaged MIST isochrones and bring them to common evolutionary points."""
    with resources.files("stellarml.simulate").joinpath("data", TABLE).open("rb") as handle:
        rows = pd.read_csv(handle, comment="#", compression="gzip")
    feh = np.sort(rows["feh"].unique()).astype(np.float64)
    log_age = np.sort(rows["log10_age_yr"].unique()).astype(np.float64)
    late = np.concatenate([np.arange(454, 630, 2), np.arange(630, 712, 4), np.arange(716, 807, 6)])
    point = np.concatenate([np.linspace(0.0, 1.0, _N_MAIN_SEQUENCE)[:-1], 1.0 + (late - 454.0) / 352.0])
    table = np.empty((len(feh), len(log_age), len(point), len(QUANTITIES)))
    for i, j in np.ndindex(len(feh), len(log_age)):
        track = rows[(rows["feh"] == feh[i]) & (rows["log10_age_yr"] == log_age[j])]
        eep = track["eep"].to_numpy(np.float64)
        own = _own_point(eep)
        for q, name in enumerate(QUANTITIES):
            offset = MODEL_OFFSET_MAG.get(name.removeprefix("M_"), 0.0)
            table[i, j, :, q] = np.interp(point, own, track[name].to_numpy(np.float64)) + offset
    mass = np.maximum.accumulate(table[..., 0], axis=2)
    edge = np.concatenate([mass[..., :1], (mass[..., 1:] + mass[..., :-1]) / 2, mass[..., -1:]], axis=2)
    return Grid(feh, log_age, point, table, np.diff(kroupa_number(edge), axis=2))


def _own_point(eep: Floats) -> Floats:
    """Return an isochrone's points from its own EEPs."""
    first = eep.min()
    main = (eep - first) / (_TURN_OFF_EEP - first)
    return np.where(eep <= _TURN_OFF_EEP, main, 1.0 + (eep - _TURN_OFF_EEP) / (_LAST_EEP - _TURN_OFF_EEP))


def _bracket(nodes: Floats, x: Floats) -> tuple[np.ndarray, Floats]:
    i = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    return i, np.clip((x - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0)


def interpolate(feh: Floats, log_age: Floats, point: Floats) -> dict[str, Floats]:
    """Return the stars at these metallicities, ages and evolutionary points.

    Parameters
    ----------
    feh, log_age, point : ndarray, shape (n,)
        Isochrone metallicity (dex), log10 age (yr), evolutionary point; values off the grid are clipped to it.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        `QUANTITIES`: masses in Msun, log10 of Teff in K and of L in Lsun, absolute magnitudes (AB for u to z, Vega
        for G, BP, RP) at no extinction.
    """
    g = grid()
    i, fi = _bracket(g.feh, feh)
    j, fj = _bracket(g.log_age, log_age)
    k, fk = _bracket(g.point, point)
    out = np.zeros((len(feh), len(QUANTITIES)))
    for a, wa in ((0, 1 - fi), (1, fi)):
        for b, wb in ((0, 1 - fj), (1, fj)):
            wab = wa * wb
            out += (wab * (1 - fk))[:, None] * g.table[i + a, j + b, k]
            out += (wab * fk)[:, None] * g.table[i + a, j + b, k + 1]
    return {name: np.ascontiguousarray(out[:, q]) for q, name in enumerate(QUANTITIES)}


def main_sequence_point(feh: Floats, log_age: Floats, mass: Floats) -> Floats:
    """Return the evolutionary point of main-sequence stars of these masses (Msun), shape (n,).

    Masses below the isochrone's faint end get a negative point: its size says how far below.
    """
    g = grid()
    n_ms = _N_MAIN_SEQUENCE
    i, fi = _bracket(g.feh, feh)
    j, fj = _bracket(g.log_age, log_age)
    node_mass = g.table[:, :, :n_ms, 0]
    own = np.zeros((len(feh), n_ms))
    for a, wa in ((0, 1 - fi), (1, fi)):
        for b, wb in ((0, 1 - fj), (1, fj)):
            own += (wa * wb)[:, None] * node_mass[i + a, j + b]
    above = (own < mass[:, None]).sum(axis=1)
    k = np.clip(above - 1, 0, n_ms - 2)
    row = np.arange(len(mass))
    low, high = own[row, k], own[row, k + 1]
    fraction = (mass - low) / np.maximum(high - low, 1e-9)
    point = g.point[k] + np.clip(fraction, 0.0, 1.0) * (g.point[k + 1] - g.point[k])
    return np.where(mass < own[:, 0], (mass - own[:, 0]) / _FAINTEST_FLUX_MASS, point)
