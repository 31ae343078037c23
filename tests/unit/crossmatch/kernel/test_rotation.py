"""The sky has no preferred place: turned as a whole, two catalogues keep their pairs, with every number of a pair."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from helpers.crossmatch_oracle import crowded_field
from helpers.crossmatch_tiles import Columns, columns, joined, match_by_tiles, serialised, tiles_of
from scipy.spatial.transform import Rotation

from stellarml.core import sky
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, PositionErrors, Sources, sources

HOME = (200.0, 12.0)
CORNER_DEC = float(np.degrees(np.arcsin(2.0 / 3.0)))
PLACES = {
    "north_pole": (0.0, 90.0),
    "south_pole": (0.0, -90.0),
    "ra_zero_on_the_equator": (0.0, 0.0),
    "ra_zero": (360.0 - 1e-9, -63.0),
    "four_base_pixels": (45.0, 0.0),
    "four_base_pixels_on_the_other_side": (225.0, 0.0),
    "three_base_pixels": (90.0, CORNER_DEC),
    "three_base_pixels_at_ra_zero": (0.0, CORNER_DEC),
    "three_southern_base_pixels": (180.0, -CORNER_DEC),
    "seam_of_the_polar_cap": (90.0, 70.0),
}
# floors and limits of an axis know east from north, so that only the isotropic part is left
ERRORS = MatchSettings(right_errors=PositionErrors(systematic_mas=100.0))
KINDS = {"radius": MatchSettings(radius_arcsec=2.5), "round": ERRORS, "elongated": ERRORS}
CORRELATIONS = ("ra_dec", "ra_pmra", "ra_pmdec", "dec_pmra", "dec_pmdec", "pmra_pmdec")
INDICES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


@cache
def at_home(kind: str) -> tuple[Sources, Sources, Columns]:
    left, right = crowded_field(*HOME, seed=12, stars=200, radius_arcsec=35.0)
    left, right = left.take(np.isfinite(left.ra_error_mas)), right.take(np.isfinite(right.dec_deg))
    left = replace(left, **{f"{n}_corr": np.nan_to_num(getattr(left, f"{n}_corr")) for n in CORRELATIONS})
    right = replace(right, ra_dec_corr=np.random.default_rng(1).uniform(-0.8, 0.8, len(right)))
    if kind == "round":
        nothing = np.zeros(len(left))
        left = replace(
            left, dec_error_mas=left.ra_error_mas, pmdec_error_mas_yr=left.pmra_error_mas_yr, ra_dec_corr=nothing,
            pmra_pmdec_corr=nothing, dec_pmdec_corr=left.ra_pmra_corr, dec_pmra_corr=-left.ra_pmdec_corr,
        )  # fmt: skip
        right = replace(right, dec_error_mas=right.ra_error_mas, ra_dec_corr=np.zeros(len(right)))
    found = joined([columns(left, match_tile(left, right, KINDS[kind]))])
    assert len(found["left_id"]) > 150 and np.isnan(left.pmra_mas_yr).any()
    return left, right, found


def rotation_to(place: tuple[float, float], turned_deg: float) -> Rotation:
    """Bring the field's centre to `place`, and turn it about its centre on the way."""
    ra, dec = np.radians(HOME)
    to_x = Rotation.from_euler("zy", [-ra, dec])
    ra, dec = np.radians(place)
    return Rotation.from_euler("yz", [-dec, ra]) * Rotation.from_euler("x", turned_deg, degrees=True) * to_x


def triad(ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, d = np.radians(ra_deg), np.radians(dec_deg)
    east = np.column_stack([-np.sin(a), np.cos(a), np.zeros_like(a)])
    north = np.column_stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    return east, north


def rotated(rows: Sources, rotation: Rotation) -> Sources:
    """The same sources with the whole sky turned: positions, proper motions and covariances."""
    ra, dec = sky.from_unit_vectors(rotation.apply(sky.unit_vectors(rows.ra_deg, rows.dec_deg)))
    old_east, old_north = (rotation.apply(axis) for axis in triad(rows.ra_deg, rows.dec_deg))
    east, north = triad(ra, dec)
    turn = np.stack(
        [np.stack([(new * old).sum(axis=1) for old in (old_east, old_north)], 1) for new in (east, north)], 1
    )
    pm = np.einsum("nij,nj->ni", turn, np.column_stack([rows.pmra_mas_yr, rows.pmdec_mas_yr]))
    sigma = np.column_stack(
        [rows.ra_error_mas, rows.dec_error_mas, rows.pmra_error_mas_yr, rows.pmdec_error_mas_yr]
    )
    with_motion = np.isfinite(sigma[:, 2])
    sigma = np.nan_to_num(sigma)
    correlation = np.zeros((len(rows), 4, 4))
    correlation[:, range(4), range(4)] = 1.0
    for name, (i, j) in zip(CORRELATIONS, INDICES, strict=True):
        correlation[:, i, j] = correlation[:, j, i] = np.nan_to_num(getattr(rows, f"{name}_corr"))
    covariance = correlation * sigma[:, :, None] * sigma[:, None, :]
    both = np.zeros((len(rows), 4, 4))
    both[:, :2, :2] = both[:, 2:, 2:] = turn
    covariance = both @ covariance @ both.transpose(0, 2, 1)
    sigma = np.sqrt(covariance[:, range(4), range(4)])
    scale = np.where(sigma > 0.0, sigma, 1.0)
    turned = {
        f"{name}_corr": covariance[:, i, j] / scale[:, i] / scale[:, j]
        for name, (i, j) in zip(CORRELATIONS, INDICES, strict=True)
    }
    moved = sources(
        rows.id, ra, dec, epoch_yr=rows.epoch_yr, parallax_mas=rows.parallax_mas,
        pmra_mas_yr=pm[:, 0], pmdec_mas_yr=pm[:, 1], ra_error_mas=sigma[:, 0], dec_error_mas=sigma[:, 1],
        pmra_error_mas_yr=np.where(with_motion, sigma[:, 2], np.nan),
        pmdec_error_mas_yr=np.where(with_motion, sigma[:, 3], np.nan), **turned,
    )  # fmt: skip
    return moved.take(np.lexsort((moved.id, moved.healpix_29)))


def by_pair(found: Columns) -> Columns:
    order = np.lexsort((found["right_id"], found["left_id"]))
    return {name: values[order] for name, values in found.items() if name != "index"}


@pytest.mark.parametrize(
    ("place", "kind", "tolerance"),
    [(place, kind, 1e-6) for place in PLACES for kind in KINDS],
)
def test_a_turned_sky_keeps_its_pairs(place: str, kind: str, tolerance: float) -> None:
    left, right, home = at_home(kind)
    expected = by_pair(home)
    turned = rotation_to(PLACES[place], turned_deg=17.0 + 31.0 * list(PLACES).index(place))
    left, right = rotated(left, turned), rotated(right, turned)
    assert sky.separation_arcsec(*PLACES[place], left.ra_deg, left.dec_deg).max() < 60.0
    whole = joined([columns(left, match_tile(left, right, KINDS[kind]))])
    if kind != "round":
        tiles = tiles_of(left, 11, 13, 3), tiles_of(right, 10, 12, 4)
        assert serialised(match_by_tiles(left, right, *tiles, KINDS[kind], 3)) == serialised(whole)
    found = by_pair(whole)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            assert np.allclose(found[name], values, rtol=tolerance, atol=tolerance, equal_nan=True), name
        else:
            assert np.array_equal(found[name], values), name
