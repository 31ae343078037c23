"""Shipped descriptors of photometry and astrometry: rows in each archive's own names, units and nulls, ingested.

The values are made up. The names are those of the archives: SkyMapper's table dr2.master and dr4.master, Gaia's
gaia_source as bulk ECSV, 2MASS as IRSA, as the Gaia archive and as the CDS cross-match service give it, Bailer-Jones et
al. 2021 as the Gaia archive has it; and VizieR's where the descriptor lists them. Of VizieR's names of Gaia DR3, those
of odd windows, sigma5d_max, params_solved and the GSP-Phot quantiles are from memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.shipped_surveys import Changes, Ingested, Row, check_cuts, ingested, variants, write_text

from stellarml.crossmatch.source_columns import magnitude_columns, position_errors
from stellarml.surveys.descriptor import load_descriptor

BANDS = "uvgriz"
EXTINCTION = {
    "skymapper": {"u": 4.294, "v": 4.026, "g": 2.986, "r": 2.288, "i": 1.588, "z": 1.206},
    "gaia_dr3": {"G": 2.263, "BP": 2.806, "RP": 1.642},
    "twomass": {"J": 0.723, "H": 0.460, "Ks": 0.310},
}
"""A_X / E(B-V): SkyMapper's own page; Casagrande et al. 2021 at (BP-RP)0 = 0.8; Schlafly & Finkbeiner 2011, table 6."""


@pytest.mark.parametrize(
    ("survey", "wanted"),
    [
        ("skymapper_dr2", EXTINCTION["skymapper"]),
        ("skymapper_dr4", EXTINCTION["skymapper"]),
        ("gaia_dr3", EXTINCTION["gaia_dr3"]),
        ("twomass", EXTINCTION["twomass"]),
    ],
)
def test_bands_and_their_extinction(survey: str, wanted: dict[str, float]) -> None:
    assert {name: band.extinction for name, band in load_descriptor(survey).bands.items()} == wanted


SKYMAPPER: Row = {
    "object_id": "406586209",
    "raj2000": "218.498561",
    "dej2000": "-78.100279",
    "e_raj2000": "91",
    "e_dej2000": "12",
    "mean_epoch": "57199.427",
    "flags": "0",
    "nimaflags": "3",
    "ngood": "44",
    "ngood_min": "2",
    "nch_max": "1",
    **{f"{band}_ngood": str(n) for n, band in enumerate(BANDS, 5)},
    "class_star": "0.981",
    "flags_psf": "0",
    **{f"{band}_psf": f"{18 - n / 2}" for n, band in enumerate(BANDS)},
    **{f"e_{band}_psf": f"0.0{n}" for n, band in enumerate(BANDS, 1)},
    "ebmv_sfd": "0.1232",
}
OWN_NAMES = {"skymapper_dr2": {"prox": "15.0"}, "skymapper_dr4": {"self_dist1": "15.0", "ebmv_gnilc": "0.11"}}
SKYMAPPER_CHANGES: Changes = {
    "on the border of a star": ("star_like", {"class_star": "0.8"}),
    "no class_star": ("star_like", {"class_star": ""}),
    "flagged": ("clean", {"flags": "512"}),
    "no flags": ("clean", {"flags": ""}),
    "blended in u": ("unblended", {"flags_psf": "32"}),
    "no flags_psf": ("", {"flags_psf": ""}),
    "scattered in right ascension": ("measured_positions", {"e_raj2000": "1001"}),
    "scattered in declination": ("measured_positions", {"e_dej2000": "1001"}),
    "no position errors": ("", {"e_raj2000": "", "e_dej2000": ""}),
    "an error below the floor": ("", {"e_dej2000": "1"}),
    "epoch 0": ("", {"mean_epoch": "0.0"}),
    "no epoch": ("", {"mean_epoch": ""}),
    "no v": ("require_all_bands", {"v_psf": "", "e_v_psf": ""}),
    "z of 99.99": ("no_sentinel_magnitude require_all_bands", {"z_psf": "99.99", "e_z_psf": "99.99"}),
    "g of -9999": ("no_sentinel_magnitude require_all_bands", {"g_psf": "-9999", "e_g_psf": "-9999"}),
    "i without error": ("no_sentinel_magnitude require_all_bands", {"i_psf": "15.9", "e_i_psf": ""}),
}
DOUBLES = ("raj2000", "dej2000", "mean_epoch", "class_star")
NOT_OF_DR2 = ("nimaflags", "ngood", *(f"{band}_ngood" for band in BANDS))


