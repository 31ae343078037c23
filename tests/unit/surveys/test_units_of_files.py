"""Units that a file or a descriptor states: converted, refused or said, never passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers.read_files import VIZIER, read, survey

from stellarml.core.errors import InputError
from stellarml.surveys.unit_conversion import is_known, unit_factor


def test_vizier_units_are_taken_from_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(VIZIER)
    bands = {"g": {"magnitude": ["gmag"]}}
    descriptor = survey(bands=bands, position={"ra": "RAJ2000", "dec": "DEJ2000"})
    assert read(descriptor, tmp_path / "a.tsv")[0]["gmag"].to_pylist() == [15.0, None]


@pytest.mark.parametrize(
    ("unit", "ra", "dec"),
    [
        ("deg", ["187.5", "-0.25"], ["-30.25", "0.5"]),
        (
            "rad",
            ["3.272492347489368", "-0.004363323129985824"],
            ["-0.5279620987282847", "0.008726646259971648"],
        ),
        ("hourangle", ["12.5", "-0.016666666666666666"], ["-30.25", "0.5"]),
        ("sexagesimal", ["12:30:00.0", "23h59m00s"], ["-30:15:00", "+00 30 00.0"]),
    ],
)
def test_positions_in_the_unit_that_the_descriptor_states(
    tmp_path: Path, unit: str, ra: list[str], dec: list[str]
) -> None:
    dec_unit = "deg" if unit == "hourangle" else unit
    position = {"ra": {"column": "a", "unit": unit}, "dec": {"column": "d", "unit": dec_unit}}
    rows_of = [f"{i},{a},{d}" for i, (a, d) in enumerate(zip(ra, dec, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(["id,a,d", *rows_of]) + "\n")
    rows, rejects, _ = read(survey(position=position), tmp_path / "a.csv")
    assert not rejects
    assert np.mod(rows["a"].to_numpy(), 360) == pytest.approx([187.5, 359.75], abs=1e-12)
    assert rows["d"].to_numpy() == pytest.approx([-30.25, 0.5], abs=1e-12)


@pytest.mark.parametrize(
    ("stated", "expected", "factor"),
    [
        ("RAD", "deg", 57.29577951308232), ("radians", "deg", 57.29577951308232), ("hours", "deg", 15.0),
        ("h", "deg", 15.0), ("ARCSEC/YR", "mas/yr", 1000.0), ('"/yr', "mas/yr", 1000.0), ("MAS", "mas", 1.0),
        ("arcsec/century", "mas/yr", 10.0), ("arcsecs", "mas", 1000.0), ("MMAG", "mag", 1e-3),
        ("millimag", "mag", 1e-3), ("mag(AB)", "mag", 1.0), ("mag", "dex", 1.0), ("dex", "mag", 1.0),
        ("kK", "K", 1000.0), ("Kelvin", "K", 1.0), ("Jy", "mag", None), ("pc", "mas", None), ("parrots", "mag", 1.0),
    ],
)  # fmt: skip
def test_units_as_files_state_them(stated: str, expected: str, factor: float | None) -> None:
    assert unit_factor(stated, expected) == (None if factor is None else pytest.approx(factor))
    assert is_known(stated) == (stated != "parrots")


def test_an_unknown_unit_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(VIZIER.replace("mmag", "parrots"))
    descriptor = survey(bands={"g": {"magnitude": ["gmag"]}}, position={"ra": "RAJ2000", "dec": "DEJ2000"})
    rows, _, found = read(descriptor, tmp_path / "a.tsv")
    assert rows["gmag"].to_pylist() == [15000.0, None]
    ((note, warns),) = found.notes
    assert "'parrots', a unit that is not known; taken as mag" in note and warns


def test_a_unit_that_file_and_descriptor_state_differently_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(VIZIER)
    position = {"ra": {"column": "RAJ2000", "unit": "rad"}, "dec": "DEJ2000"}
    with pytest.raises(InputError, match="'deg' by the file, in 'rad' by the descriptor"):
        read(survey(position=position), tmp_path / "a.tsv")


def test_a_converted_magnitude_is_not_cut_to_a_whole_number(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(VIZIER)
    descriptor = survey(bands={"g": {"magnitude": ["gmag"]}}, position={"ra": "RAJ2000", "dec": "DEJ2000"})
    whole = descriptor.model_copy(
        update={"columns": descriptor.columns.model_copy(update={"types": {"gmag": "long"}})}
    )
    with pytest.raises(InputError, match="would lose its fractions as long"):
        read(whole, tmp_path / "a.tsv")


def test_hours_beyond_a_day_are_no_position(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,a,d\n1,25:00:00,-00:30:00\n2,23:59:60,+90:00:00\n")
    position = {"ra": {"column": "a", "unit": "sexagesimal"}, "dec": {"column": "d", "unit": "sexagesimal"}}
    rows, _, _ = read(survey(position=position), tmp_path / "a.csv")
    assert rows["a"].to_pylist() == [None, 360.0] and rows["d"].to_pylist() == [-0.5, 90.0]


def test_tables_of_the_same_names_in_other_units_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    extensions = [fits.PrimaryHDU()]
    for name, unit in (("A", "mag"), ("B", "mmag")):
        table = Table({"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 2.0], "g": [15.0, 16.0]})
        table["g"].unit = unit
        extension = fits.table_to_hdu(table)
        extension.name = name
        extensions.append(extension)
    fits.HDUList(extensions).writeto(path)
    bands = {"g": {"magnitude": ["g"]}}
    with pytest.raises(InputError, match="could be meant: A, B"):
        read(survey(bands=bands), path)
    rows, _, _ = read(survey(bands=bands), Path(f"{path}#b"))
    assert rows["g"].to_pylist() == pytest.approx([0.015, 0.016])
