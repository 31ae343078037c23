"""Where is a source at another epoch, and how sure is that? The kernel against astropy, ERFA and clouds of stars."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Distance, SkyCoord, angular_separation
from astropy.time import Time
from helpers.crossmatch_oracle import crowded_field, moved
from helpers.crossmatch_tiles import columns, match_by_tiles, serialised, tiles_of

from stellarml.core import sky
from stellarml.core.match_flags import MatchFlag
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.kernel.settings import (
    MatchSettings,
    PositionErrors,
    Sources,
    sources,
)

MICROARCSEC = 1e-6
STARS = {
    "ordinary": (12.0, -30.0, 20.0, -30.0, -2.0),
    "dec_-60_over_16_yr": (12.0, -60.0, 1000.0, 1000.0, 16.0),
    "near_the_pole": (200.0, 89.9995, -900.0, 300.0, 16.0),
    "over_the_pole": (77.0, -89.9999, 300.0, -400.0, -12.0),
    "through_ra_zero": (359.9999, 5.0, 4000.0, -100.0, 16.0),
    "barnard": (269.452, 4.69339, -801.551, 10_362.394, -16.0),
}
NEAR = MatchSettings(radius_arcsec=0.001)


def one(ra: float, dec: float, epoch: float, pmra: float = np.nan, pmdec: float = np.nan) -> Sources:
    return sources([1], [ra], [dec], epoch_yr=epoch, pmra_mas_yr=pmra, pmdec_mas_yr=pmdec)


def by_astropy(ra: float, dec: float, pmra: float, pmdec: float, years: float) -> tuple[float, float]:
    """ERFA's full space motion of a star so near that it is slow: no light time, no relativity to speak of."""
    start = Time(2016.0, format="jyear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = SkyCoord(
            ra * units.deg,
            dec * units.deg,
            distance=Distance(parallax=700 * units.mas),
            pm_ra_cosdec=pmra * units.mas / units.yr,
            pm_dec=pmdec * units.mas / units.yr,
            radial_velocity=0 * units.km / units.s,
            obstime=start,
        ).apply_space_motion(new_obstime=Time(2016.0 + years, format="jyear"))
    return float(there.ra.deg), float(there.dec.deg)


@pytest.mark.parametrize("star", STARS)
def test_the_kernel_and_the_oracle_move_stars_as_astropy_does(star: str) -> None:
    """On a straight line in space the angle is atan(mu t), short of mu t by its third power; light is late."""
    ra, dec, pmra, pmdec, years = STARS[star]
    there = by_astropy(ra, dec, pmra, pmdec, years)
    angle = abs(years) * np.hypot(pmra, pmdec) / 1000.0 / sky.ARCSEC_PER_RAD
    allowed = MICROARCSEC + 1.5 * angle**3 / 3.0 * sky.ARCSEC_PER_RAD
    rows = one(ra, dec, 2016.0, pmra, pmdec)
    found = match_tile(rows, one(*there, 2016.0 + years), NEAR)
    assert found.distance_arcsec == pytest.approx([0.0], abs=allowed)
    oracle = np.array(moved(rows, 0, np.array([years]))).ravel()
    assert np.degrees(angular_separation(*oracle, *np.radians(there))) * 3600.0 < allowed
    assert angle * sky.ARCSEC_PER_RAD > 100.0 * allowed, "the motion itself must be seen"


@pytest.mark.parametrize("star", STARS)
def test_there_and_back_again_within_a_microarcsecond(star: str) -> None:
    ra, dec, pmra, pmdec, years = STARS[star]
    there = sky.propagate(ra, dec, pmra, pmdec, years)
    then = one(float(there[0]), float(there[1]), 2016.0 + years, float(there[2]), float(there[3]))
    now = one(ra, dec, 2016.0, pmra, pmdec)
    for left, right, moving in ((now, then, "left"), (then, now, "left"), (now, then, "right")):
        found = match_tile(left, right, MatchSettings(radius_arcsec=0.001, moving=moving))
        assert found.distance_arcsec == pytest.approx([0.0], abs=MICROARCSEC)
    back = sky.propagate(*there, -years)
    assert sky.separation_arcsec(ra, dec, back[0], back[1]) < MICROARCSEC
    assert np.hypot(back[2] - pmra, back[3] - pmdec) < 1e-6


