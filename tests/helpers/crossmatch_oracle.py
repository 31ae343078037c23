"""A cross-match of all pairs, written from the formulas with other tools, to hold the kernel against.

Rotations by scipy, separations and position angles by astropy's Vincenty formulas, covariances by J S J^T, inverses by
LAPACK, counts by dictionaries: nothing is shared with the kernel but the meaning of the columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from astropy.coordinates import angular_separation, position_angle
from scipy.spatial.transform import Rotation

from stellarml.core import sky
from stellarml.crossmatch.kernel.settings import MatchSettings, PositionErrors, Sources, sources

MAS = np.radians(1.0 / 3.6e6)


def brute_force(
    left: Sources, right: Sources, settings: MatchSettings
) -> dict[tuple[int, int], dict[str, float]]:
    """All good neighbours by (left id, right id), with every number of the match."""
    moving, staying = (left, right) if settings.moving == "left" else (right, left)
    eligible = _admitted(staying, settings.staying_errors, settings)
    epochs = staying.epoch_yr[eligible]
    mean = np.nanmean(epochs) if np.isfinite(epochs).any() else np.nan
    widest = settings.radius_arcsec or 12.0
    pairs = []
    for i in np.flatnonzero(_admitted(moving, settings.moving_errors, settings)):
        near = np.flatnonzero(eligible & ~_far_apart(moving, i, staying, widest))
        for j, pair in zip(near, _pairs(moving, i, staying, near, settings, mean), strict=True):
            if pair is not None:
                a, b = (i, j) if settings.moving == "left" else (j, i)
                pairs.append((int(a), int(b), pair))
    return _count(pairs, left, right, settings, mean)


def _far_apart(moving: Sources, i: int, staying: Sources, widest_arcsec: float) -> np.ndarray:
    here = np.radians([moving.ra_deg[i], moving.dec_deg[i]])
    sep = angular_separation(*here, np.radians(staying.ra_deg), np.radians(staying.dec_deg))
    pm = np.nan_to_num(np.hypot(moving.pmra_mas_yr[i], moving.pmdec_mas_yr[i]))
    return ~(sep <= np.radians(widest_arcsec / 3600.0) + 20.0 * pm * MAS)


def _admitted(rows: Sources, errors: PositionErrors, settings: MatchSettings) -> np.ndarray:
    ok = np.isfinite(rows.ra_deg) & np.isfinite(rows.dec_deg)
    if settings.radius_arcsec is None:
        for given in (rows.ra_error_mas, rows.dec_error_mas):
            sigma = np.where(np.isnan(given), errors.missing_mas, given)
            ok &= np.nan_to_num(sigma, nan=np.inf) <= min(errors.reject_above_mas, 1e300)
    return ok


def _sigma(value: np.ndarray, errors: PositionErrors) -> np.ndarray:
    return np.maximum(np.where(np.isnan(value), errors.missing_mas, value), errors.floor_mas)


def motion(rows: Sources, i: int, intervals: np.ndarray) -> Rotation:
    """The rotations, one an interval (shape (m,), years), that carry row `i` and all its directions along."""
    ra, dec = np.radians([rows.ra_deg[i], rows.dec_deg[i]])
    pm = np.array([rows.pmra_mas_yr[i], rows.pmdec_mas_yr[i]]) * MAS
    pm = pm if np.isfinite(pm).all() else np.zeros(2)
    here = _vectors(ra, dec)
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    axis = np.cross(here, pm[0] * east + pm[1] * np.cross(here, east))
    return Rotation.from_rotvec(np.outer(intervals, axis))


def moved(rows: Sources, i: int, intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination of row `i`, in radians, after each of the intervals (shape (m,), years)."""
    ra, dec = np.radians([rows.ra_deg[i], rows.dec_deg[i]])
    if not len(intervals):
        return np.empty(0), np.empty(0)
    return _angles(motion(rows, i, intervals).apply(_vectors(ra, dec)))


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _angles(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = vectors.T
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def _covariances(rows: Sources, i: int, intervals: np.ndarray, settings: MatchSettings) -> np.ndarray:
    errors = settings.moving_errors
    s_a, s_d = (float(_sigma(e[i], errors)) for e in (rows.ra_error_mas, rows.dec_error_mas))
    if np.isfinite(rows.pmra_mas_yr[i]) and np.isfinite(rows.pmdec_mas_yr[i]):
        s_ma, s_md = np.nan_to_num([rows.pmra_error_mas_yr[i], rows.pmdec_error_mas_yr[i]])
        names = ("ra_dec", "ra_pmra", "ra_pmdec", "dec_pmra", "dec_pmdec", "pmra_pmdec")
        r = np.nan_to_num([getattr(rows, f"{name}_corr")[i] for name in names])
    else:
        s_ma = s_md = settings.sigma_mu_mas_yr
        r = np.array([np.nan_to_num(rows.ra_dec_corr[i]), 0, 0, 0, 0, 0])
    correlation = np.array(
        [[1, r[0], r[1], r[2]], [r[0], 1, r[3], r[4]], [r[1], r[3], 1, r[5]], [r[2], r[4], r[5], 1]]
    )
    scale = np.diag([s_a, s_d, s_ma, s_md])
    jacobian = np.zeros((len(intervals), 2, 4))
    jacobian[:, [0, 1], [0, 1]] = 1.0
    jacobian[:, [0, 1], [2, 3]] = intervals[:, None]
    propagated = jacobian @ scale @ correlation @ scale @ jacobian.transpose(0, 2, 1)
    parallax = np.nan_to_num(rows.parallax_mas[i])
    return propagated + np.eye(2) * (parallax**2 / 2 + errors.systematic_mas**2)


def _pairs(
    moving: Sources, i: int, staying: Sources, near: np.ndarray, settings: MatchSettings, mean: float
) -> list[dict[str, float] | None]:
    """The numbers of row `i` with each row in `near`; None where they are not good neighbours."""
    epoch = np.where(np.isfinite(staying.epoch_yr[near]), staying.epoch_yr[near], mean)
    intervals = np.nan_to_num(epoch - moving.epoch_yr[i])
    if not len(near):
        return []
    here = np.radians([moving.ra_deg[i], moving.dec_deg[i]])
    there = np.radians([staying.ra_deg[near], staying.dec_deg[near]])
    # the same triangle, carried back with the star to where its errors are given
    there_then = np.array(_angles(motion(moving, i, -intervals).apply(_vectors(*there))))
    sep = np.asarray(angular_separation(*here, *there_then))
    distance = np.degrees(sep) * 3600.0
    if settings.radius_arcsec is not None:
        return [
            {"distance": float(d), "d2": np.nan, "rank": -float(d)} if d <= settings.radius_arcsec else None
            for d in distance
        ]
    angle = np.asarray(position_angle(*here, *there_then))
    offset = np.tan(sep) / MAS * np.array([np.sin(angle), np.cos(angle)])
    back = np.asarray(position_angle(*there, *moved(moving, i, intervals))) + np.pi
    turned = np.where(sep > 1e-12, angle - back, 0.0)
    turn = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]]).transpose(2, 0, 1)
    errors = settings.staying_errors
    e_a, e_d = (_sigma(e[near], errors) for e in (staying.ra_error_mas, staying.dec_error_mas))
    shared = np.nan_to_num(staying.ra_dec_corr[near]) * e_a * e_d
    external = (
        turn @ np.array([[e_a**2, shared], [shared, e_d**2]]).transpose(2, 0, 1) @ turn.transpose(0, 2, 1)
    )
    combined = _covariances(moving, i, intervals, settings) + external + np.eye(2) * errors.systematic_mas**2
    d2 = np.einsum("kn,nkl,ln->n", offset, np.linalg.inv(combined), offset)
    limit = -2.0 * np.log(1.0 - settings.gamma)
    assert not (np.abs(d2 - limit) < 1e-6).any(), "a pair on the very limit tells nothing"
    rank = -0.5 * d2 - np.log(2.0 * np.pi * np.sqrt(np.linalg.det(combined)))
    return [
        {"distance": float(distance[k]), "d2": float(d2[k]), "rank": float(rank[k])}
        if d2[k] <= limit and sep[k] < np.pi / 2
        else None
        for k in range(len(near))
    ]


