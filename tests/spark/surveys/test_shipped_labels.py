"""Shipped descriptors of label tables: rows in each archive's own names, types and nulls, ingested.

The values are made up; names and types are those of GALAH_DR3_main_allstar and allStar-dr17-synspec (FITS) and of
LAMOST's table of A, F, G and K stars (its names of parameters and its -9999 are from memory). The Survey of Surveys'
public names were not at hand: its rows are the simulator's, and the alternatives of the descriptor.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.shipped_surveys import Changes, Row, check_cuts, ingested, variants, write_text

FIRST = 4611686018427387905
"""An id whose last digits a double cannot hold."""
LABELS = ("teff", "logg", "feh")
NO_ID = np.iinfo(np.int64).min


def write_fits(path: Path, rows: list[Row], types: dict[str, str], **more: Any) -> Path:
    """Write rows as a binary table, big-endian as FITS is, with the types of the archive's own file.

    Parameters
    ----------
    types
        NumPy type by column, for example ``>i8``.
    more
        Further columns of any shape.
    """
    from astropy.table import Table

    table = Table({name: np.array([row[name] for row in rows]).astype(kind) for name, kind in types.items()})
    for name, values in more.items():
        table[name] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write(path)
    return path


GALAH_TYPES = {
    "star_id": "S16", "sobject_id": ">i8", "dr2_source_id": ">i8", "dr3_source_id": ">i8", "snr_c2_iraf": ">f4",
    "snr_c3_iraf": ">f4", "flag_sp": ">i8", "teff": ">f8", "e_teff": ">f8", "logg": ">f8", "e_logg": ">f8",
    "fe_h": ">f8", "e_fe_h": ">f8", "flag_fe_h": ">i8",
}  # fmt: skip
GALAH: Row = {
    "star_id": "08520715+1149254",
    "sobject_id": "131217003901002",
    "dr2_source_id": "604906737317927296",
    "dr3_source_id": "604906737317927297",
    "snr_c2_iraf": "20",
    "snr_c3_iraf": "48.86",
    "flag_sp": "0",
    "teff": "6025.8",
    "e_teff": "82.9",
    "logg": "4.15",
    "e_logg": "0.18",
    "fe_h": "-0.09",
    "e_fe_h": "0.07",
    "flag_fe_h": "0",
}
GALAH_CHANGES: Changes = {
    "warned": ("reliable_spectrum", {"flag_sp": "512"}),
    "no iron line": ("reliable_feh", {"flag_fe_h": "32", "fe_h": "nan", "e_fe_h": "nan"}),
    "noise": ("signal", {"snr_c3_iraf": "30"}),
    "no signal to noise": ("", {"snr_c3_iraf": "nan"}),
    "no Gaia source": ("has_gaia_id", {"dr3_source_id": "-1"}),
    "no error": ("", {"e_teff": "nan"}),
    "an error of zero": ("", {"e_teff": "0.0"}),
}


def test_galah(spark: Any, tmp_path: Path) -> None:
    rows, sobjects = variants(GALAH, "sobject_id", int(GALAH["sobject_id"]), GALAH_CHANGES)
    rows = [
        {**r, "dr3_source_id": str(FIRST + n)}
        if r["dr3_source_id"] != "-1"
        else {**r, "dr3_source_id": str(NO_ID)}
        for n, r in enumerate(rows)
    ]
    ids = {what: int(row["dr3_source_id"]) for what, row in zip(sobjects, rows[1:], strict=True)}
    found = ingested(spark, tmp_path, "galah_dr3", write_fits(tmp_path / "galah.fits", rows, GALAH_TYPES))
    assert found.record["absent"] == []
    assert found.ids == sorted([FIRST, *ids.values()]), "19 digits, each of them"
    check_cuts(found, FIRST, ids, GALAH_CHANGES)
    row = found.row(FIRST)
    assert row["sobject_id"] == 131217003901002
    wanted = {
        name: float(GALAH[name])
        for name in ("teff", "e_teff", "logg", "e_logg", "fe_h", "e_fe_h", "snr_c3_iraf")
    }
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    row = found.row(ids["no iron line"])
    assert row["fe_h"] is row["e_fe_h"] is None and row["teff"] == pytest.approx(6025.8)
    assert [found.row(ids[what])["e_teff"] for what in ("no error", "an error of zero")] == [None, None]
    assert found.repaired(ids["no error"]) == set() and found.repaired(ids["an error of zero"]) == {"e_teff"}
    assert found.descriptor.units["teff"] == "K" and found.descriptor.units["e_fe_h"] == "dex"


APOGEE_TYPES = {
    "APOGEE_ID": "S18", "SNR": ">f4", "STARFLAG": ">i8", "ASPCAPFLAG": ">i8", "EXTRATARG": ">i4",
    "GAIAEDR3_SOURCE_ID": ">i8", "TEFF": ">f4", "TEFF_ERR": ">f4", "LOGG": ">f4", "LOGG_ERR": ">f4", "FE_H": ">f4",
    "FE_H_ERR": ">f4", "FE_H_FLAG": ">i4",
}  # fmt: skip
APOGEE: Row = {
    "APOGEE_ID": "2M00000002+7417074",
    "SNR": "229.48",
    "STARFLAG": str(1 << 18),
    "ASPCAPFLAG": "0",
    "EXTRATARG": "0",
    "GAIAEDR3_SOURCE_ID": "538028216707715712",
    "TEFF": "3723.9",
    "TEFF_ERR": "4.56",
    "LOGG": "0.98",
    "LOGG_ERR": "0.025",
    "FE_H": "-0.16",
    "FE_H_ERR": "0.0086",
    "FE_H_FLAG": "0",
}
APOGEE_LABELS = ("TEFF", "TEFF_ERR", "LOGG", "LOGG_ERR", "FE_H", "FE_H_ERR")
BAD = {"ASPCAPFLAG": str(1 << 23)}
APOGEE_CHANGES: Changes = {
    "a warning beside the bad bit": ("", {"ASPCAPFLAG": str(1 << 7 | 1 << 40)}),
    "bad": ("star_good", BAD),
    "bad and more, beyond 32 bits": ("star_good", {"ASPCAPFLAG": str(1 << 23 | 1 << 40)}),
    "not measured, NaN": ("star_good", BAD | dict.fromkeys(APOGEE_LABELS, "nan")),
    "not measured, -9999": ("star_good", BAD | dict.fromkeys(APOGEE_LABELS, "-9999")),
    "no errors, -999.99": ("", {"TEFF_ERR": "-999.99", "LOGG_ERR": "-999.99", "FE_H_ERR": "-999.99"}),
    "of the main survey, by hand and a cluster": ("", {"EXTRATARG": str(1 | 2 | 8)}),
    "duplicate": ("not_duplicate", {"EXTRATARG": str(16 | 1)}),
    "iron at the edge of the grid": ("reliable_feh", {"FE_H_FLAG": "256"}),
    "noise": ("signal", {"SNR": "50"}),
    "no Gaia source": ("has_gaia_id", {}),
}  # fmt: skip


def test_apogee(spark: Any, tmp_path: Path) -> None:
    """A star without a Gaia source has the id 0: it is a row like others, and no label."""
    rows, ids = variants(APOGEE, "GAIAEDR3_SOURCE_ID", FIRST, APOGEE_CHANGES)
    rows[-1], ids["no Gaia source"] = {**rows[-1], "GAIAEDR3_SOURCE_ID": "0"}, 0
    arrays = {"FPARAM": np.zeros((len(rows), 9), ">f4"), "PARAM": np.zeros((len(rows), 9), ">f4")}
    file = write_fits(tmp_path / "allStar-dr17-synspec_rev1.fits", rows, APOGEE_TYPES, **arrays)
    found = ingested(spark, tmp_path, "apogee_dr17", file)
    assert found.record["absent"] == [] and found.ids == sorted([FIRST, *ids.values()])
    check_cuts(found, FIRST, ids, APOGEE_CHANGES)
    row = found.row(FIRST)
    wanted = {
        name: float(APOGEE[name.upper()])
        for name in ("teff", "teff_err", "logg", "logg_err", "fe_h", "fe_h_err")
    }
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert row["apogee_id"] == "2M00000002+7417074" and row["starflag"] == 1 << 18
    for what in ("not measured, NaN", "not measured, -9999"):
        assert {found.row(ids[what])[name] for name in wanted} == {None}, what
    assert found.repaired(ids["not measured, -9999"]) == set(wanted)
    row = found.row(ids["no errors, -999.99"])
    assert {name for name in wanted if row[name] is None} == {"teff_err", "logg_err", "fe_h_err"}


LAMOST: Row = {
    "obsid": "173006105",
    "designation": "J081420.60+011649.0",
    "obsdate": "2013-10-31",
    "lmjd": "56597",
    "snrg": "84.55",
    "class": "STAR",
    "subclass": "G2",
    "ra_obs": "123.58587",
    "dec_obs": "1.2802878",
    "ra": "123.58588",
    "dec": "1.2802879",
    "teff": "5940.15",
    "teff_err": "21.3",
    "logg": "4.278",
    "logg_err": "0.034",
    "feh": "-0.439",
    "feh_err": "0.019",
}
LAMOST_CHANGES: Changes = {
    "noise": ("signal", {"snrg": "20"}),
    "signal to noise of -9999": ("signal", {"snrg": "-9999"}),
    "no signal to noise": ("", {"snrg": ""}),
    "not measured": (
        "",
        dict.fromkeys(("teff", "teff_err", "logg", "logg_err", "feh", "feh_err"), "-9999.0"),
    ),
    "no errors": ("", dict.fromkeys(("teff_err", "logg_err", "feh_err"), "-9999.00")),
}


def test_lamost(spark: Any, tmp_path: Path) -> None:
    """Where the fibre pointed is preferred to where the target list says that the star is."""
    first = int(LAMOST["obsid"])
    rows, ids = variants(LAMOST, "obsid", first, LAMOST_CHANGES)
    found = ingested(spark, tmp_path, "lamost", write_text(tmp_path / "rows.csv", rows))
    assert found.record["absent"] == [] and found.ids == [first, *ids.values()]
    check_cuts(found, first, ids, LAMOST_CHANGES)
    row = found.row(first)
    assert (row["ra_obs"], row["dec_obs"], row["subclass"]) == (123.58587, 1.2802878, "G2")
    wanted = {name: float(LAMOST[name]) for label in LABELS for name in (label, f"{label}_err")}
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert {found.row(ids["not measured"])[name] for name in wanted} == {None}
    assert found.repaired(ids["not measured"]) == set(wanted)
    row = found.row(ids["no errors"])
    assert {name for name in wanted if row[name] is None} == {f"{label}_err" for label in LABELS}
    kernel = found.sources()
    assert kernel.id.tolist() == found.ids and kernel.ra_deg[0] == 123.58587
    assert np.isnan(kernel.ra_error_mas).all() and np.isnan(kernel.epoch_yr).all()


SOS: Row = {
    "source_id": str(FIRST),
    "ra": "45.1234567",
    "dec": "-30.1234567",
    "teff": "5321.4",
    "e_teff": "63.2",
    "logg": "4.512",
    "e_logg": "0.071",
    "feh": "-0.312",
    "e_feh": "0.056",
    "n_surveys": "2",
    "flag": "0",
}
SOS_CHANGES: Changes = {
    "too cool": ("physical", {"teff": "2499"}),
    "too hot": ("physical", {"teff": "50001"}),
    "log g too low": ("physical", {"logg": "-1.1"}),
    "log g too high": ("physical", {"logg": "6.1"}),
    "iron too poor": ("physical", {"feh": "-6.1"}),
    "iron too rich": ("physical", {"feh": "1.1"}),
    "-9999": ("physical", {"feh": "-9999", "e_feh": "-9999"}),
    "no [Fe/H]": ("", {"feh": "", "e_feh": ""}),
    "warned": ("unflagged", {"flag": "1"}),
    "no flag": ("", {"flag": ""}),
    "an error of zero": ("", {"e_logg": "0.000"}),
}
SOS_ELSEWHERE = [
    {},
    {
        "source_id": "gaia_source_id",
        "e_teff": "teff_err",
        "e_logg": "logg_err",
        "feh": "fe_h",
        "e_feh": "feh_err",
    },
    {"source_id": "dr3_source_id", "teff": "Teff", "e_teff": "e_Teff", "feh": "Fe_H", "e_feh": "e_fe_h"},
]


@pytest.mark.parametrize("names", SOS_ELSEWHERE)
def test_survey_of_surveys(spark: Any, tmp_path: Path, names: dict[str, str]) -> None:
    rows, ids = variants(SOS, "source_id", FIRST, SOS_CHANGES)
    written = [{names.get(name, name): value for name, value in row.items()} for row in rows]
    found = ingested(spark, tmp_path, "sos", write_text(tmp_path / "rows.csv", written))
    assert found.record["absent"] == [] and found.ids == [FIRST, *ids.values()]
    check_cuts(found, FIRST, ids, SOS_CHANGES)
    row = found.row(FIRST)
    wanted = {name: float(SOS[name]) for label in LABELS for name in (label, f"e_{label}")}
    assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert (row["n_surveys"], row["flag"]) == (2, 0)
    assert found.row(ids["-9999"])["e_feh"] is None and found.row(ids["an error of zero"])["e_logg"] is None
    assert found.row(ids["no [Fe/H]"])["feh"] is found.row(ids["no [Fe/H]"])["e_feh"] is None
