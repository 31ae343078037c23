"""The objects that SkyMapper sees: of which Gaia sources they are made, and where they are.

SkyMapper resolves about 2 arcsec: closer Gaia sources become one object with their summed light. Positions are those
of the object's own epoch (proper motion and parallax applied), blurred by 36 to 150 mas, and whole sky cells are off
by up to 180 mas, as real DR2 fields are. Objects without a Gaia source are added.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from stellarml.simulate.fields import shift, sky_cell
from stellarml.simulate.galaxy import lon_lat_deg, unit_vectors
from stellarml.simulate.settings import SimulateSettings
from stellarml.simulate.skymapper_light import BANDS, observe
from stellarml.simulate.streams import Bools, Floats, Ints, cell_uniform, stream
from stellarml.simulate.truth import Truth

RESOLUTION_ARCSEC = 2.0
SKYMAPPER_ONLY_SHARE = 0.04
FIRST_EPOCH_MJD, LAST_EPOCH_MJD = 56_730.0, 58_190.0

_J2016_MJD = 57_388.5
_NEIGHBOUR_ARCSEC = 15.0
_MISSING_EPOCH_SHARE = 0.005


def sky_objects(
    truth: Truth, settings: SimulateSettings, report: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Return the objects that SkyMapper detects, each column of shape (objects,), ascending in `object_id`.

    Columns: object_id, host (row of the true sky, -1 without one), second (row of the blended fainter source, or -1),
    ra, dec (deg, at true_epoch), true_epoch, mean_epoch (MJD, 0 where lost), sigma_mas, prox (arcsec), prox_id,
    density, and for each band X: X_mag (NaN where not measured), X_err.
    """
    seed, realism = settings.seed, settings.realism
    report("merging what SkyMapper cannot resolve")
    host, second = _merge(truth, seed, blends=realism.blends)
    magnitude = {b: _summed(truth[f"m_{b}"], host, second) for b in BANDS}
    ra, dec = _centroids(truth, host, second)
    objects: dict[str, np.ndarray] = {"host": host, "second": second, "ra": ra, "dec": dec}
    moving = {name: truth[name][host] for name in ("pmra", "pmdec", "parallax")}
    galaxy_like = truth["component"][host] == 4
    if realism.skymapper_only:
        extra = int(SKYMAPPER_ONLY_SHARE * len(host))
        near = stream(seed, "skymapper_only").choice(len(host), extra, replace=False)
        objects, magnitude, moving = _with_lone_objects(objects, magnitude, moving, near, seed)
        galaxy_like = np.concatenate([galaxy_like, np.ones(extra, dtype=np.bool_)])
    n = len(objects["ra"])
    draw = stream(seed, "skymapper_positions")
    cell = sky_cell(objects["ra"], objects["dec"])
    epoch = np.clip(
        FIRST_EPOCH_MJD + 1460.0 * cell_uniform(seed, "epoch", cell) + draw.normal(0, 120.0, n),
        FIRST_EPOCH_MJD, LAST_EPOCH_MJD,
    )  # fmt: skip
    objects |= observe(magnitude, cell, seed, realism)
    objects["sigma_mas"] = np.clip(
        36.0 * np.exp(draw.normal(0.15, 0.4, n)) + 5.0 * objects["faintness"], 36.0, 150.0
    )
    frame = _frame_offsets_mas(cell, seed) if realism.frame_offsets else np.zeros((n, 2))
    years = (epoch - _J2016_MJD) / 365.25
    to_east, to_north = parallax_shift_mas(objects["ra"], objects["dec"], moving["parallax"], epoch)
    blur = objects["sigma_mas"] * draw.standard_normal((2, n)) * (1.0 if realism.astrometric_noise else 0.0)
    objects["ra"], objects["dec"] = shift(
        objects["ra"], objects["dec"],
        moving["pmra"] * years + to_east + frame[:, 0] + blur[0],
        moving["pmdec"] * years + to_north + frame[:, 1] + blur[1],
    )  # fmt: skip
    objects["galaxy_like"] = galaxy_like
    objects["true_epoch"] = epoch
    objects["mean_epoch"] = np.where(draw.random(n) < _MISSING_EPOCH_SHARE, 0.0, epoch)
    seen = np.isfinite(np.stack([objects[f"{b}_mag"] for b in BANDS])).any(axis=0)
    objects = {name: column[seen] for name, column in objects.items()}
    objects["object_id"] = _object_ids(cell[seen], seed)
    order = np.argsort(objects["object_id"])
    objects = {name: column[order] for name, column in objects.items()}
    report(f"looking for the neighbours of {len(order)} SkyMapper objects")
    return objects | _neighbours(objects)


