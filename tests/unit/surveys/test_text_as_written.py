"""Text files as people and programs write them: every value comes through, and types hold all of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.read_files import CASES, VIZIER, read, survey

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import load_descriptor


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


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ra,dec,b_rgeo,B_rgeo\n1,10,20,1,2\n")
    assert read(survey("B_rgeo"), tmp_path / "a.csv")[0]["b_rgeo"].to_pylist() == [2]
    assert read(survey("b_rgeo"), tmp_path / "a.csv")[0]["b_rgeo"].to_pylist() == [1]


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