@pytest.mark.parametrize("survey", ["skymapper_dr2", "skymapper_dr4"])
def test_skymapper(spark: Any, tmp_path: Path, survey: str) -> None:
    good, first = {**SKYMAPPER, **OWN_NAMES[survey]}, 406586209
    rows, ids = variants(good, "object_id", first, SKYMAPPER_CHANGES)
    file = write_text(tmp_path / "rows.csv", rows)
    found = ingested(spark, tmp_path, survey, file, "no_sentinel_magnitude", "require_all_bands")
    assert found.record["absent"] == [] and found.ids == [first, *ids.values()]
    check_cuts(found, first, ids, SKYMAPPER_CHANGES)

    row = found.row(first)
    kept = [name for name in good if survey == "skymapper_dr4" or name not in NOT_OF_DR2]
    stored = {name: float(good[name]) if name in DOUBLES else float(np.float32(good[name])) for name in kept}
    assert {name: row[name] for name in kept} == stored | {"object_id": first}
    repaired = {what: found.repaired(key) for what, key in ids.items()}
    assert {what: columns for what, columns in repaired.items() if columns} == {
        "epoch 0": {"mean_epoch"},
        "z of 99.99": {"z_psf", "e_z_psf"},
        "g of -9999": {"g_psf", "e_g_psf"},
        "i without error": {"i_psf"},
    }
    assert found.row(ids["g of -9999"])["g_psf"] is found.row(ids["g of -9999"])["e_g_psf"] is None

    kernel, place = found.sources(), {what: found.ids.index(key) for what, key in ids.items()}
    assert kernel.ra_error_mas[0] == 91 and kernel.dec_error_mas[0] == 12
    assert kernel.epoch_yr[0] == pytest.approx(2015.4824, abs=1e-4)
    assert np.flatnonzero(np.isnan(kernel.epoch_yr)).tolist() == [place["epoch 0"], place["no epoch"]]
    assert np.flatnonzero(np.isnan(kernel.ra_error_mas)).tolist() == [place["no position errors"]]
    errors = position_errors(found.descriptor)
    assert (errors.floor_mas, errors.reject_above_mas, errors.systematic_mas) == (36, 1000, 100)
    assert magnitude_columns(found.descriptor, found.table.column_names) == [f"{b}_psf" for b in BANDS]


def test_skymapper_dr4_of_vizier(spark: Any, tmp_path: Path) -> None:
    """II/379/smssdr4: its names, and a magnitude that was not measured is an empty field."""
    good: Row = {
        "ObjectId": "10802716",
        "RAICRS": "40.555843",
        "DEICRS": "-31.270305",
        "e_RAICRS": "91",
        "e_DEICRS": "12",
        "SMSS": "024213.40-311613.0",
        "EpMean": "57199.4270",
        "flags": "0",
        "Niflags": "3",
        "Ngood": "44",
        **{f"Ngood{band}": str(n) for n, band in enumerate(BANDS, 5)},
        "ClassStar": "0.981",
        **{f"{band}PSF": f"{18 - n / 2}" for n, band in enumerate(BANDS)},
        **{f"e_{band}PSF": f"0.0{n}" for n, band in enumerate(BANDS, 1)},
    }
    rows = [good, {**good, "ObjectId": "10802717", "uPSF": "", "e_uPSF": "", "EpMean": "0"}]
    found = ingested(spark, tmp_path, "skymapper_dr4", write_text(tmp_path / "rows.csv", rows))
    assert set(found.record["absent"]) == {
        "flags_psf", "ebmv_sfd", "ebmv_gnilc", "nch_max", "ngood_min", "self_dist1",
    }  # fmt: skip
    row = found.row(10802716)
    assert (row["nimaflags"], row["ngood"], row["class_star"]) == (3, 44, 0.981)
    assert [row[f"{band}_ngood"] for band in BANDS] == [5, 6, 7, 8, 9, 10]
    assert [row[f"{band}_psf"] for band in BANDS] == [18, 17.5, 17, 16.5, 16, 15.5]
    assert [row[f"e_{band}_psf"] for band in BANDS] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert found.failed(10802716) == set(), "a copy without flags_psf keeps its rows"
    assert found.row(10802717)["u_psf"] is None and found.repaired(10802717) == {"mean_epoch"}
    kernel = found.sources()
    assert kernel.ra_error_mas.tolist() == [91, 91] and kernel.dec_error_mas.tolist() == [12, 12]
    assert kernel.epoch_yr[0] == pytest.approx(2015.4824, abs=1e-4) and np.isnan(kernel.epoch_yr[1])


