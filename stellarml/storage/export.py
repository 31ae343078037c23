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
_WIDER: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.int8): np.dtype(np.int16),
    np.dtype(np.uint16): np.dtype(np.int32),
    np.dtype(np.uint32): np.dtype(np.int64),
    np.dtype(np.float16): np.dtype(np.float32),
}
"""Types that FITS or VOTable lack, and those that hold their values."""


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
    from astropy.units import UnitsWarning

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
    columns = [_column(table[field.name].combine_chunks(), field, kind) for field in schema]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=UnitsWarning
        )  # a unit in an archive's own words is kept as it is
        Table(columns).write(path, format=str(kind), overwrite=True)
    if kind == Format.fits:
        _write_null_logicals(path, table)
    return int(table.num_rows)


def _write_null_logicals(path: Path, table: pa.Table) -> None:
    """Write the byte 0, FITS' null of a logical column, where astropy has written T or F."""
    from astropy.io import fits

    nulls = {
        name: table[name].is_null().to_numpy()
        for name in table.column_names
        if pa.types.is_boolean(table.schema.field(name).type) and table[name].null_count
    }
    if not nulls:
        return
    with fits.open(path) as extensions:
        offset = extensions[1].fileinfo()["datLoc"]
        stored = extensions[1].data.view(np.ndarray).dtype
    rows = np.memmap(path, dtype=stored, mode="r+", offset=offset, shape=(table.num_rows,))
    for name, null in nulls.items():
        rows[name][null] = 0
    rows.flush()


def _column(values: pa.Array, field: pa.Field, kind: Format) -> Any:
    """Return one column with its documentation; floats have NaN, others are masked, with a null that is no value."""
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
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not _is_numeric(values.type) or _is_text_there(values, kind):
        text = np.array(["" if v is None else str(v) for v in values.to_pylist()], dtype=np.str_)
        if kind == Format.fits:
            _refuse_beyond_ascii(text, field.name)
        return MaskedColumn(text, mask=missing, **meta) if missing.any() else Column(text, **meta)
    dtype = np.dtype(values.type.to_pandas_dtype())
    filled = values.fill_null(pa.scalar(_FILL[dtype.kind], values.type)) if missing.any() else values
    numbers = np.array(filled.to_numpy(zero_copy_only=False), dtype=_WIDER.get(dtype, dtype))
    if not missing.any() or dtype.kind == "f":
        return Column(numbers, **meta)
    if dtype.kind == "b":
        return MaskedColumn(numbers, mask=missing, **meta)
    numbers, null = _with_null(numbers, missing)
    return MaskedColumn(numbers, mask=missing, fill_value=null, **meta)


def _refuse_beyond_ascii(text: np.ndarray, name: str) -> None:
    odd = next((value for value in text.tolist() if not value.isascii()), None)
    if odd is not None:
        raise UserError(
            f"column '{name}' holds '{odd[:40]}', which FITS cannot: its texts are ASCII. Use the format votable or "
            "parquet, or leave the column out (--columns)."
        )


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text_there(values: pa.Array, kind: Format) -> bool:
    """Whether the format has no such integers: VOTable no unsigned 64-bit ones, FITS none that have nulls."""
    return bool(pa.types.is_uint64(values.type)) and (kind == Format.votable or values.null_count > 0)


def _with_null(numbers: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, int]:
    """Return integers and one that none of them is, which stands for null; in a wider type if all are taken."""
    there = np.unique(numbers[~missing])
    least = int(np.iinfo(numbers.dtype).min)
    most = int(np.iinfo(numbers.dtype).max)
    candidates = np.arange(least, min(most, least + len(there)) + 1, dtype=object)
    free = candidates[~np.isin(candidates.astype(numbers.dtype), there)]
    if len(free):
        return numbers, int(free[0])
    wider = np.dtype(f"i{2 * numbers.dtype.itemsize}")
    return numbers.astype(wider), int(np.iinfo(wider).min)
