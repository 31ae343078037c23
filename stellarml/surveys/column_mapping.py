"""Which column of a file serves which column of the survey, and of what type: settled before any row is read.

Names match without regard to case, an exact match first (VizieR has `b_rgeo` beside `B_rgeo`). All mistakes of all
files are gathered and reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stellarml.core.errors import InputError, did_you_mean, raise_gathered
from stellarml.surveys.descriptor import Descriptor, WantedColumn
from stellarml.surveys.raw_reader import FileColumn, Header

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
_UNIT_NAMES = {"mas/yr": "mas / yr", "arcsec/yr": "arcsec / yr"}


@dataclass(frozen=True)
class Resolved:
    """A survey's columns, settled: names and types of the table, and for each file the names to read (None: absent)."""

    schema: pa.Schema
    sources: tuple[tuple[str | None, ...], ...]
    absent: tuple[str, ...]

    @property
    def ddl(self) -> str:
        """The schema in Spark's words."""
        return ddl(self.schema)


def ddl(schema: pa.Schema) -> str:
    """Return a Spark DDL string of an Arrow schema of simple types."""
    words = {kind: name for name, kind in ARROW_TYPES.items()}
    return ", ".join(f"`{field.name}` {words[field.type]}" for field in schema)


def resolve(descriptor: Descriptor, headers: Sequence[Header], guess: dict[str, pa.DataType]) -> Resolved:
    """Settle the columns of a survey over all its files.

    Parameters
    ----------
    guess
        Types found in the first rows, for columns that neither descriptor nor file gives a type.

    Raises
    ------
    InputError
        If a column is missing, has the wrong unit, or holds text where numbers are needed.
    """
    wanted = list(descriptor.wanted())
    problems: list[str] = []
    sources: list[tuple[str | None, ...]] = []
    found: dict[str, FileColumn] = {}
    for header in headers:
        names: list[str | None] = []
        for column in wanted:
            name = find_name(column.names, [candidate.name for candidate in header.columns])
            match = next((c for c in header.columns if c.name == name), None)
            if match is None and not column.optional:
                problems.append(_missing(column, header))
            if match is not None:
                problems += _mismatch(column, match, header)
                found.setdefault(column.canonical, match)
            names.append(match.name if match else None)
        sources.append(tuple(names))
    raise_gathered(InputError, f"survey '{descriptor.name}'", list(dict.fromkeys(problems))[:20])
    fields = [pa.field(c.canonical, _type_of(c, found.get(c.canonical), guess)) for c in wanted]
    absent = tuple(c.canonical for c in wanted if c.canonical not in found)
    return Resolved(pa.schema(fields), tuple(sources), absent)


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
    near = did_you_mean(column.names[0], [c.name for c in header.columns])
    return f"{header.file.path}: column {names} is missing; the file has {len(header.columns)} columns.{near}"


def _mismatch(column: WantedColumn, match: FileColumn, header: Header) -> list[str]:
    problems = []
    if match.type is not None and column.spark_type not in (None, "string"):
        textual = pa.types.is_string(match.type) or pa.types.is_large_string(match.type)
        if textual and column.spark_type != "boolean":
            problems.append(
                f"{header.file.path}: column '{match.name}' holds text, expected numbers ({column.spark_type})."
            )
    if match.unit and column.unit and not _same_unit(match.unit, column.unit):
        problems.append(
            f"{header.file.path}: column '{match.name}' is in '{match.unit}', expected '{column.unit}'. "
            "Convert the column, or say its unit in the survey's descriptor."
        )
    return problems


def _same_unit(stated: str, expected: str) -> bool:
    from astropy import units

    if stated.lower() in ("mag", "'mag'", "dex", "'dex'") or expected in ("mag",):
        return True
    try:
        return bool(units.Unit(stated) == units.Unit(_UNIT_NAMES.get(expected, expected)))
    except ValueError:
        return True


def _type_of(column: WantedColumn, match: FileColumn | None, guess: dict[str, pa.DataType]) -> pa.DataType:
    if column.spark_type is not None:
        return ARROW_TYPES[column.spark_type]
    kind = match.type if match is not None and match.type is not None else guess.get(column.canonical)
    if kind is None or pa.types.is_null(kind):
        return pa.float64()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_boolean(kind):
        return kind
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
    if pa.types.is_boolean(array.type) and pa.types.is_floating(target):
        array = array.cast(pa.int8())
    if array.type == target:
        return array
    if pa.types.is_floating(array.type) and pa.types.is_floating(target):
        return array.cast(target, safe=False)
    return array.cast(target)


def valid_positions(ra_deg: pa.Array, dec_deg: pa.Array) -> np.ndarray:
    """Return a mask, shape (n,), of rows whose position is on the sphere."""
    ra = ra_deg.to_numpy(zero_copy_only=False)
    dec = dec_deg.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        mask: np.ndarray = (
            np.isfinite(ra) & np.isfinite(dec) & (ra >= -180) & (ra <= 360) & (np.abs(dec) <= 90)
        )
    return mask