TWOMASS: Row = {
    "designation": "00424433+4116085",
    "ra": "10.684737",
    "dec": "41.269035",
    "err_maj": "0.22",
    "err_min": "0.10",
    "err_ang": "90",
    "j_m": "9.453",
    "j_msigcom": "0.052",
    "h_m": "8.668",
    "h_msigcom": "0.051",
    "k_m": "8.475",
    "k_msigcom": "0.051",
    "ph_qual": "EEE",
    "rd_flg": "222",
    "cc_flg": "000",
    "jdate": "2450750.7400",
}


@pytest.mark.parametrize("null", ["null", "\\N", ""])
def test_twomass_of_irsa(spark: Any, tmp_path: Path, null: str) -> None:
    """A null error marks an upper limit (U), a null magnitude no brightness (X), an error above 8 a vague one (F)."""
    rows = [
        TWOMASS,
        {**TWOMASS, "designation": "1_j", "j_msigcom": null, "ph_qual": "UAA", "rd_flg": "022"},
        {**TWOMASS, "designation": "2_h", "h_msigcom": null, "ph_qual": "AUA", "rd_flg": "202"},
        {**TWOMASS, "designation": "3_k", "k_msigcom": null, "ph_qual": "AAU", "rd_flg": "220"},
        {**TWOMASS, "designation": "4_x", "k_m": null, "k_msigcom": null, "ph_qual": "AAX"},
        {**TWOMASS, "designation": "5_f", "h_msigcom": "9.995", "ph_qual": "AFA"},
        {**TWOMASS, "designation": "6_old", "err_maj": "0.06", "jdate": "2450545.0"},
    ]
    found = ingested(spark, tmp_path, "twomass", write_text(tmp_path / "rows.csv", rows))
    assert found.record["absent"] == []
    good = TWOMASS["designation"]
    assert found.failed(good) == found.failed("6_old") == set() and found.repaired(good) == set()
    for key, lost in (("1_j", "j"), ("2_h", "h"), ("3_k", "k"), ("4_x", "k"), ("5_f", "h")):
        row = found.row(key)
        assert found.failed(key) == {"detected"}, key
        assert [band for band in "jhk" if row[f"{band}_m"] is None] == [lost], key
        assert [band for band in "jhk" if row[f"{band}_msigcom"] is None] == [lost], key
    assert found.repaired("4_x") == set() and found.repaired("3_k") == {"k_m"}
    row = found.row(good)
    assert [row[n] for n in ("j_m", "h_m", "k_m")] == pytest.approx([9.453, 8.668, 8.475])
    assert [row[n] for n in ("j_msigcom", "h_msigcom", "k_msigcom")] == pytest.approx([0.052, 0.051, 0.051])
    assert (row["ra"], row["dec"]) == (10.684737, 41.269035)
    assert (row["ph_qual"], row["rd_flg"], row["cc_flg"]) == ("EEE", "222", "000")
    assert found.row("1_j")["rd_flg"] == "022"

    kernel, place = found.sources(), found.ids.index(good)
    assert kernel.ra_error_mas[place] == kernel.dec_error_mas[place] == pytest.approx(220)
    assert kernel.epoch_yr[place] == pytest.approx(1997.8254, abs=1e-4)
    assert kernel.epoch_yr[found.ids.index("6_old")] == pytest.approx(2000 - 1000 / 365.25, abs=1e-9)
    errors = position_errors(found.descriptor)
    assert (errors.floor_mas, errors.reject_above_mas, errors.systematic_mas) == (60, np.inf, 0)
    assert magnitude_columns(found.descriptor, found.table.column_names) == ["j_m", "h_m", "k_m"]