CLOUD = {
    "ra_error_mas": 30.0, "dec_error_mas": 50.0, "ra_dec_corr": 0.4, "pmra_error_mas_yr": 25.0,
    "pmdec_error_mas_yr": 12.0, "ra_pmra_corr": -0.5, "ra_pmdec_corr": 0.3, "dec_pmra_corr": -0.6,
    "dec_pmdec_corr": 0.2, "pmra_pmdec_corr": -0.1,
}  # fmt: skip


@pytest.mark.parametrize("years", [3.0, -3.0])
def test_the_covariance_is_that_of_a_cloud_of_stars(years: float) -> None:
    """Draw positions and motions from the errors, move each draw by itself, and measure the cloud's ellipse."""
    ra, dec, pmra, pmdec = 200.0, -40.0, 150.0, -80.0
    sigma = np.array([CLOUD[f"{n}_error_mas"] for n in ("ra", "dec")]
                     + [CLOUD[f"{n}_error_mas_yr"] for n in ("pmra", "pmdec")])  # fmt: skip
    correlation = np.eye(4)
    names = ("ra", "dec", "pmra", "pmdec")
    for i in range(4):
        for j in range(i):
            correlation[i, j] = correlation[j, i] = CLOUD[f"{names[j]}_{names[i]}_corr"]
    draws = np.random.default_rng(5).multivariate_normal(
        np.zeros(4), correlation * np.outer(sigma, sigma), size=200_000
    )
    offset_ra = ra + draws[:, 0] / 3.6e6 / np.cos(np.radians(dec))
    offset_dec = dec + draws[:, 1] / 3.6e6
    cloud = sky.propagate(offset_ra, offset_dec, pmra + draws[:, 2], pmdec + draws[:, 3], years)
    centre = sky.propagate(ra, dec, pmra, pmdec, years)
    measured = np.cov(np.array(sky.tangent_offsets_mas(centre[0], centre[1], cloud[0], cloud[1])))

    left = sources(
        [1], [ra], [dec], epoch_yr=2016.0, pmra_mas_yr=pmra, pmdec_mas_yr=pmdec,
        **{name: [value] for name, value in CLOUD.items()},
    )  # fmt: skip
    exact = MatchSettings()
    probes = np.array([[100.0, 0.0], [0.0, 100.0], [70.0, 70.0]]) / 3.6e6
    there_ra = float(centre[0]) + probes[:, 0] / np.cos(np.radians(float(centre[1])))
    right = sources(
        [1, 2, 3], there_ra, float(centre[1]) + probes[:, 1], epoch_yr=2016.0 + years, ra_error_mas=1.0,
        dec_error_mas=1.0,
    )  # fmt: skip
    found = match_tile(left, right, exact)
    inverse = np.linalg.inv(measured + np.eye(2))
    expected = [float(probe @ inverse @ probe) for probe in probes * 3.6e6]
    assert found.d2[np.argsort(found.right_id)] == pytest.approx(expected, rel=0.02)


def barnard(parallax_mas: float) -> tuple[Sources, Sources]:
    """Barnard's star and two field stars in 2016; on an image of 2000 it stands half its parallax off its path."""
    ra, dec, pmra, pmdec, years = STARS["barnard"]
    moved_ra, moved_dec, _, _ = (float(value) for value in sky.propagate(ra, dec, pmra, pmdec, years))
    left = sources(
        [1, 2, 3], [ra, moved_ra, ra], [dec, moved_dec - 5.0 / 3600.0, dec + 30.0 / 3600.0], epoch_yr=2016.0,
        parallax_mas=[parallax_mas, 0.5, 0.5], pmra_mas_yr=[pmra, 1.0, 1.0], pmdec_mas_yr=[pmdec, 1.0, 1.0],
        ra_error_mas=0.1, dec_error_mas=0.1, pmra_error_mas_yr=0.05, pmdec_error_mas_yr=0.05,
    )  # fmt: skip
    right = sources(
        [11, 12, 13], [moved_ra + 0.5 / 3600.0, moved_ra, ra],
        [moved_dec, moved_dec - 5.0 / 3600.0, dec + 30.0 / 3600.0],
        epoch_yr=2000.0, ra_error_mas=60.0, dec_error_mas=60.0,
    )  # fmt: skip
    return left.take(np.argsort(left.healpix_29)), right.take(np.argsort(right.healpix_29))


