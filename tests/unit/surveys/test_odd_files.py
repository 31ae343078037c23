"""Files as people have them: what one command reads every command reads, value by value."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from helpers.places import CHECKOUT

from stellarml.core.errors import InputError
from stellarml.surveys.column_mapping import Resolved
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.unit_conversion import is_known, unit_factor

CASES = CHECKOUT / "tests" / "cases"


def survey(*keep: str, **more: Any) -> Descriptor:
    position = {"id": "id", "ra": "ra", "dec": "dec", **more.pop("position", {})}
    return Descriptor(
        name="t",
        kind="photometry",
        files={"format": "csv", "glob": "*"},
        position=position,
        columns={"keep": list(keep)},
        **more,
    )


def read(descriptor: Descriptor, path: Path) -> tuple[pa.Table, list[tuple[int, str]], Resolved]:
    """Return the rows of a survey's files as an ingest reads them, and the rejects."""
    found = settled_columns(descriptor, find_files(descriptor, path))
    tables, rejects = [found.schema.empty_table()], []
    for number, header in enumerate(found.headers):
        names, schema = list(found.sources[number]), found.read_schema(number)
        for block in reader_of(header.file).blocks(header, names, schema, descriptor.files, 1 << 20):
            table = block.table
            for column, conversion in found.conversions[number].items():
                values = conversion(table.column(column).combine_chunks())
                table = table.set_column(column, found.schema.field(column), values)
            tables.append(table)
            rejects += block.rejects
    return pa.concat_tables(tables), rejects, found


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


def test_late_values_widen_a_guessed_type() -> None:
    case = CASES / "04-csv-late-values"
    rows, rejects, _ = read(load_descriptor(str(case / "right.toml")), case / "right.csv")
    assert rows.num_rows == 4000 and not rejects
    lines = [line.split(",") for line in (case / "right.csv").read_text().splitlines()[1:]]
    for name, column in (("remark", 3), ("weight", 4), ("av", 5)):
        written = [line[column] or None for line in lines]
        read_back = rows[name].to_pylist()
        if rows.schema.field(name).type == pa.string():
            assert read_back == written, name
        else:
            assert read_back == [None if w is None else float(w) for w in written], name


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