def _count(
    pairs: list[tuple[int, int, dict[str, float]]],
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    mean: float,
) -> dict[tuple[int, int], dict[str, float]]:
    of_left, of_right = defaultdict(list), defaultdict(list)
    for i, j, pair in pairs:
        of_left[i].append((-pair["rank"], np.nan_to_num(pair["d2"]), int(right.id[j]), j))
        of_right[j].append(i)
    best = {i: min(candidates)[3] for i, candidates in of_left.items()}
    chosen = Counter(best.values())
    takes_part = _admitted(right, settings.right_errors, settings)
    ra, dec = np.radians(right.ra_deg[takes_part]), np.radians(right.dec_deg[takes_part])
    densities = dict.fromkeys(of_left, 0)
    if settings.radius_arcsec is None:
        for i in of_left:
            interval = np.nan_to_num(mean - left.epoch_yr[i]) if settings.moving == "left" else 0.0
            apart = angular_separation(*moved(left, i, np.array([interval])), ra, dec)
            densities[i] = int((apart <= np.radians(settings.density_radius_arcsec / 3600.0)).sum())
    result = {}
    for i, j, pair in pairs:
        density, score = densities[i], pair["rank"]
        if settings.radius_arcsec is None:
            rho = max(density, 1) / (np.pi * (settings.density_radius_arcsec * 1000.0) ** 2)
            score -= np.log(rho)
        result[int(left.id[i]), int(right.id[j])] = {
            "distance_arcsec": pair["distance"],
            "d2": pair["d2"],
            "score": score,
            "density": density,
            "number_of_neighbours": len(of_left[i]),
            "number_of_mates": chosen[j] - (best[i] == j),
            "number_of_reverse_neighbours": len(of_right[j]),
            "best": best[i] == j,
            "unique": len(of_left[i]) == 1 and len(of_right[j]) == 1,
        }
    return result


