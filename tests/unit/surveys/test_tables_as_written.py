"""FITS, VOTable, ECSV and Parquet as people have them: values, nulls, ids, several tables, links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from helpers.read_files import CASES, read, survey

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import load_descriptor


@pytest.mark.parametrize("name", ["irsa", "vizier"])
def test_votable_columns_go_by_their_fields_names(name: str) -> None:
    case = CASES / "01-votable-name-or-id"
    rows, rejects, _ = read(load_descriptor(str(case / f"{name}.toml")), case / f"{name}.vot")
    assert rows.num_rows == 60 and not rejects
    assert rows.column(0).to_pylist()[:2] == ["S0000", "S0001"]
    assert rows.column(1).to_pylist()[0] == 45.11821920078822


def test_a_votable_field_is_found_by_its_id_where_no_name_fits(tmp_path: Path) -> None:
    text = (CASES / "01-votable-name-or-id" / "irsa.vot").read_text()
    (tmp_path / "a.vot").write_text(text)
    rows, _, _ = read(
        survey("j_m", position={"id": "col_0", "ra": "col_1", "dec": "DEC"}), tmp_path / "a.vot"
    )
    assert rows.num_rows == 60 and rows["j_m"].to_pylist()[:2] == [10.0, 10.1]


def test_logical_columns_have_three_values() -> None:
    case = CASES / "05-fits-null-booleans"
    rows, _, _ = read(load_descriptor(str(case / "right.toml")), case / "right.fits")
    with fits.open(case / "right.fits", logical_as_bytes=True) as extensions:
        stored = extensions[1].data["binary"].tolist()
    words = {b"T": True, b"F": False, b"\0": None, b"": None, "T": True, "F": False, "": None}
    assert rows["binary"].to_pylist() == [words[value] for value in stored]
    assert rows["binary"].null_count == 20


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_unsigned_ids_are_exact(ending: str) -> None:
    case = CASES / "06-unsigned-64bit-ids"
    descriptor = load_descriptor(str(case / "right.toml"))
    rows, rejects, _ = read(descriptor, case / f"right.{ending}")
    ids = Table.read(case / "right.fits")["specobjid"].tolist()
    assert rows["specobjid"].to_pylist() == [str(i) for i in ids] and not rejects
    plain = descriptor.model_copy(update={"columns": descriptor.columns.model_copy(update={"types": {}})})
    rows, rejects, _ = read(plain, case / f"right.{ending}")
    assert rows["specobjid"].to_pylist() == ids and max(ids) > 2**63 and not rejects


def two_tables(path: Path, *names: tuple[str, list[str]]) -> None:
    extensions = [fits.PrimaryHDU()]
    for number, (name, columns) in enumerate(names):
        table = Table({c: np.arange(5.0) + 10 * number for c in columns})
        table["id"] = np.arange(5) + 5 * number
        extension = fits.table_to_hdu(table)
        extension.name = name
        extensions.append(extension)
    fits.HDUList(extensions).writeto(path)


def test_tables_of_the_same_columns_are_all_read(tmp_path: Path) -> None:
    case = CASES / "20-fits-two-tables"
    rows, _, _ = read(load_descriptor(str(case / "right.toml")), case / "two.fits")
    assert rows.num_rows == 60 and len(set(rows["id"].to_pylist())) == 60


def test_positions_in_the_second_table_are_found() -> None:
    case = CASES / "20-fits-two-tables"
    rows, _, _ = read(load_descriptor(str(case / "right.toml")), case / "second.fits")
    assert rows.num_rows == 60


def test_tables_of_different_columns_are_told_apart_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    two_tables(path, ("STARS", ["ra", "dec", "g"]), ("GALAXIES", ["ra", "dec", "size"]))
    with pytest.raises(InputError, match=r"could be meant: STARS, GALAXIES.*a.fits#STARS"):
        read(survey(), path)
    rows, _, _ = read(survey(), Path(f"{path}#GALAXIES"))
    assert rows["id"].to_pylist() == [5, 6, 7, 8, 9]
    rows, _, _ = read(survey("g"), path)
    assert rows["id"].to_pylist() == [0, 1, 2, 3, 4], "only one has g"
    with pytest.raises(InputError, match=r"has no table 'QUASARS'; it has 'STARS' \(1\), 'GALAXIES' \(2\)"):
        read(survey(), Path(f"{path}#QUASARS"))
    with pytest.raises(InputError, match=r"no table has all the columns"):
        read(survey("r"), path)


def test_ecsv_with_quantities_and_sky_coordinates(tmp_path: Path) -> None:
    table = QTable({"id": [1, 2], "sep": [1.5, 2.5] * units.arcmin})
    table["coord"] = SkyCoord([10.0, 11.0] * units.deg, [-5.0, -6.0] * units.deg)
    for name, kind in (("a.ecsv", "ascii.ecsv"), ("a.fits", "fits"), ("a.vot", "votable")):
        if kind == "votable":
            from astropy.table.serialize import represent_mixins_as_columns

            represent_mixins_as_columns(table).write(tmp_path / name, format=kind)
        else:
            table.write(tmp_path / name, format=kind)
        rows, _, _ = read(survey("sep"), tmp_path / name)
        assert rows["ra"].to_pylist() == [10.0, 11.0] and rows["dec"].to_pylist() == [-5.0, -6.0], name
        assert rows["sep"].to_pylist() == [1.5, 2.5]
        rows, _, _ = read(survey(position={"ra": "coord.ra", "dec": "coord.dec"}), tmp_path / name)
        assert rows["coord_ra"].to_pylist() == [10.0, 11.0], name


EXOTIC = {
    "time": pa.array([1, 2], pa.time64("us")),
    "day": pa.array([1, 2], pa.date32()),
    "when": pa.array([1, 2], pa.timestamp("ns")),
    "half": pa.array(np.array([1.5, 2.5], np.float16)),
    "list": pa.array([[1.0], [2.0, 3.0]]),
    "nested": pa.array([{"a": 1}, {"a": 2}]),
    "duration": pa.array([1, 2], pa.duration("s")),
    "bytes": pa.array([b"a", b"b"]),
    "price": pa.array([1, 2], pa.decimal128(10, 2)),
    "word": pa.array(["a", "b"]).dictionary_encode(),
    "large": pa.array(["a", "b"], pa.large_string()),
    "nothing": pa.nulls(2),
    "two words": pa.array([1, 2]),
}


def exotic(path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "ra": [10.0, 11.0], "dec": [1.0, 2.0], **EXOTIC}), path)


def test_columns_of_exotic_types_are_not_read_if_not_named(tmp_path: Path) -> None:
    exotic(tmp_path / "a.parquet")
    rows, _, _ = read(survey("word", "large", "half", "two words"), tmp_path / "a.parquet")
    assert rows["half"].to_pylist() == [1.5, 2.5] and rows["word"].to_pylist() == ["a", "b"]
    assert rows["two words"].to_pylist() == [1, 2]
    dates = read(survey("time", "day", "when", "price"), tmp_path / "a.parquet")[0]
    assert dates["day"].to_pylist() == ["1970-01-02", "1970-01-03"]
    for name in ("list", "nested", "bytes", "nothing"):
        with pytest.raises(InputError, match=f"column '{name}' is of type"):
            read(survey(name), tmp_path / "a.parquet")


def test_nulls_of_fits_and_votable(tmp_path: Path) -> None:
    table = Table({"id": [1, 2, 3], "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]})
    table["n"] = MaskedColumn([-9, 5, 999999], mask=[True, False, False])
    table["x"] = MaskedColumn([1.0, 2.0, 3.0], mask=[False, True, False])
    table["word"] = MaskedColumn(["a", "b", "c"], mask=[False, True, False])
    for name, kind in (("a.fits", "fits"), ("a.vot", "votable"), ("b.vot", "votable")):
        more = {"tabledata_format": "binary2"} if name == "b.vot" else {}
        table["n"].fill_value = -9
        table.write(tmp_path / name, format=kind, **more)
        rows, _, _ = read(survey("n", "x", "word"), tmp_path / name)
        assert rows["n"].to_pylist() == [None, 5, 999999], name
        assert rows["x"].to_pylist() == [1.0, None, 3.0], name
        if name != "b.vot":  # astropy writes no null of a text in BINARY2
            assert rows["word"].to_pylist() == ["a", None, "c"], name


@pytest.mark.parametrize("value", ["ERROR", "OVERFLOW"])
def test_what_the_archive_says_of_its_answer(
    tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CASES / "01-votable-name-or-id" / "irsa.vot").read_text()
    info = f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{value}">row limit 60</INFO>'
    (tmp_path / "a.vot").write_text(text.replace('<RESOURCE type="results">', info))
    descriptor = load_descriptor(str(CASES / "01-votable-name-or-id" / "irsa.toml"))
    if value == "ERROR":
        with pytest.raises(InputError, match="the archive's answer is an error: row limit 60"):
            read(descriptor, tmp_path / "a.vot")
    else:
        assert read(descriptor, tmp_path / "a.vot")[0].num_rows == 60
        assert "OVERFLOW" in "".join(capsys.readouterr())


def test_tables_of_the_same_names_in_other_types_are_joined(tmp_path: Path) -> None:
    extensions = [fits.PrimaryHDU()]
    for ids, values in (([1, 2], np.array([1, 2], np.int16)), ([3, 4], np.array([1.5, 2.5]))):
        table = Table({"id": ids, "ra": [1.0, 2.0], "dec": [1.0, 2.0], "x": values})
        extensions.append(fits.table_to_hdu(table))
    fits.HDUList(extensions).writeto(tmp_path / "a.fits")
    rows, rejects, _ = read(survey("x"), tmp_path / "a.fits")
    assert rows["x"].to_pylist() == [1, 2, 1.5, 2.5] and not rejects


@pytest.mark.parametrize("zero", [0.0, 5.0])
def test_a_null_of_a_scaled_column_is_the_stored_number(tmp_path: Path, zero: float) -> None:
    columns = [
        fits.Column("id", "K", array=np.arange(3)),
        fits.Column("ra", "D", array=np.arange(3.0)),
        fits.Column("dec", "D", array=np.arange(3.0)),
        fits.Column("g", "I", array=np.array([-32768, 1500, 2500], np.int16)),
    ]
    extension = fits.BinTableHDU.from_columns(columns)
    extension.header.update({"TSCAL4": 0.001, "TZERO4": zero, "TNULL4": -32768})
    extension.writeto(tmp_path / "a.fits")
    rows, _, _ = read(survey("g"), tmp_path / "a.fits")
    assert rows["g"].to_pylist() == [None, pytest.approx(1.5 + zero), pytest.approx(2.5 + zero)]


@pytest.mark.parametrize(("form", "zero", "dtype"), [("I", 2**15, np.int16), ("J", 2**31, np.int32)])
def test_nulls_of_unsigned_columns(tmp_path: Path, form: str, zero: int, dtype: type) -> None:
    columns = [
        fits.Column("id", "K", array=np.arange(3)),
        fits.Column("ra", "D", array=np.arange(3.0)),
        fits.Column("dec", "D", array=np.arange(3.0)),
        fits.Column("n", form, array=np.array([5, 6, 7], dtype)),
    ]
    extension = fits.BinTableHDU.from_columns(columns)
    extension.header.update({"TZERO4": zero, "TNULL4": 5})
    extension.writeto(tmp_path / "a.fits")
    assert read(survey("n"), tmp_path / "a.fits")[0]["n"].to_pylist() == [None, 6 + zero, 7 + zero]


def test_columns_of_complex_numbers_are_passed_over(tmp_path: Path) -> None:
    table = Table({"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 2.0], "c": np.array([1j, 2.0])})
    for name, kind in (("a.fits", "fits"), ("a.vot", "votable")):
        table.write(tmp_path / name, format=kind)
        assert read(survey(), tmp_path / name)[0].num_rows == 2
        with pytest.raises(InputError, match="column 'c' is of type list"):
            read(survey("c"), tmp_path / name)


def test_arrays_of_one_are_values(tmp_path: Path) -> None:
    text = (CASES / "01-votable-name-or-id" / "irsa.vot").read_text()
    odd = text.replace('name="j_m" datatype="double"', 'name="j_m" datatype="double" arraysize="1"')
    assert odd != text
    (tmp_path / "a.vot").write_text(odd)
    rows, _, _ = read(load_descriptor(str(CASES / "01-votable-name-or-id" / "irsa.toml")), tmp_path / "a.vot")
    assert rows["j_m"].to_pylist()[:2] == [10.0, 10.1]


def test_parquet_columns_that_stand_twice_harm_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [pa.array([1]), pa.array([1.0]), pa.array([2.0]), pa.array([3]), pa.array([4])]
    pq.write_table(pa.Table.from_arrays(columns, ["id", "ra", "dec", "x", "x"]), tmp_path / "a.parquet")
    assert read(survey(), tmp_path / "a.parquet")[0].num_rows == 1
    assert "columns that stand twice cannot be read: x" in "".join(capsys.readouterr())
    with pytest.raises(InputError, match="column 'x' is missing"):
        read(survey("x"), tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", ["parquet", "fits"])
def test_ids_that_lost_digits_as_floats_are_rejected(tmp_path: Path, ending: str) -> None:
    table = Table({"id": [4e18, 7.0, 7.5], "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]})
    if ending == "fits":
        table.write(tmp_path / "a.fits", format="fits")
    else:
        pq.write_table(
            pa.table({name: table[name].tolist() for name in table.colnames}), tmp_path / "a.parquet"
        )
    rows, rejects, _ = read(survey(), tmp_path / f"a.{ending}")
    assert rows["id"].to_pylist() == [7] and len(rejects) == 2
    assert rows.schema.field("id").type == pa.int64()


@pytest.mark.parametrize("space", [" ", " " * 9000, "\n"])
@pytest.mark.parametrize("prefix", ["", "v:"])
def test_links_of_a_votable_are_not_followed(tmp_path: Path, space: str, prefix: str) -> None:
    (tmp_path / "secret").write_text("1 2 3")
    text = (CASES / "01-votable-name-or-id" / "irsa.vot").read_text()
    start, end = text.index("<TABLEDATA>"), text.index("</TABLEDATA>") + len("</TABLEDATA>")
    link = f'<{prefix}STREAM{space}href="file://{tmp_path}/secret" encoding="base64"/>'
    namespace = ' xmlns:v="http://www.ivoa.net/xml/VOTable/v1.3"' if prefix else ""
    odd = (text[:start] + f"<BINARY>{link}</BINARY>" + text[end:]).replace(
        "<VOTABLE", f"<VOTABLE{namespace}", 1
    )
    (tmp_path / "a.vot").write_text(odd)
    with pytest.raises(InputError, match=r"a.vot line \d+: its rows lie elsewhere .*links are not followed"):
        read(load_descriptor(str(CASES / "01-votable-name-or-id" / "irsa.toml")), tmp_path / "a.vot")
