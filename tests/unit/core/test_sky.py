"""Separations, propagation and halos against independent tools and brute force."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from astropy.coordinates import angular_separation
from astropy.time import Time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stellarml.core import sky
from stellarml.core.errors import InputError
from stellarml.core.tiles import INDEX_ORDER, pixel_range

right_ascensions = st.floats(0.0, 360.0, exclude_max=True)
declinations = st.floats(-90.0, 90.0)
motions = st.floats(-11_000.0, 11_000.0)
unhurried = settings(deadline=None)


@unhurried
@given(right_ascensions, declinations, right_ascensions, declinations)
def test_separation_agrees_with_vincenty(ra1: float, dec1: float, ra2: float, dec2: float) -> None:
    expected = np.degrees(angular_separation(*np.radians([ra1, dec1, ra2, dec2]))) * 3600.0
    assert sky.separation_arcsec(ra1, dec1, ra2, dec2) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@unhurried
@given(right_ascensions, st.floats(-89.9, 89.9), st.floats(0.0, 1e-3), st.floats(0.0, 6.28))
def test_small_separations_keep_their_digits(
    ra: float, dec: float, offset_arcsec: float, angle: float
) -> None:
    ra2 = ra + offset_arcsec * np.sin(angle) / 3600.0 / np.cos(np.radians(dec))
    dec2 = dec + offset_arcsec * np.cos(angle) / 3600.0
    assert sky.separation_arcsec(ra, dec, ra2, dec2) == pytest.approx(offset_arcsec, rel=1e-5, abs=1e-9)


def test_antipodes_are_exact() -> None:
    assert sky.separation_arcsec(10.0, 30.0, 190.0, -30.0 + 1e-7) == pytest.approx(
        648_000.0 - 3.6e-4, abs=1e-9
    )


@example(ra=12.0, dec=-60.0, pmra=1000.0, pmdec=1000.0, years=16.0)
@example(ra=0.0, dec=89.9995, pmra=-10_000.0, pmdec=3000.0, years=16.0)
@example(ra=269.45, dec=4.69, pmra=-801.551, pmdec=10_362.394, years=-16.0)
@unhurried
@given(right_ascensions, st.floats(-89.99, 89.99), motions, motions, st.floats(-25.0, 25.0))
def test_there_and_back_again(ra: float, dec: float, pmra: float, pmdec: float, years: float) -> None:
    there = sky.propagate(ra, dec, pmra, pmdec, years)
    back_ra, back_dec, back_pmra, back_pmdec = sky.propagate(*there, -years)
    assert sky.separation_arcsec(ra, dec, back_ra, back_dec) < 1e-6
    assert np.hypot(back_pmra - pmra, back_pmdec - pmdec) <= 1e-8 * (1.0 + np.hypot(pmra, pmdec))
    travelled = np.hypot(pmra, pmdec) * abs(years) / 1000.0
    assert sky.separation_arcsec(ra, dec, there[0], there[1]) == pytest.approx(travelled, rel=1e-9, abs=1e-8)
    assert np.hypot(there[2], there[3]) == pytest.approx(np.hypot(pmra, pmdec), rel=1e-9, abs=1e-9)


def test_the_linear_formula_does_not_come_back() -> None:
    ra, dec, mu, years = 12.0, -60.0, 1000.0 / 3.6e6, 16.0
    there = (ra + mu * years / np.cos(np.radians(dec)), dec + mu * years)
    back = (there[0] - mu * years / np.cos(np.radians(there[1])), there[1] - mu * years)
    assert sky.separation_arcsec(ra, dec, *back) * 1000.0 > 0.5


def test_motion_over_the_pole_turns_the_direction_round() -> None:
    ra, dec, pmra, pmdec = sky.propagate(30.0, 89.999, 0.0, 3600.0 * 1000.0, 0.002)
    assert (ra, dec) == (pytest.approx(210.0), pytest.approx(89.999))
    assert (pmra, pmdec) == (pytest.approx(0.0, abs=1.0), pytest.approx(-3.6e6))


def test_missing_motion_or_interval_stays() -> None:
    found = sky.propagate(
        [10.0, 20.0, 30.0], 5.0, [np.nan, 100.0, 100.0], [1.0, np.nan, 100.0], [1.0, 1.0, np.nan]
    )
    assert found[0].tolist() == [10.0, 20.0, 30.0] and found[1].tolist() == [5.0, 5.0, 5.0]
    assert np.isnan(found[2][0]) and np.isnan(found[3][1]) and found[2][2] == pytest.approx(100.0)


@unhurried
@given(right_ascensions, st.floats(-89.9, 89.9), st.floats(-1000.0, 1000.0), st.floats(-1000.0, 1000.0))
def test_tangent_offsets_are_those_of_the_motion(ra: float, dec: float, east: float, north: float) -> None:
    there = sky.propagate(ra, dec, east, north, 1.0)
    assert np.allclose(
        sky.tangent_offsets_mas(ra, dec, there[0], there[1]), (east, north), rtol=1e-6, atol=1e-5
    )


def test_epochs() -> None:
    mjd = np.array([51544.5, 56658.0, 58208.25])
    assert np.allclose(sky.mjd_to_jyear(mjd), Time(mjd, format="mjd", scale="tdb").jyear, rtol=0, atol=1e-11)
    assert np.allclose(sky.jyear_to_mjd(sky.mjd_to_jyear(mjd)), mjd, rtol=0, atol=1e-8)


def test_index_is_nested_and_wraps() -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0.0, 360.0, 1000), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 1000)))
    index = sky.healpix_29(ra, dec)
    assert index.dtype == np.int64
    assert (sky.healpix_29(ra - 360.0, dec) >> 10 == index >> 10).mean() > 0.99
    for order in (0, 5, 12):
        pixel = sky.pixel_at_order(index, order)
        first, end = np.array([pixel_range(order, p) for p in pixel]).T
        assert ((first <= index) & (index < end)).all()
    from hats.pixel_math.spatial_index import compute_spatial_index

    assert (compute_spatial_index(ra, dec) == index).all()


def test_positions_off_the_sky_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 of 3 positions.*row 1.*dec = 91"):
        sky.healpix_29([1.0, 2.0, np.nan], [0.0, 91.0, 0.0])


@unhurried
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12))
def test_ranges_are_sets(spans: list[tuple[int, int]]) -> None:
    ranges = sky.merge_ranges(np.array([(a, a + n) for a, n in spans], dtype=np.int64).reshape(-1, 2))
    members = {value for a, n in spans for value in range(a, a + n)}
    inside = sky.in_ranges(np.arange(80), ranges)
    assert set(np.flatnonzero(inside).tolist()) == members
    assert (ranges[1:, 0] > ranges[:-1, 1]).all()
    shift = 2 * (INDEX_ORDER - 28)
    tiles = sky.tiles_in_ranges(np.full(20, 28), np.arange(20), ranges)
    assert tiles.tolist() == [any(v >> shift == t for v in members) for t in range(20)]


def tiles_to_try() -> list[tuple[int, int]]:
    rng = np.random.default_rng(11)
    tiles = [(0, p) for p in (0, 5, 10)]
    for ra, dec in (
        (0.0, 90.0),
        (10.0, -90.0),
        (45.0, 0.0),
        (0.0, 0.0),
        (90.0, 41.81),
        (0.0, -50.0),
        (180.0, 66.0),
    ):
        for order in (1, 3, 8, 13):
            tiles.append((order, int(sky.pixel_at_order(sky.healpix_29(ra, dec), order)[0])))
    tiles += [
        (order, int(rng.integers(0, 12 << (2 * order)))) for order in (2, 5, 7, 11, 14) for _ in range(3)
    ]
    return tiles


@pytest.mark.parametrize("radius_arcsec", [0.5, 30.0, 2000.0])
def test_halo_misses_nobody(radius_arcsec: float) -> None:
    """Walk up to the radius out of points on and near the border, and check that the place is covered."""
    rng = np.random.default_rng(5)
    for order, pixel in tiles_to_try():
        side = sky.SIDE_ARCSEC / (1 << order)
        ranges = sky.halo_ranges(order, pixel, radius_arcsec)
        ra, dec = points_near_border(order, pixel, radius_arcsec, rng, 4000)
        angle, far = rng.uniform(0.0, 2 * np.pi, ra.size), radius_arcsec * np.sqrt(rng.random(ra.size))
        far[::2] = radius_arcsec
        out_ra, out_dec, _, _ = sky.propagate(
            ra, dec, far * np.cos(angle) * 1000, far * np.sin(angle) * 1000, 1.0
        )
        index = sky.healpix_29(out_ra, out_dec)
        assert sky.in_ranges(index, ranges).all(), (order, pixel)
        first, end = pixel_range(order, pixel)
        assert ((index < first) | (index >= end)).any()
        covered = (ranges[:, 1] - ranges[:, 0]).sum() / float(end - first)
        assert covered < 1.0 + 40.0 * (radius_arcsec / side) + 150.0 * (radius_arcsec / side) ** 2 + 0.1


def test_a_halo_of_pixels_too_small_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    halo = sky.halo_ranges
    monkeypatch.setattr(sky, "halo_ranges", lambda order, pixel, radius: halo(order, pixel, radius / 6.0))
    with pytest.raises(AssertionError):
        test_halo_misses_nobody(30.0)


def test_pixels_are_wide_enough_for_the_halo() -> None:
    """A pixel and its neighbours hold all within half the mean side; no pixel of an order is narrower than 0.67."""
    nside, side = 16, healpy.nside2resol(16)
    for pixel in range(12 * nside * nside):
        block = {pixel, *healpy.get_all_neighbours(nside, pixel, nest=True).tolist()} - {-1}
        ring = set(np.concatenate([healpy.get_all_neighbours(nside, p, nest=True) for p in block]).tolist())
        own = healpy.boundaries(nside, pixel, step=4, nest=True).T
        outside = np.concatenate(
            [healpy.boundaries(nside, p, step=4, nest=True).T for p in ring - block - {-1}]
        )
        assert np.linalg.norm(own[:, None] - outside[None], axis=-1).min() > 0.66 * side


def points_near_border(
    order: int, pixel: int, radius_arcsec: float, rng: np.random.Generator, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points inside a tile, most of them in its outermost pixels of a quarter of the radius."""
    deep = max(order + 2, sky.order_of_side(radius_arcsec / 4.0))
    width = 1 << (deep - order)
    x, y = rng.integers(0, width, (2, number))
    side = rng.integers(0, 6, number)
    x, y = np.where(side == 0, 0, x), np.where(side == 1, 0, y)
    x, y = np.where(side == 2, width - 1, x), np.where(side == 3, width - 1, y)
    corner = side == 4
    x[corner], y[corner] = rng.choice([0, width - 1], (2, corner.sum()))
    interleaved = np.zeros(number, dtype=np.int64)
    for bit in range(deep - order):
        interleaved |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    inside = (np.int64(pixel) << (2 * (deep - order))) + interleaved
    ra, dec = healpy.pix2ang(1 << deep, inside, nest=True, lonlat=True)
    return np.asarray(ra), np.asarray(dec)


def test_no_halo_is_the_tile_and_a_halo_of_half_the_sky_is_the_sky() -> None:
    assert sky.halo_ranges(4, 17, 0.0).tolist() == [list(pixel_range(4, 17))]
    assert sky.halo_ranges(0, 4, 180 * 3600.0).tolist() == [[0, 12 << 58]]


@unhurried
@given(right_ascensions, declinations, st.floats(1e-3, 1e4), st.integers(0, 2**32 - 1))
def test_cones_hold_their_sources(ra: float, dec: float, radius_arcsec: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle, far = rng.uniform(0.0, 2 * np.pi, 50), radius_arcsec * np.sqrt(rng.random(50))
    far[:20] = radius_arcsec
    out_ra, out_dec, _, _ = sky.propagate(
        ra, dec, far * np.cos(angle) * 1000, far * np.sin(angle) * 1000, 1.0
    )
    assert sky.in_ranges(sky.healpix_29(out_ra, out_dec), sky.cone_ranges(ra, dec, radius_arcsec)).all()