def crowded_field(
    ra_deg: float,
    dec_deg: float,
    *,
    stars: int = 150,
    radius_arcsec: float = 25.0,
    seed: int = 0,
    fast: int = 3,
) -> tuple[Sources, Sources]:
    """Two catalogues of one small crowded field: blends, strangers, fast stars, and every kind of missing value."""
    rng = np.random.default_rng(seed)
    n = stars
    angle, far = rng.uniform(0.0, 2 * np.pi, n), radius_arcsec * np.sqrt(rng.random(n))
    ra, dec = _offset(ra_deg, dec_deg, far * np.cos(angle), far * np.sin(angle))
    pmra, pmdec = rng.normal(0.0, 60.0, (2, n))
    pmra[:fast], pmdec[:fast] = rng.normal(0.0, 6000.0, (2, fast))
    parallax = rng.exponential(2.0, n)
    parallax[n // 2] = 547.0
    left = {
        "ra_error_mas": rng.uniform(0.02, 60.0, n),
        "dec_error_mas": rng.uniform(0.02, 60.0, n),
        "ra_dec_corr": rng.uniform(-0.8, 0.8, n),
        "pmra_error_mas_yr": rng.uniform(0.1, 30.0, n),
        "pmdec_error_mas_yr": rng.uniform(0.1, 30.0, n),
        **{
            f"{name}_corr": rng.uniform(-0.3, 0.3, n)
            for name in ("ra_pmra", "ra_pmdec", "dec_pmra", "dec_pmdec")
        },
        "pmra_pmdec_corr": rng.uniform(-0.3, 0.3, n),
    }
    epoch = rng.uniform(2014.2, 2018.2, n)
    stars_now = sources(np.arange(n), ra, dec, pmra_mas_yr=pmra, pmdec_mas_yr=pmdec)
    then = np.concatenate([moved(stars_now, i, epoch[[i]] - 2016.0) for i in range(n)], axis=1)
    keep = rng.random(n) < 0.8
    seen_ra, seen_dec = np.degrees(then[:, keep])
    seen_ra %= 360.0
    errors = np.clip(36.0 * np.exp(rng.normal(0.3, 0.8, keep.sum())), 5.0, 1100.0)
    seen_ra, seen_dec = _offset_each(
        seen_ra, seen_dec, *(errors / 1000.0 * rng.normal(size=(2, len(errors))))
    )
    strange_ra, strange_dec = _offset(ra_deg, dec_deg, *(radius_arcsec * rng.normal(0.0, 0.5, (2, n // 3))))
    right_ra, right_dec = np.concatenate([seen_ra, strange_ra]), np.concatenate([seen_dec, strange_dec])
    m = len(right_ra)
    right_epoch = np.concatenate([epoch[keep], rng.uniform(2014.2, 2018.2, n // 3)])
    right_epoch[rng.random(m) < 0.1] = np.nan
    right_errors = np.concatenate([errors, rng.uniform(10.0, 900.0, n // 3)])
    pmra[rng.random(n) < 0.15] = np.nan
    parallax[np.isnan(pmra)] = np.nan
    left["ra_pmra_corr"][rng.random(n) < 0.05] = np.nan
    left["ra_error_mas"][n - 1] = np.nan
    right_dec[m - 1] = np.nan
    return (
        _sorted(sources(rng.permutation(n) + 1000, ra, dec, epoch_yr=2016.0, parallax_mas=parallax,
                        pmra_mas_yr=pmra, pmdec_mas_yr=pmdec, **left)),
        _sorted(sources(rng.permutation(m) + 9000, right_ra, right_dec, epoch_yr=right_epoch,
                        ra_error_mas=right_errors, dec_error_mas=right_errors * rng.uniform(0.5, 1.0, m))),
    )  # fmt: skip


def _sorted(rows: Sources) -> Sources:
    return rows.take(np.lexsort((rows.id, rows.healpix_29)))


def _offset(
    ra: float, dec: float, east_arcsec: np.ndarray, north_arcsec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    size = len(east_arcsec)
    return _offset_each(np.full(size, ra), np.full(size, dec), east_arcsec, north_arcsec)


def _offset_each(
    ra: np.ndarray, dec: np.ndarray, east_arcsec: np.ndarray, north_arcsec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, d = np.radians(ra), np.radians(dec)
    zero = np.zeros_like(a)
    here = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.array([-np.sin(a), np.cos(a), zero])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    scale = np.radians(1.0 / 3600.0)
    return sky.from_unit_vectors((here + scale * (east_arcsec * east + north_arcsec * north)).T)
