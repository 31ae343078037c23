"""Which column of a file serves which column of the survey, and of what type: settled before any row is read.

Names match without regard to case, an exact match first (VizieR has `b_rgeo` beside `B_rgeo`). All mistakes of all
files are gathered and reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from stellarml.core.errors import InputError, nearest_names, raise_gathered
from stellarml.run.log import get_logger
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.raw_reader import FileColumn, Header
from stellarml.surveys.unit_conversion import Conversion, conversion_of, is_known, unit_factor
from stellarml.surveys.wanted_column import WantedColumn

ARROW_TYPES: dict[str, pa.DataType] = {
    "long": pa.int64(),
    "int": pa.int32(),
    "short": pa.int16(),
    "byte": pa.int8(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "string": pa.string(),
}
EXACT_IN_FLOAT64 = 1 << 53
_INTEGERS = ("long", "int", "short", "byte")
UNSIGNED_IN_SPARK = pa.decimal128(20, 0)


@dataclass(frozen=True)
class Resolved:
    """A survey's columns, settled, file by file.

    headers
        Of each file, the header of the tables that hold the survey's columns.
    sources
        For each file the names to read, None where it lacks the column.
    conversions
        For each file, how the values of a column (by its index) become the survey's unit.
    absent
        Columns that no file has.

    Notes
    -----
        What is to be said of units, once: a sentence, and whether it is a warning.
    """

    schema: pa.Schema
    headers: tuple[Header, ...]
    sources: tuple[tuple[str | None, ...], ...]
    conversions: tuple[dict[int, Conversion], ...]
    absent: tuple[str, ...]
    notes: tuple[tuple[str, bool], ...] = ()

    @property
    def ddl(self) -> str:
        """The schema in Spark's words."""
        return ddl(self.schema)

    def read_schema(self, number: int) -> pa.Schema:
        """Return what the columns of file `number` are read as: text where it is to be converted from text."""
        fields = list(self.schema)
        for index, conversion in self.conversions[number].items():
            if conversion.from_text:
                fields[index] = fields[index].with_type(pa.string())
        return pa.schema(fields)

    def files_with(self, column: str) -> list[int]:
        """Return the numbers of the files that have `column`."""
        index = self.schema.get_field_index(column)
        return [number for number, names in enumerate(self.sources) if names[index] is not None]


def ddl(schema: pa.Schema) -> str:
    """Return a Spark DDL string of an Arrow schema of simple types."""
    words = {kind: name for name, kind in ARROW_TYPES.items()} | {UNSIGNED_IN_SPARK: "decimal(20,0)"}
    return ", ".join(f"`{field.name}` {words[in_spark(field.type)]}" for field in schema)


