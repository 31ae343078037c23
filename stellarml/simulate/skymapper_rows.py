"""The 100 columns of SkyMapper's `dr2.master` for a block of objects.

Rounded to the digits that the release prints. Magnitudes that were not measured are empty in most rows and 99.0 in
some, because the paper had to remove magnitudes above 25: a reader must cope with both.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stellarml.simulate.dust import published_ebv
from stellarml.simulate.galaxy import galactic
from stellarml.simulate.settings import Realism
from stellarml.simulate.skymapper_light import BANDS
from stellarml.simulate.streams import Bools, Floats, stream
from stellarml.simulate.text import Column, nullable
from stellarml.simulate.truth import Truth

SENTINEL_MAG = 99.0
_SENTINEL_SHARE = 0.3
_FLAGS_PSF_BIT = {"z": 1, "i": 2, "r": 4, "g": 8, "v": 16, "u": 32}
# Other catalogues: id column, distance column, share of objects with a counterpart, and how many mas its scatter is.
_LINKS = (
    ("dr1_id", "dr1_dist", 0.85, 60.0),
    ("twomass_key", "twomass_dist", 0.7, 90.0),
    ("allwise_cntr", "allwise_dist", 0.75, 150.0),
    ("ucac4_mpos", "ucac4_dist", 0.3, 90.0),
    ("refcat2_id", "refcat2_dist", 0.95, 80.0),
    ("ps1_dr1_id", "ps1_dr1_dist", 0.2, 60.0),
    ("galex_guv_id", "galex_guv_dist", 0.05, 900.0),
)


def skymapper_rows(
    objects: dict[str, np.ndarray], truth: Truth, seed: int, block: str, realism: Realism
) -> dict[str, Column]:
    """Return all columns of `dr2.master` for a block of objects, by name."""
    draw = stream(seed, "skymapper", block)
    n = len(objects["ra"])
    ra, dec = np.round(objects["ra"], 6) % 360.0, np.round(objects["dec"], 6)
    glon, glat = galactic(ra, dec)
    visits = draw.poisson(3.0, n) + 1
    out: dict[str, Column] = {
        "object_id": objects["object_id"],
        "raj2000": ra,
        "dej2000": dec,
        "smss_j": pa.array(_designations(ra, dec)),
        "mean_epoch": np.round(objects["mean_epoch"], 4),
        "rms_epoch": np.round(np.abs(draw.normal(0, 140.0, n)), 4).astype(np.float32),
        "glon": np.round(glon, 6).astype(np.float32),
        "glat": np.round(glat, 6).astype(np.float32),
        "ebmv_sfd": np.round(
            published_ebv(ra, dec, seed, error=realism.sfd_error) if realism.dust else 0 * ra, 4
        ).astype(np.float32),
        "prox": np.round(objects["prox"], 2).astype(np.float32),
        "prox_id": nullable(objects["prox_id"], objects["prox_id"] >= 0),
        "density": objects["density"].astype(np.float32),
    }
    for name in ("e_raj2000", "e_dej2000"):
        rms = objects["sigma_mas"] * np.sqrt(draw.gamma(2.0, 0.5, n))
        wild = draw.random(n) < 0.0008
        out[name] = np.where(wild, draw.integers(1001, 4000, n), np.maximum(np.rint(rms), 1)).astype(np.int64)
    measured = {b: np.isfinite(objects[f"{b}_mag"]) for b in BANDS}
    out |= _shape(objects, draw)
    flags = _flags(objects, draw)
    band_flags = []
    good = np.zeros((len(BANDS), n), dtype=np.int64)
    for k, band in enumerate(BANDS):
        one = np.where(draw.random(n) < 0.75, flags, 0)
        band_flags.append(np.where(measured[band], one, 0))
        good[k] = np.where(measured[band], np.maximum(visits + draw.integers(-1, 3, n), 1), 0)
        out |= _band(band, objects, one, good[k], measured[band], draw, realism)
    out["flags"] = np.bitwise_or.reduce(np.stack(band_flags))
    out["nimaflags"] = np.where(draw.random(n) < 0.3, draw.geometric(0.2, n), 0)
    out["ngood"] = good.sum(axis=0)
    out["ngood_min"] = np.where(good > 0, good, 99).min(axis=0)
    out["nch_max"] = np.where((objects["second"] >= 0) & (draw.random(n) < 0.3), 2, 1)
    return out | _links(objects, truth, draw)


def _designations(ra_deg: Floats, dec_deg: Floats) -> list[str]:
    """Return names `hhmmss.ss+ddmmss.s`."""
    t = np.floor(ra_deg / 15.0 * 360_000).astype(np.int64) % 8_640_000
    s = np.floor(np.abs(dec_deg) * 36_000).astype(np.int64)
    sign = np.where(dec_deg < 0, "-", "+").tolist()
    h, hm, hs = (t // 360_000).tolist(), (t // 6000 % 60).tolist(), (t % 6000).tolist()
    d, dm, ds = (s // 36_000).tolist(), (s // 600 % 60).tolist(), (s % 600).tolist()
    return [
        f"{a:02d}{b:02d}{c // 100:02d}.{c % 100:02d}{e}{f:02d}{g:02d}{k // 10:02d}.{k % 10}"
        for a, b, c, e, f, g, k in zip(h, hm, hs, sign, d, dm, ds, strict=True)
    ]


def _flags(objects: dict[str, np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """Return SExtractor bits: 1 near neighbours, 2 blended, 4 saturated; 4 % of lone objects have one."""
    n = len(objects["ra"])
    crowded = draw.random(n) < 0.03 + 0.75 / (1 + np.exp((objects["prox"] - 6.0) / 1.2))
    deblended = (objects["second"] >= 0) & (draw.random(n) < 0.4)
    bright = np.nan_to_num(objects["r_mag"], nan=15.0) < 9.3
    neighbour = np.where(crowded, draw.choice(np.array([1, 2, 3]), n, p=[0.2, 0.2, 0.6]), 0)
    edge = np.where(draw.random(n) < 0.002, 16, 0)
    return np.asarray(neighbour | np.where(deblended, 2, 0) | np.where(bright, 4, 0) | edge)


def _shape(objects: dict[str, np.ndarray], draw: np.random.Generator) -> dict[str, Column]:
    n = len(objects["ra"])
    faint = objects["faintness"]
    doubt = 1 / (1 + np.exp((3.4 - faint) * 1.6))
    star = np.where(
        draw.random(n) < 0.012 + 0.85 * doubt, draw.uniform(0.2, 0.97, n), 0.978 + 0.02 * draw.random(n)
    )
    extended = objects["galaxy_like"]
    value = np.where(extended, np.where(draw.random(n) < 0.9, 0.55 * draw.random(n), star), star)
    value = np.where((objects["second"] >= 0) & (draw.random(n) < 0.25), 0.7 * draw.random(n), value)
    bias = draw.random(n) < 0.025 + 0.85 / (1 + np.exp((objects["prox"] - 7.0) / 1.0))
    bias |= (objects["second"] >= 0) & (draw.random(n) < 0.3)
    bits = sum(
        np.where(draw.random(n) < 0.6, _FLAGS_PSF_BIT[b], 0)
        * np.isfinite(objects[f"{b}_mag"]).astype(np.int64)
        for b in BANDS
    )
    return {
        "class_star": np.round(value, 3).astype(np.float32),
        "flags_psf": np.where(bias, bits, 0),
        "radius_petro": np.round(np.where(extended, 7.5, 4.8) + draw.exponential(1.2, n), 2).astype(
            np.float32
        ),
    }


def _band(
    band: str,
    objects: dict[str, np.ndarray],
    flags: np.ndarray,
    good: np.ndarray,
    measured: Bools,
    draw: np.random.Generator,
    realism: Realism,
) -> dict[str, Column]:
    n = len(measured)
    magnitude, error = objects[f"{band}_mag"], objects[f"{band}_err"]
    petro = magnitude + draw.normal(0.01, 1.0, n) * (1.5 * error + 0.01) - 0.15 * objects["galaxy_like"]
    sentinel = ~measured & (draw.random(n) < (_SENTINEL_SHARE if realism.missing_bands else 0.0))

    def rounded(values: Floats, digits: int = 4) -> np.ndarray:
        return np.round(np.where(measured, values, np.nan), digits).astype(np.float32)

    psf, e_psf = rounded(magnitude), rounded(np.maximum(error, 0.0035))
    psf[sentinel], e_psf[sentinel] = SENTINEL_MAG, SENTINEL_MAG
    return {
        f"{band}_psf": psf,
        f"e_{band}_psf": e_psf,
        f"{band}_rchi2var": rounded(draw.gamma(1.2, 1.5, n), 3),
        f"{band}_petro": rounded(petro),
        f"e_{band}_petro": rounded(1.6 * error + 0.003),
        f"{band}_flags": nullable(flags, measured),
        f"{band}_nimaflags": nullable(np.where(draw.random(n) < 0.1, 3, 0), measured),
        f"{band}_ngood": good,
        f"{band}_nch": nullable(np.ones(n, dtype=np.int64), measured),
        f"{band}_nclip": nullable((draw.random(n) < 0.06).astype(np.int64), measured),
    }


def _links(objects: dict[str, np.ndarray], truth: Truth, draw: np.random.Generator) -> dict[str, Column]:
    """Return ids and distances in other catalogues: Gaia DR2's are real sources, the others random numbers."""
    n = len(objects["ra"])
    out: dict[str, Column] = {}
    for id_column, dist_column, share, scatter in _LINKS:
        has = draw.random(n) < share
        out[id_column] = nullable(draw.integers(1_000_000, 1_400_000_000, n), has)
        distance = np.round(draw.rayleigh(scatter, n) / 1000.0, 2)
        out[dist_column] = np.where(has, distance, np.nan).astype(np.float32)
    for name, column, share in (("1", "host", 0.97), ("2", "second", 0.6)):
        has = (objects[column] >= 0) & (draw.random(n) < share)
        out[f"gaia_dr2_id{name}"] = nullable(truth["source_id"][objects[column]], has)
        distance = np.round(draw.rayleigh(90.0, n) / 1000.0 + (0.9 if name == "2" else 0.0), 2)
        out[f"gaia_dr2_dist{name}"] = np.where(has, distance, np.nan).astype(np.float32)
    return out
