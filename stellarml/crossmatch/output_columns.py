"""Columns of a table of matches: which there are, what they are called, and what is in them.

First what the match found (`schema.MATCHES`), then the columns of the left catalogue, then those of the right one,
under their own names; a name that occurs twice gets ``_left`` or ``_right``. A HATS catalogue also has
``_healpix_29`` and the left position, which it cannot be without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core.errors import UserError, nearest_names, raise_gathered
from stellarml.core.names import (
    CUTS_FAILED,
    DEC,
    EXTERNAL_ID,
    HEALPIX_COLUMN,
    LEFT_ID,
    RA,
    REPAIRS,
    RIGHT_ID,
    SOURCE_ID,
)
from stellarml.core.schema import MATCHES, arrow_schema
from stellarml.core.schema import NEIGHBOURHOOD as NEIGHBOURHOOD_COLUMNS
from stellarml.crossmatch.kernel.match_tile import TileMatch
from stellarml.crossmatch.match_rows import MatchedTile
from stellarml.crossmatch.modes import Join, Mode
from stellarml.crossmatch.plan import MatchPlan
from stellarml.crossmatch.sides import Side
from stellarml.surveys.column_mapping import find_name
from stellarml.surveys.descriptor import position_columns

_COUNTS = ("number_of_mates", "number_of_reverse_neighbours", "xm_flag")


@dataclass(frozen=True)
class Layout:
    """The columns of one table of matches: for each side, the catalogue's names and those in the table."""

    left: Mapping[str, str]
    right: Mapping[str, str]
    schema: pa.Schema
    ra: str
    dec: str


def layout(left: Side, right: Side, columns: str, join: Join, *, hats: bool) -> Layout:
    """Settle the columns.

    Parameters
    ----------
    columns
        ``all``, ``ids``, or names separated by commas; ``left.NAME`` and ``right.NAME`` where both sides have one.
    hats
        Whether the table is to be a HATS catalogue.

    Raises
    ------
    UserError
        If a name is not a column of either side.
    """
    chosen_left, chosen_right = _chosen(left, right, columns)
    if join == Join.anti:
        chosen_right = []
    ra, dec = (left.names.get(name, name) for name in position_columns(left.descriptor))
    if hats:
        chosen_left = list(dict.fromkeys([*chosen_left, ra, dec]))
    ours = {column.name for column in MATCHES} | {HEALPIX_COLUMN}
    left_names = {n: f"{n}_left" if n in ours or n in chosen_right else n for n in chosen_left}
    right_names = {n: f"{n}_right" if n in ours or n in chosen_left else n for n in chosen_right}
    ids = {
        LEFT_ID: left.schema.field(left.names.get(left.descriptor.id_column, left.descriptor.id_column)).type,
        RIGHT_ID: right.schema.field(
            right.names.get(right.descriptor.id_column, right.descriptor.id_column)
        ).type,
    }
    fields = [pa.field(HEALPIX_COLUMN, pa.int64())] if hats else []
    fields += [f.with_type(ids.get(f.name, f.type)) for f in arrow_schema(MATCHES)]
    for side, names in ((left, left_names), (right, right_names)):
        units = {side.names.get(name, name): unit for name, unit in side.descriptor.units.items()}
        fields += [
            _with_unit(side.schema.field(old), units.get(old)).with_name(new).with_nullable(True)
            for old, new in names.items()
        ]
    return Layout(
        left_names, right_names, pa.schema(fields), left_names.get(ra, ra), left_names.get(dec, dec)
    )


def _with_unit(field: pa.Field, unit: str | None) -> pa.Field:
    metadata = dict(field.metadata or {})
    return field.with_metadata({b"unit": unit.encode(), **metadata}) if unit else field


def _chosen(left: Side, right: Side, columns: str) -> tuple[list[str], list[str]]:
    available = [[n for n in side.schema.names if n != HEALPIX_COLUMN] for side in (left, right)]
    return chosen_columns(available[0], available[1], columns)


