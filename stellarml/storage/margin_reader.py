"""Reading a halo from a margin catalogue instead of from the neighbouring leaves.

A margin catalogue holds, for each tile of its primary, the rows of other tiles within a threshold. It belongs to the
tiles of the catalogue that is read, not to the tile whose halo is wanted. Where the former cover the latter, a row in
the halo is either in one of them or within the threshold of one: exact. Where part of the tile has no leaf, a row can
be near that part and far from every leaf: then the neighbouring leaves are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import Tile
from stellarml.storage.hats_reader import Catalogue, Margin, leaves_in, read_ranges
from stellarml.storage.leaf_reader import Leaf, read_leaf

RIM_ARCSEC = 1e-3
"""By this much a margin must be wider than a halo: rows of one index are then all within it, or all not needed."""
Ranges = npt.NDArray[np.int64]


def margin_is_enough(margin: Margin, halo_arcsec: float) -> bool:
    """Whether every row within `halo_arcsec` of a tile of the primary is in the primary's leaf or in the margin's."""
    return margin.threshold_arcsec >= halo_arcsec + RIM_ARCSEC


def margin_for(catalogue: Catalogue, halo_arcsec: float) -> Margin | None:
    """Return the narrowest margin of a catalogue that is wide enough, or None."""
    return next((margin for margin in catalogue.margins if margin_is_enough(margin, halo_arcsec)), None)


def halo_source(catalogue: Catalogue, halo_arcsec: float) -> str:
    """Say where halos of `halo_arcsec` are read from."""
    margin = margin_for(catalogue, halo_arcsec)
    if margin is None:
        return "halo: neighbouring leaves"
    return f"halo: margin catalogue {margin.root.name}, {margin.threshold_arcsec:g} arcsec"


def read_with_margin(
    catalogue: Catalogue,
    tile: Tile,
    ranges: Ranges,
    halo_arcsec: float,
    columns: Sequence[str],
    *,
    far: Ranges | None = None,
    cached: bool = False,
) -> pa.Table:
    """Read a tile and its halo, from a margin catalogue where there is one that is wide enough and covers the tile.

    Parameters
    ----------
    ranges
        Shape (n, 2): the tile and all within `halo_arcsec` of it (`sky.halo_ranges`). Beyond that distance the ranges
        hold rows that may be left out.
    far
        Shape (n, 2): further ranges, wherever they are, of which every row is read.

    Returns
    -------
    pyarrow.Table
        In the order of the sky, each row once; `_healpix_29` and `columns`.
    """
    far = np.empty((0, 2), np.int64) if far is None else far
    every = sky.merge_ranges(np.concatenate([ranges, far]))
    whole = np.array([tile.range], np.int64)
    margin = margin_for(catalogue, halo_arcsec)
    own = leaves_in(catalogue.leaves, whole)
    about = leaves_in(margin.leaves, whole) if margin else []
    inside = _covered(own)
    if margin is None or not _serves(about, own, whole):
        return read_ranges(catalogue.leaves, every, columns, catalogue.schema, cached=cached)
    parts = [
        read_ranges(own, every, columns, catalogue.schema, cached=cached),
        read_ranges(catalogue.leaves, without(far, inside), columns, catalogue.schema, cached=cached),
    ]
    rest = without(without(ranges, inside), far)
    pieces = [read_leaf(leaf, rest, parts[0].schema, cached=cached) for leaf in about]
    return _in_order(pa.concat_tables([*parts, *_once(pieces)]))


def without(ranges: Ranges, holes: Ranges) -> Ranges:
    """Return what is left of sorted disjoint `ranges`, shape (n, 2), outside of sorted disjoint `holes`."""
    if not len(ranges) or not len(holes):
        return ranges
    begin = np.concatenate([[np.iinfo(np.int64).min], holes[:, 1]])
    end = np.concatenate([holes[:, 0], [np.iinfo(np.int64).max]])
    first = np.searchsorted(end, ranges[:, 0], "right")
    last = np.searchsorted(begin, ranges[:, 1], "left")
    count = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(ranges)), count)
    gap = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[row]
    left = np.column_stack([np.maximum(ranges[row, 0], begin[gap]), np.minimum(ranges[row, 1], end[gap])])
    return left[left[:, 1] > left[:, 0]]


def _covered(leaves: Sequence[Leaf]) -> Ranges:
    return sky.merge_ranges(np.array([leaf.tile.range for leaf in leaves], np.int64).reshape(-1, 2))


def _serves(about: Sequence[Leaf], own: Sequence[Leaf], whole: Ranges) -> bool:
    """Whether the tiles of both cover `whole`, and the margin was made for these leaves, not for another tiling."""
    tiles = {leaf.tile for leaf in own}
    others = [leaf for leaf in about if leaf.tile not in tiles]
    return not len(without(whole, _covered([*own, *about]))) and not leaves_in(others, _covered(own))


def _once(pieces: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the rows of margin leaves that overlap, each once.

    One row can be in several. Rows of one index lie within 1 mas of each other, so the leaf that has most of them has
    all that can matter.
    """
    pieces = [piece for piece in pieces if piece.num_rows]
    if len(pieces) < 2:
        return pieces
    table = pa.concat_tables(pieces)
    index = table[HEALPIX_COLUMN].to_numpy()
    piece = np.repeat(np.arange(len(pieces)), [p.num_rows for p in pieces])
    pairs, of_row, count = np.unique(
        np.column_stack([index, piece]), axis=0, return_inverse=True, return_counts=True
    )
    order = np.lexsort((pairs[:, 1], -count, pairs[:, 0]))
    chosen = np.zeros(len(pairs), np.bool_)
    chosen[order[np.unique(pairs[order, 0], return_index=True)[1]]] = True
    return [table.filter(pa.array(chosen[of_row.ravel()]))]


def _in_order(table: pa.Table) -> pa.Table:
    index = table[HEALPIX_COLUMN].to_numpy()
    return table.take(pa.array(np.argsort(index, kind="stable")))