def test_barnards_star_is_matched_across_tiles_with_its_parallax() -> None:
    left, right = barnard(547.0)
    found = match_tile(left, right, MatchSettings())
    assert set(zip(found.left_id.tolist(), found.right_id.tolist(), strict=True)) == {
        (1, 11),
        (2, 12),
        (3, 13),
    }
    assert found.unique.all()
    assert found.xm_flag[found.left_id == 1] & MatchFlag.PARALLAX_LEADS
    pixels = sky.pixel_at_order(left.healpix_29, 14), sky.pixel_at_order(right.healpix_29, 14)
    assert pixels[0][left.id == 1] != pixels[1][right.id == 11]
    for order in (10, 14):
        for max_movers in (0, 1):
            tiles = tiles_of(left, order, order, 0), tiles_of(right, order, order, 0)
            by_tiles = match_by_tiles(left, right, *tiles, MatchSettings(), max_movers)
            assert serialised(by_tiles) == serialised(columns(left, found))
    without, right = barnard(np.nan)
    found = match_tile(without, right, MatchSettings())
    assert set(found.left_id.tolist()) == {2, 3}, "half its parallax is eight sigma"


def test_no_fast_star_is_dropped() -> None:
    """Every star of 0.6 to 10 arcsec/yr that crosses tiles finds itself; a cut at 561 mas/yr would lose them all."""
    rng = np.random.default_rng(8)
    n = 60
    ra, dec = 45.0 + rng.uniform(-0.05, 0.05, n), rng.uniform(-0.05, 0.05, n)
    speed, angle = 10.0 ** rng.uniform(2.8, 4.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
    pmra, pmdec = speed * np.sin(angle), speed * np.cos(angle)
    epoch = rng.uniform(1999.0, 2001.0, n)
    there = sky.propagate(ra, dec, pmra, pmdec, epoch - 2016.0)
    left = sources(
        np.arange(n), ra, dec, epoch_yr=2016.0, pmra_mas_yr=pmra, pmdec_mas_yr=pmdec, ra_error_mas=0.1,
        dec_error_mas=0.1, pmra_error_mas_yr=0.1, pmdec_error_mas_yr=0.1, parallax_mas=rng.uniform(1, 300, n),
    )  # fmt: skip
    right = sources(np.arange(n), there[0], there[1], epoch_yr=epoch, ra_error_mas=60.0, dec_error_mas=60.0)
    left, right = left.take(np.argsort(left.healpix_29)), right.take(np.argsort(right.healpix_29))
    for max_movers in (0, 10, 100):
        tiles = tiles_of(left, 12, 13, 1), tiles_of(right, 12, 13, 2)
        found = match_by_tiles(left, right, *tiles, MatchSettings(), max_movers)
        best = found["best"]
        assert found["left_id"][best].tolist() == found["right_id"][best].tolist()
        assert best.sum() == n


def test_missing_epochs_take_the_mean_of_their_catalogue() -> None:
    left = one(10.0, 5.0, 2016.0, 2000.0, 0.0)
    left = Sources(**{**vars(left), "ra_error_mas": np.array([1.0]), "dec_error_mas": np.array([1.0])})
    at = [float(sky.propagate(10.0, 5.0, 2000.0, 0.0, years)[0]) for years in (-16.0, -4.0, -10.0)]
    right = sources(
        [1, 2, 3], at, [5.0] * 3, epoch_yr=[2000.0, 2012.0, np.nan], ra_error_mas=50.0, dec_error_mas=50.0
    )
    found = match_tile(left, right, MatchSettings(right_errors=PositionErrors(floor_mas=36.0)))
    assert found.right_id.tolist() == [1, 2, 3]
    assert found.distance_arcsec == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)


def test_a_row_without_an_epoch_on_the_moving_side_stays() -> None:
    left, right = crowded_field(10.0, 20.0, seed=31, stars=60)
    undated = Sources(**{**vars(left), "epoch_yr": np.full(len(left), np.nan)})
    found = match_tile(undated, right, MatchSettings(radius_arcsec=1.0))
    a, b = found.left_row, found.right_row
    apart = sky.separation_arcsec(left.ra_deg[a], left.dec_deg[a], right.ra_deg[b], right.dec_deg[b])
    assert np.allclose(found.distance_arcsec, apart, rtol=0.0, atol=1e-9)
