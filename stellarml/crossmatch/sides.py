"""One catalogue of a match: its leaves, what its columns mean, and which rows take part.

A catalogue that stellarml ingested carries the descriptor's names, sentinels already null. One that others made is
read in place under its own names: the descriptor says which column plays which part, in any case and with its
alternatives, and a sentinel of a column that the match needs is taken out on the way in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stellarml.core.errors import ConfigError, InputError, did_you_mean, raise_gathered
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.core.tiles import Tile
from stellarml.crossmatch.kernel.frame_offset import FrameOffsets
from stellarml.crossmatch.kernel.settings import Sources
from stellarml.crossmatch.source_columns import (
    is_bright,
    magnitude_columns,
    match_columns,
    taking_part,
    to_sources,
)
from stellarml.storage.hats_reader import Catalogue, Leaf, read_ranges
from stellarml.storage.margin_reader import margin_for, read_with_margin
from stellarml.surveys.column_mapping import find_name
from stellarml.surveys.cuts import sentinels
from stellarml.surveys.descriptor import Descriptor, position_columns

_COMPARISON = re.compile(r"^\s*(\w+)\s*(<=|>=|<>|!=|=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*$")
_OPERATORS: dict[str, Callable[..., pa.Array]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_Rule = tuple[str, str, str, float]
About = tuple[Tile, float]
"""A tile, and how far about it rows are needed, in arcsec."""


@dataclass(frozen=True)
class Side:
    """One side of a match.

    names
        For columns that the match needs, the catalogue's own name where it differs from the descriptor's.
    sentinels
        (column, compared column, operator, number): the first is missing where the comparison holds.
    frame
        Offsets that are taken off the positions.
    with_errors
        Whether the match needs errors, correlations and parallaxes; one within a fixed radius does not.
    """

    catalogue: Catalogue
    descriptor: Descriptor
    scope: str
    names: dict[str, str] = field(default_factory=dict)
    sentinels: tuple[_Rule, ...] = ()
    frame: FrameOffsets | None = None
    with_errors: bool = True

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Leaves of the catalogue, in the order of the sky."""
        return self.catalogue.leaves

    @property
    def schema(self) -> pa.Schema:
        """The catalogue's columns under its own names."""
        return self.catalogue.schema

    @property
    def rows(self) -> int:
        """Rows of the whole catalogue."""
        return self.catalogue.rows

    def slim(
        self,
        ranges: npt.NDArray[np.int64],
        more: Sequence[str] = (),
        about: About | None = None,
        *,
        cached: bool = True,
    ) -> pa.Table:
        """Read what the match needs, and `more`, of rows in `ranges` that take part, by the descriptor's names."""
        wanted = list(dict.fromkeys([*self._needed, *more]))
        return self._read_slim(ranges, wanted, about, cached=cached)

    def _read_slim(
        self,
        ranges: npt.NDArray[np.int64],
        wanted: Sequence[str],
        about: About | None = None,
        *,
        cached: bool,
    ) -> pa.Table:
        names = [self.names.get(name, name) for name in wanted]
        table = self.wide(ranges, names, about, cached=cached)
        own = {self.names.get(name, name): name for name in wanted}
        table = table.select([HEALPIX_COLUMN, *own]).rename_columns([HEALPIX_COLUMN, *own.values()])
        for column, compared, operator, number in self.sentinels:
            if column in wanted and compared in wanted:
                missing = _OPERATORS[operator](table[compared], number)
                emptied = pc.if_else(pc.fill_null(missing, False), None, table[column])
                table = table.set_column(table.column_names.index(column), column, emptied)
        return table

    def wide(
        self,
        ranges: npt.NDArray[np.int64],
        columns: Sequence[str],
        about: About | None = None,
        *,
        cached: bool = False,
    ) -> pa.Table:
        """Read `columns`, by the catalogue's own names, of the rows in `ranges` that take part.

        With `about`, the ranges are a tile and its halo, which may come from a margin catalogue; without the rows that
        lie in the ranges but not in the halo.
        """
        cuts = [] if self.scope == "full" else [CUTS_FAILED]
        names = list(dict.fromkeys([*columns, *cuts]))
        if about is None:
            table = read_ranges(self.leaves, ranges, names, self.schema, cached=cached)
        else:
            tile, arcsec = about
            table = read_with_margin(self.catalogue, tile, ranges, arcsec, names, cached=cached)
        return taking_part(table, self.scope)

    def sources(self, ranges: npt.NDArray[np.int64]) -> Sources:
        """Read the rows in `ranges` that take part, in the kernel's form: whole leaves, which nobody reads again."""
        return self.prepared(self.slim(ranges, cached=False))

    def unplaced_sources(self, ranges: npt.NDArray[np.int64]) -> Sources:
        """Read errors, motions and epochs alone of the rows in `ranges`; ids and positions are 0.

        For what must be known of a whole catalogue: ids and positions are the columns that cost most to read. Every
        row counts as one that has a position, as rows of a catalogue do.
        """
        left_out = (self.descriptor.id_column, *position_columns(self.descriptor))
        table = self._read_slim(ranges, [n for n in self._needed if n not in left_out], cached=False)
        for name in left_out:
            table = table.append_column(name, pa.array(np.zeros(table.num_rows, dtype=np.int64)))
        return to_sources(table, self.descriptor)

    def prepared(self, slim: pa.Table) -> Sources:
        """Return slim rows in the kernel's form, the offset of the catalogue's frame taken off."""
        rows = to_sources(slim, self.descriptor)
        return rows if self.frame is None else self.frame.removed_from(rows)

    def bright_sources(self, ranges: npt.NDArray[np.int64], limit_mag: float) -> Sources:
        """Read the rows in `ranges` that take part and are as bright as `limit_mag`, in the kernel's form."""
        magnitudes = magnitude_columns(self.descriptor, self._known)
        table = self.slim(ranges, magnitudes)
        return self.prepared(table.filter(pa.array(is_bright(table, magnitudes, limit_mag))))

    def uses_margin(self, arcsec: float) -> bool:
        """Whether a margin catalogue is wide enough for halos of `arcsec`."""
        return margin_for(self.catalogue, arcsec) is not None

    @property
    def _needed(self) -> list[str]:
        return match_columns(self.descriptor, self._known, with_errors=self.with_errors)

    @property
    def _known(self) -> list[str]:
        return [*self.schema.names, *self.names]


