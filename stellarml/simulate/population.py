"""The stars of a field, and how many stars of nature each one stands for.

A magnitude-limited sky is 95 % faint dwarfs of one kind. So the natural rate of every small cell of (component,
[Fe/H], age, evolutionary point, G) is computed first, cells are drawn at a chosen share of bright, giant and
metal-poor stars, and each star keeps the ratio of the two as its weight. Inside its cell a star is drawn from a
continuum: no two stars of a sky are equal, so none can be on both sides of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stellarml.simulate import galaxy
from stellarml.simulate.dust import gaia_coefficients, mean_map_ebv, sheet_fraction
from stellarml.simulate.fields import Field
from stellarml.simulate.isochrones import QUANTITIES, grid, interpolate, main_sequence_point
from stellarml.simulate.settings import Realism
from stellarml.simulate.streams import Floats, Ints, stream

G_FAINT = 20.9
BINARY_SHARE = 0.4

_G_EDGES = np.arange(8.0, G_FAINT + 0.01, 0.43)
_FEH_EDGES = np.concatenate([[-4.0, -3.25, -2.75], np.arange(-2.5, 0.51, 0.25)])
# How densely apparent magnitudes are drawn, in place of nature's steep rise.
_TARGET_G = (
    [8.0, 10.0, 12.0, 13.0, 14.0, 16.5, 17.0, 18.0, 20.5, 20.9],
    [0.03, 0.2, 0.7, 1, 1.2, 1.2, 0.9, 0.8, 1.2, 0.7],
)
_GIANT_LOGG = 3.5
_GIANT_BOOST = 2.0
_METAL_POOR_FEH = -1.5
_METAL_POOR_BOOST = 2.0
_FAINT_COMPANION_MAG = 1.7
_Z_INDEX = {name: i for i, name in enumerate(QUANTITIES)}


@dataclass(frozen=True)
class FieldCounts:
    """The natural and the drawn rate of every cell of a field, flattened; `surface_density` in sources a deg2."""

    shape: tuple[int, ...]
    natural: Floats
    drawn: Floats
    surface_density: float
    effective_modulus: Floats
    distance_pc: Floats


def alpha_shift(alpha: Floats) -> Floats:
    """Return the isochrone metallicity minus [Fe/H] for [alpha/Fe] (Salaris et al. 1993, ApJ 414, 580)."""
    return np.asarray(np.log10(0.638 * 10.0**alpha + 0.362))


def field_counts(field: Field, realism: Realism) -> FieldCounts:
    """Return how many stars of each cell nature has in a square degree, and in which shares they are drawn."""
    g = grid()
    feh = (_FEH_EDGES[1:] + _FEH_EDGES[:-1]) / 2
    l_deg, b_deg = field.galactic_deg
    distance = np.geomspace(10.0, 2.0e5, 600)
    ebv = mean_map_ebv(np.array([b_deg])) if realism.dust else np.zeros(1)
    a_g = gaia_coefficients(np.array([0.9]))["G"] * ebv * sheet_fraction(distance, np.array([b_deg]))
    modulus = 5 * np.log10(distance) - 5 + a_g
    volume = distance**2 * np.gradient(distance, modulus) * np.radians(1.0) ** 2
    g_centre = (_G_EDGES[1:] + _G_EDGES[:-1]) / 2
    shape = (3, len(feh), len(g.log_age), len(g.point), len(g_centre))
    natural = np.empty(shape)
    giant = np.empty(shape[:4], dtype=np.bool_)
    for c in range(3):
        z = feh + (alpha_shift(galaxy.ALPHA_MEAN[c]) if realism.alpha else 0.0)
        k = np.clip(np.searchsorted(g.feh, z) - 1, 0, len(g.feh) - 2)
        f = np.clip((z - g.feh[k]) / (g.feh[k + 1] - g.feh[k]), 0, 1)[:, None, None]
        m_g = (1 - f) * g.table[k, ..., _Z_INDEX["M_G"]] + f * g.table[k + 1, ..., _Z_INDEX["M_G"]]
        logg = (1 - f) * g.table[k, ..., _Z_INDEX["logg"]] + f * g.table[k + 1, ..., _Z_INDEX["logg"]]
        imf = (1 - f) * g.imf[k] + f * g.imf[k + 1]
        star = galaxy.STARS_FORMED_PER_PC3 * galaxy.LOCAL_FRACTION[c] * imf
        star = star * galaxy.feh_age_weights(c, feh, g.log_age)[:, :, None]
        need = g_centre - m_g[..., None]
        for j, log_age in enumerate(g.log_age):
            age_gyr = float(10.0 ** (log_age - 9.0))
            along = volume * galaxy.density(c, age_gyr, l_deg, b_deg, distance / 1000.0)
            natural[c, :, j] = star[:, j, :, None] * np.interp(
                need[:, j], modulus, along, left=0.0, right=0.0
            )
        giant[c] = logg < _GIANT_LOGG
    natural *= np.diff(_G_EDGES)
    boosted = natural * np.where(giant, _GIANT_BOOST, 1.0)[..., None]
    boosted[:, feh < _METAL_POOR_FEH] *= _METAL_POOR_BOOST
    target = np.interp(g_centre, *_TARGET_G) * np.diff(_G_EDGES)
    boosted *= target / np.maximum(boosted.sum(axis=(0, 1, 2, 3)), 1e-300)
    return FieldCounts(
        shape, natural.ravel(), (boosted / boosted.sum()).ravel(), float(natural.sum()), modulus, distance
    )


def draw_stars(
    field: Field, counts: FieldCounts, n: int, seed: int, realism: Realism
) -> dict[str, Floats | Ints]:
    """Draw `n` stars of a field: parameters, absolute magnitudes, distances, weights; each column of shape (n,).

    `weight` is the number of stars of nature that the row stands for in a field of n / surface density deg2.
    """
    draw = stream(seed, "stars", field.name)
    g = grid()
    cumulative = np.cumsum(counts.drawn)
    cell = np.minimum(np.searchsorted(cumulative, draw.random(n) * cumulative[-1]), len(cumulative) - 1)
    c, i, j, k, m = (np.asarray(x) for x in np.unravel_index(cell, counts.shape))
    feh = _FEH_EDGES[i] + draw.random(n) * np.diff(_FEH_EDGES)[i]
    log_age = _within(g.log_age, j, draw)
    point = _within(g.point, k, draw)
    g_mag = _G_EDGES[m] + draw.random(n) * np.diff(_G_EDGES)[m]
    alpha = (
        galaxy.ALPHA_MEAN[c] + galaxy.ALPHA_SIGMA[c] * draw.standard_normal(n)
        if realism.alpha
        else np.zeros(n)
    )
    z = feh + alpha_shift(alpha)
    star = interpolate(z, log_age, point)
    distance = np.interp(g_mag - star["M_G"], counts.effective_modulus, counts.distance_pc)
    out: dict[str, Floats | Ints] = {
        "component": c.astype(np.int64),
        "feh": feh,
        "alpha": alpha,
        "age_gyr": 10.0 ** (log_age - 9.0),
        "mass": star["initial_mass"],
        "teff": 10.0 ** star["log_teff"],
        "logg": star["logg"],
        "distance_pc": distance,
        "weight": counts.natural[cell] / counts.drawn[cell] / counts.surface_density,
        "bp_rp_0": star["M_BP"] - star["M_RP"],
    }
    return out | _with_companions(star, z, log_age, draw, realism)


def _within(nodes: Floats, index: np.ndarray, draw: np.random.Generator) -> Floats:
    """Return values drawn evenly from the nodes' intervals (midpoint to midpoint)."""
    edges = np.concatenate([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])
    return np.asarray(edges[index] + draw.random(len(index)) * (edges[index + 1] - edges[index]))


def _with_companions(
    star: dict[str, Floats], z: Floats, log_age: Floats, draw: np.random.Generator, realism: Realism
) -> dict[str, Floats | Ints]:
    """Add the light of unresolved main-sequence companions: mass ratios are even between 0.05 and 1."""
    n = len(z)
    binary = draw.random(n) < (BINARY_SHARE if realism.binaries else 0.0)
    ratio = np.where(binary, draw.uniform(0.05, 1.0, n), 0.0)
    out: dict[str, Floats | Ints] = {"is_binary": binary.astype(np.int64), "mass_ratio": ratio}
    at = np.flatnonzero(binary)
    point = main_sequence_point(z[at], log_age[at], ratio[at] * star["initial_mass"][at])
    companion = interpolate(z[at], log_age[at], np.maximum(point, 0.0))
    fainter = _FAINT_COMPANION_MAG * np.maximum(-point, 0.0)
    for name in (q for q in QUANTITIES if q.startswith("M_")):
        magnitude = star[name].copy()
        light = 10.0 ** (-0.4 * magnitude[at]) + 10.0 ** (-0.4 * (companion[name] + fainter))
        magnitude[at] = -2.5 * np.log10(light)
        out[name] = magnitude
    return out
