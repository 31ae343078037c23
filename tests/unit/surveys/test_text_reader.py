"""Delimited text: every row once, with its line number; what cannot be read is told and costs nothing else."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.text_reader import TextReader

HEADER = "id,x,s\n"
Rows = list[tuple[Any, ...]]

READER = TextReader()


def survey(file_format: str = "csv", **types: str) -> Descriptor:
    columns = types or {"id": "long", "x": "float", "s": "string"}
    keep = [name for name in columns if name != "id"]
    return Descriptor(
        name="t",
        kind="distances",
        files={"format": file_format, "glob": "*"},
        position={"id": "id"},
        columns={"keep": keep, "types": {n: t for n, t in columns.items() if t != "guess"}},
    )


def read(
    folder: Path, content: str | bytes, descriptor: Descriptor | None = None, block_bytes: int = 1 << 20
) -> tuple[Rows, list[int], list[tuple[int, str]]]:
    """Return rows, their line numbers and the rejects of one file."""
    descriptor = descriptor or survey()
    path = folder / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = settled_columns(descriptor, find_files(descriptor, path))
    (header,) = found.headers
    rows: Rows = []
    lines: list[int] = []
    rejects: list[tuple[int, str]] = []
    for block in READER.blocks(header, list(found.sources[0]), found.schema, descriptor.files, block_bytes):
        assert block.table.schema == found.schema
        rows += [tuple(row.values()) for row in block.table.to_pylist()]
        lines += block.lines.tolist()
        rejects += block.rejects
    assert len(lines) == len(rows)
    return rows, lines, rejects


GOOD = [(1, 1.5, "a"), (2, 2.5, "b")]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("1,1.5,a\n2,2.5,b\n", [2, 3]),
        ("1,1.5,a\n2,2.5,b", [2, 3]),
        ("1,1.5,a\r\n2,2.5,b\r\n", [2, 3]),
        ("1,1.5,a\n\n\n2,2.5,b\n\n", [2, 5]),
        ("1,1.5,a\r\n\r\n2,2.5,b", [2, 4]),
        ("1,1.5,a\n\r\n2,2.5,b\n", [2, 4]),
        ("1,1.5,a\n   \n2,2.5,b\n", [2, 4]),
        ("\n1,1.5,a\n2,2.5,b\n", [3, 4]),
        ("# said\n1,1.5,a\n#2,0,z\n2,2.5,b\n# end", [3, 5]),
        ('"1","1.5","a"\n2,2.5,b\n', [2, 3]),
        (" 1, 1.5,a\n2 ,2.5 ,b\n", [2, 3]),
        ("1.0,1.5,a\n2.,2.5,b\n", [2, 3]),
        ("1,15e-1,a\n2,+2.5,b\n", [2, 3]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1 << 20, 7, 1])
def test_one_row_a_line(tmp_path: Path, content: str, lines: list[int], block_bytes: int) -> None:
    assert read(tmp_path, HEADER + content, block_bytes=block_bytes) == (GOOD, lines, [])


def test_quoted_delimiters_and_quotes(tmp_path: Path) -> None:
    rows, _, rejects = read(tmp_path, HEADER + '1,1,"a,b"\n2,1,"say ""yes"""\n3,1,5\'10"\n')
    assert [r[2] for r in rows] == ["a,b", 'say "yes"', "5'10\""] and not rejects


@pytest.mark.parametrize("word", ["", "null", "NaN", "nan", '""'])
def test_words_for_nothing(tmp_path: Path, word: str) -> None:
    rows, _, rejects = read(tmp_path, HEADER + f"1,{word},a\n2,2.5,{word}\n")
    assert rows == [(1, None, "a"), (2, 2.5, None)] and not rejects