def in_spark(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column has inside Spark, which knows no unsigned integers."""
    return UNSIGNED_IN_SPARK if pa.types.is_uint64(kind) else kind


def for_spark(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows as Spark takes them: unsigned integers as decimals."""
    columns = [
        column.cast(in_spark(field.type)) for column, field in zip(batch.columns, batch.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def resolve(
    descriptor: Descriptor, files: Sequence[Sequence[Header]], guess: Mapping[str, pa.DataType]
) -> Resolved:
    """Settle the columns of a survey over all its files.

    Parameters
    ----------
    files
        For each file its headers, of which the one that has the survey's columns is taken.
    guess
        Types of columns that neither descriptor nor file gives a type.

    Raises
    ------
    InputError
        If a column is missing, has a unit that cannot be converted, or holds text where numbers are needed.
    """
    wanted = list(descriptor.wanted())
    problems: list[str] = []
    sources: list[tuple[str | None, ...]] = []
    conversions: list[dict[int, Conversion]] = []
    notes: list[tuple[str, bool]] = []
    found: dict[str, list[FileColumn]] = {}
    seen: dict[tuple[FileColumn, ...], list[FileColumn | None]] = {}
    headers = tuple(chosen_header(given, wanted, problems) for given in files)
    for header in headers:
        names: list[str | None] = []
        converted: dict[int, Conversion] = {}
        if header.columns not in seen:  # the files of a survey mostly have the same columns
            seen[header.columns] = [find_column(column.names, header.columns) for column in wanted]
        for index, (column, match) in enumerate(zip(wanted, seen[header.columns], strict=True)):
            if match is None and not column.optional:
                problems.append(_missing(column, header))
            if match is not None:
                problems += _mismatch(column, match, header)
                conversion = _conversion(column, match, header, problems, notes)
                if conversion is not None:
                    converted[index] = conversion
                found.setdefault(column.canonical, []).append(match)
            names.append(match.name if match else None)
        sources.append(tuple(names))
        conversions.append(converted)
    if problems:
        for header in headers:
            get_logger().info(f"{header.place}: columns {', '.join(c.name for c in header.columns)}")
    raise_gathered(InputError, f"survey '{descriptor.name}'", list(dict.fromkeys(problems))[:20])
    kinds = {c.canonical: _type_of(c, found.get(c.canonical, ()), guess) for c in wanted}
    if pa.types.is_floating(kinds.get(descriptor.id_column, pa.null())):
        # A float that is no whole number, or too large for one, is no id: its row is rejected.
        kinds[descriptor.id_column] = pa.int64()
    fields = [pa.field(name, kind) for name, kind in kinds.items()]
    absent = tuple(c.canonical for c in wanted if c.canonical not in found)
    return Resolved(pa.schema(fields), headers, tuple(sources), tuple(conversions), absent, tuple(notes))


def chosen_header(headers: Sequence[Header], wanted: Sequence[WantedColumn], problems: list[str]) -> Header:
    """Return the header, of one file's tables, that has all the columns a survey cannot do without.

    Where several have them, that is a problem; where none has, the one that lacks least is returned.
    """
    if len(headers) == 1:
        return headers[0]
    needed = [column for column in wanted if not column.optional]

    def lacking(header: Header) -> int:
        return sum(find_column(column.names, header.columns) is None for column in needed)

    whole = [header for header in headers if lacking(header) == 0]
    if len(whole) > 1:
        titles = [title for header in whole for title in header.titles]
        problems.append(
            f"{headers[0].file.path}: several tables with different columns could be meant: "
            f"{', '.join(titles)}. Name one as {headers[0].file.path}#{titles[0]}, or in files.table of the descriptor."
        )
    best = min(headers, key=lacking)
    if not whole:
        problems.append(
            f"{best.file.path}: no table has all the columns; what is missing is said of {', '.join(best.titles)}, "
            f"of {sum(len(header.tables) for header in headers)} tables."
        )
    return best


def find_column(names: Sequence[str], columns: Sequence[FileColumn]) -> FileColumn | None:
    """Return which of a file's columns is called any of `names`; a second name (alias) only where no name fits."""
    name = find_name(names, [column.name for column in columns])
    if name is not None:
        return next(column for column in columns if column.name == name)
    alias = find_name(names, [column.alias for column in columns if column.alias])
    return None if alias is None else next(column for column in columns if column.alias == alias)


def find_name(names: Sequence[str], available: Sequence[str]) -> str | None:
    """Return which of `available` a column that may be called any of `names` is: an exact name first, then any case."""
    for name in names:
        if name in available:
            return name
    for name in names:
        for candidate in available:
            if candidate.lower() == name.lower():
                return candidate
    return None


def _missing(column: WantedColumn, header: Header) -> str:
    names = " or ".join(f"'{n}'" for n in column.names)
    near = nearest_names(column.names[0], [c.name for c in header.columns])
    return (
        f"{header.place}: column {names} is missing; of the file's {len(header.columns)} columns the nearest are "
        f"{near}. Give the right name in the descriptor."
    )


def _mismatch(column: WantedColumn, match: FileColumn, header: Header) -> list[str]:
    if match.type is None:
        return []
    where = f"{header.place}: column '{match.name}'"
    if not _is_plain(match.type):
        return [f"{where} is of type {match.type}, expected one value a row. Leave it out of the descriptor."]
    textual = pa.types.is_string(match.type) and not column.sexagesimal
    if textual and column.spark_type not in (None, "string", "boolean"):
        hint = ' Of hours or degrees, minutes, seconds: unit = "sexagesimal".' if column.unit == "deg" else ""
        return [f"{where} holds text, expected numbers ({column.spark_type}).{hint}"]
    return []


def _conversion(
    column: WantedColumn,
    match: FileColumn,
    header: Header,
    problems: list[str],
    notes: list[tuple[str, bool]],
) -> Conversion | None:
    """Return how the column becomes the survey's unit; None where it is in that unit."""
    where = f"{header.place}: column '{match.name}'"
    if column.stated_unit is not None:
        if match.unit and not column.sexagesimal and unit_factor(match.unit, column.stated_unit) != 1.0:
            problems.append(
                f"{where} is in '{match.unit}' by the file, in '{column.stated_unit}' by the descriptor. Correct one."
            )
        return conversion_of(column.stated_unit)
    if not (match.unit and column.unit):
        return None
    factor = unit_factor(match.unit, column.unit)
    if factor is None or (column.fixed_unit and factor != 1.0):
        problems.append(
            f"{where} is in '{match.unit}', expected '{column.unit}'. Convert the column, or correct the descriptor."
        )
        return None
    if not is_known(match.unit):
        notes.append(
            (f"{where} is in '{match.unit}', a unit that is not known; taken as {column.unit}", True)
        )
    if factor == 1.0:
        return None
    if column.spark_type in _INTEGERS:
        problems.append(
            f"{where} is in '{match.unit}' and would lose its fractions as {column.spark_type}. Let columns.types say "
            "float."
        )
        return None
    notes.append((f"{where} is in '{match.unit}', taken as {column.unit} ({factor:g} times)", False))
    return Conversion(factor)


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_binary(kind))


def _type_of(
    column: WantedColumn, matches: Sequence[FileColumn], guess: Mapping[str, pa.DataType]
) -> pa.DataType:
    if column.spark_type is not None:
        return ARROW_TYPES[column.spark_type]
    kinds = {match.type for match in matches if match.type is not None}
    if any(match.type is None for match in matches):
        kinds.add(guess.get(column.canonical, pa.null()))
    return reduce(wider, sorted(map(_carried, kinds), key=str), pa.null()) if kinds else pa.float64()


def _carried(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a column of the file's type is kept."""
    if pa.types.is_uint64(kind) or pa.types.is_null(kind):
        return kind
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_boolean(kind):
        return kind
    return pa.string()


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return a type that holds every value of both; text where no number does."""
    if a == b or pa.types.is_null(b):
        return pa.float64() if pa.types.is_null(a) else a
    if pa.types.is_null(a):
        return b
    whole = [pa.types.is_integer(kind) for kind in (a, b)]
    if all(whole):
        return pa.string() if pa.types.is_uint64(a) or pa.types.is_uint64(b) else pa.int64()
    if all(w or pa.types.is_floating(kind) for w, kind in zip(whole, (a, b), strict=True)):
        return pa.float64()
    return pa.string()


def convert(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Cast one column to its settled type; NaN becomes null.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a value does not fit: a fraction in an integer column, a number beyond its width, a word among numbers.
    """
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if pa.types.is_floating(array.type) and pa.types.is_integer(target) and len(array):
        largest = pc.max(pc.abs(array)).as_py()
        if largest is not None and largest > EXACT_IN_FLOAT64:
            raise pa.ArrowInvalid(f"{largest:.0f} has lost its last digits as a floating-point number")
    if pa.types.is_string(array.type) and pa.types.is_boolean(target):
        array = pc.utf8_lower(pc.utf8_trim_whitespace(array))
        array = pc.if_else(pc.equal(array, "t"), "true", pc.if_else(pc.equal(array, "f"), "false", array))
    if pa.types.is_boolean(array.type) and pa.types.is_floating(target):
        array = array.cast(pa.int8())
    if pa.types.is_decimal(array.type) and pa.types.is_floating(target):
        return array.cast(pa.float64()).cast(target, safe=False)
    if array.type == target:
        return array
    if pa.types.is_floating(array.type) and pa.types.is_floating(target):
        return array.cast(target, safe=False)
    return array.cast(target)
