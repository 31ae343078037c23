"""CSV, TSV and ECSV, gzipped or not, block by block.

The text is cut into blocks at line ends, and each goes through pyarrow's CSV reader (98 MB/s a core on a 152-column
bulk file, `gzip -dc` alone 103); `text_parser` says what happens to a block in which something is wrong.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import yaml
from isal import isal_zlib

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Block, FileColumn, Header, RawReader, SourceFile
from stellarml.surveys.text_parser import BlockParser, clean_lines

_ECSV_TYPES = {
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "uint8": pa.uint8(),
    "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(), "float16": pa.float32(),
    "float32": pa.float32(), "float64": pa.float64(), "float128": pa.float64(), "bool": pa.bool_(),
    "string": pa.string(),
}  # fmt: skip


def _header(file: SourceFile, line: str, comments: list[str], number: int, written: Files) -> Header:
    declared: dict[str, FileColumn] = {}
    delimiter = "\t" if written.format == "tsv" else ","
    if comments and comments[0].strip().startswith("%ECSV"):
        delimiter, declared = _ecsv(file, comments)
    elif "\t" in line and "," not in line:
        delimiter = "\t"
    table = pacsv.read_csv(
        pa.BufferReader(line.encode() + b"\n"),
        read_options=pacsv.ReadOptions(autogenerate_column_names=True),
        parse_options=pacsv.ParseOptions(delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=False, null_values=[]),
    )
    names, seen = [], set()
    for index, column in enumerate(table.columns):
        name = str(column[0].as_py()).strip()
        names.append(name if name and name not in seen else f"{name}#{index}")
        seen.add(name)
    columns = tuple(declared.get(name, FileColumn(name)) for name in names)
    return Header(file, columns, delimiter, number)


def _ecsv(file: SourceFile, comments: list[str]) -> tuple[str, dict[str, FileColumn]]:
    try:
        meta: Any = yaml.safe_load("\n".join(c[1:] if c.startswith(" ") else c for c in comments[1:]))
        columns = {
            c["name"]: FileColumn(c["name"], _ECSV_TYPES.get(c["datatype"], pa.string()), c.get("unit"))
            for c in meta["datatype"]
        }
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{file.path}: its ECSV header is damaged ({error}).") from None
    return str(meta.get("delimiter", " ")), columns


@contextmanager
def _reading(file: SourceFile) -> Iterator[None]:
    """Turn what a damaged or truncated file raises into an InputError that names it."""
    try:
        yield
    except EOFError:
        raise InputError(
            f"{file.path}: the gzip file is truncated: it ends before its end-of-stream mark. Fetch it again."
        ) from None
    except (zlib.error, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]
        raise InputError(f"{file.path}: the gzip file is damaged ({error}). Fetch it again.") from None


class TextReader(RawReader):
    """CSV, TSV and ECSV; what is nothing else is text."""

    family = "text"
    suffixes = (".csv", ".tsv", ".ecsv", ".txt", ".dat")

    def begins(self, head: bytes) -> bool:
        """Return whether the head has no zero byte."""
        return b"\0" not in head

    def header(self, file: SourceFile, written: Files) -> Header:
        """Read the comment lines and the line of column names.

        Raises
        ------
        InputError
            If the file is empty or its ECSV header is damaged.
        """
        mark = written.comment.encode()
        comments: list[str] = []
        with _reading(file), file.open() as stream:
            for number, line in enumerate(stream, 1):
                if mark and line.startswith(mark):
                    comments.append(line[len(mark) :].decode("utf-8", "replace").rstrip("\r\n"))
                elif line.strip():
                    names = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
                    if "\r" in names:
                        raise InputError(
                            f"{file.path}: its lines end in carriage returns alone, expected line feeds. "
                            "Convert it, for example with  tr '\\r' '\\n'  ."
                        )
                    return _header(file, names, comments, number, written)
        raise InputError(f"{file.path}: has no line of column names; the file is empty.")

    def guessed_types(self, header: Header, written: Files) -> dict[str, pa.DataType]:
        """Guess the types of columns from the first 2000 rows."""
        with _reading(header.file), header.file.open() as stream:
            for _ in range(header.lines):
                stream.readline()
            head = b"".join(stream.readline() for _ in range(2000))
        head, _, _ = clean_lines(head, 1, header.delimiter, written.comment.encode())
        if not head:
            return {}
        try:
            table = pacsv.read_csv(
                pa.BufferReader(head),
                read_options=pacsv.ReadOptions(
                    column_names=[c.name for c in header.columns], use_threads=False
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=header.delimiter, invalid_row_handler=lambda row: "skip"
                ),
                convert_options=pacsv.ConvertOptions(
                    null_values=list(written.null),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            return {}
        return {field.name: field.type for field in table.schema}

    def blocks(
        self, header: Header, names: list[str | None], schema: pa.Schema, written: Files, block_bytes: int
    ) -> Iterator[Block]:
        """Yield the rows, cut at line ends; see `RawReader.blocks`."""
        parser = BlockParser(header, names, schema, written)
        line = header.lines + 1
        with _reading(header.file), header.file.open() as stream:
            for _ in range(header.lines):
                stream.readline()
            rest = b""
            while chunk := stream.read(block_bytes):
                cut = chunk.rfind(b"\n") + 1
                block, rest = (rest + chunk[:cut], chunk[cut:]) if cut else (b"", rest + chunk)
                if block:
                    yield parser.parse(block, line)
                    line += block.count(b"\n")
            if rest.strip():
                yield parser.parse(rest + b"\n", line)