def scopes_of(scope: str) -> tuple[str, str]:
    """Return the scope of the left and of the right side, each ``full`` or ``selected``, for a `crossmatch.scope`.

    Examples
    --------
    >>> scopes_of("left_selected")
    ('selected', 'full')
    """
    return ("selected", "full") if scope == "left_selected" else (scope, scope)


def side_of(catalogue: Catalogue, descriptor: Descriptor, scope: str, *, with_errors: bool = True) -> Side:
    """Say which columns of `catalogue` a match needs.

    Parameters
    ----------
    scope
        Of this side, from `scopes_of`: ``full`` or ``selected``.

    Raises
    ------
    InputError
        If a column is missing, or `scope` is ``selected`` and the catalogue has no cut bits.
    ConfigError
        If a sentinel of a needed column is not a plain comparison with a number.
    """
    schema = catalogue.schema
    if scope == "selected" and CUTS_FAILED not in schema.names:
        raise InputError(
            f"{catalogue.root}: has no column '{CUTS_FAILED}', which crossmatch.scope = 'selected' (of both sides) or "
            "'left_selected' asks for. Ingest its raw files with stellarml, or use the scope 'full'."
        )
    roles = {c.canonical: c for c in descriptor.wanted()}
    needed = match_columns(descriptor, list(roles), with_errors=with_errors)
    names, problems = {}, []
    for canonical in dict.fromkeys([*needed, *magnitude_columns(descriptor, list(roles))]):
        role = roles[canonical]
        found = find_name(role.names, schema.names)
        if found is not None and found != canonical:
            names[canonical] = found
        elif found is None and canonical in needed and not role.optional:
            alternatives = " or ".join(f"'{n}'" for n in role.names)
            near = did_you_mean(role.names[0], schema.names)
            problems.append(f"column {alternatives} is missing; it has {len(schema.names)} columns.{near}")
    if descriptor.position.id is None and descriptor.id_column not in schema.names:
        problems.append(
            f"survey '{descriptor.name}' names no id; give position.id, a HATS catalogue needs one"
        )
    raise_gathered(InputError, f"{catalogue.root} as survey '{descriptor.name}'", problems)
    rules = () if REPAIRS in schema.names else tuple(_rules(descriptor, needed))
    return Side(catalogue, descriptor, scope, names, rules, with_errors=with_errors)


def _rules(descriptor: Descriptor, needed: Sequence[str]) -> list[_Rule]:
    rules, problems = [], []
    for column, condition in sentinels(descriptor).items():
        if column not in needed:
            continue
        for part in re.split(r"\s+or\s+", condition, flags=re.IGNORECASE):
            match = _COMPARISON.match(part)
            if match is None or match[1].lower() not in needed:
                problems.append(
                    f"null_when of '{column}' is '{condition}'; a HATS catalogue is read in place, where only "
                    "comparisons of a position column with a number, joined by 'or', can be evaluated. "
                    "Ingest the raw files instead."
                )
                break
            rules.append((column, match[1].lower(), match[2], float(match[3])))
    raise_gathered(ConfigError, f"survey '{descriptor.name}'", problems)
    return rules
