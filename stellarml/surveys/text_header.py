"""The line of column names of a text file, and what the lines about it say: ECSV's types, VizieR's units.

Archives and programs write it in several ways: with a byte order mark, below comments, as the last comment (numpy,
TOPCAT), above a line of units and one of dashes (VizieR), with blanks around the names.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import count
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


_ECSV_DELIMITERS = " ,;|\t"
_MOST_HEADER_BYTES = 4 << 20
_YAML_ERRORS = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What PyYAML raises: its own errors, and those of Python where a scalar is no value of its tag, or nests are deep."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which tags of astropy and others, which make a mixin or name another file, are passed over.

    Keys that merge mappings are refused: an ECSV header has none, and a dozen lines of them fill the memory.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave the mapping as it is: a merge key then has no constructor."""


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
    for number, line in enumerate(_lines(file, stream), 1):
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


def _lines(file: SourceFile, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines at the beginning of a file, as many bytes of them as a header may have.

    Raises
    ------
    InputError
        If a line, or all together, are longer.
    """
    left = _MOST_HEADER_BYTES
    for number in count(1):
        line = stream.readline(left + 1)
        left -= len(line)
        if left < 0:
            raise InputError(
                f"{file.path} line {number}: no line of column names ends in the first {_MOST_HEADER_BYTES >> 20} MB. "
                "Expected comments, the names of the columns, and rows, each on a line of its own."
            )
        if not line:
            return
        yield line


def _header(
    file: SourceFile, line: str, comments: list[str], number: int, stream: IO[bytes], written: Files
) -> Header:
    if comments and comments[0].strip().startswith("%ECSV"):
        delimiter, declared = _ecsv(file, comments)
        names = _split(line, delimiter, f"{file.path} line {number}")
        return Header(file, _named(names, declared), delimiter, number)
    delimiter = "\t" if written.format == "tsv" else _delimiter(line)
    names = _split(line, delimiter, f"{file.path} line {number}")
    numbers = [bool(_NUMBER.fullmatch(name)) for name in names]
    if any(numbers):  # a row, perhaps: its names may be in the last comment
        above = _split(comments[-1], delimiter, f"{file.path} line {number - 1}") if comments else []
        if len(above) == len(names) and not any(_NUMBER.fullmatch(name) for name in above):
            return Header(file, _named(above, {}), delimiter, number - 1)
    if all(numbers):
        raise InputError(
            f"{file.path} line {number}: holds {len(names)} numbers, expected the names of the columns. Write a line "
            "of names above the rows."
        )
    most = 2 * _MOST_HEADER_BYTES
    below = [stream.readline(most).decode("utf-8", "replace").rstrip("\r\n") for _ in range(2)]
    ruled = len(names) > 1 and set(below[1]) == {"-", delimiter}
    units = _split(below[0], delimiter, f"{file.path} line {number + 1}") if ruled else []
    declared = {n: FileColumn(n, unit=u or None) for n, u in zip(names, units, strict=False)}
    return Header(file, _named(names, declared), delimiter, number + (2 if ruled else 0))


def _delimiter(line: str) -> str:
    return next((mark for mark in _DELIMITERS if mark in line), ",")


def _split(line: str, delimiter: str, place: str) -> list[str]:
    """Return the trimmed values of one line.

    Raises
    ------
    InputError
        If a quote is not closed or the line is blank.
    """
    try:
        table = _separated(line, delimiter)
    except pa.ArrowInvalid as error:
        raise InputError(f"{place}: cannot be separated into names of columns ({error}).") from None
    if table.num_rows != 1:
        raise InputError(
            f"{place}: is no line of names of columns; expected them separated by '{delimiter}'."
        )
    values = [str(column[0].as_py()).strip() for column in table.columns]
    return [v[1:-1] if len(v) > 1 and v[0] == v[-1] == '"' else v for v in values]


def _named(names: list[str], declared: dict[str, FileColumn]) -> tuple[FileColumn, ...]:
    """Return the columns, a name that is empty or was there before made unique, mixins' parts with a second name."""
    endings = Counter(name.rpartition(".")[2].lower() for name in names)
    columns: list[FileColumn] = []
    seen: set[str] = set()
    for index, name in enumerate(names):
        unique = name if name and name not in seen else f"{name}#{index}"
        while unique in seen:
            unique = f"{unique}#{index}"
        seen |= {name, unique}
        found = declared.get(name, FileColumn(name))
        ending = name.rpartition(".")[2]
        alias = ending if ending != name and endings[ending.lower()] == 1 else None
        columns.append(FileColumn(unique, found.type, found.unit, alias))
    return tuple(columns)


def _ecsv(file: SourceFile, comments: list[str]) -> tuple[str, dict[str, FileColumn]]:
    """Return the delimiter and the columns that an ECSV header declares.

    Raises
    ------
    InputError
        If it is no YAML, or declares no columns.
    """
    lines = (c[1:] if c.startswith(" ") else c for c in comments[1:])
    try:
        meta = _yaml("\n".join(lines))
    except _YAML_ERRORS as error:
        said = "it nests too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{file.path}: its ECSV header is damaged ({said}).") from None
    described = meta.get("datatype") if isinstance(meta, dict) else None
    if not isinstance(described, list):
        raise InputError(
            f"{file.path}: its ECSV header is damaged: expected a list 'datatype' of its columns, each with 'name' and "
            "'datatype'."
        )
    declared = [_declared(file, number, entry) for number, entry in enumerate(described, 1)]
    delimiter = meta.get("delimiter", " ")
    if not (isinstance(delimiter, str) and len(delimiter) == 1 and delimiter in _ECSV_DELIMITERS):
        raise InputError(
            f"{file.path}: its ECSV header is damaged: delimiter is {_shown(delimiter)}, expected a blank or ','."
        )
    return delimiter, {column.name: column for column in declared}


@lru_cache(maxsize=64)
def _separated(line: str, delimiter: str) -> pa.Table:
    """Read one line; that of the names is the same in thousands of files of a survey, too."""
    raw = line.encode() + b"\n"
    return pacsv.read_csv(
        pa.BufferReader(raw),
        read_options=pacsv.ReadOptions(autogenerate_column_names=True, block_size=len(raw) + 1),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=False, null_values=[]),
    )


@lru_cache(maxsize=8)
def _yaml(text: str) -> Any:
    """Read the YAML of a header; the thousands of files of a survey have the same one."""
    return yaml.load(text, _Loader)


def _declared(file: SourceFile, number: int, entry: Any) -> FileColumn:
    """Return one column that an ECSV header declares; its words are scalars, of YAML's types where they look so."""
    words = [entry.get(key) if isinstance(entry, dict) else None for key in ("name", "datatype", "unit")]
    name, kind, unit = (str(w) if isinstance(w, str | int | float) else None for w in words)
    if name is None or kind is None or (unit is None and words[2] is not None):
        raise InputError(
            f"{file.path}: its ECSV header is damaged: column {number} is {_shown(entry)}, expected 'name', 'datatype' "
            "and, if there is one, 'unit', each one word."
        )
    return FileColumn(name, _ECSV_TYPES.get(kind, pa.string()), unit)


def _shown(value: Any) -> str:
    """Return a value in few words: nests of aliases would fill the memory."""
    return repr(value)[:40] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