BAD_LINES = [
    ("1,1.5", "2 columns, expected 3"),
    ("1,1.5,a,9", "4 columns, expected 3"),
    ("1,fast,a", "column 'x': 'fast' is not a value of type float"),
    ("1.5,1,a", "column 'id': '1.5' is not a value of type int64"),
    ("9223372036854775808,1,a", "column 'id': '9223372036854775808' is not a value of type int64"),
    ('1,1.5,"a', "a quote is opened and not closed on the line"),
    ("1,1.5,a\rb", "a carriage return inside the line"),
    (b"1,1.5,caf\xe9", "column 's': is not UTF-8 text"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("block_bytes", [1 << 20, 5])
def test_a_bad_line_costs_itself_only(
    tmp_path: Path, line: str | bytes, reason: str, where: int, block_bytes: int
) -> None:
    lines: list[bytes] = [b"1,1.5,a", b"2,2.5,b"]
    lines.insert(where, line if isinstance(line, bytes) else line.encode())
    rows, numbers, rejects = read(
        tmp_path, HEADER.encode() + b"\n".join(lines) + b"\n", block_bytes=block_bytes
    )
    assert rows == GOOD
    assert rejects == [(where + 2, reason)]
    assert numbers == [n for n in (2, 3, 4) if n != where + 2]


def test_a_value_over_two_lines_is_rejected_as_two(tmp_path: Path) -> None:
    rows, lines, rejects = read(tmp_path, HEADER + '0,0,"a\nb"\n1,1.5,a\n2,2.5,b\n')
    assert rows == GOOD and lines == [4, 5]
    assert [n for n, _ in rejects] == [2, 3]


@pytest.mark.parametrize("block_bytes", [1 << 20, 30])
def test_long_ids_keep_every_digit(tmp_path: Path, block_bytes: int) -> None:
    ids = [4611686018427387905 + 2 * i for i in range(8)]
    text = "".join(f"{n}{'.0' if i in (2, 6) else ''},1,a\n" for i, n in enumerate(ids))
    rows, _, rejects = read(tmp_path, HEADER + text, block_bytes=block_bytes)
    assert [r[0] for r in rows] == ids and not rejects
    rows, _, rejects = read(tmp_path, HEADER + text + "4.6e18,1,a\n", block_bytes=block_bytes)
    assert [r[0] for r in rows] == ids
    assert [n for n, _ in rejects] == [10], "an id in floating point has lost its last digits"


def test_booleans(tmp_path: Path) -> None:
    words = ["true", "False", "TRUE", "t", "F", "1", "0", "", "null"]
    wanted = [True, False, True, True, False, True, False, None, None]
    text = "id,b\n" + "".join(f"{i},{w}\n" for i, w in enumerate(words))
    descriptor = survey(id="long", b="boolean")
    assert read(tmp_path, text, descriptor)[0] == list(enumerate(wanted))
    rows, _, rejects = read(tmp_path, text + "9,maybe\n", descriptor)
    assert rows == list(enumerate(wanted)), "the same words with a bad row beside them"
    assert rejects == [(11, "column 'b': 'maybe' is not a value of type bool")]


def test_tab_separated_with_an_empty_first_name(tmp_path: Path) -> None:
    text = "\tid\tx\ts\n*\t1\t1.5\ta\n*\t2\t2.5\tb\n*\t3\t\t\n"
    for file_format in ("tsv", "csv"):
        assert read(tmp_path, text, survey(file_format))[0] == [*GOOD, (3, None, None)]


def test_repeated_names_take_the_first(tmp_path: Path) -> None:
    assert read(tmp_path, "id,x,s,x\n1,1.5,a,8\n2,2.5,b,9\n")[0] == GOOD


def test_quoted_names_and_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeff"id","x","s"\n1,1.5,a\n2,2.5,b\n')[0] == GOOD


ECSV = """# %ECSV 1.0
# ---
{delimiter}# datatype:
# - {{name: id, datatype: int64}}
# - {{name: x, unit: mas, datatype: float32}}
# - {{name: s, datatype: string}}
# schema: astropy-2.0
"""


def test_ecsv_with_commas_and_with_spaces(tmp_path: Path) -> None:
    commas = ECSV.format(delimiter='# delimiter: ","\n') + HEADER + "1,1.5,a\n2,2.5,b\n3,null,null\n"
    assert read(tmp_path, commas, survey("ecsv"))[0] == [*GOOD, (3, None, None)]
    spaces = ECSV.format(delimiter="") + 'id x s\n1 1.5 a\n2 2.5 b\n3 "" ""\n4 nan "c d"\n'
    found = read(tmp_path, spaces, survey("ecsv"))[0]
    assert found == [*GOOD, (3, None, None), (4, None, "c d")]


def test_ecsv_as_astropy_writes_it(tmp_path: Path) -> None:
    from astropy.table import MaskedColumn, Table

    table = Table({"id": [1, 2], "s": ["a b", "c"], "x": MaskedColumn([1.5, 2.5], mask=[False, True])})
    table.write(tmp_path / "t.ecsv", format="ascii.ecsv")
    rows, _, rejects = read(tmp_path, (tmp_path / "t.ecsv").read_text(), survey("ecsv"))
    assert rows == [(1, 1.5, "a b"), (2, None, "c")] and not rejects


def test_header_types_and_units_of_ecsv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ECSV.format(delimiter="") + "id x s\n")
    columns = READER.headers(find_files(survey(), tmp_path / "a.csv")[0], survey().files)[0].columns
    assert [(c.name, str(c.type), c.unit) for c in columns] == [
        ("id", "int64", None), ("x", "float", "mas"), ("s", "string", None),
    ]  # fmt: skip


def test_damaged_ecsv_header(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ECSV header is damaged"):
        read(tmp_path, "# %ECSV 1.0\n# ---\n# datatype: [\nid,x,s\n1,1,1\n", survey("ecsv"))
    with pytest.raises(InputError, match="ECSV header is damaged"):
        read(tmp_path, "# %ECSV 1.0\n# ---\n# datatypes: []\nid,x,s\n1,1,1\n", survey("ecsv"))


def test_types_are_guessed_where_nothing_states_them(tmp_path: Path) -> None:
    descriptor = survey(id="guess", i="guess", f="guess", s="guess", n="guess")
    text = 'id,i,f,s,n\n# said\n5,1,1,a,\n6,,2.5,"b\n7,3,2.5,c,\n'
    rows, _, rejects = read(tmp_path, text, descriptor)
    assert rows == [(5, 1, 1.0, "a", None), (7, 3, 2.5, "c", None)]
    assert [type(v) for v in rows[0]] == [int, int, float, str, type(None)]
    assert [n for n, _ in rejects] == [4]


@pytest.mark.parametrize("content", ["", "\n\n", "# only\n# comments\n"])
def test_no_line_of_names(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"a.csv: has no line of column names"):
        read(tmp_path, content)


def test_names_and_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER) == ([], [], [])
    assert read(tmp_path, HEADER.strip()) == ([], [], [])


def test_carriage_returns_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="carriage returns alone"):
        read(tmp_path, "id,x,s\r1,1.5,a\r2,2.5,b\r")