def test_unsigned_ids_of_text_are_exact(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,ra,dec\n{2**64 - 1},10,10\n7,11,11\n")
    rows, _, _ = read(survey(), tmp_path / "a.csv")
    assert rows["id"].to_pylist() == [2**64 - 1, 7]
    (tmp_path / "a.csv").write_text("id,ra,dec\n0007,10,10\n7,11,11\n")
    rows, _, _ = read(survey(), tmp_path / "a.csv")
    assert rows["id"].to_pylist() == ["0007", "7"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1", "", "1e3"], pa.float64()),
        (["1", str(2**64 - 1)], pa.uint64()),
        (["-1", str(2**64 - 1)], pa.string()),
        ([str(2**60 + 1), "0.5"], pa.string()),
        (["true", "F"], pa.bool_()),
        (["true", "1"], pa.string()),
        (["1", "N/A"], pa.string()),
        (["", " null "], pa.float64()),
        ([" 1", "2 "], pa.int64()),
        (["inf", "-1"], pa.float64()),
        (["2014-01-01", ""], pa.string()),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_type_of_a_text_column_holds_all_its_values(
    tmp_path: Path, values: list[str], kind: pa.DataType, turned: bool
) -> None:
    values = values[::-1] if turned else values
    lines = [f"{number},10,10,{value}" for number, value in enumerate(values)]
    (tmp_path / "a.csv").write_text("\n".join(["id,ra,dec,x", *lines]) + "\n")
    rows, rejects, _ = read(survey("x"), tmp_path / "a.csv")
    assert rows.schema.field("x").type == kind and not rejects
    nulls = sum(value.strip() in ("", "null") for value in values)
    assert rows["x"].null_count == nulls


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
        assert rows["coord.ra"].to_pylist() == [10.0, 11.0], name


VIZIER = (
    "#RESOURCE=x\n#Column\tid\nid\tRAJ2000\tDEJ2000\tgmag\n \tdeg\tdeg\tmmag\n"
    "----\t------\t------\t-----\n1\t10.5\t-20\t15000\n2\t11.5\t-21\t   \n"
)


@pytest.mark.parametrize(
    ("content", "ra"),
    [
        (b"\xef\xbb\xbfid,ra,dec,g\r\n1,10.5,-20,15\r\n2,11.5,-21,\r\n", "ra"),
        (b"\xef\xbb\xbf# a comment\nid,ra,dec,g\n1,10.5,-20,15\n2,11.5,-21,null\n", "ra"),
        (b" id , ra , dec , g \n 1 , 10.5 , -20 , 15 \n 2 , 11.5 , -21 , NaN \n", "ra"),
        (b"id;ra;dec;g\n1;10.5;-20;15\n2;11.5;-21;\n", "ra"),
        (b"id|ra|dec|g\n1|10.5|-20|15\n2|11.5|-21|\n", "ra"),
        (b"# made by\n# id,ra,dec,g\n1,10.5,-20,15\n2,11.5,-21,nan\n", "ra"),
        (VIZIER.replace("mmag", "mag").replace("15000", "15").encode(), "RAJ2000"),
        (gzip.compress(b"id,ra,dec,g\n1,10.5,-20,15\n2,11.5,-21,\n"), "ra"),
    ],
    ids=["bom-crlf", "bom-comment", "padded", "semicolon", "bar", "names-in-comment", "vizier-tsv", "gzip"],
)
@pytest.mark.parametrize("name", ["a.csv", "a.dat", "noending"])
def test_text_as_programs_write_it(tmp_path: Path, content: bytes, ra: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    dec = ra.replace("RA", "DE").replace("ra", "dec")
    rows, rejects, _ = read(
        survey(["g", "gmag"], position={"ra": ["ra", ra], "dec": ["dec", dec]}), tmp_path / name
    )
    assert not rejects
    assert rows.to_pylist() == [
        {"id": 1, "ra": 10.5, "dec": -20.0, "g": 15},
        {"id": 2, "ra": 11.5, "dec": -21.0, "g": None},
    ]


def test_a_file_without_a_line_of_names_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("202.60329,0.0744,-33.41,nan\n202.7,0.05,-33.5,1\n")
    with pytest.raises(InputError, match=r"a.csv line 1: holds 4 numbers, expected the names of the columns"):
        read(survey(), tmp_path / "a.csv")


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


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ra,dec,b_rgeo,B_rgeo\n1,10,20,1,2\n")
    assert read(survey("B_rgeo"), tmp_path / "a.csv")[0]["b_rgeo"].to_pylist() == [2]
    assert read(survey("b_rgeo"), tmp_path / "a.csv")[0]["b_rgeo"].to_pylist() == [1]


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


def test_columns_are_checked_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ra,dec,g\n1,10,20,5\n")
    (tmp_path / "b.csv").write_text("id,ra,dec\n2,10,20\n")
    with pytest.raises(
        InputError, match=r"b.csv: column 'g' is missing; of the file's 3 columns the nearest are"
    ):
        read(survey("g"), tmp_path)


def test_types_are_those_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ra,dec,g\n1,10,20,5\n")
    (tmp_path / "b.csv").write_text("id,ra,dec,g\nx2,10,20,5.5\n")
    pq.write_table(
        pa.table({"id": ["3"], "ra": [1.0], "dec": [2.0], "g": pa.array([7], pa.int16())}), tmp_path / "c"
    )
    rows, rejects, _ = read(survey("g"), tmp_path)
    assert rows["id"].to_pylist() == ["1", "x2", "3"] and rows["g"].to_pylist() == [5.0, 5.5, 7.0]
    assert not rejects


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


def test_blanks_about_texts_and_quoted_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"id" , "ra", dec ,s\n A1 ,10,20, x \nB2,11,21, null \n')
    rows, _, _ = read(survey("s"), tmp_path / "a.csv")
    assert rows["id"].to_pylist() == ["A1", "B2"] and rows["s"].to_pylist() == ["x", None]


def test_names_in_the_last_comment_above_rows_with_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# id,ra,dec,x\nS1,10,10,5\nS2,11,11,null\n")
    rows, _, _ = read(survey("x"), tmp_path / "a.csv")
    assert rows["id"].to_pylist() == ["S1", "S2"] and rows["x"].to_pylist() == [5, None]


def test_a_comma_in_a_name_of_a_tab_separated_file(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\tra\tdec\tB,V\n1\t10\t20\t0.5\n")
    assert read(survey("B,V"), tmp_path / "a.tsv")[0]["b,v"].to_pylist() == [0.5]


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


def test_hours_beyond_a_day_are_no_position(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,a,d\n1,25:00:00,-00:30:00\n2,23:59:60,+90:00:00\n")
    position = {"ra": {"column": "a", "unit": "sexagesimal"}, "dec": {"column": "d", "unit": "sexagesimal"}}
    rows, _, _ = read(survey(position=position), tmp_path / "a.csv")
    assert rows["a"].to_pylist() == [None, 360.0] and rows["d"].to_pylist() == [-0.5, 90.0]


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
