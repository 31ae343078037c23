"""Formats whose files are typed tables: pieces of rows are converted to the survey's own types."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.surveys.column_mapping import convert
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Block, Header, Part, RawReader
from stellarml.surveys.utf8 import decoded

BLOCK_ROWS = 131_072


class TableReader(RawReader):
    """A reader that gives Arrow tables of the file's own columns."""

    @abstractmethod
    def pieces(self, header: Header, names: list[str], part: Part | None = None) -> Iterator[pa.Table]:
        """Yield the named columns, some rows at a time."""

    def blocks(
        self,
        header: Header,
        names: list[str | None],
        schema: pa.Schema,
        written: Files,
        block_bytes: int,
        part: Part | None = None,
    ) -> Iterator[Block]:
        """Yield the rows, converted; a value that cannot be rejects its row. See `RawReader.blocks`."""
        first = 1
        for table in self.pieces(header, list(dict.fromkeys(n for n in names if n is not None)), part):
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
            yield Block(rows.take(pa.array(keep)) if bad else rows, lines[keep], rejects, first - 1)


def _converted(array: pa.Array, name: str, field: pa.Field, bad: dict[int, str]) -> pa.Array:
    if pa.types.is_string(array.type):
        array = _utf8(array, name, bad)
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


def _utf8(array: pa.Array, name: str, bad: dict[int, str]) -> pa.Array:
    """Return text that is text, null where it is not: a Parquet file may hold any bytes under that name."""
    try:
        array.validate(full=True)
        return array
    except pa.ArrowInvalid:
        pass
    strings, garbled = decoded(array.cast(pa.binary()))
    for row in garbled:
        bad.setdefault(row, f"column '{name}': is not UTF-8 text")
    return strings
