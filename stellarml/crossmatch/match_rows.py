"""One tile of a match, from leaves to pairs: what every stage that matches tile by tile does.

Slim columns of the tile and its halos are read and matched; then the wide columns of the matched rows are gathered from
the same index ranges, cut down to where matched rows are, so that a row's place among the slim rows leads to its place
among the wide ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.errors import InputError
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import INDEX_ORDER, Tile
from stellarml.crossmatch.kernel.halo import plan_tile
from stellarml.crossmatch.kernel.match_tile import Bounds, TileMatch, match_parts
from stellarml.crossmatch.kernel.pair_offsets import pair_offsets_mas
from stellarml.crossmatch.kernel.settings import Floats
from stellarml.crossmatch.plan import MatchPlan
from stellarml.crossmatch.sides import About, Side
from stellarml.crossmatch.statistics import is_sampled
from stellarml.storage.leaf_cache import COLUMNS

_CELL_ORDER = 14
_SPARSE = 0.02
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slim:
    """Slim rows of one side of a tile, halo included, and the index ranges they came from.

    about
        The tile and its halo, where that comes from a margin catalogue.
    cached
        The next tile will read the same row groups, so that their wide columns are worth keeping.
    """

    side: Side
    rows: pa.Table
    ranges: Integers
    about: About | None = None
    cached: bool = False

    @property
    def keys(self) -> Integers:
        """``_healpix_29`` of each row, ascending."""
        keys: Integers = self.rows[HEALPIX_COLUMN].to_numpy()
        return keys

    def ids(self, rows: Integers) -> pa.ChunkedArray:
        """Ids of some rows; a negative row gives null."""
        return self.rows[self.side.descriptor.id_column].take(_index(rows))

    def gather(self, rows: Integers, columns: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Read `columns`, by the catalogue's own names, of some rows; a negative row gives nulls.

        Raises
        ------
        InputError
            If the catalogue has other rows than a moment ago.
        """
        if not columns:
            return {}
        at_hand = self._at_hand(columns)
        index = _index(rows)
        found = {name: self.rows[column].take(index) for name, column in at_hand.items()}
        columns = [name for name in columns if name not in at_hand]
        if not columns:
            return found
        keys = self.keys
        ranges = self.ranges if self.about else self._where(keys[rows[rows >= 0]])
        wide = self.side.wide(ranges, columns, self.about, cached=self.cached).combine_chunks()
        place = np.cumsum(sky.in_ranges(keys, ranges)) - 1
        if wide.num_rows != (place[-1] + 1 if len(place) else 0):
            raise InputError(
                f"survey '{self.side.descriptor.name}': its leaves changed while they were matched. Run again."
            )
        index = _index(np.where(rows < 0, -1, place[rows]) if len(place) else rows)
        return found | {name: wide[name].take(index) for name in columns}

    def _at_hand(self, columns: Sequence[str]) -> dict[str, str]:
        """Return those of `columns` that the slim rows have as the catalogue has them, and their names there."""
        emptied = {column for column, *_ in self.side.sentinels}
        own = {
            self.side.names.get(name, name): name for name in self.rows.column_names if name not in emptied
        }
        return {name: own[name] for name in columns if name in own}

    def _where(self, keys: Integers) -> Integers:
        """Return the ranges to read for the wide columns: the span of the matched rows, or cells around few."""
        if not len(keys):
            return self.ranges[:0]
        if len(keys) > _SPARSE * self.rows.num_rows:
            wanted = np.array([[keys.min(), keys.max() + 1]])
        else:
            shift = 2 * (INDEX_ORDER - _CELL_ORDER)
            cells = np.unique(keys >> shift)
            wanted = sky.merge_ranges(np.column_stack([cells << shift, (cells + 1) << shift]))
        return sky.intersect_ranges(wanted, self.ranges)


@dataclass(frozen=True)
class MatchedTile:
    """What the kernel found for the rows of the left catalogue that a tile owns.

    `owned`, shape (n_left,), are those rows, or in a part of a crowded tile some of them; `offsets_mas`, shape (n, 2),
    are right minus left, east and north, of a sample of the unique pairs.
    """

    left: Slim
    right: Slim
    owned: npt.NDArray[np.bool_]
    result: TileMatch
    offsets_mas: Floats


def match_rows(plan: MatchPlan, tile: Tile, *, only_best: bool = False) -> Iterator[MatchedTile]:
    """Read one tile of the left catalogue with its halos, and match it; a very crowded one comes in parts.

    Parameters
    ----------
    only_best
        Of a tile with more pairs than can be held, give the best of each left row, with the counts of all.
    """
    COLUMNS.serve(plan.name)
    halo = plan_tile(tile.order, tile.pixel, plan.settings, plan.limits, plan.edges)
    left = _slim(plan.left, tile, halo.left, halo.left_arcsec, halo.far, cached=False)
    right = _slim(plan.right, tile, halo.right, halo.right_arcsec, halo.far, cached=True)
    keys = left.keys
    owned = (keys >= tile.range[0]) & (keys < tile.range[1])
    rows, others = plan.left.prepared(left.rows), plan.right.prepared(right.rows)
    parts = match_parts(
        rows,
        others,
        plan.settings,
        owned=owned,
        limits=plan.limits,
        edges=plan.edges,
        bounds=Bounds(only_best=only_best),
    )
    for result in parts:
        sample = np.flatnonzero(result.unique & is_sampled(result.left_id, plan.left.rows))
        offsets = pair_offsets_mas(
            rows.take(result.left_row[sample]),
            others.take(result.right_row[sample]),
            plan.settings,
            plan.limits.mean_epoch_yr,
        )
        yield MatchedTile(left, right, result.rows, result, offsets)


def _slim(side: Side, tile: Tile, ranges: Integers, arcsec: float, far: bool, *, cached: bool) -> Slim:
    about = (tile, arcsec) if side.uses_margin(arcsec) and not far else None
    return Slim(side, side.slim(ranges, about=about).combine_chunks(), ranges, about, cached)


def _index(rows: Integers) -> pa.Array:
    return pa.array(rows, mask=rows < 0) if (rows < 0).any() else pa.array(rows)
