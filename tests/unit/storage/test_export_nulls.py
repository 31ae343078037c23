"""What is written is what is read: FITS and VOTable give every value and every null back, by the package's readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stellarml.core.config import load_config
from stellarml.core.errors import UserError
from stellarml.storage.export import write_file
from stellarml.storage.formats import Format
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_files import describe
from stellarml.surveys.raw_readers import reader_of

WRITTEN = Files(format="csv", glob="*")
ROWS = 70_000
"""More than all values of a 16-bit integer."""


def example() -> pa.Table:
    null = np.arange(ROWS) % 7 == 3
    ids = np.arange(ROWS, dtype=np.int64) + 999_990
    return pa.table(
        {
            "id": pa.array(ids),
            "large": pa.array(ids.astype(np.uint64) + np.uint64(2**63)),
            "variable": pa.array(np.arange(ROWS) % 2 == 0, mask=null),
            "visits": pa.array((np.arange(ROWS) % 65536 - 32768).astype(np.int16), mask=null),
            "few": pa.array((np.arange(ROWS) % 5 - 2).astype(np.int8), mask=null),
            "byte": pa.array((np.arange(ROWS) % 256).astype(np.uint8), mask=null),
            "count": pa.array(ids.astype(np.int32), mask=null),
            "number": pa.array(ids, mask=null),
            "unsigned": pa.array(ids.astype(np.uint32), mask=null),
            "x": pa.array(np.arange(ROWS) / 3.0, mask=null),
            "kind": pa.array([None if gone else f"k{i}" for i, gone in enumerate(null)]),
        }
    )


@pytest.mark.parametrize("kind", [Format.fits, Format.votable, Format.csv, Format.parquet])
def test_every_value_and_every_null_comes_back(tmp_path: Path, kind: Format) -> None:
    table = example()
    path = tmp_path / f"a.{kind}"
    assert write_file([table], table.schema, path, kind, load_config().tiles) == ROWS
    file = describe(path, WRITTEN, "test")
    reader = reader_of(file)
    (header,) = reader.headers(file, WRITTEN)
    blocks = list(reader.blocks(header, table.column_names, table.schema, WRITTEN, 1 << 24))
    assert not any(block.rejects for block in blocks)
    found = pa.concat_tables(block.table for block in blocks)
    for name in table.column_names:
        assert found[name].to_pylist() == table[name].to_pylist(), name


@pytest.mark.filterwarnings("ignore:Column 'variable' contains NULL")
def test_valid_numbers_that_are_astropys_own_nulls_stay(tmp_path: Path) -> None:
    """999999 and 16959 are what astropy writes for a missing integer, unless it is told another value."""
    from astropy.table import Table

    table = pa.table(
        {
            "nobs": pa.array([999_999, None, 5], pa.int32()),
            "visits": pa.array([16_959, None, 5], pa.int16()),
            "variable": pa.array([True, None, False]),
        }
    )
    for kind in (Format.fits, Format.votable):
        path = tmp_path / f"a.{kind}"
        write_file([table], table.schema, path, kind, load_config().tiles)
        read = Table.read(path, format=str(kind))
        assert read["nobs"].tolist() == [999_999, None, 5]
        assert read["visits"].tolist() == [16_959, None, 5]
    from astropy.io import fits

    with fits.open(tmp_path / "a.fits") as extensions:
        assert extensions[1].data.view(np.ndarray)["variable"].tolist() == [ord("T"), 0, ord("F")]


def test_parquet_keeps_metadata(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("teff", pa.float32(), metadata={"unit": "K"})])
    table = pa.table({"teff": pa.array([5777.0], pa.float32())}, schema=schema)
    write_file([table], schema, tmp_path / "a.parquet", Format.parquet, load_config().tiles)
    assert pq.read_schema(tmp_path / "a.parquet").field("teff").metadata[b"unit"] == b"K"
    file = describe(tmp_path / "a.parquet", WRITTEN, "test")
    assert reader_of(file).headers(file, WRITTEN)[0].columns[0].unit == "K"


def test_text_that_fits_cannot_hold_is_refused_in_words(tmp_path: Path) -> None:
    table = pa.table({"name": ["Sol", "Pröxima"]})
    with pytest.raises(UserError, match="column 'name' holds 'Pröxima', which FITS cannot"):
        write_file([table], table.schema, tmp_path / "a.fits", Format.fits, load_config().tiles)
    assert not list(tmp_path.iterdir())
    assert write_file([table], table.schema, tmp_path / "a.vot", Format.votable, load_config().tiles) == 2