def chosen_columns(left: Sequence[str], right: Sequence[str], columns: str) -> tuple[list[str], list[str]]:
    """Return which columns of both sides are asked for.

    Parameters
    ----------
    left, right
        The columns that there are.
    columns
        ``all``, ``ids``, or names separated by commas, in any case, ``left.NAME`` for those of one side.

    Raises
    ------
    UserError
        If a name is no column of either side.
    """
    available = list(left), list(right)
    if columns == "all":
        return available
    if columns == "ids":
        return [], []
    chosen: tuple[list[str], list[str]] = ([], [])
    problems = []
    for given in dict.fromkeys(name.strip() for name in columns.split(",") if name.strip()):
        prefix, _, rest = given.partition(".")
        sides = {"left": (0,), "right": (1,)}.get(prefix.lower() if rest else "", (0, 1))
        name = rest if len(sides) == 1 else given
        found = [(side, find_name([name], available[side])) for side in sides]
        for side, column in found:
            if column is not None:
                chosen[side].append(column)
        if all(column is None for _, column in found):
            near = nearest_names(name, [n for side in sides for n in available[side]])
            hint = f"; the nearest are {near}."
            base, _, side_name = name.rpartition("_")
            if side_name in ("left", "right") and base in available[side_name == "right"]:
                hint = f". Did you mean '{side_name}.{base}'?"
            problems.append(f"'{given}' is a column of neither catalogue{hint}")
    raise_gathered(UserError, "--columns", problems)
    return chosen


def table_of(found: MatchedTile, plan: Layout, mode: Mode, join: Join) -> pa.Table:
    """Return the rows of one tile, in the order of the sky, then by left id and right id."""
    result = found.result
    kept = np.flatnonzero(_kept(result, mode))
    left_row, right_row = result.left_row[kept], result.right_row[kept]
    edge = kept
    if join != Join.inner:
        matched = np.zeros(len(found.owned), dtype=bool)
        matched[left_row] = True
        without = np.flatnonzero(found.owned & ~matched)
        none = np.full(len(without), -1, dtype=np.int64)
        if join == Join.anti:
            left_row, right_row, edge = without, none, none
        else:
            left_row = np.concatenate([left_row, without])
            right_row, edge = np.concatenate([right_row, none]), np.concatenate([edge, none])
            order = np.argsort(left_row, kind="stable")
            left_row, right_row, edge = left_row[order], right_row[order], edge[order]
    columns = _found(found, left_row, right_row, edge)
    columns |= _renamed(found.left.gather(left_row, list(plan.left)), plan.left)
    columns |= _renamed(found.right.gather(right_row, list(plan.right)), plan.right)
    arrays = [_as(columns[field.name], field.type) for field in plan.schema]
    return pa.Table.from_arrays(arrays, schema=plan.schema)


def _kept(result: TileMatch, mode: Mode) -> npt.NDArray[np.bool_]:
    if mode == Mode.all:
        return np.ones(len(result.left_row), dtype=bool)
    return result.best if mode == Mode.best else result.unique


