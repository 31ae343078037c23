"""Rows of real surveys as their archives wrote them, against independent computations with pandas, astropy and scipy.

The files are not part of the project; where they are absent, every test here is skipped.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stellarml.core.config import Config, load_config
from stellarml.run.marks import read_record
from stellarml.stages.ingest import ingest_survey

GAIA_FILES = (
    "cone_ra45_dec0_full_columns.parquet",
    "archive_full_columns_5rows.ecsv",
    "archive_full_columns_2rows.vot",
)
BANDS = "uvgriz"


def configured(folder: Path, *overrides: str, **raw: Path | str) -> Config:
    lines = "".join(f'{name} = "{path}"\n' for name, path in raw.items())
    (folder / "config.toml").write_text(f"[raw]\n{lines}")
    return load_config(folder / "config.toml", overrides=overrides, environment={})


def leaves(folder: Path) -> pd.DataFrame:
    """Return the rows of a table of the lake; a nullable column stays one, so that null and NaN differ."""
    paths = sorted((folder / "dataset").rglob("*.parquet"))
    paths = [p for p in paths if not p.name.startswith("_")]
    return pd.concat([pq.read_table(p, partitioning=None).to_pandas() for p in paths], ignore_index=True)


def astropy_frame(path: Path, **options: Any) -> pd.DataFrame:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, **options)
    scalar = [name for name in table.colnames if table[name].ndim == 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame: pd.DataFrame = table[scalar].to_pandas()
    return frame.rename(columns=str.lower)


def gaia_rows(folder: Path) -> pd.DataFrame:
    """Return the rows of the three files as pandas and astropy read them."""
    parts = [
        pd.read_parquet(folder / GAIA_FILES[0]).rename(columns=str.lower),
        astropy_frame(folder / GAIA_FILES[1], format="ascii.ecsv"),
        astropy_frame(folder / GAIA_FILES[2], format="votable"),
    ]
    names = [n for n in parts[1].columns if all(n in p for p in parts)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pd.concat([p[names].astype(object) for p in parts], ignore_index=True)


def number(table: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(table[column], errors="coerce").to_numpy(float)


def truth(table: pd.DataFrame, column: str) -> np.ndarray:
    return table[column].map(lambda value: str(value).lower() == "true").to_numpy(bool)


def gaia_bits(t: pd.DataFrame, with_distance: np.ndarray) -> np.ndarray:
    """Return `cuts_failed` as the paper's section 2.1 has it, cut by cut in the order of its text."""
    with np.errstate(invalid="ignore"):
        stays = [
            number(t, "parallax_error") <= 0.1,
            number(t, "astrometric_sigma5d_max") <= 0.1,
            number(t, "ipd_frac_multi_peak") <= 10,
            number(t, "ipd_frac_odd_win") <= 10,
            number(t, "ruwe") <= 1.4,
            number(t, "phot_g_mean_mag") <= 18,
            np.isfinite(number(t, "phot_bp_mean_mag")) & np.isfinite(number(t, "phot_rp_mean_mag")),
            ~(number(t, "vbroad") > 30),
            (t["phot_variable_flag"].astype(str) != "VARIABLE").to_numpy(),
            ~truth(t, "in_qso_candidates"),
            ~truth(t, "in_galaxy_candidates"),
            ~(number(t, "non_single_star") > 0),
            ~(number(t, "teff_gspphot") > 7500),
            with_distance,
        ]
    return sum((~np.asarray(s)).astype(np.int64) << bit for bit, s in enumerate(stays))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def gaia(real_data: Path, spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The lake after select, and the raw rows in the order of their ids."""
    folder = tmp_path_factory.mktemp("gaia")
    (folder / "raw").mkdir()
    for name in GAIA_FILES:
        shutil.copy(real_data / "gaia_dr3" / name, folder / "raw" / name)
    table = gaia_rows(folder / "raw").sort_values("source_id", ignore_index=True)
    distances = pd.DataFrame({"source_id": table.source_id[::2], "r_med_geo": 1000.0})
    distances.loc[distances.index % 10 == 0, "r_med_geo"] = np.nan
    distances.to_csv(folder / "distances.csv", index=False)
    config = configured(
        folder,
        "tiles.max_rows=500",
        gaia_dr3="raw/*",
        gaia_distances="distances.csv",
        skymapper_dr2=real_data / "skymapper_dr2" / "*.tsv",
    )
    for survey in ("gaia_dr3", "gaia_distances", "skymapper_dr2"):
        ingest_survey(spark, config, survey)
    from stellarml.stages import select

    select.run(spark, config)
    return folder, table


def test_gaia_in_three_formats_one_table(gaia: tuple[Path, pd.DataFrame]) -> None:
    folder, table = gaia
    assert len(table) == 2390 + 5 + 2 and table.source_id.is_unique
    found = leaves(folder / "lake" / "gaia_dr3").sort_values("source_id", ignore_index=True)
    assert found.source_id.tolist() == table.source_id.tolist()
    for column in found.columns:
        if column in ("_healpix_29", "repairs", "cuts_failed", "phot_variable_flag"):
            continue
        if found[column].dtype == bool or found[column].dropna().isin([True, False]).all():
            assert (found[column].astype(bool).to_numpy() == truth(table, column)).all(), column
        else:
            wanted = number(table, column)
            kept = found[column].astype(float).to_numpy()
            as_stored = wanted.astype(np.float32) if found[column].dtype == np.float32 else wanted
            assert np.array_equal(kept, as_stored.astype(float), equal_nan=True), column
    assert (found.phot_variable_flag == table.phot_variable_flag.astype(str)).all()
    assert "dist" not in found, "an angle of the cone search, not a distance"
    assert found.teff_gspphot.notna().sum() >= 957 and found.in_qso_candidates.sum() >= 71
    record = read_record(folder / "lake" / "gaia_dr3")
    assert record["rows"] == {"in": 2397, "out": 2397, "rejected": 0} and record["absent"] == []


def test_gaia_cuts_row_by_row(gaia: tuple[Path, pd.DataFrame]) -> None:
    folder, table = gaia
    distances = pd.read_csv(folder / "distances.csv").dropna()
    wanted = gaia_bits(table, table.source_id.isin(distances.source_id).to_numpy())
    found = leaves(folder / "lake" / "stars").sort_values("source_id", ignore_index=True)
    assert found.source_id.tolist() == table.source_id.tolist()
    different = np.flatnonzero(found.cuts_failed.to_numpy() != wanted)
    assert len(different) == 0, [(table.source_id[i], found.cuts_failed[i], wanted[i]) for i in different[:5]]
    both_sides = np.bitwise_or.reduce(wanted) & ~np.bitwise_and.reduce(wanted)
    assert bin(both_sides).count("1") >= 12, "nearly every cut has rows on both sides"


def test_gaia_cut_flow_adds_up(gaia: tuple[Path, pd.DataFrame]) -> None:
    folder, table = gaia
    distances = pd.read_csv(folder / "distances.csv").dropna()
    bits = gaia_bits(table, table.source_id.isin(distances.source_id).to_numpy())
    flow = [r for r in read_record(folder / "lake" / "stars")["cut_flow"] if r["survey"] == "gaia_dr3"]
    assert len(flow) == 15 and flow[-1]["cut"] == "has_distance"
    for step, row in enumerate(flow):
        assert row["rows_left"] == (bits & ((1 << step) - 1) == 0).sum(), row["cut"]
        assert step == 0 or row["failed_alone"] == (bits >> (step - 1) & 1).sum(), row["cut"]
    rows = read_record(folder / "lake" / "stars")["rows"]
    assert rows["pass_all_cuts"] == (bits == 0).sum() and rows["with_distance"] == len(distances)


def test_without_distances_the_other_bits_stay(
    gaia: tuple[Path, pd.DataFrame], spark: Any, tmp_path: Path
) -> None:
    from stellarml.stages import select

    folder, table = gaia
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "lake" / "stars")
    config = load_config(
        tmp_path / "config.toml", overrides=["surveys.distances=''", "tiles.max_rows=500"], environment={}
    )
    select.run(spark, config)
    found = leaves(tmp_path / "lake" / "stars").sort_values("source_id", ignore_index=True)
    wanted = gaia_bits(table, np.ones(len(table), bool))
    assert (found.cuts_failed.to_numpy() == wanted).all() and "r_med_geo" not in found


def skymapper_rows(files: list[Path], separator: str) -> pd.DataFrame:
    return pd.concat(
        [
            pd.read_csv(f, sep=separator, float_precision="round_trip").rename(columns=str.lower)
            for f in files
        ],
        ignore_index=True,
    )


def check_skymapper(found: pd.DataFrame, table: pd.DataFrame, names: dict[str, str]) -> None:
    """Compare magnitudes, errors and repairs of every row with what the descriptor promises."""
    assert found.object_id.tolist() == table[names["id"]].tolist()
    for column in ("ra", "dec"):
        ours = {"ra": "raj2000", "dec": "dej2000"}[column]
        assert np.array_equal(found[ours], table[names[column]])
    for bit, band in enumerate(BANDS):
        m = table[names["band"].format(band)].to_numpy(float)
        e = table[names["error"].format(band)].to_numpy(float)
        with np.errstate(invalid="ignore"):
            none = (m > 25) | (m < 0) | ~(e > 0)
        kept = np.where(none, np.nan, m).astype(np.float32)
        assert np.array_equal(found[f"{band}_psf"].to_numpy(np.float32), kept, equal_nan=True), band
        repaired = none & ~np.isnan(m)
        assert ((found.repairs.to_numpy() >> bit & 1) == repaired).all(), band


def test_skymapper_dr2_fields(gaia: tuple[Path, pd.DataFrame], real_data: Path) -> None:
    folder, _ = gaia
    files = sorted((real_data / "skymapper_dr2").glob("*.tsv"))
    table = skymapper_rows(files, "\t").sort_values("object_id", ignore_index=True)
    found = leaves(folder / "lake" / "skymapper_dr2").sort_values("object_id", ignore_index=True)
    assert len(found) == len(table) == sum(len(f.read_bytes().splitlines()) - 1 for f in files) >= 13_900
    names = {"id": "object_id", "ra": "raj2000", "dec": "dej2000", "band": "{}_psf", "error": "e_{}_psf"}
    check_skymapper(found, table, names)
    no_epoch = (table.mean_epoch == 0) | table.mean_epoch.isna()
    assert (found.mean_epoch.isna() == no_epoch).all() and 0 < no_epoch.sum() < 1000
    fails = [
        ~(table.class_star > 0.8),
        ~(table["flags"] == 0),
        table.flags_psf > 0,
        (table.e_raj2000 > 1000) | (table.e_dej2000 > 1000),
    ]
    bits = sum(f.to_numpy().astype(np.int64) << i for i, f in enumerate(fails))
    assert (table.class_star == 0.8).any(), "a value on the border of the cut"
    assert (found.cuts_failed.to_numpy() == bits).all()
    assert found.ebmv_sfd.notna().sum() == 2000, "one field alone has the column; in the others it is null"


def test_skymapper_dr4_field(real_data: Path, spark: Any, tmp_path: Path) -> None:
    file = real_data / "skymapper_dr4" / "NGC1097_SMSS.csv"
    config = configured(tmp_path, skymapper_dr4=file)
    record = ingest_survey(spark, config, "skymapper_dr4")
    assert record["rows"] == {"in": 6128, "out": 6128, "rejected": 0}
    table = skymapper_rows([file], ",").sort_values("objectid", ignore_index=True)
    found = leaves(tmp_path / "lake" / "skymapper_dr4").sort_values("object_id", ignore_index=True)
    names = {"id": "objectid", "ra": "raicrs", "dec": "deicrs", "band": "{}psf", "error": "e_{}psf"}
    check_skymapper(found, table, names)
    own = {"flags": "flags", "niflags": "nimaflags", "ngood": "ngood", "classstar": "class_star"}
    own |= {f"ngood{band}": f"{band}_ngood" for band in BANDS}
    for theirs, ours in own.items():
        assert np.array_equal(found[ours].to_numpy(float), table[theirs].to_numpy(float), equal_nan=True), (
            ours
        )
    read = {*own, *(names[key] for key in ("id", "ra", "dec"))}
    read |= {names[key].format(band) for key in ("band", "error") for band in BANDS}
    assert read == set(table.columns), "every column of the file is read"
    assert {"mean_epoch", "e_raj2000", "flags_psf"} <= set(record["absent"])
    assert len(record["absent"]) + len(read) == len(found.columns) - len(ADDED)
    bits = ~(table.classstar > 0.8) * 1 | (table["flags"] != 0) * 2
    assert (found.cuts_failed == bits).all() and set(bits) == {0, 1, 2, 3}


ADDED = ("_healpix_29", "repairs", "cuts_failed")


def test_twomass_of_the_cross_match_service(real_data: Path, spark: Any, tmp_path: Path) -> None:
    """An upper limit (U) and a magnitude of unknown error (F) are not detections."""
    file = real_data / "epochs" / "gaia_edr3_2mass_open_clusters.fits"
    record = ingest_survey(spark, configured(tmp_path, twomass=file), "twomass")
    table = astropy_frame(file, format="fits")
    table["2mass"] = table["2mass"].map(lambda name: name.decode() if isinstance(name, bytes) else name)
    table = table.drop_duplicates("2mass").sort_values("2mass", ignore_index=True)
    assert record["rows"] == {"in": 24_440, "out": len(table), "rejected": 24_440 - len(table)}
    assert record["absent"] == ["cc_flg"]
    found = leaves(tmp_path / "lake" / "twomass").sort_values("designation", ignore_index=True)
    assert found.designation.tolist() == table["2mass"].tolist()
    quality = table.qfl.map(lambda letters: letters.decode() if isinstance(letters, bytes) else letters)
    assert found.ph_qual.tolist() == quality.tolist()
    lost = np.zeros(len(table), bool)
    for place, (ours, theirs) in enumerate((("j", "jmag"), ("h", "hmag"), ("k", "kmag"))):
        none = quality.str[place].isin(["U", "F", "X"]).to_numpy()
        assert (found[f"{ours}_m"].isna() == none).all() and 700 < none.sum() < 3500
        assert (found[f"{ours}_m"].isna() == found[f"{ours}_msigcom"].isna()).all()
        kept = np.where(none, np.nan, table[theirs].to_numpy(float)).astype(np.float32)
        assert np.array_equal(found[f"{ours}_m"].to_numpy(np.float32), kept, equal_nan=True)
        lost |= none
    assert (found.cuts_failed == lost * 1).all() and 3000 < lost.sum() < 4500
    assert np.array_equal(found.err_maj, table.errhalfmaj) and 0.05 < found.err_maj.median() < 0.1
    assert np.array_equal(found.jdate, table.measurejd) and found.jdate.between(2450500, 2452000).all()


NINE_COLUMNS = """
name = "nine"
kind = "distances"
[files]
format = "ecsv"
glob = "*.ecsv"
[position]
id = "source_id"
[columns]
keep = ["parallax", "parallax_error", "phot_g_mean_mag", "ruwe", "visibility_periods_used"]
[columns.types]
visibility_periods_used = "short"
ruwe = "float"
"""


def test_archive_ecsv_without_positions(real_data: Path, spark: Any, tmp_path: Path) -> None:
    """Delimited by spaces, its id in capitals; keyed by source_id, it is stored by the level-5 pixel."""
    (tmp_path / "nine.toml").write_text(NINE_COLUMNS)
    file = real_data / "gaia_dr3" / "archive_9columns_5000rows.ecsv"
    record = ingest_survey(spark, configured(tmp_path, nine=file), "nine.toml")
    assert record["rows"] == {"in": 5000, "out": 5000, "rejected": 0}
    wanted = astropy_frame(file, format="ascii.ecsv").sort_values("source_id", ignore_index=True)
    folders = sorted((tmp_path / "lake" / "nine" / "dataset").glob("pixel_5=*"))
    assert len(folders) == len(set(wanted.source_id.to_numpy(np.int64) >> 49))
    found = leaves(tmp_path / "lake" / "nine").sort_values("source_id", ignore_index=True)
    for folder in folders:
        ids = pq.read_table(folder / "part.parquet", partitioning=None)["source_id"].to_numpy()
        assert (ids >> 49 == int(folder.name.split("=")[1])).all() and (np.diff(ids) > 0).all()
    assert found.source_id.tolist() == wanted.source_id.tolist()
    for column in ("parallax", "parallax_error", "phot_g_mean_mag", "ruwe", "visibility_periods_used"):
        assert np.array_equal(
            found[column].to_numpy(float), wanted[column].astype(found[column].dtype).to_numpy(float)
        ), column


def test_galah_labels(real_data: Path, spark: Any, tmp_path: Path) -> None:
    file = real_data / "labels" / "galah_dr3_allstar_m67_lite.csv"
    record = ingest_survey(spark, configured(tmp_path, galah_dr3=file), "galah_dr3")
    assert record["rows"]["rejected"] == 0
    table = pd.read_csv(file).sort_values(["dr3_source_id", "sobject_id"], ignore_index=True)
    found = leaves(tmp_path / "lake" / "galah_dr3")
    found = found.sort_values(["dr3_source_id", "sobject_id"], ignore_index=True)
    assert found.dr3_source_id.tolist() == table.dr3_source_id.tolist()
    assert found.sobject_id.tolist() == table.sobject_id.tolist()
    for column in ("teff", "logg", "fe_h", "e_teff"):
        assert np.array_equal(found[column], table[column].astype(np.float32), equal_nan=True), column
    signal = table["snr_c2_iraf"]
    bits = (table.flag_sp != 0) * 1 | (table.flag_fe_h != 0) * 2 | (signal <= 30) * 4
    assert (found.cuts_failed == bits).all() and len(set(bits)) > 3


def test_lamost_labels(real_data: Path, spark: Any, tmp_path: Path) -> None:
    file = real_data / "labels" / "gaia_dr3_lamost_dr9_1838.csv"
    record = ingest_survey(spark, configured(tmp_path, lamost=file), "lamost")
    assert record["rows"] == {"in": 1838, "out": 1838, "rejected": 0}
    table = pd.read_csv(file).sort_values("combined_obsid", ignore_index=True)
    found = leaves(tmp_path / "lake" / "lamost").sort_values("obsid", ignore_index=True)
    assert found.obsid.tolist() == table.combined_obsid.tolist()
    assert np.array_equal(found.ra_obs, table.ra_lamost) and np.array_equal(found.dec_obs, table.dec_lamost)
    for column in ("teff", "logg", "feh"):
        assert np.array_equal(found[column], table[column].astype(np.float32)), column
    assert found.subclass.tolist() == table.combined_subclass.tolist()


def test_distances_of_the_benchmark_stars(real_data: Path, spark: Any, tmp_path: Path) -> None:
    file = real_data / "labels" / "gbs_v3_gaiadr3-result.fits"
    record = ingest_survey(spark, configured(tmp_path, gaia_distances=file), "gaia_distances")
    table = astropy_frame(file, format="fits").sort_values("source_id", ignore_index=True)
    assert record["rows"] == {"in": 180, "out": 180, "rejected": 0}
    found = leaves(tmp_path / "lake" / "gaia_distances").sort_values("source_id", ignore_index=True)
    assert found.source_id.tolist() == table.source_id.tolist()
    for column in ("r_med_geo", "r_lo_geo", "r_hi_photogeo"):
        assert np.array_equal(found[column].to_numpy(float), table[column].to_numpy(float), equal_nan=True), (
            column
        )


FIELD = """
name = "{name}"
kind = "{kind}"
[files]
format = "csv"
glob = "*.csv"
[position]
{id}ra = "{ra}"
dec = "{dec}"
[columns]
keep = ["{keep}"]
"""


def test_ngc1097_matched_within_an_arcsec(real_data: Path, spark: Any, tmp_path: Path) -> None:
    from scipy.spatial import cKDTree

    from stellarml.stages import crossmatch, select

    gaia = FIELD.format(name="field_gaia", kind="astrometry", id="", ra="RA_ICRS", dec="DE_ICRS", keep="gmag")
    smss = FIELD.format(
        name="field_smss", kind="photometry", id='id = "ObjectId"\n', ra="RAICRS", dec="DEICRS", keep="gPSF"
    )
    (tmp_path / "gaia.toml").write_text(gaia)
    (tmp_path / "smss.toml").write_text(smss)
    files = {name: real_data / "skymapper_dr4" / f"NGC1097_{name}.csv" for name in ("GAIA", "SMSS")}
    config = configured(
        tmp_path,
        "surveys.astrometry=gaia.toml",
        "surveys.photometry=smss.toml",
        "surveys.distances=''",
        "crossmatch.radius_arcsec=1.0",
        "tiles.max_rows=400",
        field_gaia=files["GAIA"],
        field_smss=files["SMSS"],
    )
    for survey in ("gaia.toml", "smss.toml"):
        ingest_survey(spark, config, survey)
    select.run(spark, config)
    record = crossmatch.run(spark, config)
    left, right = pd.read_csv(files["GAIA"]), pd.read_csv(files["SMSS"])

    def vectors(ra_deg: pd.Series, dec_deg: pd.Series) -> np.ndarray:
        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])

    a, b = vectors(left.RA_ICRS, left.DE_ICRS), vectors(right.RAICRS, right.DEICRS)
    chord = 2 * np.sin(np.radians(1.0 / 3600) / 2)
    near = cKDTree(b).query_ball_point(a, chord)
    wanted = {(i, int(right.ObjectId[j])) for i, js in enumerate(near) for j in js}
    pairs = leaves(tmp_path / "lake" / "neighbourhood")
    assert len(read_record(tmp_path / "lake" / "stars")["cut_flow"]) == 2, "no cut in either descriptor"
    assert set(zip(pairs.source_id, pairs.original_ext_source_id, strict=True)) == wanted
    assert len(pairs) == len(wanted) == record["match"]["pairs"]

    best = leaves(tmp_path / "lake" / "best_neighbour").set_index("source_id").sort_index()
    assert len(best) >= 0.98 * len(left)
    assert best.angular_distance.median() == pytest.approx(0.06, abs=0.01)
    distance, nearest = cKDTree(b).query(a)
    inside = np.flatnonzero(distance <= chord)
    assert best.index.tolist() == inside.tolist()
    assert best.original_ext_source_id.tolist() == right.ObjectId[nearest[inside]].tolist()
    arcsec = np.degrees(2 * np.arcsin(distance[inside] / 2)) * 3600
    assert np.allclose(best.angular_distance, arcsec, atol=2e-5)
