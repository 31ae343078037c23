"""Blocks of delimited text to rows of the survey's types: fast where all is well, line by line where it is not.

pyarrow's CSV reader is the fastest at hand, but one bad value aborts its whole read, and an open quote or a stray
carriage return shifts every later row. So a block goes through the fast reader; if that fails, rejects a row, or gives
another number of rows than the block has lines, the block is read again, line by line cleaned and as text, to find the
rows to reject and their line numbers; where even that fails, in halves, down to the lines that are at fault.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from stellarml.surveys.column_mapping import convert
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Block, Header
from stellarml.surveys.text_lines import MOST_LINE_BYTES
from stellarml.surveys.utf8 import decoded, is_utf8

_TRUE = ["true", "True", "TRUE", "t", "T", "1"]
_FALSE = ["false", "False", "FALSE", "f", "F", "0"]
_WHOLE_WITH_POINT = r"^([+-]?\d+)\.0*$"
Rejects = list[tuple[int, str]]


def trimmed(strings: pa.Array, null_words: Sequence[str]) -> pa.Array:
    """Return strings without blanks at their ends; a word for null that had some is null, too."""
    strings = pc.utf8_trim_whitespace(strings)
    nothing = pc.fill_null(pc.is_in(strings, pa.array([*null_words, ""], pa.string())), False)
    return pc.if_else(nothing, pa.scalar(None, pa.string()), strings)


def clean_lines(
    block: bytes, first_line: int, delimiter: str, comment: bytes
) -> tuple[list[bytes], npt.NDArray[np.int64], Rejects]:
    """Keep the lines that are one row each.

    Returns
    -------
    tuple
        The kept lines, without a byte order mark that files joined in one have at a line's beginning, their numbers,
        and the rejected ones; blank and comment lines are in neither.
    """
    kept: list[bytes] = []
    numbers: list[int] = []
    rejects: Rejects = []
    for number, line in enumerate(block.split(b"\n"), first_line):
        row = line.removeprefix(codecs.BOM_UTF8).removesuffix(b"\r")
        if not row.strip() or (comment and row.startswith(comment)):
            continue
        if b"\r" in row:
            rejects.append((number, "a carriage return inside the line"))
        elif row.count(b'"') % 2 and not _is_closed(row, delimiter):
            rejects.append((number, "a quote is opened and not closed on the line"))
        else:
            kept.append(row + b"\n")
            numbers.append(number)
    return kept, np.array(numbers, dtype=np.int64), rejects


def _is_closed(row: bytes, delimiter: str) -> bool:
    """Tell whether every quoted value ends on its line; a quote inside an unquoted value opens nothing."""
    try:
        next(csv.reader([row.decode("latin-1")], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end of data" not in str(error)
    return True


class BlockParser:
    """Parses blocks of one file; remembers integer columns that the file writes with a decimal point.

    Parameters
    ----------
    names
        For each field of `schema`, the file's own column name, or None where the file lacks it.
    """

    def __init__(self, header: Header, names: list[str | None], schema: pa.Schema, written: Files) -> None:
        self._path = header.file.path
        self._columns = [c.name for c in header.columns]
        self._names = names
        self._schema = schema
        self._null = list(written.null)
        self._comment = written.comment.encode()
        self._delimiter = header.delimiter
        self._types = {n: f.type for n, f in zip(names, schema, strict=True) if n is not None}
        self._as_bytes = dict.fromkeys(self._types, pa.binary())

    def parse(self, block: bytes, first_line: int) -> Block:
        """Parse whole lines, the last one ended; `first_line` is the number of the first."""
        if not self._needs_cleaning(block):
            lines = block.count(b"\n")
            try:
                table = self._read(block, self._types)
                if table.num_rows == lines:
                    columns = [self._column(table, i) for i in range(len(self._schema))]
                    numbers = np.arange(first_line, first_line + lines)
                    return Block(pa.Table.from_arrays(columns, schema=self._schema), numbers, [])
            except pa.ArrowInvalid:
                pass
        return self._parse_carefully(block, first_line)

    def _needs_cleaning(self, block: bytes) -> bool:
        last = block[block.rfind(b"\n", 0, len(block) - 1) + 1 :]
        # pyarrow passes over a byte order mark at the beginning of a block alone, and takes a carriage return at the
        # beginning of a line for an empty line, which it does not count.
        marks = [mark for mark in (self._comment, codecs.BOM_UTF8, b"\r") if mark]
        begins = any(block.startswith(mark) or b"\n" + mark in block for mark in marks)
        return begins or bool(last.count(b'"') % 2)

    def too_long(self, line: int, size: int) -> Block:
        """Return the block of a line that is longer than any row; it is rejected unread."""
        reason = f"a line of {size} bytes, expected at most {MOST_LINE_BYTES}"
        return Block(self._schema.empty_table(), np.empty(0, np.int64), [(line, reason)], line)

    def _parse_carefully(self, block: bytes, first_line: int) -> Block:
        kept, numbers, rejects = clean_lines(block, first_line, self._delimiter, self._comment)
        odd: Rejects = []
        text = pa.concat_tables([self._read(b"", self._as_bytes), *self._text_rows(kept, odd)])
        lines = np.delete(numbers, [row for row, _ in odd])
        columns, bad = self._salvage(text)
        rejects += [(int(numbers[row]), reason) for row, reason in odd]
        rejects += [(int(lines[row]), reason) for row, reason in bad.items()]
        keep = np.setdiff1d(np.arange(len(lines)), list(bad))
        table = pa.Table.from_arrays(columns, schema=self._schema).take(pa.array(keep))
        return Block(table, lines[keep], sorted(rejects))

    def _text_rows(self, lines: list[bytes], odd: Rejects, first: int = 0) -> list[pa.Table]:
        """Read lines as text, one row each; where that fails in halves, down to the lines that are none.

        Those, counted from `first`, go to `odd`.
        """
        block = b"".join(lines)
        is_text = is_utf8(block)
        found: Rejects = []
        try:
            text = self._read(block, self._as_bytes, found if is_text else None)
            if text.num_rows + len(found) == len(lines):
                odd += [(first + row, reason) for row, reason in found]
                return [text]
        except pa.ArrowInvalid:
            pass
        if len(lines) == 1:
            odd.append((first, self._why_no_row(lines[0])))
            return []
        fits = [is_text or self._columns_of(line) == len(self._columns) for line in lines]
        if not all(fits):  # of a file in another encoding there may be many: no halves are needed for them
            rest: Rejects = []
            places = [n for n, fit in enumerate(fits) if fit]
            tables = self._text_rows([lines[n] for n in places], rest)
            odd += [(first + n, self._why_no_row(lines[n])) for n, fit in enumerate(fits) if not fit]
            odd += [(first + places[row], reason) for row, reason in rest]
            return tables
        half = len(lines) // 2
        return [*self._text_rows(lines[:half], odd, first), *self._text_rows(lines[half:], odd, first + half)]

    def _columns_of(self, line: bytes) -> int:
        if b'"' not in line:
            return line.count(self._delimiter.encode()) + 1
        try:
            return len(next(csv.reader([line.decode("latin-1")], delimiter=self._delimiter), []))
        except csv.Error:
            return 0

    def _why_no_row(self, line: bytes) -> str:
        found, expected = self._columns_of(line), len(self._columns)
        if found != expected:
            return f"{found} columns, expected {expected}"
        return "cannot be separated into columns"

    def _read(self, block: bytes, types: dict[str, pa.DataType], rejects: Rejects | None = None) -> pa.Table:
        """Read a block; rows of a wrong number of columns go to `rejects`, or without it are an ArrowInvalid.

        With it the block must be UTF-8: pyarrow gives each such row to Python as text, and fails if it is none.
        """

        def refuse(row: Any) -> str:
            assert rejects is not None
            rejects.append((row.number - 1, f"{row.actual_columns} columns, expected {row.expected_columns}"))
            return "skip"

        if not block:
            return pa.table({name: pa.array([], kind) for name, kind in types.items()})
        return pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(
                column_names=self._columns, use_threads=False, block_size=len(block) + 1
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._delimiter, invalid_row_handler=None if rejects is None else refuse
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=self._null,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                true_values=_TRUE,
                false_values=_FALSE,
            ),
        )

    def _column(self, table: pa.Table, index: int) -> pa.Array:
        name, kind = self._names[index], self._schema.field(index).type
        if name is None:
            return pa.nulls(table.num_rows, kind)
        column = table.column(name)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if pa.types.is_string(array.type):
            array = trimmed(array, self._null)
            return array if pa.types.is_string(kind) else _cast(array, kind)
        return convert(array, kind) if pa.types.is_floating(kind) or array.type != kind else array

    def _salvage(self, text: pa.Table) -> tuple[list[pa.Array], dict[int, str]]:
        """Convert column by column from text; return the columns, and the hopeless rows with the reason."""
        columns: list[pa.Array] = []
        bad: dict[int, str] = {}
        for name, field in zip(self._names, self._schema, strict=True):
            if name is None:
                columns.append(pa.nulls(text.num_rows, field.type))
                continue
            strings, garbled = decoded(text.column(name).combine_chunks())
            for row in garbled:
                bad.setdefault(row, f"column '{name}': is not UTF-8 text")
            array, failed = _from_strings(strings, field.type, self._null)
            for row in failed:
                shown = strings[row].as_py()[:40]
                bad.setdefault(row, f"column '{name}': '{shown}' is not a value of type {field.type}")
            if not failed and pa.types.is_integer(field.type) and not _plain_integers(strings):
                self._types[name] = pa.string()
            columns.append(array)
        return columns, bad


def _plain_integers(strings: pa.Array) -> bool:
    try:
        strings.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _from_strings(
    strings: pa.Array, kind: pa.DataType, null_words: Sequence[str]
) -> tuple[pa.Array, list[int]]:
    """Cast strings to `kind`; return the array (null where it fails) and the rows that failed."""
    strings = trimmed(strings, null_words)
    if pa.types.is_string(kind):
        return strings, []
    try:
        return _cast(strings, kind), []
    except pa.ArrowInvalid:
        pass
    values: list[Any] = []
    failed = []
    for row, value in enumerate(strings):
        try:
            values.append(_cast(pa.array([value.as_py()], pa.string()), kind)[0].as_py())
        except pa.ArrowInvalid:
            values.append(None)
            failed.append(row)
    return pa.array(values, kind), failed


def _cast(strings: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        words = pc.utf8_lower(strings)
        words = pc.if_else(pc.equal(words, "t"), "true", words)
        return pc.if_else(pc.equal(words, "f"), "false", words).cast(kind)
    if not pa.types.is_integer(kind):
        return convert(strings, kind)
    # A 19-digit id does not survive a float64: a decimal point without a fraction is cut off the text instead.
    whole = pc.replace_substring_regex(strings, _WHOLE_WITH_POINT, r"\1")
    try:
        return whole.cast(kind)
    except pa.ArrowInvalid:
        if len(strings) > 1:
            raise
        return convert(strings.cast(pa.float64()), kind)
