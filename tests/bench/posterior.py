"""The posterior of single simulated stars on all that was measured of them: nothing can do better on average.

The prior is the simulator's own (`stellarml.simulate.population`) as the labelled stars are selected from it, field by
field; the likelihood is that of the instruments it simulates. Latent quantities of a star: [Fe/H], log age,
evolutionary point, [alpha/Fe] (the components are summed over), a companion's mass ratio, the dust of its line of
sight, R_V, and its true G, which fixes the distance. Adaptive importance sampling: the likelihood of a bank of prior
draws starts it, a mixture of Student-t kernels follows the posterior through tempered generations, and the last one is
weighted with prior times likelihood over the mixture's density; it is done again, larger, until enough samples count.

Simplified, to the sampler's harm at most: zero points and R_V, shared by the stars of a sky cell, are drawn for each
star anew; an absent band tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from importance import NEIGHBOURS, effective, normal, propose, tempered

from stellarml.simulate import galaxy
from stellarml.simulate.dust import (
    _MAP_SCATTER_DEX,
    _MAX_EBV,
    _RV,
    _RV_SLOPE,
    _SFD_SCALE,
    RV_ERROR,
    SFD_ERROR,
    SKYMAPPER_COEFFICIENT,
    gaia_coefficients,
    mean_map_ebv,
    sheet_fraction,
)
from stellarml.simulate.fields import Field
from stellarml.simulate.gaia_photometry import _SYSTEMATIC_MAG, magnitude_error_mag
from stellarml.simulate.gspphot import _TEFF_LOGG, LOGG_ERROR_DEX, MH_ERROR_DEX, TEFF_ERROR_K
from stellarml.simulate.isochrones import grid, interpolate, main_sequence_point
from stellarml.simulate.labels import _SHARE_BY_G
from stellarml.simulate.population import (
    _FAINT_COMPANION_MAG,
    _FEH_EDGES,
    _G_EDGES,
    BINARY_SHARE,
    alpha_shift,
    field_counts,
)
from stellarml.simulate.settings import Realism
from stellarml.simulate.skymapper_light import _QUOTED_FLOOR_MAG, FLOOR_MAG, ZERO_POINT_MAG

Floats = npt.NDArray[np.float64]
LATENT = ("feh", "log_age", "point", "alpha", "companion", "log_dust", "rv", "G")
OPTICAL = ("u", "v", "g", "r", "i", "z")
GAIA = ("G", "BP", "RP")
_METAL_SHARE = 0.35
_PASSES_SINGLE, _PASSES_BINARY = 0.98, 0.87  # chance of good astrometry
_NEAREST = 3000
_ENOUGH = 200  # effective samples
_MORE = 3  # generations where they are too few
_KINDS = tuple(
    1 - BINARY_SHARE * (1 - q) for q in (0.0, 0.5, 0.75)
)  # alone, or a light, middling, like companion
_FIRST = 0.3  # of the kernels are from the first population: what has been lost can come back
_LEAST = np.array([0.02, 0.02, 0.004, 0.02, 0.03, 0.02, 0.2, 0.0015])  # least width of a kernel


@dataclass(frozen=True)
class Star:
    """What was measured: magnitudes and errors by band (NaN: not), parallax, GSP-Phot, the map's dust, latitude."""

    magnitudes: Floats
    errors: Floats
    parallax: float
    parallax_error: float
    gspphot: Floats
    ebv_sfd: float
    b_deg: float


def star_of(row: pd.Series, b_deg: float) -> Star:
    """Read a row of ``lake/matched``."""
    magnitudes = [row[f"phot_{b.lower()}_mean_mag"] for b in GAIA] + [row[f"{b}_psf"] for b in OPTICAL]
    errors = [
        float(np.hypot(magnitude_error_mag(b, np.array([m]))[0], _SYSTEMATIC_MAG[b]))
        for b, m in zip(GAIA, magnitudes[:3], strict=True)
    ]
    for band in OPTICAL:
        quoted = row[f"e_{band}_psf"]
        variance = (
            max(quoted**2 - _QUOTED_FLOOR_MAG**2, 0.0) + FLOOR_MAG[band] ** 2 + ZERO_POINT_MAG[band] ** 2
        )
        errors.append(float(np.sqrt(variance)))
    gspphot = [row["teff_gspphot"], row["logg_gspphot"], row["mh_gspphot"]]
    return Star(
        np.array(magnitudes, dtype=np.float64),
        np.array(errors, dtype=np.float64),
        float(row["parallax"]),
        float(row["parallax_error"]),
        np.array(gspphot, dtype=np.float64),
        float(row["ebmv_sfd"]),
        b_deg,
    )