TWOMASS_ELSEWHERE: dict[str, dict[str, str]] = {
    "the Gaia archive's tmass_original_valid": {
        "k_m": "ks_m", "k_msigcom": "ks_msigcom", "jdate": "j_date", "rd_flg": "", "cc_flg": "",
    },
    "VizieR II/246": {
        "designation": "2MASS", "ra": "RAJ2000", "dec": "DEJ2000", "err_maj": "errMaj", "jdate": "JD",
        "j_m": "Jmag", "j_msigcom": "e_Jmag", "h_m": "Hmag", "h_msigcom": "e_Hmag", "k_m": "Kmag",
        "k_msigcom": "e_Kmag", "ph_qual": "Qflg", "rd_flg": "Rflg", "cc_flg": "Cflg",
    },
    "astroquery's VizieR": {
        "designation": "_2MASS", "ra": "RAJ2000", "dec": "DEJ2000", "err_maj": "errMaj", "jdate": "JD",
        "j_m": "Jmag", "j_msigcom": "e_Jmag", "h_m": "Hmag", "h_msigcom": "e_Hmag", "k_m": "Kmag",
        "k_msigcom": "e_Kmag", "ph_qual": "Qflg", "rd_flg": "Rflg", "cc_flg": "Cflg",
    },
    "the CDS cross-match service": {
        "designation": "2MASS", "ra": "RAJ2000", "dec": "DEJ2000", "err_maj": "errHalfMaj", "jdate": "MeasureJD",
        "j_m": "Jmag", "j_msigcom": "e_Jmag", "h_m": "Hmag", "h_msigcom": "e_Hmag", "k_m": "Kmag",
        "k_msigcom": "e_Kmag", "ph_qual": "Qfl", "rd_flg": "Rfl", "cc_flg": "",
    },
    "the bulk table": {"dec": "decl"},
}  # fmt: skip
"""By archive: IRSA's name -> its own; empty where it has no such column."""


@pytest.mark.parametrize("archive", TWOMASS_ELSEWHERE)
def test_twomass_under_other_names(spark: Any, tmp_path: Path, archive: str) -> None:
    names = TWOMASS_ELSEWHERE[archive]
    row = {names.get(name, name): value for name, value in TWOMASS.items() if names.get(name, name)}
    irsa = ingested(spark, tmp_path, "twomass", write_text(tmp_path / "irsa.csv", [TWOMASS]))
    found = ingested(spark, tmp_path, "twomass", write_text(tmp_path / "other.csv", [row]))
    absent = [name for name, other in names.items() if not other]
    assert found.record["absent"] == absent
    assert found.table.drop_columns(absent).equals(irsa.table.drop_columns(absent))


