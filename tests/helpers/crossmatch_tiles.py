"""The stage's steps in memory: catalogues cut into tiles, each matched from what its plan says must be read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.tiles import pixel_range
from stellarml.crossmatch.kernel import halo
from stellarml.crossmatch.kernel.fast_movers import MoverEdges, merge_edges, mover_edges, mover_ranges
from stellarml.crossmatch.kernel.limits import (
    Limits,
    choose_edge_radius,
    is_mover,
    merge_staying,
    moving_part,
    staying_part,
)
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, PositionErrors, Sources

SKYMAPPER = MatchSettings(right_errors=PositionErrors(36.0, 1000.0, 100.0))
PLACES = [(0.0, -30.0), (123.0, 90.0), (77.0, -89.9999), (45.0, 0.0), (90.0, 41.8103149)]
"""RA = 0, both poles, two corners of base pixels."""

Tiles = list[tuple[int, int]]
Columns = dict[str, np.ndarray]


def tiles_of(rows: Sources, coarse: int, fine: int, seed: int) -> Tiles:
    """Make a quadtree that splits at random between two orders."""
    rng = random.Random(seed)
    waiting = [(coarse, int(p)) for p in np.unique(sky.pixel_at_order(rows.healpix_29, coarse))]
    tiles = []
    while waiting:
        order, pixel = waiting.pop()
        if not within(rows, order, pixel).any():
            continue
        if order < fine and rng.random() < 0.7:
            waiting += [(order + 1, 4 * pixel + child) for child in range(4)]
        else:
            tiles.append((order, pixel))
    rng.shuffle(tiles)
    return tiles


def within(rows: Sources, order: int, pixel: int) -> np.ndarray:
    """Which rows lie in the tile, by their stored index."""
    first, end = pixel_range(order, pixel)
    return (rows.healpix_29 >= first) & (rows.healpix_29 < end)


def read(rows: Sources, ranges: np.ndarray) -> Sources:
    """What a task would read from a leaf sorted by index."""
    return rows.take(sky.in_ranges(rows.healpix_29, ranges))


def plan(
    left: Sources,
    right: Sources,
    left_tiles: Tiles,
    right_tiles: Tiles,
    settings: MatchSettings,
    max_movers: int,
) -> tuple[Limits, MoverEdges]:
    """Gather what must be known of whole catalogues, tile by tile; no radius is comfortable here."""
    moving, staying, moving_tiles, staying_tiles = (
        (left, right, left_tiles, right_tiles)
        if settings.moving == "left"
        else (right, left, right_tiles, left_tiles)
    )
    known = merge_staying(staying_part(staying.take(within(staying, *t)), settings) for t in staying_tiles)
    shares = [moving.take(within(moving, *t)) for t in moving_tiles]
    parts = [moving_part(share, settings, known) for share in shares]
    known = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=max_movers)
    movers = Sources.concatenate([share.take(is_mover(share, settings, known)) for share in shares])
    assert len(movers) == known.movers
    ranges = mover_ranges(movers, settings, known)
    orders, pixels = np.array(staying_tiles).T
    hits = sky.tiles_in_ranges(orders, pixels, ranges)
    touched = [tile for tile, hit in zip(staying_tiles, hits, strict=True) if hit]
    found = [
        mover_edges(movers, read(staying.take(within(staying, *t)), ranges), settings, known) for t in touched
    ]
    return known, merge_edges(found)


def each_tile(
    left: Sources,
    right: Sources,
    left_tiles: Tiles,
    settings: MatchSettings,
    known: Limits,
    edges: MoverEdges | None,
) -> Iterator[tuple[Sources, np.ndarray, TileMatch]]:
    """Read and match one tile after the other: its left rows, which of them it owns, what was found."""
    for tile in left_tiles:
        wanted = halo.plan_tile(*tile, settings, known, edges)
        rows, others = read(left, wanted.left), read(right, wanted.right)
        owned = within(rows, *tile)
        yield (
            rows,
            owned,
            match_tile(rows, others, settings, owned=owned, limits=known, edges=edges),
        )


def match_by_tiles(
    left: Sources,
    right: Sources,
    left_tiles: Tiles,
    right_tiles: Tiles,
    settings: MatchSettings,
    max_movers: int,
) -> Columns:
    """Plan, match and join, in the order in which the tiles are given."""
    known, edges = plan(left, right, left_tiles, right_tiles, settings, max_movers)
    tiles = each_tile(left, right, left_tiles, settings, known, edges)
    return joined([columns(rows, found) for rows, _, found in tiles])


def columns(left: Sources, found: TileMatch) -> Columns:
    """Everything that is written of each edge."""
    names = [
        f.name
        for f in fields(TileMatch)
        if f.name not in ("rows", "left_row", "right_row", "neighbours_of_left")
    ]
    return {"index": left.healpix_29[found.left_row], **{name: getattr(found, name) for name in names}}


def joined(parts: list[Columns]) -> Columns:
    """The tiles' edges in the order of the catalogue."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((whole["right_id"], whole["left_id"], whole["index"]))
    return {name: values[order] for name, values in whole.items()}


def serialised(found: Columns) -> bytes:
    """The edges as they would be written."""
    table = pa.table(found)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def pairs_of(found: TileMatch, which: np.ndarray | None = None) -> set[tuple[int, int]]:
    """Left and right ids of all edges, or of some."""
    chosen = slice(None) if which is None else which
    return set(zip(found.left_id[chosen].tolist(), found.right_id[chosen].tolist(), strict=True))
