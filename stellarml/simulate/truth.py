"""What is really there: every Gaia source of the sky, before any instrument has looked.

Fields, stars, quasars and galaxies, close pairs and fast movers come together here; sources get their archive-like
`source_id` (the level-12 pixel where they were first registered) and are put in its order, as in the bulk files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stellarml.simulate import galaxy
from stellarml.simulate.dust import extinction, published_ebv, sheet_fraction, true_map_ebv
from stellarml.simulate.fields import FIELDS, Field, positions, shares, shift, sky_cell, with_close_pairs
from stellarml.simulate.isochrones import BANDS, interpolate
from stellarml.simulate.population import draw_stars, field_counts
from stellarml.simulate.settings import SimulateSettings
from stellarml.simulate.streams import Ints, stream

KINDS = (*galaxy.COMPONENTS, "quasar", "galaxy")
QUASAR, GALAXY = 3, 4
CLOSE_PAIR_SHARE = 0.012
EXTRAGALACTIC_SHARE = 0.02

_REGISTRATION_EPOCH = 2014.9
_FAST_POINT = (0.25, 0.6)

Truth = dict[str, np.ndarray]


def draw_truth(settings: SimulateSettings, report: Callable[[str], None]) -> Truth:
    """Return the columns of all sources, each of shape (stars,), ascending in `source_id`.

    Magnitudes in nine bands are apparent, reddened and noiseless; `m_X` belongs to band X. Positions are those of
    J2016.0, proper motions in mas/yr (`pmra` with cos dec), parallaxes in mas, reddenings in mag.
    """
    parts = []
    for field, n in zip(FIELDS, shares(settings.stars), strict=True):
        report(f"drawing {n} sources of {field.name}")
        parts.append(_field(field, n, settings))
    truth = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if settings.realism.fast_movers:
        _make_fast_movers(truth, settings)
    _light(truth, settings)
    truth["source_id"] = _source_ids(truth, settings.seed)
    order = np.argsort(truth["source_id"], kind="stable")
    return {name: column[order] for name, column in truth.items()}


def _field(field: Field, n: int, settings: SimulateSettings) -> Truth:
    seed, realism = settings.seed, settings.realism
    counts = field_counts(field, realism)
    area = n / counts.surface_density
    ra, dec = positions(field, n, area, seed)
    pair = np.zeros(n, dtype=np.bool_)
    if realism.close_pairs:
        ra, dec, pair = with_close_pairs(ra, dec, CLOSE_PAIR_SHARE, seed, field.name)
    part: Truth = dict(draw_stars(field, counts, n, seed, realism))
    part |= {"ra": ra, "dec": dec, "close_pair": pair, "field": np.full(n, FIELDS.index(field))}
    draw = stream(seed, "motions", field.name)
    part["pmra"], part["pmdec"], part["radial_velocity"] = galaxy.motions(
        part["component"], ra, dec, part["distance_pc"], draw
    )
    part["parallax"] = 1000.0 / part["distance_pc"]
    if realism.extragalactic:
        _make_extragalactic(part, stream(seed, "extragalactic", field.name))
    return part


def _make_extragalactic(part: Truth, draw: np.random.Generator) -> None:
    """Turn a share of the sources into quasars and galaxies: faint, without parallax or motion."""
    n = len(part["ra"])
    at = np.flatnonzero(draw.random(n) < EXTRAGALACTIC_SHARE)
    quasar = draw.random(len(at)) < 0.6
    g = np.where(quasar, 17.2, 18.0) + 3.6 * np.sqrt(draw.random(len(at)))
    bp_rp = np.where(quasar, 0.65, 1.3) + draw.normal(0, 0.25, len(at))
    colour = {
        "u": np.where(quasar, 0.35, 2.2), "v": np.where(quasar, 0.2, 1.6), "g": np.where(quasar, 0.12, 0.6),
        "r": np.where(quasar, -0.05, -0.1), "i": np.where(quasar, -0.12, -0.5), "z": np.where(quasar, -0.1, -0.75),
    }  # fmt: skip
    part["component"][at] = np.where(quasar, QUASAR, GALAXY)
    for band, offset in colour.items():
        part[f"M_{band}"][at] = g + offset + draw.normal(0, 0.2, len(at))
    part["M_G"][at], part["M_BP"][at], part["M_RP"][at] = g, g + 0.4 * bp_rp, g - 0.6 * bp_rp
    part["bp_rp_0"][at] = bp_rp
    part["distance_pc"][at] = 1.0e9
    part["is_binary"][at] = 0
    for name in ("pmra", "pmdec", "parallax", "mass_ratio"):
        part[name][at] = 0.0
    for name in ("teff", "logg", "feh", "alpha", "age_gyr", "mass"):
        part[name][at] = np.nan
    part["weight"][at] = 1.0


def _make_fast_movers(truth: Truth, settings: SimulateSettings) -> None:
    """Replace a handful of stars by nearby dwarfs that move by 1 to 10 arcsec a year; their weight is zero."""
    draw = stream(settings.seed, "fast_movers")
    n = int(np.clip(settings.stars // 12_000, 5, 40))
    stars = np.flatnonzero((truth["component"] < QUASAR) & ~truth["close_pair"])
    at = np.sort(draw.choice(stars, n, replace=False))
    feh, log_age = draw.normal(-0.3, 0.2, n), np.full(n, 9.6)
    star = interpolate(feh, log_age, draw.uniform(*_FAST_POINT, n))
    speed = np.geomspace(10_000.0, 1_000.0, n)
    angle = draw.uniform(0, 2 * np.pi, n)
    distance = np.minimum(1000.0 * draw.uniform(60, 220, n) / (4.74047 * speed), 60.0)
    new = {
        "component": 0, "feh": feh, "alpha": 0.0, "age_gyr": 10 ** (log_age - 9), "mass": star["initial_mass"],
        "teff": 10 ** star["log_teff"], "logg": star["logg"], "distance_pc": distance, "weight": 0.0, "is_binary": 0,
        "mass_ratio": 0.0, "bp_rp_0": star["M_BP"] - star["M_RP"], "parallax": 1000.0 / distance,
        "pmra": speed * np.sin(angle), "pmdec": speed * np.cos(angle),
    }  # fmt: skip
    for name, values in (new | {f"M_{b}": star[f"M_{b}"] for b in BANDS}).items():
        truth[name][at] = values


def _light(truth: Truth, settings: SimulateSettings) -> None:
    """Add dust and the noiseless apparent magnitudes to the truth, and drop the absolute ones."""
    seed, realism = settings.seed, settings.realism
    ra, dec = truth["ra"], truth["dec"]
    truth["l"], truth["b"] = galaxy.galactic(ra, dec)
    column = true_map_ebv(ra, dec, seed) if realism.dust else np.zeros(len(ra))
    truth["ebv_true"] = column * sheet_fraction(truth["distance_pc"], truth["b"])
    truth["ebv_sfd"] = published_ebv(ra, dec, seed, error=realism.sfd_error) if realism.dust else column
    lost = extinction(truth["ebv_true"], truth["bp_rp_0"], ra, dec, seed, rv_error=realism.rv_error)
    modulus = np.where(truth["component"] < QUASAR, 5 * np.log10(truth["distance_pc"]) - 5, 0.0)
    for band in BANDS:
        truth[f"m_{band}"] = truth.pop(f"M_{band}") + modulus + lost[band]


def _source_ids(truth: Truth, seed: int) -> Ints:
    """Return unique archive-like ids: level-12 pixel at registration, a code, a running number, a component."""
    draw = stream(seed, "source_id")
    n = len(truth["ra"])
    years = _REGISTRATION_EPOCH - 2016.0
    ra, dec = shift(
        truth["ra"], truth["dec"],
        truth["pmra"] * years + draw.normal(0, 60.0, n), truth["pmdec"] * years + draw.normal(0, 60.0, n),
    )  # fmt: skip
    pixel = sky_cell(ra, dec, 12)
    order = np.lexsort((draw.random(n), pixel))
    ordered = pixel[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.flatnonzero(first)
    rank = np.arange(n) - np.repeat(start, np.diff(np.r_[start, n]))
    running = np.empty(n, dtype=np.int64)
    running[order] = (rank + 1) * 5003 + draw.integers(0, 5003, n)
    component = np.where(draw.random(n) < 0.03, 64, 0)
    code = draw.choice(np.array([0, 1, 2, 4]), n)
    return (pixel << 35) | (code << 32) | (running << 7) | component
