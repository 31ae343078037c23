"""FITS, VOTable and Parquet: the same rows whichever format they come in, and damage told with the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table

from stellarml.core.errors import InputError
from stellarml.surveys.column_mapping import resolve
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_reader import Header, SourceFile
from stellarml.surveys.raw_readers import reader_of

SURVEY = Descriptor(
    name="t",
    kind="photometry",
    files={"format": "fits", "glob": "*"},
    position={"id": "source_id", "ra": "ra", "dec": "dec", "parallax": "parallax"},
    columns={
        "keep": ["flag", "word", "solved"],
        "types": {"source_id": "long", "flag": "boolean", "word": "string", "solved": "byte"},
    },
)
IDS = [4611686018427387905, 4611686018427387907, 4611686018427387909]
ROWS = [
    (IDS[0], 10.5, -20.0, 1.25, True, "VARIABLE", 31),
    (IDS[1], 11.5, -21.0, None, False, "CONSTANT", 95),
    (IDS[2], 12.5, -22.0, 3.5, True, None, 3),
]


def header_of(file: SourceFile) -> Header:
    return reader_of(file).headers(file, SURVEY.files)[0]


def example() -> Table:
    parallax = MaskedColumn([1.25, 0, 3.5], mask=[False, True, False], unit=units.mas)
    return Table(
        {
            "SOURCE_ID": np.array(IDS, np.int64),
            "ra": np.array([10.5, 11.5, 12.5]) * units.deg,
            "dec": np.array([-20.0, -21.0, -22.0]) * units.deg,
            "parallax": parallax,
            "flag": [True, False, True],
            "word": MaskedColumn(["VARIABLE", "CONSTANT", ""], mask=[False, False, True]),
            "solved": np.array([31, 95, 3], np.int64),
            "unused": np.zeros((3, 2)),
        }
    )


def as_fits(path: Path, table: Table) -> None:
    table.write(path, format="fits")


def as_gzipped_fits(path: Path, table: Table) -> None:
    import gzip

    table.write(path.with_suffix(".plain"), format="fits")
    path.write_bytes(gzip.compress(path.with_suffix(".plain").read_bytes()))


def as_votable(path: Path, table: Table) -> None:
    table.write(path, format="votable")


def as_binary_votable(path: Path, table: Table) -> None:
    table.write(path, format="votable", tabledata_format="binary2")


def as_parquet(path: Path, table: Table) -> None:
    plain = table["SOURCE_ID", "ra", "dec", "parallax", "flag", "solved"].to_pandas(use_nullable_int=False)
    arrow = pa.Table.from_pandas(plain, preserve_index=False)
    words = pa.array([w or None for w in table["word"].filled("").tolist()]).dictionary_encode()
    pq.write_table(arrow.append_column("word", words), path, row_group_size=2)


def read(
    path: Path, survey: Descriptor = SURVEY
) -> tuple[list[tuple[Any, ...]], list[int], list[tuple[int, str]]]:
    file = find_files(survey, path)[0]
    header = header_of(file)
    found = resolve(survey, [[header]], {})
    rows, lines, rejects = [], [], []
    for block in reader_of(header.file).blocks(
        header, list(found.sources[0]), found.schema, SURVEY.files, 1 << 20
    ):
        assert block.table.schema == found.schema
        rows += [tuple(row.values()) for row in block.table.to_pylist()]
        lines += block.lines.tolist()
        rejects += block.rejects
    return rows, lines, rejects


@pytest.mark.parametrize("write", [as_fits, as_votable, as_binary_votable, as_parquet])
def test_same_rows_from_every_format(tmp_path: Path, write: Callable[[Path, Table], None]) -> None:
    write(tmp_path / "a.dat", example())
    assert read(tmp_path / "a.dat") == (ROWS, [1, 2, 3], [])


def test_gzipped_fits_is_known_by_what_is_inside(tmp_path: Path) -> None:
    as_gzipped_fits(tmp_path / "a.fits.gz", example())
    assert read(tmp_path / "a.fits.gz") == (ROWS, [1, 2, 3], [])


@pytest.mark.parametrize("write", [as_fits, as_votable])
def test_units_and_types_are_read(tmp_path: Path, write: Callable[[Path, Table], None]) -> None:
    write(tmp_path / "a.dat", example())
    columns = {c.name: c for c in header_of(find_files(SURVEY, tmp_path / "a.dat")[0]).columns}
    assert columns["ra"].unit == "deg" and columns["parallax"].unit == "mas"
    assert columns["SOURCE_ID"].type == pa.int64() and columns["word"].type == pa.string()


@pytest.mark.parametrize("write", [as_fits, as_votable])
def test_a_unit_that_the_file_states_is_converted(
    tmp_path: Path, write: Callable[[Path, Table], None]
) -> None:
    table = example()
    table["parallax"].unit = units.arcsec
    table["ra"].unit = units.rad
    write(tmp_path / "a.dat", table)
    survey = find_files(SURVEY, tmp_path / "a.dat")
    found = settled_columns(SURVEY, survey)
    factors = {found.schema.names[i]: c.factor for i, c in found.conversions[0].items()}
    assert factors == {"ra": pytest.approx(180 / np.pi), "parallax": pytest.approx(1000.0)}


@pytest.mark.parametrize("write", [as_fits, as_votable])
def test_a_unit_of_another_kind_is_refused(tmp_path: Path, write: Callable[[Path, Table], None]) -> None:
    table = example()
    table["parallax"].unit = units.pc
    write(tmp_path / "a.dat", table)
    with pytest.raises(InputError, match=r"a.dat: column 'parallax' is in 'pc', expected 'mas'"):
        settled_columns(SURVEY, find_files(SURVEY, tmp_path / "a.dat"))


def test_text_where_numbers_belong(tmp_path: Path) -> None:
    table = example()
    table["ra"] = ["00:42:00", "00:43:00", "00:44:00"]
    as_fits(tmp_path / "a.fits", table)
    with pytest.raises(InputError, match=r"a.fits: column 'ra' holds text, expected numbers \(double\)"):
        read(tmp_path / "a.fits")


def test_a_value_that_does_not_fit_rejects_its_row(tmp_path: Path) -> None:
    table = example()
    table["solved"][1] = 300
    as_fits(tmp_path / "a.fits", table)
    rows, lines, rejects = read(tmp_path / "a.fits")
    assert rows == [ROWS[0], ROWS[2]] and lines == [1, 3]
    assert rejects == [(2, "column 'solved': 300 is not a value of type int8")]


def test_ids_in_floating_point_are_refused(tmp_path: Path) -> None:
    """Pandas turns an id column with a missing value into doubles, and 19 digits into 16."""
    table = example()
    table["SOURCE_ID"] = np.array(IDS, float)
    as_fits(tmp_path / "a.fits", table)
    rows, _, rejects = read(tmp_path / "a.fits")
    assert rows == [] and [n for n, _ in rejects] == [1, 2, 3]
    table["SOURCE_ID"] = [1.0, 2.0, 3.0]
    as_fits(tmp_path / "b.fits", table)
    assert [r[0] for r in read(tmp_path / "b.fits")[0]] == [1, 2, 3]


def test_an_array_in_a_column(tmp_path: Path) -> None:
    table = example()
    table["ra"] = np.zeros((3, 2)) * units.deg
    as_fits(tmp_path / "a.fits", table)
    with pytest.raises(
        InputError, match=r"a.fits: column 'ra' is of type list<item: double>, expected one value"
    ):
        read(tmp_path / "a.fits")


@pytest.mark.parametrize("write", [as_fits, as_votable, as_parquet, as_gzipped_fits])
@pytest.mark.parametrize("share", [0.45, 0.8])
def test_truncated(tmp_path: Path, write: Callable[[Path, Table], None], share: float) -> None:
    rng = np.random.default_rng(0)
    n = 4000
    table = example()[np.zeros(n, int)]
    table["ra"] = rng.uniform(0, 360, n) * units.deg
    table["dec"] = rng.uniform(-90, 90, n) * units.deg
    write(tmp_path / "a.dat", table)
    content = (tmp_path / "a.dat").read_bytes()
    (tmp_path / "a.dat").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"a\.dat"):
        read(tmp_path / "a.dat")


@pytest.mark.parametrize(
    ("where", "options"), [(slice(4, 60), {}), (slice(1000, 4000), {"write_page_checksum": True})]
)
def test_a_damaged_page_of_parquet(tmp_path: Path, where: slice, options: dict[str, bool]) -> None:
    n = 50_000
    columns = {
        name: np.random.default_rng(1).random(n) for name in ("ra", "dec", "parallax", "flag", "solved")
    }
    table = pa.table({"source_id": np.arange(n), "word": ["x"] * n, **columns})
    table = table.set_column(table.column_names.index("flag"), "flag", pa.array([True] * n))
    table = table.set_column(table.column_names.index("solved"), "solved", pa.array([1] * n))
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, **options)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[where] = bytes(len(content[where]))
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet"):
        read(tmp_path / "a.parquet")


def test_large_parquet_comes_in_blocks(tmp_path: Path) -> None:
    n = 300_000
    table = pa.table(
        {
            "source_id": np.arange(n), "ra": np.full(n, 1.0), "dec": np.full(n, 1.0), "parallax": np.full(n, np.nan),
            "flag": np.zeros(n, bool), "word": pa.nulls(n, pa.large_string()), "solved": np.ones(n, np.int16),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    header = header_of(find_files(SURVEY, tmp_path / "a.parquet")[0])
    found = resolve(SURVEY, [[header]], {})
    blocks = list(
        reader_of(header.file).blocks(header, list(found.sources[0]), found.schema, SURVEY.files, 1 << 20)
    )
    assert len(blocks) > 1
    assert np.array_equal(np.concatenate([b.lines for b in blocks]), np.arange(1, n + 1))
    assert sum(b.table["parallax"].null_count for b in blocks) == n, "NaN is nothing"