def _merge(truth: Truth, seed: int, *, blends: bool) -> tuple[Ints, Ints]:
    """Return the brightest Gaia source of each object and the fainter one merged into it (-1: none)."""
    n = len(truth["ra"])
    second = np.full(n, -1, dtype=np.int64)
    absorbed = np.zeros(n, dtype=np.bool_)
    if blends:
        draw = stream(seed, "blends")
        v = unit_vectors(truth["ra"], truth["dec"])[0]
        pairs = cKDTree(v).query_pairs(np.radians((RESOLUTION_ARCSEC + 1.0) / 3600), output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        arcsec = np.degrees(np.linalg.norm(v[pairs[:, 0]] - v[pairs[:, 1]], axis=1)) * 3600
        merged = draw.random(len(pairs)) < 1 / (1 + np.exp((arcsec - RESOLUTION_ARCSEC) / 0.25))
        for a, b in pairs[merged].tolist():
            bright, faint = (a, b) if truth["m_r"][a] <= truth["m_r"][b] else (b, a)
            free = not (absorbed[bright] or absorbed[faint]) and second[bright] < 0 and second[faint] < 0
            if free:
                absorbed[faint] = True
                second[bright] = faint
    host = np.flatnonzero(~absorbed)
    return host, second[host]


def _summed(magnitude: Floats, host: Ints, second: Ints) -> Floats:
    light = 10.0 ** (-0.4 * magnitude[host])
    return np.asarray(-2.5 * np.log10(light + np.where(second >= 0, 10.0 ** (-0.4 * magnitude[second]), 0.0)))


def _centroids(truth: Truth, host: Ints, second: Ints) -> tuple[Floats, Floats]:
    """Return positions weighted by r-band light (deg, J2016.0)."""
    ra, dec = truth["ra"][host].copy(), truth["dec"][host].copy()
    at = np.flatnonzero(second >= 0)
    a, b = host[at], second[at]
    share = 1.0 / (1.0 + 10.0 ** (0.4 * (truth["m_r"][b] - truth["m_r"][a])))
    va, vb = (
        unit_vectors(truth["ra"][a], truth["dec"][a])[0],
        unit_vectors(truth["ra"][b], truth["dec"][b])[0],
    )
    ra[at], dec[at] = lon_lat_deg(va + share[:, None] * (vb - va))
    return ra, dec


def _with_lone_objects(
    objects: dict[str, np.ndarray],
    magnitude: dict[str, Floats],
    moving: dict[str, Floats],
    near: Ints,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Floats], dict[str, Floats]]:
    """Append faint extended objects without a Gaia source, 10 to 120 arcsec from the objects `near`."""
    draw = stream(seed, "lone_objects")
    n = len(near)
    angle, arcsec = draw.uniform(0, 2 * np.pi, n), draw.uniform(10.0, 120.0, n)
    ra, dec = shift(
        objects["ra"][near],
        objects["dec"][near],
        1000 * arcsec * np.sin(angle),
        1000 * arcsec * np.cos(angle),
    )
    none = np.full(n, -1, dtype=np.int64)
    more = {"host": none, "second": none, "ra": ra, "dec": dec}
    r_mag = 20.6 - draw.exponential(1.1, n)
    colour = {"u": 2.3, "v": 1.8, "g": 0.65, "r": 0.0, "i": -0.35, "z": -0.55}
    light = {b: r_mag + colour[b] + draw.normal(0, 0.2, n) for b in BANDS}
    return (
        {name: np.concatenate([objects[name], more[name]]) for name in objects},
        {b: np.concatenate([magnitude[b], light[b]]) for b in BANDS},
        {name: np.concatenate([moving[name], np.zeros(n)]) for name in moving},
    )


def _frame_offsets_mas(cell: Ints, seed: int) -> Floats:
    """Return the offset of SkyMapper's frame from Gaia's, shape (n, 2): 5-50 mas, but 90-180 in 45 % of cells."""
    large = cell_uniform(seed, "frame_kind", cell) < 0.45
    size = np.where(large, 90.0, 5.0) + np.where(large, 90.0, 45.0) * cell_uniform(seed, "frame_size", cell)
    angle = 2 * np.pi * cell_uniform(seed, "frame_angle", cell)
    return np.stack([size * np.sin(angle), size * np.cos(angle)], axis=1)


def parallax_shift_mas(
    ra_deg: Floats, dec_deg: Floats, parallax_mas: Floats, mjd: Floats
) -> tuple[Floats, Floats]:
    """Return the parallactic displacement towards east and north (mas), each of shape (n,).

    The Earth's place is that of a circular orbit with the equation of the centre (0.01 au), enough for mas.
    """
    anomaly = np.radians(357.528 + 0.9856003 * (mjd - 51544.5))
    lon = np.radians(280.460 + 0.9856474 * (mjd - 51544.5)) + np.radians(1.915) * np.sin(anomaly)
    tilt = np.radians(23.4393)
    earth = -np.stack([np.cos(lon), np.sin(lon) * np.cos(tilt), np.sin(lon) * np.sin(tilt)], axis=1)
    _, east, north = unit_vectors(ra_deg, dec_deg)
    return (
        -parallax_mas * np.einsum("ij,ij->i", earth, east),
        -parallax_mas * np.einsum("ij,ij->i", earth, north),
    )


def _object_ids(cell: Ints, seed: int) -> Ints:
    """Return unique ids: consecutive inside a sky cell in random order, the cells in random order."""
    draw = stream(seed, "object_id")
    order = np.lexsort((draw.random(len(cell)), cell_uniform(seed, "cell_order", cell)))
    ids = np.empty(len(cell), dtype=np.int64)
    ids[order] = 4_000_000 + np.cumsum(draw.integers(1, 9, len(cell)))
    return ids


def _neighbours(objects: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return distance and id of the nearest other object within 15 arcsec, and how many there are with itself."""
    v = unit_vectors(objects["ra"], objects["dec"])[0]
    limit = 2 * np.sin(np.radians(_NEIGHBOUR_ARCSEC / 3600) / 2)
    chord, index = cKDTree(v).query(v, k=8, distance_upper_bound=limit)
    found = np.isfinite(chord)
    near: Bools = found[:, 1]
    other = np.where(near, index[:, 1], 0)
    return {
        "prox": np.where(near, np.degrees(chord[:, 1]) * 3600, _NEIGHBOUR_ARCSEC),
        "prox_id": np.where(near, objects["object_id"][other], -1),
        "density": found.sum(axis=1),
    }
