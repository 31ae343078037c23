"""FITS, VOTable and Parquet (HATS leaves included), in blocks of rows.

The first two are read by astropy, whole: archives hand them out in pieces that fit into memory. Parquet is streamed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError
from stellarml.surveys.column_mapping import FileColumn, Header, convert
from stellarml.surveys.raw_files import SourceFile
from stellarml.surveys.text_parser import Block

_BLOCK_ROWS = 131_072


def read_table_header(file: SourceFile) -> Header:
    """Read names, types and units of a FITS, VOTable or Parquet file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if file.family == "parquet":
        try:
            schema = pq.read_schema(file.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{file.path}: is not a readable Parquet file ({error}).") from None
        return Header(file, tuple(FileColumn(f.name, _plain(f.type)) for f in schema))
    table = _astropy_table(file)
    columns = []
    for name in table.colnames:
        unit = str(table[name].unit) if table[name].unit is not None else None
        columns.append(FileColumn(str(name), _arrow_type(table[name].dtype), unit))
    return Header(file, tuple(columns))


def read_table_blocks(header: Header, names: list[str | None], schema: pa.Schema) -> Iterator[Block]:
    """Yield the rows of one file as blocks of the survey's schema; see `stellarml.surveys.text_reader.read_blocks`."""
    first = 1
    for table in _pieces(header.file, [n for n in names if n is not None]):
        lines = np.arange(first, first + table.num_rows)
        first += table.num_rows
        columns: list[pa.Array] = []
        bad: dict[int, str] = {}
        for name, field in zip(names, schema, strict=True):
            if name is None:
                columns.append(pa.nulls(table.num_rows, field.type))
            else:
                columns.append(_converted(table.column(name).combine_chunks(), name, field, bad))
        keep = np.setdiff1d(np.arange(len(lines)), list(bad))
        rows = pa.Table.from_arrays(columns, schema=schema)
        rejects = [(int(lines[row]), reason) for row, reason in sorted(bad.items())]
        yield Block(rows.take(pa.array(keep)) if bad else rows, lines[keep], rejects)


def _converted(array: pa.Array, name: str, field: pa.Field, bad: dict[int, str]) -> pa.Array:
    try:
        return convert(array, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    values: list[Any] = []
    for row in range(len(array)):
        try:
            values.append(convert(array.slice(row, 1), field.type)[0].as_py())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values.append(None)
            bad.setdefault(
                row, f"column '{name}': {array[row].as_py()!r} is not a value of type {field.type}"
            )
    return pa.array(values, field.type)


def _pieces(file: SourceFile, names: list[str]) -> Iterator[pa.Table]:
    if file.family == "parquet":
        try:
            with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
                for batch in parquet.iter_batches(_BLOCK_ROWS, columns=names, use_threads=False):
                    yield pa.table({n: _decoded(batch.column(n)) for n in names})
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{file.path}: is not a readable Parquet file ({error}).") from None
        return
    table = _astropy_table(file)
    for start in range(0, len(table), _BLOCK_ROWS):
        part = table[start : start + _BLOCK_ROWS]
        yield pa.table({name: _from_astropy(part[name], file) for name in names})


def _astropy_table(file: SourceFile) -> Any:
    from astropy.table import Table

    kind = "fits" if file.family == "fits" else "votable"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return (
                Table.read(file.path, format=kind, unit_parse_strict="silent")
                if kind == "fits"
                else Table.read(file.path, format=kind)
            )
        except Exception as error:
            raise InputError(f"{file.path}: is not a readable {kind} file ({error}).") from None


def _from_astropy(column: Any, file: SourceFile) -> pa.Array:
    mask = np.asarray(column.mask) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None and column.dtype.kind != "O" else column)
    if values.ndim != 1:
        raise InputError(
            f"{file.path}: column '{column.name}' holds arrays of shape {values.shape[1:]}, expected one value a row."
        )
    if values.dtype.kind == "S":
        text = [v.decode("utf-8", "replace").strip() for v in values.tolist()]
        return pa.array([t or None for t in text], pa.string(), mask=mask)
    if values.dtype.kind in "UO":
        text = [None if v is None else str(v).strip() or None for v in values.tolist()]
        return pa.array(text, pa.string(), mask=mask)
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _arrow_type(dtype: Any) -> pa.DataType:
    if dtype.kind in "SUO":
        return pa.string()
    return pa.from_numpy_dtype(dtype.newbyteorder("="))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _decoded(array: pa.Array) -> pa.Array:
    return array.cast(_plain(array.type)) if array.type != _plain(array.type) else array
