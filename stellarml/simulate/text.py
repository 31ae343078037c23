"""Columns as the archives' gzipped text: fast, and always the same bytes.

pyarrow formats numbers (shortest text that reads back equal) and joins the columns; the joined string array's own
buffer is the block of text, without a copy; isal compresses it into one gzip member with an empty header. All three
release the GIL, so two threads write two files at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

# An ndarray, or a pyarrow Array where nulls are not NaN; pyarrow has no types for mypy.
Column: TypeAlias = Any
_GZIP_WINDOW = 31
_LEVEL = 1


def as_text(values: Column, *, quoted: bool = False) -> pa.Array:
    """Return a column as strings; NaN becomes null, booleans become True and False, whole floats end in `.0`.

    Parameters
    ----------
    values : ndarray or pyarrow.Array, shape (n,)
        Numbers, booleans or strings.
    quoted : bool
        Put double quotes around the values.
    """
    if isinstance(values, np.ndarray):
        values = pa.array(values, from_pandas=True)
    if pa.types.is_boolean(values.type):
        values = pc.if_else(values, "True", "False")
    text = values.cast(pa.string())
    if pa.types.is_floating(values.type):
        whole = pc.equal(pc.trunc(values), values)
        if pc.any(whole).as_py():
            text = pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)
    return pc.binary_join_element_wise('"', text, '"', "") if quoted else text


def nullable(values: np.ndarray, present: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
    """Return `values` as an Arrow array that is null where not `present`."""
    return pa.array(values, mask=~present, type=type_)


def text_block(columns: Iterable[pa.Array], null: str) -> memoryview:
    """Return rows of comma-separated text, each ended by a newline."""
    parts = list(columns)
    parts[-1] = pc.binary_join_element_wise(
        parts[-1], "\n", "", null_handling="replace", null_replacement=null
    )
    rows = pc.binary_join_element_wise(*parts, ",", null_handling="replace", null_replacement=null)
    offsets = np.frombuffer(rows.buffers()[1], dtype=np.int32)
    first, last = int(offsets[rows.offset]), int(offsets[rows.offset + len(rows)])
    return memoryview(rows.buffers()[2])[first:last]


def table_block(
    columns: Mapping[str, Column], names: Iterable[str], null: str, quoted: frozenset[str] = frozenset()
) -> memoryview:
    """Return the named columns as rows of text, in the order of `names`."""
    return text_block([as_text(columns[name], quoted=name in quoted) for name in names], null)


def write_gzip(path: Path, blocks: Iterable[bytes | memoryview]) -> int:
    """Write blocks of text as one gzip member without a time stamp; return the bytes of text."""
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    total = 0
    with path.open("wb") as handle:
        for block in blocks:
            total += len(block)
            handle.write(compressor.compress(block))
        handle.write(compressor.flush())
    return total
