"""The files of a simulated sky are those that the archives ship: names, columns, order, nulls, bytes."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import healpy as hp
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from stellarml.core.errors import StorageError, UserError
from stellarml.simulate import Realism, SimulateSettings, SimulateSummary, run, simulate
from stellarml.simulate.ecsv import gaia_columns, skymapper_columns

STARS = 8000
SEED = 7


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulateSummary]:
    out = tmp_path_factory.mktemp("sky")
    return out, simulate(SimulateSettings(stars=STARS, seed=SEED), out)


def read_bulk(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#", na_values=["null"], keep_default_na=False, low_memory=False)


@pytest.fixture(scope="module")
def gaia(sky: tuple[Path, SimulateSummary]) -> pd.DataFrame:
    paths = sorted((sky[0] / "raw/gaia_dr3").glob("*.csv.gz"))
    return pd.concat([read_bulk(path) for path in paths], ignore_index=True)


@pytest.fixture(scope="module")
def skymapper(sky: tuple[Path, SimulateSummary]) -> pd.DataFrame:
    paths = sorted((sky[0] / "raw/skymapper_dr2").glob("*.csv.gz"))
    return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)


def test_summary_counts_what_is_on_disk(
    sky: tuple[Path, SimulateSummary], gaia: pd.DataFrame, skymapper: pd.DataFrame
) -> None:
    out, summary = sky
    assert summary.rows["gaia_dr3"] == len(gaia) == STARS
    assert summary.rows["skymapper_dr2"] == len(skymapper)
    assert summary.rows["sos"] == len(pd.read_csv(out / "raw/sos/sos.csv.gz"))
    distances = [pd.read_csv(p) for p in (out / "raw/gaia_distances").glob("*.csv.gz")]
    assert summary.rows["gaia_distances"] == sum(map(len, distances))
    assert all((out / name).is_file() for names in summary.files.values() for name in names)
    assert {p.name for p in out.iterdir()} == {"raw", "truth"}


def test_bulk_files_cover_the_sphere_without_gaps(sky: tuple[Path, SimulateSummary]) -> None:
    paths = sorted((sky[0] / "raw/gaia_dr3").glob("*.csv.gz"))
    assert len(paths) >= 8
    next_pixel, counts = 0, []
    for path in paths:
        match = re.fullmatch(r"GaiaSource_(\d{6})-(\d{6})\.csv\.gz", path.name)
        assert match, path.name
        first, last = int(match[1]), int(match[2])
        assert first == next_pixel
        next_pixel = last + 1
        ids = read_bulk(path)["source_id"].to_numpy()
        counts.append(len(ids))
        assert ((ids >= first << 43) & (ids < (last + 1) << 43)).all()
        assert (np.diff(ids) > 0).all()
    assert next_pixel == 786_432
    assert max(counts) < 2 * min(counts)


def test_bulk_file_is_ecsv_with_all_columns(sky: tuple[Path, SimulateSummary], gaia: pd.DataFrame) -> None:
    path = min((sky[0] / "raw/gaia_dr3").glob("*.csv.gz"))
    with gzip.open(path, "rt") as handle:
        head = [line for line in handle if line.startswith("#")]
    assert len(head) == 1000
    names = [column.name for column in gaia_columns()]
    assert len(names) == 152
    assert gaia.columns.tolist() == names
    table = Table.read(path, format="ascii.ecsv", fill_values=[("null", "0")])
    for column in gaia_columns():
        kind = "U" if column.dtype == "string" else np.dtype(column.dtype).kind
        assert table[column.name].dtype.kind == kind, column.name
    assert str(table["ra"].unit) == "deg"
    assert str(table["parallax_error"].unit) == "mas"
    assert table["parallax"].mask.any()


def test_text_is_written_as_the_archive_does(sky: tuple[Path, SimulateSummary]) -> None:
    path = min((sky[0] / "raw/gaia_dr3").glob("*.csv.gz"))
    with gzip.open(path, "rt") as handle:
        rows = [line.rstrip("\n").split(",") for line in handle if not line.startswith("#")]
    at = {name: i for i, name in enumerate(rows[0])}
    first = rows[1]
    assert first[at["designation"]] == f'"Gaia DR3 {first[at["source_id"]]}"'
    assert {row[at["ref_epoch"]] for row in rows[1:]} == {"2016.0"}
    assert {row[at["phot_variable_flag"]] for row in rows[1:]} <= {'"VARIABLE"', '"NOT_AVAILABLE"'}
    assert {row[at["in_qso_candidates"]] for row in rows[1:]} <= {"True", "False"}
    assert sum(row[at["vbroad"]] == "null" for row in rows[1:]) > 0.8 * len(rows)
    assert not any("" in row or "nan" in row for row in rows)


def test_source_id_is_the_pixel_of_the_position_with_few_exceptions(gaia: pd.DataFrame) -> None:
    pixel = hp.ang2pix(4096, gaia["ra"].to_numpy(), gaia["dec"].to_numpy(), nest=True, lonlat=True)
    other = (gaia["source_id"].to_numpy() >> 35) != pixel
    assert 0 < other.mean() < 0.01
    assert gaia["source_id"].is_unique
    assert np.array_equal(np.sort(gaia["random_index"]), np.arange(STARS))


def test_fields_reach_the_awkward_places(gaia: pd.DataFrame) -> None:
    ra, dec = gaia["ra"].to_numpy(), gaia["dec"].to_numpy()
    assert ((ra >= 0) & (ra < 360)).all()
    assert ((ra < 0.5) & (dec > -60)).any()
    assert ((ra > 359.5) & (dec > -60)).any()
    assert (dec < -89.7).any()
    assert (np.abs(gaia["b"]) > 5).all()
    base_pixels = set(hp.ang2pix(1, ra, dec, nest=True, lonlat=True).tolist())
    assert len(base_pixels) >= 5


def test_two_parameter_sources_lack_parallax_and_motion_only(gaia: pd.DataFrame) -> None:
    two = gaia["astrometric_params_solved"] == 3
    assert 0.005 < two.mean() < 0.2
    needs_motion = ["parallax", "parallax_error", "parallax_over_error", "pm", "pmra", "pmdec", "pmra_error"]
    needs_motion += ["pmdec_error", "ruwe", "pmra_pmdec_corr", "ra_parallax_corr", "dec_pmdec_corr"]
    for name in needs_motion:
        assert gaia[name].isna().equals(two), name
    for name in ("ra", "dec", "ra_error", "dec_error", "ra_dec_corr", "astrometric_sigma5d_max"):
        assert gaia[name].notna().all(), name
    assert set(gaia["astrometric_params_solved"]) == {3, 31, 95}


@pytest.mark.parametrize(
    ("column", "limit"),
    [
        ("phot_g_mean_mag", 18.0), ("parallax_error", 0.1), ("astrometric_sigma5d_max", 0.1), ("ruwe", 1.4),
        ("ipd_frac_multi_peak", 10), ("ipd_frac_odd_win", 10), ("vbroad", 30.0), ("teff_gspphot", 7500.0),
        ("non_single_star", 0),
    ],
)  # fmt: skip
def test_every_gaia_cut_has_rows_on_both_sides(gaia: pd.DataFrame, column: str, limit: float) -> None:
    assert (gaia[column] <= limit).any()
    assert (gaia[column] > limit).any()


def test_gaia_flags_and_nulls_have_the_fractions_of_the_archive(gaia: pd.DataFrame) -> None:
    assert 0.005 < (gaia["phot_variable_flag"] == "VARIABLE").mean() < 0.04
    assert 0.05 < (gaia["ruwe"] > 1.4).mean() < 0.12
    assert gaia["vbroad"].notna().mean() < 0.06
    for flag in ("in_qso_candidates", "in_galaxy_candidates"):
        assert 0 < (gaia[flag].astype(str) == "True").mean() < 0.04
    for band in ("bp", "rp"):
        missing = gaia[f"phot_{band}_mean_mag"].isna()
        assert 0 < missing.mean() < 0.05
        assert gaia.loc[missing, f"phot_{band}_mean_flux_over_error"].isna().all()
        assert gaia.loc[missing, "bp_rp"].isna().all()
    good = (gaia["phot_g_mean_mag"] < 17) & gaia["bp_rp"].notna() & gaia["parallax"].notna()
    assert gaia.loc[good, "teff_gspphot"].isna().mean() == pytest.approx(0.08, abs=0.02)


def test_distances_belong_to_sources_with_a_parallax(
    sky: tuple[Path, SimulateSummary], gaia: pd.DataFrame
) -> None:
    paths = sorted((sky[0] / "raw/gaia_distances").glob("*.csv.gz"))
    table = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    assert table.columns.tolist() == [
        "source_id", "r_med_geo", "r_lo_geo", "r_hi_geo", "r_med_photogeo", "r_lo_photogeo", "r_hi_photogeo", "flag",
    ]  # fmt: skip
    assert table["source_id"].tolist() == gaia.loc[gaia["parallax"].notna(), "source_id"].tolist()
    for kind in ("geo", "photogeo"):
        rows = table[table[f"r_med_{kind}"].notna()]
        assert (rows[f"r_lo_{kind}"] < rows[f"r_med_{kind}"]).all()
        assert (rows[f"r_med_{kind}"] < rows[f"r_hi_{kind}"]).all()
    assert table["r_med_geo"].notna().all()
    assert 0 < table["r_med_photogeo"].isna().mean() < 0.05


def test_skymapper_table_has_the_release_columns_in_bulk_order(skymapper: pd.DataFrame) -> None:
    assert skymapper.columns.tolist() == [name for name, _ in skymapper_columns()]
    assert len(skymapper.columns) == 100
    assert (np.diff(skymapper["object_id"]) > 0).all()
    pixel = hp.ang2pix(
        64, skymapper["raj2000"].to_numpy(), skymapper["dej2000"].to_numpy(), nest=True, lonlat=True
    )
    assert (np.diff(pixel) < 0).any()
    assert skymapper["smss_j"].str.fullmatch(r"\d{6}\.\d\d[+-]\d{6}\.\d").all()
    for name, sql_type in skymapper_columns():
        if sql_type in ("bigint", "integer", "smallint"):
            values = skymapper[name].dropna()
            assert (values == np.round(values)).all(), name


def test_skymapper_oddities_are_there(skymapper: pd.DataFrame) -> None:
    u = skymapper["u_psf"]
    assert (u > 25).any()
    assert u.isna().mean() > (u > 25).mean() > 0.01
    assert skymapper.loc[u.isna(), ["u_petro", "u_flags", "u_nch", "e_u_psf"]].isna().all(axis=None)
    assert (skymapper["mean_epoch"] == 0).mean() == pytest.approx(0.005, abs=0.003)
    epoch = skymapper["mean_epoch"][skymapper["mean_epoch"] > 0]
    assert epoch.between(56_658, 58_210).all()
    assert 0 < (skymapper["e_raj2000"] > 1000).mean() < 0.004
    for column, bad in (("flags", 0), ("flags_psf", 0)):
        assert 0.02 < (skymapper[column] != bad).mean() < 0.3
    assert 0.03 < (skymapper["class_star"] <= 0.8).mean() < 0.3
    bright = skymapper[skymapper["i_psf"] < 15.8]
    six = (bright[[f"{b}_psf" for b in "uvgriz"]] <= 25).all(axis=1).mean()
    assert 0.5 < six < 0.96
    near = skymapper["prox"] < 15
    assert (skymapper["prox_id"].notna() == near).all()


def test_labels_are_bright_and_some_are_double(sky: tuple[Path, SimulateSummary], gaia: pd.DataFrame) -> None:
    labels = pd.read_csv(sky[0] / "raw/sos/sos.csv.gz")
    assert labels.columns.tolist() == [
        "source_id", "ra", "dec", "teff", "e_teff", "logg", "e_logg", "feh", "e_feh", "n_surveys", "flag",
    ]  # fmt: skip
    magnitude = gaia.set_index("source_id")["phot_g_mean_mag"].reindex(labels["source_id"])
    assert magnitude.notna().mean() > 0.99
    assert (magnitude < 14.5).mean() > 0.7
    assert (magnitude > 15.5).any()
    assert magnitude.max() < 17.6
    twice = labels[labels["source_id"].duplicated(keep=False)]
    assert 0 < len(twice) < 0.06 * len(labels)
    spread = twice.groupby("source_id")["teff"].agg(np.ptp)
    assert (spread > 350).any()
    assert (spread < 350).any()


def test_truth_describes_every_row(
    sky: tuple[Path, SimulateSummary], gaia: pd.DataFrame, skymapper: pd.DataFrame
) -> None:
    truth = pd.read_parquet(sky[0] / "truth/gaia_truth.parquet")
    assert truth["source_id"].tolist() == gaia["source_id"].tolist()
    assert set(truth["component"]) == {"thin_disc", "thick_disc", "halo", "quasar", "galaxy"}
    objects = pd.read_parquet(sky[0] / "truth/skymapper_truth.parquet", dtype_backend="numpy_nullable")
    assert objects["object_id"].tolist() == skymapper["object_id"].tolist()
    assert objects["source_id"].isna().any()
    known = objects["source_id"].dropna().astype("int64")
    assert known.isin(truth["source_id"]).all()
    assert known.is_unique
    assert objects["blended"].any()
    blended = objects.loc[objects["blended"], "blended_source_id"].astype("int64")
    assert not blended.isin(known).any()
    assert (truth["weight"] >= 0).all()


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_same_seed_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 1), ("b", 3, 2), ("c", 4, 2)):
        simulate(SimulateSettings(stars=1500, seed=seed, workers=workers), tmp_path / name)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a["raw/sos/sos.csv.gz"] != c["raw/sos/sos.csv.gz"]
    assert len(a) >= 8 + 8 + 4 + 1 + 2


def test_progress_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    simulate(SimulateSettings(stars=1000, realism=Realism(dust=False)), tmp_path, lines.append)
    assert any("Gaia" in line for line in lines)
    assert any("SkyMapper" in line for line in lines)


def test_too_few_stars_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stars is 999.*at least 1000"):
        simulate(SimulateSettings(stars=999), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_folder_with_raw_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "raw" / "gaia_dr3" / "mine.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(UserError, match="already holds files"):
        simulate(SimulateSettings(stars=1000), tmp_path)
    assert mine.read_text() == "precious"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, blocks: object) -> int:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_gzip", full)
    with pytest.raises(StorageError, match="No space left"):
        simulate(SimulateSettings(stars=1000), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