GAIA: Row = {
    "source_id": "4611686018427387905",
    "ref_epoch": "2016.0",
    "ra": "45.00432028915398",
    "ra_error": "0.07332528",
    "dec": "0.021047763781174733",
    "dec_error": "0.05396307",
    "parallax": "3.2354811",
    "parallax_error": "0.08",
    "parallax_over_error": "40.443512",
    "pmra": "43.75231341609215",
    "pmra_error": "0.09",
    "pmdec": "-7.6419899883511482",
    "pmdec_error": "0.07",
    "ra_dec_corr": "0.01",
    "ra_parallax_corr": "0.02",
    "ra_pmra_corr": "0.03",
    "ra_pmdec_corr": "0.04",
    "dec_parallax_corr": "-0.05",
    "dec_pmra_corr": "0.06",
    "dec_pmdec_corr": "-0.07",
    "parallax_pmra_corr": "0.08",
    "parallax_pmdec_corr": "0.09",
    "pmra_pmdec_corr": "-0.1",
    "astrometric_params_solved": "31",
    "visibility_periods_used": "20",
    "astrometric_sigma5d_max": "0.0999",
    "ipd_frac_multi_peak": "10",
    "ipd_frac_odd_win": "10",
    "ruwe": "1.4",
    "duplicated_source": "False",
    "phot_g_mean_mag": "18.0",
    "phot_bp_mean_flux_over_error": "100.5",
    "phot_bp_mean_mag": "18.4",
    "phot_rp_mean_flux_over_error": "120.5",
    "phot_rp_mean_mag": "17.3",
    "phot_bp_rp_excess_factor": "1.2",
    "vbroad": "null",
    "phot_variable_flag": '"NOT_AVAILABLE"',
    "in_qso_candidates": "False",
    "in_galaxy_candidates": "False",
    "non_single_star": "0",
    "teff_gspphot": "5052.9",
    "teff_gspphot_lower": "5040.5",
    "teff_gspphot_upper": "5065.1",
    "logg_gspphot": "4.54",
    "logg_gspphot_lower": "4.53",
    "logg_gspphot_upper": "4.55",
    "mh_gspphot": "-0.21",
    "mh_gspphot_lower": "-0.25",
    "mh_gspphot_upper": "-0.17",
}
TWO_PARAMETERS = (
    "parallax", "parallax_error", "parallax_over_error", "pmra", "pmra_error", "pmdec", "pmdec_error", "ruwe",
    "ra_parallax_corr", "ra_pmra_corr", "ra_pmdec_corr", "dec_parallax_corr", "dec_pmra_corr", "dec_pmdec_corr",
    "parallax_pmra_corr", "parallax_pmdec_corr", "pmra_pmdec_corr",
)  # fmt: skip
"""What a two-parameter solution has no value for."""
GAIA_CHANGES: Changes = {
    "imprecise parallax": ("parallax_error", {"parallax_error": "0.1001"}),
    "no parallax_error": ("parallax_error", {"parallax_error": "null"}),
    "imprecise solution": ("sigma5d", {"astrometric_sigma5d_max": "0.1001"}),
    "second peak": ("single_peak", {"ipd_frac_multi_peak": "11"}),
    "odd windows": ("whole_windows", {"ipd_frac_odd_win": "11"}),
    "poor fit": ("ruwe", {"ruwe": "1.41"}),
    "no ruwe": ("ruwe", {"ruwe": "null"}),
    "faint": ("bright", {"phot_g_mean_mag": "18.01"}),
    "no G": ("bright", {"phot_g_mean_mag": "null"}),
    "no BP": ("has_bp_rp", {"phot_bp_mean_mag": "null"}),
    "no RP": ("has_bp_rp", {"phot_rp_mean_mag": "null"}),
    "fast rotator": ("slow_rotator", {"vbroad": "30.1"}),
    "slow rotator": ("", {"vbroad": "30"}),
    "variable": ("not_variable", {"phot_variable_flag": '"VARIABLE"'}),
    "quasar": ("not_qso", {"in_qso_candidates": "True"}),
    "galaxy": ("not_galaxy", {"in_galaxy_candidates": "true"}),
    "binary": ("single_star", {"non_single_star": "3"}),
    "hot": ("not_hot", {"teff_gspphot": "7501"}),
    "no teff": ("", {"teff_gspphot": "null"}),
    "two parameters": (
        "parallax_error ruwe", dict.fromkeys(TWO_PARAMETERS, "null") | {"astrometric_params_solved": "3"}
    ),
}  # fmt: skip
_ECSV_TYPES = {
    "source_id": "int64", "duplicated_source": "bool", "in_qso_candidates": "bool", "in_galaxy_candidates": "bool",
    "phot_variable_flag": "string", "astrometric_params_solved": "int8", "ipd_frac_multi_peak": "int8",
    "ipd_frac_odd_win": "int8", "visibility_periods_used": "int16", "non_single_star": "int16",
}  # fmt: skip
_ECSV_UNITS = {
    "ra": "deg", "dec": "deg", "ra_error": "mas", "dec_error": "mas", "parallax": "mas", "parallax_error": "mas",
    "pmra": "mas.yr**-1", "pmra_error": "mas.yr**-1", "pmdec": "mas.yr**-1", "pmdec_error": "mas.yr**-1",
    "phot_g_mean_mag": "mag", "vbroad": "km.s**-1", "teff_gspphot": "K", "logg_gspphot": "log(cm.s**-2)",
}  # fmt: skip