def likelihood_of_truth(star: Star, truth: pd.Series) -> float:
    """Return the logarithm of the likelihood at a star's true quantities, a row of ``truth/gaia_truth.parquet``."""
    column = truth["ebv_true"] / sheet_fraction(np.array([truth["distance_pc"]]), np.array([star.b_deg]))[0]
    magnitudes = np.array([[truth[f"{b}_true"] for b in (*GAIA, *OPTICAL)]])
    values = [truth["teff"], truth["logg"], truth["feh"]]
    rest = [truth["distance_pc"], truth["ebv_true"], column, np.nan]
    model = Model(*(np.array([v]) for v in values), magnitudes, *(np.array([v]) for v in rest))
    return float(Sampler.log_likelihood(star, model)[0])


@dataclass(frozen=True)
class Model:
    """What latent quantities make of a star: true parameters and noiseless measurements, each of n rows."""

    teff: Floats
    logg: Floats
    feh: Floats
    magnitudes: Floats
    distance: Floats
    ebv: Floats
    column: Floats
    designed_g: Floats


class Sampler:
    """The prior of one field, a bank of draws from it, and the posterior of its stars."""

    def __init__(self, field: Field, bank: int = 400_000, seed: int = 0) -> None:
        self.field = field
        self.counts = field_counts(field, Realism())
        rates = self.counts.drawn.reshape(self.counts.shape)
        g = grid()
        self._age_edges, self._point_edges = _edges(g.log_age), _edges(g.point)
        widths = [np.diff(e) for e in (_FEH_EDGES, self._age_edges, self._point_edges, _G_EDGES)]
        volume = widths[0][:, None, None, None] * widths[1][:, None, None] * widths[2][:, None] * widths[3]
        self._log_rate = np.log(np.maximum(rates, 1e-300)) - np.log(volume)
        self._bank_latent, self._bank = self._draw_bank(bank, np.random.default_rng(seed))

    def _draw_bank(self, n: int, draw: np.random.Generator) -> tuple[Floats, Model]:
        """Draw stars that are labelled, with what they look like."""
        cumulative = np.cumsum(self.counts.drawn)
        cell = np.searchsorted(cumulative, draw.random(4 * n) * cumulative[-1])
        c, i, j, k, m = np.unravel_index(np.minimum(cell, len(cumulative) - 1), self.counts.shape)
        count = len(c)

        def within(edges: Floats, index: npt.NDArray[np.intp]) -> Floats:
            return np.asarray(edges[index] + draw.random(count) * np.diff(edges)[index])

        latent = np.column_stack(
            [
                within(_FEH_EDGES, i),
                within(self._age_edges, j),
                within(self._point_edges, k),
                galaxy.ALPHA_MEAN[c] + galaxy.ALPHA_SIGMA[c] * draw.standard_normal(count),
                draw.random(count),
                np.log(10) * _MAP_SCATTER_DEX * draw.standard_normal(count),
                draw.standard_normal(count),
                within(_G_EDGES, m),
            ]
        )
        model = self.model(latent, self.field.galactic_deg[1], designed=True)
        latent[:, -1] = model.magnitudes[:, 0]
        chosen = np.flatnonzero(np.log(draw.random(count)) < self._log_selected(latent, model))[:n]
        return latent[chosen], Model(*(getattr(model, name)[chosen] for name in Model.__dataclass_fields__))

    def model(self, latent: Floats, b_deg: float, *, designed: bool = False) -> Model:
        """Return what stars of these latent quantities look like at a latitude.

        `designed`: the last quantity is the magnitude that the simulator draws, of the primary behind mean dust.
        """
        feh, log_age, point, alpha, companion, log_dust, rv, g_mag = latent.T
        z = feh + alpha_shift(alpha)
        star = interpolate(z, log_age, point)
        absolute = np.stack([star[f"M_{b}"] for b in (*GAIA, *OPTICAL)], axis=1)
        binary = np.flatnonzero(companion > 1 - BINARY_SHARE)
        ratio = 0.05 + 0.95 * (companion[binary] - (1 - BINARY_SHARE)) / BINARY_SHARE
        second_point = main_sequence_point(z[binary], log_age[binary], ratio * star["initial_mass"][binary])
        second = interpolate(z[binary], log_age[binary], np.maximum(second_point, 0.0))
        fainter = _FAINT_COMPANION_MAG * np.maximum(-second_point, 0.0)
        light = np.stack([second[f"M_{b}"] + fainter for b in (*GAIA, *OPTICAL)], axis=1)
        absolute[binary] = -2.5 * np.log10(10 ** (-0.4 * absolute[binary]) + 10 ** (-0.4 * light))
        latitude = np.array([b_deg])
        column = np.minimum(mean_map_ebv(latitude) * np.exp(log_dust), _MAX_EBV)
        offset = _RV * _SFD_SCALE * RV_ERROR * rv
        coefficient = {**SKYMAPPER_COEFFICIENT, **gaia_coefficients(star["M_BP"] - star["M_RP"])}
        per_ebv = np.stack(
            [np.broadcast_to(coefficient[b] + _RV_SLOPE[b] * offset, feh.shape) for b in (*GAIA, *OPTICAL)],
            axis=1,
        )
        if designed:
            distance = np.interp(g_mag - star["M_G"], self.counts.effective_modulus, self.counts.distance_pc)
        else:
            distance = 10 ** (0.2 * (g_mag - absolute[:, 0] - per_ebv[:, 0] * column) + 1)
            for _ in range(4):
                lost = per_ebv[:, 0] * column * sheet_fraction(distance, latitude)
                distance = 10 ** (0.2 * (g_mag - absolute[:, 0] - lost) + 1)
        ebv = column * sheet_fraction(distance, latitude)
        modulus = 5 * np.log10(distance) - 5
        magnitudes = absolute + modulus[:, None] + per_ebv * ebv[:, None]
        designed_g = star["M_G"] + np.interp(distance, self.counts.distance_pc, self.counts.effective_modulus)
        return Model(10 ** star["log_teff"], star["logg"], feh, magnitudes, distance, ebv, column, designed_g)

    def log_prior(self, latent: Floats, model: Model) -> Floats:
        """Return the logarithm of the density of labelled stars at these latent quantities, up to a constant."""
        feh, log_age, point, alpha, companion, log_dust, rv, _ = latent.T
        inside = (companion >= 0) & (companion <= 1)
        places = []
        for values, edges in (
            (feh, _FEH_EDGES), (log_age, self._age_edges), (point, self._point_edges), (model.designed_g, _G_EDGES)
        ):  # fmt: skip
            at = np.searchsorted(edges, values, side="right") - 1
            inside &= (at >= 0) & (at < len(edges) - 1)
            places.append(np.clip(at, 0, len(edges) - 2))
        i, j, k, m = places
        rates = self._log_rate[:, i, j, k, m]
        pull = (alpha - galaxy.ALPHA_MEAN[:, None]) / galaxy.ALPHA_SIGMA[:, None]
        each = rates - 0.5 * pull**2 - np.log(galaxy.ALPHA_SIGMA)[:, None]
        top = each.max(axis=0)
        density = top + np.log(np.exp(each - top).sum(axis=0))
        density += -0.5 * (log_dust / (np.log(10) * _MAP_SCATTER_DEX)) ** 2 - 0.5 * rv**2
        return np.where(inside, density + self._log_selected(latent, model), -np.inf)

    @staticmethod
    def _log_selected(latent: Floats, model: Model) -> Floats:
        share = np.interp(model.magnitudes[:, 0], *_SHARE_BY_G)
        share = share * ((model.teff > 3800) & (model.teff < 7900) & (model.logg < 5.2))
        share = share * np.where(latent[:, 4] > 1 - BINARY_SHARE, _PASSES_BINARY, _PASSES_SINGLE)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(share))

    @staticmethod
    def log_likelihood(star: Star, model: Model) -> Floats:
        """Return the logarithm of the likelihood of what was measured of `star`, for every row of `model`."""
        has = np.isfinite(star.magnitudes) & np.isfinite(star.errors)
        pull = (star.magnitudes[has] - model.magnitudes[:, has]) / star.errors[has]
        total = -0.5 * (pull**2).sum(axis=1)
        total -= 0.5 * ((star.parallax - 1000 / model.distance) / star.parallax_error) ** 2
        scale = SFD_ERROR * model.column
        total -= 0.5 * ((star.ebv_sfd - model.column) / scale) ** 2 + np.log(scale)
        if np.isfinite(star.gspphot).all():
            total += _log_gspphot(star, model)
        return np.asarray(total)

    def posterior(
        self, star: Star, seed: int, generations: int = 5, each: int = 3000, last: int = 16_000
    ) -> tuple[Floats, Floats]:
        """Sample a star.

        Returns
        -------
        Teff (K), log g, [Fe/H] and the log likelihood of the samples, (n, 4); their weights, (n,), adding up to 1.
        """
        draw = np.random.default_rng(seed)
        latent = self._start(star)
        model = self.model(latent, star.b_deg)
        log_weight = self.log_likelihood(star, model) + self.log_prior(latent, model)
        first, first_chance = latent, tempered(log_weight, 60.0)
        chance = _covering(log_weight, latent, 60.0)
        for generation in range(generations + _MORE):
            final = generation >= generations - 1
            count = last * 2 ** (generation - generations + 1) if final else each
            pool = np.concatenate([latent, first])
            chance = np.concatenate([(1 - _FIRST) * chance, _FIRST * first_chance])
            latent, log_density = propose(pool, chance, _LEAST, count, draw)
            model = self.model(latent, star.b_deg)
            likelihood = self.log_likelihood(star, model)
            log_weight = self.log_prior(latent, model) + likelihood - log_density
            weights = normal(log_weight)
            if final and effective(weights) >= _ENOUGH:
                break
            chance = _covering(log_weight, latent, 150.0)
        return np.stack([model.teff, model.logg, model.feh, likelihood], axis=1), weights

    def _start(self, star: Star) -> Floats:
        """Return bank draws that look like the star."""
        has = np.isfinite(star.magnitudes)
        has[0] = False
        colour = self._bank.magnitudes - self._bank.magnitudes[:, :1]
        pull = (colour[:, has] - (star.magnitudes - star.magnitudes[0])[has]) / (star.errors[has] + 0.01)
        away = (pull**2).sum(axis=1)
        # Half of them at the right luminosity, too: each is moved to where it is as bright as the star.
        moved = 10 ** (0.2 * (self._bank.magnitudes[:, 0] - star.magnitudes[0]))
        pull = (star.parallax - 1000 / self._bank.distance * moved) / (
            star.parallax_error + 0.02 * abs(star.parallax)
        )
        near = (np.argpartition(d, _NEAREST // 2)[: _NEAREST // 2] for d in (away, away + pull**2))
        found = np.unique(np.concatenate([*near]))
        latent = self._bank_latent[found].copy()
        latent[:, -1] = star.magnitudes[0]
        return latent


def _log_gspphot(star: Star, model: Model) -> Floats:
    heat = np.clip(model.teff / 5500.0, 0.7, 1.8) ** 2
    relative = np.clip(star.parallax_error * np.minimum(model.distance, 3e4) / 1000.0, 0.005, 1.5)
    log_distance = 0.5 * np.log10(1.0 + relative)
    sigma_teff = TEFF_ERROR_K * heat
    shared = (star.gspphot[0] - model.teff) / sigma_teff
    total = -0.5 * shared**2 - np.log(sigma_teff)
    variance = (LOGG_ERROR_DEX**2) * (1 - _TEFF_LOGG**2) + (2 * log_distance) ** 2
    pull = star.gspphot[1] - model.logg - LOGG_ERROR_DEX * _TEFF_LOGG * shared
    total += -0.5 * pull**2 / variance - 0.5 * np.log(variance)
    own = MH_ERROR_DEX * np.sqrt(1 - _METAL_SHARE**2)
    pull = star.gspphot[2] - (0.6 * model.feh - 0.2 + MH_ERROR_DEX * _METAL_SHARE * shared)
    return np.asarray(total - 0.5 * (pull / own) ** 2)


def _covering(log_weight: Floats, latent: Floats, least: float) -> Floats:
    """Return how often each sample is to be a kernel: as the tempered weights, but two fifths for all kinds alike.

    Stars of one light and of two, by mass ratio, are modes far apart, of which narrow ones are easily lost.
    """
    kind = np.searchsorted(_KINDS, latent[:, LATENT.index("companion")])
    chance = 0.6 * tempered(log_weight, least)
    present = [k for k in np.unique(kind) if np.isfinite(log_weight[kind == k]).sum() > NEIGHBOURS]
    for k in present:
        chance[kind == k] += 0.4 / len(present) * tempered(log_weight[kind == k], least / 4)
    return chance / chance.sum()


def _edges(nodes: Floats) -> Floats:
    return np.concatenate([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])
