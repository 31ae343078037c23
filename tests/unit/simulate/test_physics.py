"""The physics of the simulated sky against published numbers, independent formulas and real rows."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord, get_body_barycentric
from astropy.time import Time
from helpers.places import REAL
from scipy.integrate import quad
from scipy.spatial import cKDTree

from stellarml.simulate import Realism, SimulateSettings, galaxy
from stellarml.simulate.distances import PRIOR_LENGTH_PC, geometric_quantiles_pc
from stellarml.simulate.dust import (
    SFD_ERROR,
    extinction,
    mean_map_ebv,
    published_ebv,
    sheet_fraction,
    true_map_ebv,
)
from stellarml.simulate.fields import Field, positions, shift
from stellarml.simulate.gaia_astrometry import SIGMA5D_SCALE, astrometry, parallax_error_mas, sigma5d_max_mas
from stellarml.simulate.gaia_photometry import magnitude_error_mag
from stellarml.simulate.gspphot import gspphot
from stellarml.simulate.isochrones import (
    MODEL_OFFSET_MAG,
    grid,
    interpolate,
    kroupa_number,
    main_sequence_point,
)
from stellarml.simulate.labels import label_rows
from stellarml.simulate.population import alpha_shift, draw_stars, field_counts
from stellarml.simulate.skymapper_light import GAMMA, psf_error_mag
from stellarml.simulate.skymapper_objects import parallax_shift_mas, sky_objects
from stellarml.simulate.streams import cell_normal, cell_uniform, stream
from stellarml.simulate.truth import QUASAR, Truth, draw_truth

REAL_CONE = REAL / "gaia_dr3" / "cone_ra45_dec0_full_columns.parquet"
CONE = Field("cone", 45.0, 0.0, 1.0)


def quiet(_: str) -> None:
    """Drop progress lines."""


@pytest.fixture(scope="module")
def truth() -> Truth:
    return draw_truth(SimulateSettings(stars=20_000, seed=11), quiet)


@pytest.mark.parametrize(
    ("g_mag", "micro_as"),
    [
        (10.0, 12.9),
        (14.0, 19.1),
        (15.0, 29.5),
        (16.0, 47.3),
        (17.0, 79.3),
        (18.0, 142.0),
        (19.0, 282.0),
        (20.0, 617.0),
    ],
)
def test_parallax_errors_are_those_of_pygaia(g_mag: float, micro_as: float) -> None:
    assert 1000 * parallax_error_mas(np.array([g_mag]))[0] == pytest.approx(micro_as, rel=0.005)


@pytest.mark.parametrize(
    ("band", "magnitude", "mmag"),
    [("G", 12.0, 0.17), ("G", 16.0, 0.44), ("G", 19.0, 2.36), ("BP", 15.0, 1.27), ("BP", 18.0, 9.46),
     ("RP", 16.0, 3.14), ("RP", 19.0, 31.6)],
)  # fmt: skip
def test_photometric_errors_are_those_of_pygaia(band: str, magnitude: float, mmag: float) -> None:
    assert 1000 * magnitude_error_mag(band, np.array([magnitude]))[0] == pytest.approx(mmag, rel=0.03)


@pytest.mark.skipif(not REAL_CONE.exists(), reason="real rows (../shared) are absent")
def test_sigma5d_formula_reproduces_the_real_column() -> None:
    real = pd.read_parquet(REAL_CONE)
    real = real[real["astrometric_params_solved"] == 31]
    names = ("ra", "dec", "parallax", "pmra", "pmdec")
    errors = real[[f"{n}_error" for n in names]].to_numpy(np.float64)
    correlation = np.zeros((len(real), 5, 5))
    for i in range(5):
        correlation[:, i, i] = 1.0
        for j in range(i):
            correlation[:, i, j] = correlation[:, j, i] = real[f"{names[j]}_{names[i]}_corr"]
    factor = np.linalg.cholesky(correlation).astype(np.float64)
    ratio = sigma5d_max_mas(errors, factor) / real["astrometric_sigma5d_max"]
    assert np.percentile(np.abs(ratio - 1), 99) < 1e-4


def test_sigma5d_column_follows_from_the_written_errors_and_correlations(truth: Truth) -> None:
    table = astrometry(truth, 11, True, stream(11, "test"))
    names = ("ra", "dec", "parallax", "pmra", "pmdec")
    rows = np.flatnonzero(np.isfinite(table["parallax"]))[:300]
    for k in rows:
        sigma = np.array([table[f"{n}_error"][k] for n in names], dtype=np.float64)
        c = np.eye(5)
        for i in range(5):
            for j in range(i):
                c[i, j] = c[j, i] = table[f"{names[j]}_{names[i]}_corr"][k]
        scaled = np.diag(SIGMA5D_SCALE * sigma) @ c @ np.diag(SIGMA5D_SCALE * sigma)
        assert table["astrometric_sigma5d_max"][k] == pytest.approx(
            np.sqrt(np.linalg.norm(scaled, 2)), rel=1e-4
        )
        assert np.linalg.eigvalsh(c)[0] > 0


def test_astrometric_residuals_have_the_written_covariance(truth: Truth) -> None:
    table = astrometry(truth, 11, True, stream(11, "test"))
    good = np.isfinite(table["parallax"]) & (table["ruwe"] < 1.2)
    pull_plx = ((table["parallax"] - truth["parallax"]) / table["parallax_error"])[good]
    pull_pmra = ((table["pmra"] - truth["pmra"]) / table["pmra_error"])[good]
    assert np.std(pull_plx) == pytest.approx(1.0, abs=0.03)
    expected = np.mean(table["parallax_pmra_corr"][good])
    assert np.mean(pull_plx * pull_pmra) == pytest.approx(expected, abs=0.03)
    share = np.mean(table["astrometric_sigma5d_max"][(truth["m_G"] > 16) & (truth["m_G"] < 16.5)] <= 0.1)
    assert 0.75 < share < 0.97


@pytest.mark.parametrize(
    ("mass", "age_gyr", "teff", "logg", "m_g", "bp_rp", "v_g", "g_i"),
    [(1.0, 4.0, 5820, 4.44, 4.62, 0.77, 1.09, 0.39), (0.84, 10.0, 5328, 4.50, 5.37, 0.94, 1.45, 0.56)],
)
def test_isochrones_give_the_reference_dwarfs(
    mass: float, age_gyr: float, teff: float, logg: float, m_g: float, bp_rp: float, v_g: float, g_i: float
) -> None:
    feh, log_age = np.zeros(1), np.array([9.0 + np.log10(age_gyr)])
    star = interpolate(feh, log_age, main_sequence_point(feh, log_age, np.array([mass])))
    offset = MODEL_OFFSET_MAG
    assert star["initial_mass"][0] == pytest.approx(mass, abs=1e-3)
    assert 10 ** star["log_teff"][0] == pytest.approx(teff, abs=25)
    assert star["logg"][0] == pytest.approx(logg, abs=0.03)
    assert star["M_G"][0] == pytest.approx(m_g, abs=0.06)
    assert star["M_BP"][0] - star["M_RP"][0] - offset["BP"] + offset["RP"] == pytest.approx(bp_rp, abs=0.015)
    assert star["M_v"][0] - star["M_g"][0] - offset["v"] + offset["g"] == pytest.approx(v_g, abs=0.04)
    assert star["M_g"][0] - star["M_i"][0] - offset["g"] + offset["i"] == pytest.approx(g_i, abs=0.015)


def test_isochrones_pass_through_the_grid_and_stay_between_its_rows() -> None:
    g = grid()
    k = np.arange(len(g.point))
    at_node = interpolate(np.full(len(k), g.feh[8]), np.full(len(k), g.log_age[5]), g.point)
    np.testing.assert_allclose(at_node["log_teff"], g.table[8, 5, :, 1], atol=1e-12)
    between = interpolate(np.full(len(k), (g.feh[8] + g.feh[9]) / 2), np.full(len(k), g.log_age[5]), g.point)
    np.testing.assert_allclose(between["M_v"], (g.table[8, 5, :, 5] + g.table[9, 5, :, 5]) / 2, atol=1e-9)


def test_kroupa_number_is_the_integral_of_the_mass_function() -> None:
    def slope(m: float) -> float:
        return float(m**-1.3 if m < 0.5 else 0.5 * m**-2.3)

    total = quad(slope, 0.08, 0.5)[0] + quad(slope, 0.5, 100.0)[0]
    for mass in (0.3, 0.8, 2.0):
        part = quad(slope, 0.08, min(mass, 0.5))[0] + (quad(slope, 0.5, mass)[0] if mass > 0.5 else 0.0)
        assert kroupa_number(np.array([mass]))[0] == pytest.approx(part / total, rel=1e-6)


def test_natural_counts_are_those_of_the_real_cone() -> None:
    # 698 of the 2,390 real sources within 0.5 deg of (45, 0) have G < 18; 107 and 157 have 15-16 and 16-17.
    counts = field_counts(CONE, Realism())
    star = draw_stars(CONE, counts, 60_000, 1, Realism())
    g_mag = star["M_G"] + 5 * np.log10(star["distance_pc"]) - 5
    area = 60_000 / counts.surface_density
    per_cone = star["weight"] / area * np.pi * 0.5**2

    def between(low: float, high: float) -> float:
        return float(per_cone[(g_mag > low) & (g_mag < high)].sum())

    assert between(0, 18) == pytest.approx(698, rel=0.12)
    assert between(15, 16) == pytest.approx(107, rel=0.25)
    assert between(16, 17) == pytest.approx(157, rel=0.25)
    giants = float(per_cone[(star["logg"] < 3.5) & (g_mag < 18)].sum()) / between(0, 18)
    assert 0.03 < giants < 0.09


def test_weights_restore_nature_from_what_was_drawn() -> None:
    counts = field_counts(CONE, Realism(binaries=False, dust=False))
    n = 80_000
    star = draw_stars(CONE, counts, n, 5, Realism(binaries=False, dust=False))
    assert star["weight"].sum() == pytest.approx(n, rel=0.02)
    natural = counts.natural.reshape(counts.shape).sum(axis=(1, 2, 3, 4)) / counts.natural.sum()
    drawn = np.bincount(star["component"], weights=star["weight"], minlength=3) / star["weight"].sum()
    np.testing.assert_allclose(drawn, natural, atol=0.02)
    plain = np.bincount(star["component"], minlength=3) / n
    assert np.abs(plain - natural).max() > 0.05
    metal_poor = star["feh"] < -1.5
    assert (
        metal_poor.mean() > 1.15 * star["weight"][metal_poor].sum() / star["weight"].sum()
        or metal_poor.mean() > 0.1
    )


def test_no_star_is_drawn_twice(truth: Truth) -> None:
    stars = truth["component"] < QUASAR
    rows = np.stack([truth[name][stars] for name in ("teff", "logg", "feh", "mass")], axis=1)
    assert len(np.unique(rows, axis=0)) == stars.sum()


def test_alpha_moves_the_isochrone_metallicity_by_component(truth: Truth) -> None:
    assert alpha_shift(np.array([0.0]))[0] == pytest.approx(0.0, abs=1e-9)
    assert alpha_shift(np.array([0.3]))[0] == pytest.approx(0.21, abs=0.01)
    mean = [np.mean(truth["alpha"][truth["component"] == k]) for k in range(3)]
    assert mean[0] < 0.1 < 0.18 < mean[1] < mean[2]


def test_binaries_add_light_in_every_band() -> None:
    counts = field_counts(CONE, Realism())
    with_b = draw_stars(CONE, counts, 20_000, 2, Realism())
    without = draw_stars(CONE, counts, 20_000, 2, Realism(binaries=False))
    binary = with_b["is_binary"] == 1
    assert binary.mean() == pytest.approx(0.4, abs=0.015)
    for band in ("u", "v", "z", "G"):
        gain = (without[f"M_{band}"] - with_b[f"M_{band}"])[binary]
        assert gain.min() >= 0
        # A companion of the same isochrone outshines a red giant in u, but never an unevolved primary.
        assert 0.3 < gain[(without["logg"] > 4.3)[binary]].max() < 0.76
    assert not without["is_binary"].any()
    equal = binary & (with_b["mass_ratio"] > 0.99) & (without["logg"] > 4.3)
    assert np.median((without["M_G"] - with_b["M_G"])[equal]) == pytest.approx(0.75, abs=0.06)


def test_dust_sheet_and_its_published_map() -> None:
    assert sheet_fraction(np.array([400.0]), np.array([90.0]))[0] > 0.959
    assert sheet_fraction(np.array([800.0]), np.array([-30.0]))[0] == pytest.approx(1 - np.exp(-400 / 125))
    assert mean_map_ebv(np.array([30.0]))[0] == pytest.approx(0.05)
    draw = np.random.default_rng(0)
    ra, dec = draw.uniform(0, 360, 20_000), np.degrees(np.arcsin(draw.uniform(-1, 1, 20_000)))
    ratio = published_ebv(ra, dec, 3, error=True) / true_map_ebv(ra, dec, 3)
    assert np.std(ratio) == pytest.approx(SFD_ERROR, abs=0.015)
    assert np.array_equal(published_ebv(ra, dec, 3, error=False), true_map_ebv(ra, dec, 3))


def test_extinction_uses_the_stated_coefficients() -> None:
    ones, colour = np.ones(4000), np.full(4000, 0.8)
    draw = np.random.default_rng(1)
    ra, dec = draw.uniform(0, 360, 4000), draw.uniform(-80, 80, 4000)
    exact = extinction(ones, colour, ra, dec, 1, rv_error=False)
    expected = {
        "u": 4.294,
        "v": 4.026,
        "g": 2.986,
        "r": 2.288,
        "i": 1.588,
        "z": 1.206,
        "G": 2.263,
        "BP": 2.806,
        "RP": 1.642,
    }
    for band, value in expected.items():
        assert exact[band][0] == pytest.approx(value, abs=0.0015), band
    scattered = extinction(ones, colour, ra, dec, 1, rv_error=True)
    assert np.std(scattered["g"]) == pytest.approx(0.05 * 3.1 * 0.86, rel=0.06)


def test_galactic_coordinates_and_motions_agree_with_astropy() -> None:
    draw = np.random.default_rng(3)
    ra, dec = draw.uniform(0, 360, 200), draw.uniform(-90, 90, 200)
    lon, lat = galaxy.galactic(ra, dec)
    sky = SkyCoord(ra * u.deg, dec * u.deg).galactic
    assert sky.separation(SkyCoord(lon * u.deg, lat * u.deg, frame="galactic")).arcsec.max() < 0.05
    # At rest in the Local Standard of Rest, a star at 100 pc only shows the Sun's own motion of 18 km/s.
    n = 4000
    at = np.full(n, 10.0), np.full(n, -40.0), np.full(n, 100.0)
    pmra, pmdec, rv = galaxy.motions(np.zeros(n, dtype=np.int64), *at, np.random.default_rng(4))
    star = SkyCoord(
        at[0] * u.deg, at[1] * u.deg, distance=at[2] * u.pc, pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr, radial_velocity=rv * u.km / u.s,
    ).galactic  # fmt: skip
    uvw = star.velocity.d_xyz.to_value(u.km / u.s)
    np.testing.assert_allclose(uvw.mean(axis=1), [-11.1, -15.0 - 12.24, -7.25], atol=2.0)
    np.testing.assert_allclose(uvw.std(axis=1), [35.0, 20.0, 16.0], rtol=0.05)


def test_shift_and_positions_are_right_at_the_pole() -> None:
    ra, dec = np.array([10.0, 200.0, 0.0]), np.array([-89.99999, 90.0, -90.0])
    start = SkyCoord(120.0, -50.0, unit="deg")
    near = SkyCoord(
        *shift(np.array([120.0]), np.array([-50.0]), np.array([300.0]), np.array([400.0])), unit="deg"
    )
    assert start.separation(near)[0].mas == pytest.approx(500.0, rel=1e-3)
    assert start.position_angle(near)[0].deg == pytest.approx(np.degrees(np.arctan2(300, 400)), abs=0.01)
    moved = SkyCoord(*shift(ra, dec, np.full(3, 300.0), np.full(3, 400.0)), unit="deg")
    np.testing.assert_allclose(moved.separation(SkyCoord(ra, dec, unit="deg")).mas, 500.0, rtol=1e-3)
    pole = Field("pole", 0.0, -90.0, 1.0)
    ra, dec = positions(pole, 5000, 10.0, 1)
    radius = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(0, -90, unit="deg")).deg
    assert radius.max() == pytest.approx(np.sqrt(10 / np.pi), rel=0.01)
    counts, _ = np.histogram(ra, np.linspace(0, 360, 7))
    assert 1.15 < counts.max() / counts.min() < 6


def test_parallax_shift_follows_the_earth() -> None:
    draw = np.random.default_rng(5)
    n = 60
    ra, dec, mjd = draw.uniform(0, 360, n), draw.uniform(-85, 85, n), draw.uniform(56_800, 58_100, n)
    east, north = parallax_shift_mas(ra, dec, np.full(n, 500.0), mjd)
    earth = get_body_barycentric("earth", Time(mjd, format="mjd")).xyz.to_value(u.au).T
    to_star, e, k = galaxy.unit_vectors(ra, dec)
    two_pc_au = 2 * 206_265.0
    seen = to_star * two_pc_au - earth
    seen /= np.linalg.norm(seen, axis=1)[:, None]
    np.testing.assert_allclose(np.einsum("ij,ij->i", seen, e) * 206264806, east, atol=12)
    np.testing.assert_allclose(np.einsum("ij,ij->i", seen, k) * 206264806, north, atol=12)


def test_skymapper_sees_sources_at_its_own_epoch() -> None:
    realism = Realism(
        frame_offsets=False, astrometric_noise=False, blends=False, skymapper_only=False, missing_bands=False
    )
    settings = SimulateSettings(stars=4000, seed=2, realism=realism)
    truth = draw_truth(settings, quiet)
    objects = sky_objects(truth, settings, quiet)
    host = objects["host"]
    fast = np.flatnonzero(np.hypot(truth["pmra"], truth["pmdec"])[host] >= 1000)
    assert len(fast) >= 4
    speed = np.hypot(truth["pmra"], truth["pmdec"])
    assert speed.max() == pytest.approx(10_000.0, rel=0.01)
    for k in fast:
        i = host[k]
        star = SkyCoord(
            truth["ra"][i] * u.deg, truth["dec"][i] * u.deg, pm_ra_cosdec=truth["pmra"][i] * u.mas / u.yr,
            pm_dec=truth["pmdec"][i] * u.mas / u.yr, distance=truth["distance_pc"][i] * u.pc,
            radial_velocity=0 * u.km / u.s, obstime=Time(2016.0, format="jyear", scale="tcb"),
        )  # fmt: skip
        there = star.apply_space_motion(Time(objects["true_epoch"][k], format="mjd"))
        seen = SkyCoord(objects["ra"][k], objects["dec"][k], unit="deg")
        assert seen.separation(there).mas < truth["parallax"][i] + 60
        years = abs(objects["true_epoch"][k] - 57_388.5) / 365.25
        assert seen.separation(star).mas > 0.6 * speed[i] * years - truth["parallax"][i]


def test_skymapper_frame_offsets_are_common_to_a_cell_and_of_the_stated_size(truth: Truth) -> None:
    settings = SimulateSettings(stars=20_000, seed=11)
    objects = sky_objects(truth, settings, quiet)
    single = (objects["host"] >= 0) & (objects["second"] < 0)
    i = objects["host"][single]
    years = (objects["true_epoch"][single] - 57_388.5) / 365.25
    slow = np.hypot(truth["pmra"][i], truth["pmdec"][i]) < 200
    east = (objects["ra"][single] - truth["ra"][i] + 180) % 360 - 180
    east = east * np.cos(np.radians(truth["dec"][i])) * 3.6e6 - truth["pmra"][i] * years
    away = slow & (np.abs(truth["dec"][i]) < 80)
    fornax = away & (truth["field"][i] == 1)
    frame = (
        pd.Series(east[fornax])
        .groupby(np.asarray(objects_cell(objects, single)[fornax]))
        .agg(["median", "count"])
    )
    frame = frame[frame["count"] > 100]
    assert frame["median"].abs().max() < 200
    off = Realism(frame_offsets=False)
    still = sky_objects(truth, settings.model_copy(update={"realism": off}), quiet)
    assert np.array_equal(still["object_id"], objects["object_id"])
    moved = SkyCoord(still["ra"], still["dec"], unit="deg").separation(
        SkyCoord(objects["ra"], objects["dec"], unit="deg")
    )
    assert 1 < moved.mas.min() < 50
    assert 90 < moved.mas.max() < 181
    assert 0.2 < np.mean(moved.mas > 89) < 0.75


def objects_cell(objects: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    from stellarml.simulate.fields import sky_cell

    return sky_cell(objects["ra"][rows], objects["dec"][rows])


def test_unresolved_pairs_become_one_brighter_object(truth: Truth) -> None:
    settings = SimulateSettings(
        stars=20_000, seed=11, realism=Realism(photometric_noise=False, zero_points=False)
    )
    objects = sky_objects(truth, settings, quiet)
    blend = np.flatnonzero((objects["second"] >= 0) & np.isfinite(objects["r_mag"]))
    assert len(blend) > 30
    a, b = objects["host"][blend], objects["second"][blend]
    expected = -2.5 * np.log10(10 ** (-0.4 * truth["m_r"][a]) + 10 ** (-0.4 * truth["m_r"][b]))
    np.testing.assert_allclose(objects["r_mag"][blend], expected, atol=1e-9)
    pair = SkyCoord(truth["ra"][a], truth["dec"][a], unit="deg").separation(
        SkyCoord(truth["ra"][b], truth["dec"][b], unit="deg")
    )
    assert pair.arcsec.max() < 3.0
    assert np.unique(np.concatenate([objects["host"][objects["host"] >= 0], b])).size >= len(b)


def test_skymapper_errors_have_the_lsst_form() -> None:
    at_depth = psf_error_mag(np.array([19.0]), np.array([19.0]), 0.0)[0]
    assert at_depth == pytest.approx(0.2, abs=1e-6)
    y = 10 ** (0.4 * -2.0)
    expected = np.sqrt(0.007**2 + (0.04 - GAMMA) * y + GAMMA * y**2)
    assert psf_error_mag(np.array([17.0]), np.array([19.0]), 0.007)[0] == pytest.approx(expected)


def test_zero_points_are_common_to_a_cell() -> None:
    cells = np.arange(40_000)
    values = cell_normal(9, "zero_point_u", cells)
    assert np.mean(values) == pytest.approx(0, abs=0.02)
    assert np.std(values) == pytest.approx(1, abs=0.02)
    assert np.array_equal(values[[5, 900]], cell_normal(9, "zero_point_u", np.array([5, 900])))
    other = cell_normal(9, "zero_point_v", cells)
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.02
    uniform = cell_uniform(2, "x", cells)
    assert np.histogram(uniform, 10, (0, 1))[0].min() > 3700


def test_geometric_distances_are_quantiles_of_the_posterior() -> None:
    for parallax, sigma in ((0.5, 0.2), (-0.3, 0.4), (2.0, 0.3)):

        def density(r: float, parallax: float = parallax, sigma: float = sigma) -> float:
            return float(r**2 * np.exp(-r / PRIOR_LENGTH_PC - 0.5 * ((parallax - 1000 / r) / sigma) ** 2))

        low, middle, high = geometric_quantiles_pc(np.array([parallax]), np.array([sigma]))[0]
        nodes = np.linspace(20, 40_000, 400_000)
        cumulative = np.cumsum([density(r) for r in nodes[::40]])
        cumulative /= cumulative[-1]
        expected = np.interp([0.15865, 0.5, 0.84135], cumulative, nodes[::40])
        np.testing.assert_allclose([low, middle, high], expected, rtol=0.03)
    sharp = geometric_quantiles_pc(np.array([2.0]), np.array([0.02]))[0]
    np.testing.assert_allclose(sharp, [1000 / 2.02, 500.0, 1000 / 1.98])


@pytest.mark.parametrize(("correlated", "teff_a0", "teff_logg"), [(True, 0.73, 0.5), (False, 0.0, 0.0)])
def test_gspphot_errors_share_what_the_real_ones_share(
    truth: Truth, correlated: bool, teff_a0: float, teff_logg: float
) -> None:
    n = len(truth["ra"])
    error = parallax_error_mas(truth["m_G"])
    table = gspphot(truth, error, np.ones(n, dtype=np.bool_), correlated, stream(1, "test"))
    star = (truth["component"] < QUASAR) & np.isfinite(table["teff_gspphot"])
    star &= (truth["m_G"] < 15) & (truth["ebv_true"] > 0.12)
    d_teff = (table["teff_gspphot"] - truth["teff"])[star] / np.clip(
        truth["teff"][star] / 5500, 0.7, 1.8
    ) ** 2
    d_a0 = (table["azero_gspphot"] - 3.1 * truth["ebv_true"])[star]
    d_logg = (table["logg_gspphot"] - truth["logg"])[star]
    assert np.std(d_teff) == pytest.approx(110, rel=0.08)
    assert np.corrcoef(d_teff, d_a0)[0, 1] == pytest.approx(teff_a0, abs=0.12)
    assert np.corrcoef(d_teff, d_logg)[0, 1] == pytest.approx(teff_logg, abs=0.2)
    any_star = (truth["component"] < QUASAR) & np.isfinite(table["mh_gspphot"])
    slope = np.polyfit(truth["feh"][any_star], table["mh_gspphot"][any_star], 1)[0]
    assert slope == pytest.approx(0.6, abs=0.03)
    half = (table["teff_gspphot_upper"] - table["teff_gspphot_lower"])[star] / 2
    assert np.median(half) == pytest.approx(20, rel=0.2)
    assert np.isnan(table["teff_gspphot"][truth["m_G"] > 19.0]).all()


def test_labels_have_student_errors_and_contaminants_where_astrometry_is_poor(truth: Truth) -> None:
    poor = np.random.default_rng(0).random(len(truth["ra"])) < 0.15
    table, wrong = label_rows(truth, truth["ra"], truth["dec"], poor, 1, Realism())
    assert 0.08 < wrong[np.isin(truth["source_id"], table["source_id"])].mean() < 0.2
    labelled = np.isin(truth["source_id"], table["source_id"])
    assert wrong[labelled & ~poor].mean() == pytest.approx(0.009, abs=0.006)
    assert wrong[labelled & poor].mean() > 0.6
    quiet_table, none = label_rows(
        truth, truth["ra"], truth["dec"], poor, 1, Realism(contaminants=False, duplicate_labels=False)
    )
    assert not none.any()
    row = np.searchsorted(truth["source_id"], quiet_table["source_id"])
    residual = quiet_table["teff"] - truth["teff"][row]
    # The quartile of Student's t with three degrees of freedom is 0.765; one in 17 exceeds 3 cores, against 1 in 370.
    assert np.median(np.abs(residual)) == pytest.approx(0.765 * 45, rel=0.05)
    assert np.mean(np.abs(residual) > 3 * 45) == pytest.approx(0.0577, abs=0.012)
    exact, _ = label_rows(
        truth, truth["ra"], truth["dec"], poor, 1, Realism(contaminants=False, label_noise=False)
    )
    assert (
        np.mean(
            np.abs(exact["teff"] - truth["teff"][np.searchsorted(truth["source_id"], exact["source_id"])])
        )
        < 30
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switch", "column", "expected"),
    [("binaries", "is_binary", 0), ("alpha", "alpha", 0.0), ("dust", "ebv_true", 0.0),
     ("close_pairs", "close_pair", False)],
)  # fmt: skip
def test_a_switched_off_term_is_absent(switch: str, column: str, expected: float) -> None:
    truth = draw_truth(SimulateSettings(stars=1500, realism=Realism(**{switch: False})), quiet)
    values = truth[column][np.isfinite(truth[column].astype(np.float64))]
    assert (values == expected).all()
    default = draw_truth(SimulateSettings(stars=1500), quiet)
    assert (np.nan_to_num(default[column].astype(np.float64)) != expected).any()


def test_noiseless_colours_hold_the_metallicity() -> None:
    # Nearest neighbours in clean colours must recover [Fe/H]: else the photometry, not the learner, would lose it.
    realism = Realism(binaries=False, alpha=False, dust=False)
    star = draw_stars(CONE, field_counts(CONE, realism), 60_000, 8, realism)
    keep = (star["teff"] > 4500) & (star["teff"] < 6500) & (star["feh"] > -2.0)
    pairs = (("u", "v"), ("v", "g"), ("g", "r"), ("r", "i"), ("i", "z"), ("BP", "RP"))
    colours = np.stack([(star[f"M_{a}"] - star[f"M_{b}"])[keep] for a, b in pairs], axis=1)
    feh = star["feh"][keep]
    half = len(feh) // 2
    _, near = cKDTree(colours[:half]).query(colours[half:], k=5)
    assert 1.4826 * np.median(np.abs(feh[:half][near].mean(axis=1) - feh[half:])) < 0.1