def _found(
    found: MatchedTile,
    left_row: npt.NDArray[np.int64],
    right_row: npt.NDArray[np.int64],
    edge: npt.NDArray[np.int64],
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Return what the match says of each row; of a left row without a match, its neighbours only."""
    result = found.result
    missing = edge < 0 if (edge < 0).any() else None
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        HEALPIX_COLUMN: found.left.rows[HEALPIX_COLUMN].take(pa.array(left_row)),
        LEFT_ID: found.left.ids(left_row),
        RIGHT_ID: found.right.ids(right_row),
        "angular_distance": _values(result.distance_arcsec.astype(np.float32), edge, missing),
        "score": _values(result.score, edge, missing),
        "number_of_neighbours": pa.array(result.neighbours_of_left[left_row]),
    }
    for name in _COUNTS:
        columns[name] = _values(getattr(result, name), edge, missing)
    return columns


def _values(
    values: npt.NDArray[np.generic], edge: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None
) -> pa.Array:
    if not len(values):
        return pa.nulls(len(edge), pa.from_numpy_dtype(values.dtype))
    return pa.array(values[edge], mask=missing)


def _renamed(
    columns: Mapping[str, pa.ChunkedArray], names: Mapping[str, str]
) -> dict[str, pa.Array | pa.ChunkedArray]:
    return {names[name]: column for name, column in columns.items()}


def _as(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


NEIGHBOURHOOD, BEST, MATCHED = "neighbourhood", "best_neighbour", "matched"


def edge_table(plan: MatchPlan, found: MatchedTile, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Return the edges `rows` as a table in the columns of the Gaia archive."""
    ra, dec = position_columns(plan.left.descriptor)
    left_row = found.result.left_row[rows]
    columns = _found(found, left_row, found.result.right_row[rows], rows)
    columns[SOURCE_ID], columns[EXTERNAL_ID] = columns.pop(LEFT_ID), columns.pop(RIGHT_ID)
    columns[RA], columns[DEC] = (found.left.rows[name].take(pa.array(left_row)) for name in (ra, dec))
    schema = edge_schema(plan)
    return pa.table([_as(columns[field.name], field.type) for field in schema], schema=schema)


def edge_schema(plan: MatchPlan) -> pa.Schema:
    """Return the columns of `neighbourhood`, with the ids' own types."""
    ids = {
        SOURCE_ID: plan.left.schema.field(plan.left.descriptor.id_column).type,
        EXTERNAL_ID: plan.right.schema.field(plan.right.descriptor.id_column).type,
    }
    return pa.schema([f.with_type(ids.get(f.name, f.type)) for f in arrow_schema(NEIGHBOURHOOD_COLUMNS)])


def wide_table(plan: MatchPlan, found: MatchedTile) -> pa.Table:
    """Return the unique pairs with the columns of both sides."""
    unique = np.flatnonzero(found.result.unique)
    edges = edge_table(plan, found, unique)
    columns = {name: edges[name] for name in edges.column_names}
    left_names, right_names = wide_names(plan)
    for side, rows, names in (
        (found.left, found.result.left_row[unique], left_names),
        (found.right, found.result.right_row[unique], right_names),
    ):
        new = {old: name for old, name in names.items() if name not in columns}
        columns |= {new[old]: column for old, column in side.gather(rows, list(new)).items()}
    return pa.table(columns)


def wide_names(plan: MatchPlan) -> tuple[dict[str, str], dict[str, str]]:
    """Return, for each side, the columns that `matched` carries and their names there.

    ``cuts_failed`` and ``repairs`` of both sides carry the survey's name; so does any other right column whose name the
    left side has.
    """
    sides = plan.left, plan.right
    left, right = (
        {n: f"{n}_{side.descriptor.name}" if n in (CUTS_FAILED, REPAIRS) else n for n in side.schema.names}
        for side in sides
    )
    left.pop(HEALPIX_COLUMN, None)
    right.pop(HEALPIX_COLUMN, None)
    left[plan.left.descriptor.id_column] = SOURCE_ID
    ra, dec = position_columns(plan.left.descriptor)
    left[ra], left[dec] = RA, DEC
    right[plan.right.descriptor.id_column] = EXTERNAL_ID
    taken = set(left.values())
    return left, {
        n: f"{new}_{plan.right.descriptor.name}" if new in taken else new for n, new in right.items()
    }


def output_schemas(plan: MatchPlan) -> dict[str, pa.Schema]:
    """Return the schemas of the three tables, for a catalogue without a single row."""
    edges = edge_schema(plan)
    left, right = wide_names(plan)
    fields = {f.name: f for f in edges}
    for schema, names in ((plan.left.schema, left), (plan.right.schema, right)):
        for old, new in names.items():
            fields.setdefault(new, pa.field(new, schema.field(old).type))
    return {NEIGHBOURHOOD: edges, BEST: edges, MATCHED: pa.schema(list(fields.values()))}
