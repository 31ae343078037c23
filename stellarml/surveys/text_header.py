"""The line of column names of a text file, and what the lines about it say: ECSV's types, VizieR's units.

Archives and programs write it in several ways: with a byte order mark, below comments, as the last comment (numpy,
TOPCAT), above a line of units and one of dashes (VizieR), with blanks around the names.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import yaml

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import FileColumn, Header, SourceFile

_ECSV_TYPES = {
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "uint8": pa.uint8(),
    "uint16": pa.uint16(), "uint32": pa.uint32(), "uint64": pa.uint64(), "float16": pa.float32(),
    "float32": pa.float32(), "float64": pa.float64(), "float128": pa.float64(), "bool": pa.bool_(),
    "string": pa.string(),
}  # fmt: skip
_DELIMITERS = ("\t", ",", ";", "|")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|inf", re.IGNORECASE)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which astropy's own tags, which say how columns make a mixin, are passed over."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def read_header(file: SourceFile, stream: IO[bytes], written: Files) -> Header:
    """Read the lines above the first row.

    Parameters
    ----------
    stream
        The file, decompressed, at its beginning.

    Raises
    ------
    InputError
        If there is no line of names, or the ECSV header is damaged.
    """
    mark = written.comment.encode()
    comments: list[str] = []
    for number, line in enumerate(stream, 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if mark and line.startswith(mark):
            comments.append(line[len(mark) :].decode("utf-8", "replace").rstrip("\r\n"))
        elif line.strip():
            names = line.decode("utf-8", "replace").rstrip("\r\n")
            if "\r" in names:
                raise InputError(
                    f"{file.path}: its lines end in carriage returns alone, expected line feeds. "
                    "Convert it, for example with  tr '\\r' '\\n'  ."
                )
            return _header(file, names, comments, number, stream, written)
    raise InputError(f"{file.path}: has no line of column names; the file is empty.")


def _header(
    file: SourceFile, line: str, comments: list[str], number: int, stream: IO[bytes], written: Files
) -> Header:
    if comments and comments[0].strip().startswith("%ECSV"):
        delimiter, declared = _ecsv(file, comments)
        names = _split(line, delimiter)
        return Header(file, _named(names, declared), delimiter, number)
    delimiter = "\t" if written.format == "tsv" else _delimiter(line)
    names = _split(line, delimiter)
    numbers = [bool(_NUMBER.fullmatch(name)) for name in names]
    if any(numbers):  # a row, perhaps: its names may be in the last comment
        above = _split(comments[-1], delimiter) if comments else []
        if len(above) == len(names) and not any(_NUMBER.fullmatch(name) for name in above):
            return Header(file, _named(above, {}), delimiter, number - 1)
    if all(numbers):
        raise InputError(
            f"{file.path} line {number}: holds {len(names)} numbers, expected the names of the columns. Write a line "
            "of names above the rows."
        )
    below = [stream.readline().decode("utf-8", "replace").rstrip("\r\n") for _ in range(2)]
    ruled = len(names) > 1 and set(below[1]) == {"-", delimiter}
    units = _split(below[0], delimiter) if ruled else []
    declared = {n: FileColumn(n, unit=u or None) for n, u in zip(names, units, strict=False)}
    return Header(file, _named(names, declared), delimiter, number + (2 if ruled else 0))


def _delimiter(line: str) -> str:
    return next((mark for mark in _DELIMITERS if mark in line), ",")


def _split(line: str, delimiter: str) -> list[str]:
    """Return the trimmed values of one line."""
    table = pacsv.read_csv(
        pa.BufferReader(line.encode() + b"\n"),
        read_options=pacsv.ReadOptions(autogenerate_column_names=True),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=False, null_values=[]),
    )
    values = [str(column[0].as_py()).strip() for column in table.columns]
    return [v[1:-1] if len(v) > 1 and v[0] == v[-1] == '"' else v for v in values]


def _named(names: list[str], declared: dict[str, FileColumn]) -> tuple[FileColumn, ...]:
    """Return the columns, a name that is empty or was there before made unique, mixins' parts with a second name."""
    endings = Counter(name.rpartition(".")[2].lower() for name in names)
    columns, seen = [], set()
    for index, name in enumerate(names):
        unique = name if name and name not in seen else f"{name}#{index}"
        seen.add(name)
        found = declared.get(name, FileColumn(name))
        ending = name.rpartition(".")[2]
        alias = ending if ending != name and endings[ending.lower()] == 1 else None
        columns.append(FileColumn(unique, found.type, found.unit, alias))
    return tuple(columns)


def _ecsv(file: SourceFile, comments: list[str]) -> tuple[str, dict[str, FileColumn]]:
    try:
        lines = (c[1:] if c.startswith(" ") else c for c in comments[1:])
        meta: Any = yaml.load("\n".join(lines), _Loader)
        columns = {
            c["name"]: FileColumn(c["name"], _ECSV_TYPES.get(c["datatype"], pa.string()), _unit(c))
            for c in meta["datatype"]
        }
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{file.path}: its ECSV header is damaged ({error}).") from None
    return str(meta.get("delimiter", " ")), columns


def _unit(column: dict[str, Any]) -> str | None:
    return None if column.get("unit") is None else str(column["unit"])