def ecsv_head(names: list[str]) -> str:
    """Return the YAML lines of a Gaia bulk file with these columns."""
    lines = ["%ECSV 1.0", "---", "delimiter: ','", "datatype:"]
    for name in names:
        lines += ["-", f"  name: {name}", f"  datatype: {_ECSV_TYPES.get(name, 'float64')}"]
        lines += [f"  unit: {_ECSV_UNITS[name]}"] if name in _ECSV_UNITS else []
    return "".join(f"# {line}\n" for line in lines)


def test_gaia_bulk_file(spark: Any, tmp_path: Path) -> None:
    first = int(GAIA["source_id"])
    rows, ids = variants(GAIA, "source_id", first, GAIA_CHANGES)
    file = write_text(tmp_path / "GaiaSource_786097-786431.csv", rows, before=ecsv_head(list(GAIA)))
    found = ingested(spark, tmp_path, "gaia_dr3", file)
    assert found.record["absent"] == [] and found.ids == [first, *ids.values()]
    check_cuts(found, first, ids, GAIA_CHANGES)
    row = found.row(first)
    booleans = {"duplicated_source": False, "in_qso_candidates": False, "in_galaxy_candidates": False}
    assert {name: row[name] for name in booleans} == booleans
    assert row["phot_variable_flag"] == "NOT_AVAILABLE" and row["vbroad"] is None
    others = set(GAIA) - set(booleans) - {"phot_variable_flag", "vbroad", "ref_epoch", "source_id"}
    assert {name: row[name] for name in others} == pytest.approx(
        {name: float(GAIA[name]) for name in others}, rel=1e-6
    )
    check_gaia_kernel(found)
    no_motion = found.sources()
    assert np.isnan(no_motion.pmra_mas_yr[-1]) and np.isnan(no_motion.ra_pmra_corr[-1])
    assert no_motion.ra_dec_corr[-1] == pytest.approx(0.01)