TEXT = (HEADER + "".join(f"{i},{i % 97}.25,star {i}\n" for i in range(4000))).encode()


@pytest.mark.parametrize("block_bytes", [4096, 1 << 20])
def test_gzip_in_several_members(tmp_path: Path, block_bytes: int) -> None:
    content = gzip.compress(TEXT[:30_001]) + gzip.compress(TEXT[30_001:])
    rows, lines, _ = read(tmp_path, content, block_bytes=block_bytes)
    assert lines == list(range(2, 4002))
    assert rows[-1] == (3999, 3999 % 97 + 0.25, "star 3999")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.9999])
def test_truncated_gzip(tmp_path: Path, share: float) -> None:
    content = gzip.compress(TEXT)
    with pytest.raises(InputError, match=r"a.csv: the gzip file is truncated.*Fetch it again"):
        read(tmp_path, content[: int(len(content) * share)], block_bytes=4096)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_gzip_with_a_flipped_byte(tmp_path: Path, share: float) -> None:
    content = bytearray(gzip.compress(TEXT))
    content[int(len(content) * share)] ^= 0x10
    with pytest.raises(InputError, match=r"a.csv: the gzip file is damaged.*Fetch it again"):
        read(tmp_path, bytes(content), block_bytes=4096)


_cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), _cells), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 40),
)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path: Path, rows: list[tuple[int, str]], end: str, block_bytes: int
) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(["id", "x", "s"])
    writer.writerows([(n, i, s) for i, (n, s) in enumerate(rows)])
    found, lines, rejects = read(tmp_path, text.getvalue(), block_bytes=block_bytes)
    nothing = {"", "null", "NaN", "nan"}
    assert not rejects
    bare = [s.strip() for _, s in rows]  # blanks about a value are none of it
    assert found == [
        (n, float(i), None if s in nothing else s)
        for i, ((n, _), s) in enumerate(zip(rows, bare, strict=True))
    ]
    assert lines == list(range(2, len(rows) + 2))


_lines = st.one_of(
    st.sampled_from(
        ["", "  ", "# c", '1,1,"', "1,z,a", "1", "7,1,a\rb", "8.0,1,\u00e9", "9,1,a", '3,2,"x,y"']
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_lines, max_size=12), st.integers(1, 60), st.booleans())
def test_block_borders_change_nothing(
    tmp_path: Path, lines: list[str], block_bytes: int, ended: bool
) -> None:
    content = HEADER + "\n".join(lines) + ("\n" if ended else "")
    whole = read(tmp_path, content)
    assert read(tmp_path, content, block_bytes=block_bytes) == whole
    told = len(whole[1]) + len(whole[2])
    assert told == sum(1 for line in lines if line.strip() and not line.startswith("#"))
