"""A table in the one file a user asked for, from the parts that tasks wrote or from rows at hand.

Parquet and CSV are streamed part by part. FITS and VOTable are written by astropy, whole, with units, UCDs and
descriptions, so they have to fit into memory. Neither has signed bytes: astropy would make logical values of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from stellarml.core.config import Tiles
from stellarml.core.errors import UserError
from stellarml.core.files import replacing
from stellarml.run.memory import available_bytes
from stellarml.storage.formats import Format
from stellarml.storage.parquet import dictionary_columns

_COPIES = 4
_FILL = {"i": 0, "u": 0, "f": np.nan, "b": False}


def write_file(parts: Iterable[pa.Table], schema: pa.Schema, out: Path, kind: Format, tiles: Tiles) -> int:
    """Write the rows of all `parts`, in their order, to `out`; return the rows.

    Raises
    ------
    UserError
        If a FITS or VOTable file would not fit into memory.
    """
    with replacing(out) as hidden:
        if kind in (Format.parquet, Format.csv):
            return _stream(parts, schema, hidden, kind, tiles)
        return _whole(parts, schema, hidden, kind)


def read_parts(paths: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Read Parquet files one after the other."""
    for path in paths:
        yield pq.read_table(path, schema=schema)


def _stream(parts: Iterable[pa.Table], schema: pa.Schema, path: Path, kind: Format, tiles: Tiles) -> int:
    rows = 0
    if kind == Format.csv:
        with pacsv.CSVWriter(path, schema) as csv:
            for table in parts:
                csv.write_table(table)
                rows += table.num_rows
        return rows
    with pq.ParquetWriter(
        path, schema, compression=tiles.compression, use_dictionary=dictionary_columns(schema)
    ) as parquet:
        for table in parts:
            parquet.write_table(table, row_group_size=tiles.row_group_rows)
            rows += table.num_rows
    return rows


def _whole(parts: Iterable[pa.Table], schema: pa.Schema, path: Path, kind: Format) -> int:
    from astropy.table import Table

    tables, size = [schema.empty_table()], 0
    for part in parts:
        tables.append(part)
        size += part.nbytes
        free = available_bytes()
        if free is not None and _COPIES * size > free:
            raise UserError(
                f"{path.parent}: a {kind} file is written whole, which takes more than "
                f"{_COPIES * size / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free. "
                "Use the format parquet or hats, or fewer columns."
            )
    table = pa.concat_tables(tables)
    columns = [_column(table[field.name].combine_chunks(), field) for field in schema]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Table(columns).write(path, format=str(kind), overwrite=True)
    return int(table.num_rows)


def _column(values: pa.Array, field: pa.Field) -> Any:
    """Return one column with its documentation; integers with nulls are masked, floats have NaN."""
    from astropy.table import Column, MaskedColumn

    metadata = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    meta = {
        "name": field.name,
        "unit": metadata.get("unit") or None,
        "description": metadata.get("description"),
    }
    if metadata.get("ucd"):
        meta["meta"] = {"ucd": metadata["ucd"]}
    missing = values.is_null().to_numpy(zero_copy_only=False)
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        text = np.array(["" if v is None else str(v) for v in values.to_pylist()], dtype=np.str_)
        return MaskedColumn(text, mask=missing, **meta) if missing.any() else Column(text, **meta)
    dtype = np.dtype(kind.to_pandas_dtype())
    filled = values.fill_null(pa.scalar(_FILL[dtype.kind], kind)) if missing.any() else values
    dtype = np.dtype(np.int16) if dtype == np.int8 else dtype
    numbers = np.array(filled.to_numpy(zero_copy_only=False), dtype=dtype)
    if missing.any() and dtype.kind != "f":
        return MaskedColumn(numbers, mask=missing, **meta)
    return Column(numbers, **meta)