def check_gaia_kernel(found: Ingested) -> None:
    """The first row as the match kernel has it."""
    kernel = found.sources()
    wanted = {
        "id": int(GAIA["source_id"]), "ra_deg": 45.00432028915398, "dec_deg": 0.021047763781174733, "epoch_yr": 2016.0,
        "ra_error_mas": 0.07332528, "dec_error_mas": 0.05396307, "parallax_mas": 3.2354811,
        "pmra_mas_yr": 43.75231341609215, "pmdec_mas_yr": -7.6419899883511482, "pmra_error_mas_yr": 0.09,
        "pmdec_error_mas_yr": 0.07, "ra_dec_corr": 0.01, "ra_pmra_corr": 0.03, "ra_pmdec_corr": 0.04,
        "dec_pmra_corr": 0.06, "dec_pmdec_corr": -0.07, "pmra_pmdec_corr": -0.1,
    }  # fmt: skip
    assert {name: float(getattr(kernel, name)[0]) for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert kernel.id[0] == int(GAIA["source_id"]), "19 digits, each of them"
    errors = position_errors(found.descriptor)
    assert (errors.floor_mas, errors.reject_above_mas, errors.systematic_mas) == (0, np.inf, 0)
    magnitudes = magnitude_columns(found.descriptor, found.table.column_names)
    assert magnitudes == ["phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag"]


GAIA_OF_VIZIER = {
    "source_id": "Source", "ra": "RA_ICRS", "ra_error": "e_RA_ICRS", "dec": "DE_ICRS", "dec_error": "e_DE_ICRS",
    "parallax": "Plx", "parallax_error": "e_Plx", "parallax_over_error": "RPlx", "pmra": "pmRA",
    "pmra_error": "e_pmRA", "pmdec": "pmDE", "pmdec_error": "e_pmDE", "ra_dec_corr": "RADEcor",
    "ra_parallax_corr": "RAPlxcor", "ra_pmra_corr": "RApmRAcor", "ra_pmdec_corr": "RApmDEcor",
    "dec_parallax_corr": "DEPlxcor", "dec_pmra_corr": "DEpmRAcor", "dec_pmdec_corr": "DEpmDEcor",
    "parallax_pmra_corr": "PlxpmRAcor", "parallax_pmdec_corr": "PlxpmDEcor", "pmra_pmdec_corr": "pmRApmDEcor",
    "astrometric_params_solved": "Solved", "visibility_periods_used": "Nper", "astrometric_sigma5d_max": "amax",
    "ipd_frac_multi_peak": "IPDfmp", "ipd_frac_odd_win": "IPDfow", "ruwe": "RUWE", "duplicated_source": "Dup",
    "phot_g_mean_mag": "Gmag", "phot_bp_mean_flux_over_error": "RFBP", "phot_bp_mean_mag": "BPmag",
    "phot_rp_mean_flux_over_error": "RFRP", "phot_rp_mean_mag": "RPmag", "phot_bp_rp_excess_factor": "E(BP/RP)",
    "vbroad": "Vbroad", "phot_variable_flag": "VarFlag", "in_qso_candidates": "QSO", "in_galaxy_candidates": "Gal",
    "non_single_star": "NSS", "teff_gspphot": "Teff", "teff_gspphot_lower": "b_Teff", "teff_gspphot_upper": "B_Teff",
    "logg_gspphot": "logg", "logg_gspphot_lower": "b_logg", "logg_gspphot_upper": "B_logg", "mh_gspphot": "[Fe/H]",
    "mh_gspphot_lower": "b_[Fe/H]", "mh_gspphot_upper": "B_[Fe/H]",
}  # fmt: skip


def test_gaia_of_vizier(spark: Any, tmp_path: Path) -> None:
    """I/355/gaiadr3: its names; a boolean is 0 or 1, a null an empty field."""
    words = {"null": "", "False": "0", "True": "1", "true": "1"}
    rows, _ = variants(GAIA, "source_id", int(GAIA["source_id"]), GAIA_CHANGES)
    other = [
        {GAIA_OF_VIZIER[n]: words.get(v, v) for n, v in row.items() if n in GAIA_OF_VIZIER} for row in rows
    ]
    found = ingested(spark, tmp_path, "gaia_dr3", write_text(tmp_path / "vizier.csv", other))
    assert found.record["absent"] == []
    archive = write_text(tmp_path / "archive.csv", rows, before=ecsv_head(list(GAIA)))
    assert found.table.equals(ingested(spark, tmp_path, "gaia_dr3", archive).table)
    check_gaia_kernel(found)


DISTANCES: Row = {
    "source_id": "4611686018427387905",
    "r_med_geo": "309.07",
    "r_lo_geo": "301.5",
    "r_hi_geo": "317.25",
    "r_med_photogeo": "310.5",
    "r_lo_photogeo": "302.125",
    "r_hi_photogeo": "318.75",
    "flag": "10033",
}
DISTANCES_OF_VIZIER = ("Source", "rgeo", "b_rgeo", "B_rgeo", "rpgeo", "b_rpgeo", "B_rpgeo", "Flag")


@pytest.mark.parametrize(
    ("names", "null"), [(tuple(DISTANCES), "null"), (tuple(DISTANCES), ""), (DISTANCES_OF_VIZIER, "")]
)
def test_distances(spark: Any, tmp_path: Path, names: tuple[str, ...], null: str) -> None:
    """In pc; a star without a colour has no photogeometric distance, and none that it is taken for."""
    second = {name: null if "photogeo" in name else value for name, value in DISTANCES.items()}
    rows = [DISTANCES, {**second, "source_id": "4611686018427387906", "flag": "00099"}]
    file = write_text(tmp_path / "rows.csv", [dict(zip(names, row.values(), strict=True)) for row in rows])
    found = ingested(spark, tmp_path, "gaia_distances", file)
    assert found.record["absent"] == [] and found.ids == [4611686018427387905, 4611686018427387906]
    pc = {name: float(value) for name, value in DISTANCES.items() if name.startswith("r_")}
    assert {name: found.row(found.ids[0])[name] for name in pc} == pytest.approx(pc, rel=1e-6)
    assert {name: found.row(found.ids[1])[name] is None for name in pc} == {n: "photogeo" in n for n in pc}
    assert found.table["flag"].to_pylist() == ["10033", "00099"]
    assert not found.descriptor.has_positions and found.descriptor.cuts == ()
