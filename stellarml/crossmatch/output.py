"""Columns of a table of matches: which there are, what they are called, and what is in them.

First what the match found (`schema.MATCHES`), then the columns of the left catalogue, then those of the right one,
under their own names; a name that occurs twice gets ``_left`` or ``_right``. A HATS catalogue also has
``_healpix_29`` and the left position, which it cannot be without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.crossmatch.kernel import TileMatch
from stellarml.crossmatch.sides import Side
from stellarml.crossmatch.tiles import MatchedTile
from stellarml.errors import UserError, did_you_mean, raise_gathered
from stellarml.schema import HEALPIX_COLUMN, LEFT_ID, MATCHES, RIGHT_ID, arrow_schema
from stellarml.sources.shards import position_columns

Mode = Literal["all", "best", "unique"]
Join = Literal["inner", "left", "anti"]
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
    if join == "anti":
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
    told = dict(field.metadata or {})
    return field.with_metadata({b"unit": unit.encode(), **told}) if unit else field


def _chosen(left: Side, right: Side, columns: str) -> tuple[list[str], list[str]]:
    available = [[n for n in side.schema.names if n != HEALPIX_COLUMN] for side in (left, right)]
    if columns == "all":
        return available[0], available[1]
    if columns == "ids":
        return [], []
    chosen: tuple[list[str], list[str]] = ([], [])
    problems = []
    for given in dict.fromkeys(name.strip() for name in columns.split(",") if name.strip()):
        prefix, _, rest = given.partition(".")
        sides = {"left": (0,), "right": (1,)}.get(prefix if rest else "", (0, 1))
        name = rest if rest and prefix in ("left", "right") else given
        found = [side for side in sides if name in available[side]]
        for side in found:
            chosen[side].append(name)
        if not found:
            near = did_you_mean(name, [n for side in sides for n in available[side]])
            base, _, side_name = name.rpartition("_")
            if side_name in ("left", "right") and base in available[side_name == "right"]:
                near = f" Did you mean '{side_name}.{base}'?"
            problems.append(f"'{given}' is a column of neither catalogue.{near}")
    raise_gathered(UserError, "--columns", problems)
    return chosen


def table_of(found: MatchedTile, plan: Layout, mode: Mode, join: Join) -> pa.Table:
    """Return the rows of one tile, in the order of the sky, then by left id and right id."""
    result = found.result
    kept = np.flatnonzero(_kept(result, mode))
    left_row, right_row = result.left_row[kept], result.right_row[kept]
    edge = kept
    if join != "inner":
        matched = np.zeros(len(found.owned), dtype=bool)
        matched[left_row] = True
        without = np.flatnonzero(found.owned & ~matched)
        none = np.full(len(without), -1, dtype=np.int64)
        if join == "anti":
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
    if mode == "all":
        return np.ones(len(result.left_row), dtype=bool)
    return result.best if mode == "best" else result.unique


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
