"""Which right source is which left source, how sure is that, and who else competes? One tile, exactly.

`match_tile` takes rows in memory and gives the edges of the rows it owns, with counts that are those of the whole
catalogues. How to call it for a tile (a whole catalogue in memory is `match_tile(left, right, settings)`):

1. `limits.staying_part` per tile of the side that stays, `limits.merge_staying`;
2. `limits.measure_moving` per tile of the side that moves, `limits.choose_edge_radius`: the `Limits`;
3. `limits.is_mover` collects the movers (few), `fast_movers.mover_ranges` says what of the other side to read,
   `fast_movers.mover_edges` per part and `fast_movers.merge_edges` make their edges, which every tile is given;
4. per tile of the left catalogue `halo.plan_tile` gives the ranges of ``_healpix_29`` to read of both sides, and
   `match_tile` is called with those rows and the mask of the left rows that lie in the tile.

Definitions. Good neighbours: `pairs`. Best: highest ln F, then smaller d2, then smaller right id; in fixed-radius mode
the nearest, then the smaller right id. `score` is ln F, the natural logarithm of the likelihood of a match over that of
a chance neighbour, ``-d2/2 - ln(2 pi sqrt(det C)) - ln rho``, with rho = max(N, 1) / (pi r_d^2) and N the right sources
that take part within r_d of the left source at the right side's mean epoch; in fixed-radius mode it is minus the
distance in arcsec. Candidates are ranked before rho, which they share, is subtracted. Ids must be unique in each
catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import StellarmlError, UserError
from stellarml.core.match_flags import MatchFlag
from stellarml.crossmatch.kernel.astrometry import Mask, prepare_moving, prepare_staying
from stellarml.crossmatch.kernel.density import Counts, Crowding, ln_density_per_mas2
from stellarml.crossmatch.kernel.fast_movers import MoverEdges, no_edges
from stellarml.crossmatch.kernel.limits import Limits, limits_of, reach_arcsec
from stellarml.crossmatch.kernel.neighbour_graph import Edges, NeighbourGraph, edge_order, in_order, nodes_of
from stellarml.crossmatch.kernel.pairs import ALL, Search, index_staying
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings, Sources


@dataclass(frozen=True)
class TileMatch:
    """Edges of owned left rows, sorted by (left ``_healpix_29``, left id, right id); arrays of shape (n_edges,).

    rows
        Shape (n_left,): which left rows these are the edges of; all owned ones but in a part of a tile.
    left_row, right_row
        Positions in the rows that were given.
    distance_arcsec, d2, score
        Great circle between the moved source and the other; squared Mahalanobis distance (NaN in fixed-radius mode).
    number_of_neighbours
        Good neighbours of the left source.
    number_of_mates
        Other left sources whose best neighbour is this right source; of a best edge, the archive's column.
    number_of_reverse_neighbours
        Left sources of which the right source is a good neighbour.
    xm_flag
        Bits of `core.match_flags.MatchFlag`.
    best, unique
        The left source's best edge; degree 1 on both sides of the graph of good neighbours.
    density
        Right sources within the density radius, N of the figure of merit; 0 in fixed-radius mode.
    neighbours_of_left
        Shape (n_left,): good neighbours of every left row given; exact for the owned ones.
    """

    rows: Mask
    left_row: Integers
    right_row: Integers
    left_id: Integers
    right_id: Integers
    distance_arcsec: Floats
    d2: Floats
    score: Floats
    number_of_neighbours: Counts
    number_of_mates: Counts
    number_of_reverse_neighbours: Counts
    xm_flag: NDArray[np.int16]
    best: Mask
    unique: Mask
    density: Counts
    neighbours_of_left: Counts


@dataclass(frozen=True)
class Bounds:
    """How many edges are held at once, and how many a tile may have.

    held
        Edges that are kept while a tile is matched; a tile that has more is matched twice, then part by part.
    chunk
        Candidates that are looked at in one go.
    most
        Edges of a tile's own rows, beyond which nobody can want them all: the tile is refused.
    only_best
        Of a tile that has more edges than can be held, give the best of each left row only; their counts are those of
        all, and no tile is refused.
    """

    held: int = 4_000_000
    chunk: int = 2_000_000
    most: int = 100_000_000
    only_best: bool = False


UNBOUNDED = Bounds(ALL, ALL, ALL)


def match_tile(
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    *,
    owned: Mask | None = None,
    limits: Limits | None = None,
    edges: MoverEdges | None = None,
) -> TileMatch:
    """Match the owned left rows, all in one; see the module for what the rows must hold, and `match_parts`."""
    return next(match_parts(left, right, settings, owned=owned, limits=limits, edges=edges, bounds=UNBOUNDED))


def match_parts(
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    *,
    owned: Mask | None = None,
    limits: Limits | None = None,
    edges: MoverEdges | None = None,
    bounds: Bounds | None = None,
) -> Iterator[TileMatch]:
    """Match the owned left rows; a tile of very many edges comes in parts, each of some of the rows, in their order.

    Parameters
    ----------
    left, right : Sources
        Rows within the ranges of `halo.plan_tile`; more rows do no harm.
    owned : ndarray of bool, shape (n_left,), optional
        Left rows of the tile; all by default.
    limits : Limits, optional
        Of the whole catalogues; by default the rows given are the whole catalogues.
    edges : MoverEdges, optional
        All edges of all movers.

    Raises
    ------
    UserError
        If the rows have more edges than ``bounds.most``, and all are wanted.
    StellarmlError
        Where an owned row's mover edge leads to a right row that was not given.
    """
    settled = (
        limits if limits is not None else limits_of(right if settings.moving == "left" else left, settings)
    )
    tile = _Tile(
        left, right, settings, settled, edges if edges is not None else no_edges(), bounds or Bounds()
    )
    mine = np.ones(len(left), dtype=bool) if owned is None else owned
    kept = tile.count(mine)
    graph = tile.graph
    times_best = graph.times_best()
    if kept is None and tile.bounds.only_best:
        kept = graph.best.take(graph.best.right_node >= 0)
    if kept is not None:
        yield tile.numbers(kept, mine, times_best)
        return
    for rows in tile.runs(mine):
        yield tile.numbers(tile.edges_of(rows), rows, times_best)


class _Tile:
    """The rows of one tile, prepared, and the graph of their good neighbours."""

    def __init__(
        self,
        left: Sources,
        right: Sources,
        settings: MatchSettings,
        settled: Limits,
        far: MoverEdges,
        bounds: Bounds,
    ) -> None:
        self._left, self._right, self._settings, self.bounds = left, right, settings, bounds
        self._mean_epoch_yr = settled.mean_epoch_yr
        moving_rows, staying_rows = (left, right) if settings.moving == "left" else (right, left)
        self._moving = prepare_moving(moving_rows, settings)
        self._staying = prepare_staying(staying_rows, settings, settled.mean_epoch_yr)
        reach = reach_arcsec(self._moving, settings, settled)
        near = replace(self._moving, usable=self._moving.usable & ~(reach > settled.edge_radius_arcsec))
        zones = index_staying(self._staying, float(np.median(reach)) / 3600.0 if len(reach) else 1.0)
        self._search = Search(near, self._staying, zones, settings)
        self._density: Crowding | None = None
        left_far, self._left_ids = nodes_of(left.id, far.left_id)
        right_far, self._right_ids = nodes_of(right.id, far.right_id)
        self._far = Edges(left_far, right_far, far.distance_arcsec, far.d2, far.rank, far.flags)
        self.graph = NeighbourGraph(len(self._left_ids), self._right_ids)
        self._order = in_order(left)
        self._place: Integers | None = None
        self._chunks: list[tuple[int, int, int]] = []

    def count(self, mine: Mask) -> Edges | None:
        """Gather the graph of all edges; return them if they are few enough to hold, otherwise None.

        Raises
        ------
        UserError
            If the rows `mine` have more edges than the bound, and not only the best are wanted.
        """
        held: list[Edges] | None = []
        number, first, rows = 0, 0, len(self._moving.ra_deg)
        while first < rows:
            edges, following = self._near(first)
            self.graph.add(edges)
            number += len(edges)
            if len(edges):
                in_one = first == 0 and following == rows
                self._chunks.append((first, *((0, len(self._order)) if in_one else self._span(edges))))
            first = following
            if held is not None:
                held = [*held, edges] if number + len(self._far) <= self.bounds.held else None
            if number > self.bounds.most:
                self._refuse_if_too_many(mine, first / rows)
        self.graph.add(self._far)
        self._refuse_if_too_many(mine, 1.0)
        return None if held is None else Edges.concatenate([*held, self._far])

    def _span(self, edges: Edges) -> tuple[int, int]:
        """Return the first and the last place, in the order of the catalogue, of the left rows of edges."""
        if self._place is None:
            self._place = np.empty(len(self._order), dtype=np.int64)
            self._place[self._order] = np.arange(len(self._order))
        at = self._place[edges.left_node]
        return int(at.min()), int(at.max())

    def _refuse_if_too_many(self, mine: Mask, share: float) -> None:
        found = int(self.graph.left_degree[: len(mine)][mine].sum(dtype=np.int64))
        if found > self.bounds.most and not self.bounds.only_best:
            rows = max(1, int(mine.sum()))
            about = "about " if share < 1.0 else ""
            raise UserError(
                f"a tile of {rows:,} rows has {about}{found / share:,.0f} pairs, {found / share / rows:,.0f} a row, "
                f"and {self.bounds.most:,} are the most that are written of one. Search less far "
                "(crossmatch.radius_arcsec), leave out rows with large positional errors, or ask for the best pairs "
                "only (stellarml match --mode best)."
            )

    def _near(self, first: int) -> tuple[Edges, int]:
        """Return the edges of a chunk of the moving rows, and the first row after it."""
        found, following = self._search.pairs(first, self.bounds.chunk)
        nodes = (found.moving_row, found.staying_row)
        left, right = nodes if self._settings.moving == "left" else nodes[::-1]
        return Edges(left, right, found.distance_arcsec, found.d2, found.rank, found.flags), following

    def runs(self, mine: Mask) -> Iterator[Mask]:
        """Cut the rows `mine`, in the order of the catalogue, into runs of no more edges than can be held."""
        rows = self._order[mine[self._order]]
        before = np.cumsum(self.graph.left_degree[rows], dtype=np.int64)
        number = (before - 1) // max(1, self.bounds.held // 2)
        for run in np.split(rows, np.flatnonzero(np.diff(number)) + 1):
            chosen = np.zeros(len(mine), dtype=bool)
            chosen[run] = True
            yield chosen

    def edges_of(self, rows: Mask) -> Edges:
        """Search once more for the edges of some left rows, in the chunks that have any."""
        places = np.flatnonzero(rows[self._order])
        low, high = (int(places[0]), int(places[-1])) if len(places) else (0, -1)
        found = []
        for first, least, most in self._chunks:
            if least <= high and most >= low:
                edges, _ = self._near(first)
                found.append(edges.take(rows[edges.left_node]))
        given = self._far.left_node < len(rows)
        far = self._far.take(given)
        return Edges.concatenate([*found, far.take(rows[far.left_node])])

    def numbers(self, edges: Edges, rows: Mask, times_best: Counts) -> TileMatch:
        """Return the edges of left `rows`, in the order of the catalogue, with what the whole graph says of each."""
        mine = np.zeros(len(self._left_ids), dtype=bool)
        mine[: len(rows)] = rows
        kept = np.flatnonzero(mine[edges.left_node])
        left_node, right_node = edges.left_node[kept], edges.right_node[kept]
        if (right_node >= len(self._right)).any():
            raise StellarmlError(
                "cross-match: a mover's counterpart is not among the right rows; read the ranges of halo.plan_tile"
            )
        left_ids, right_ids = self._left_ids, self._right_ids
        order = edge_order(self._left.healpix_29, left_ids, right_ids, left_node, right_node)
        edges = edges.take(kept[order])
        degree = self.graph.left_degree[edges.left_node]
        reverse_degree = self.graph.right_degree[edges.right_node]
        xm_flag = edges.flags.copy()
        xm_flag[reverse_degree > 1] |= np.int16(MatchFlag.HAS_MULTIPLES)
        found = TileMatch(
            rows=rows,
            left_row=edges.left_node,
            right_row=edges.right_node,
            left_id=self._left.id[edges.left_node],
            right_id=self._right.id[edges.right_node],
            distance_arcsec=edges.distance_arcsec,
            d2=edges.d2,
            score=edges.rank,
            number_of_neighbours=degree,
            number_of_mates=self.graph.mates(edges, times_best),
            number_of_reverse_neighbours=reverse_degree,
            xm_flag=xm_flag,
            best=self.graph.is_best(edges),
            unique=(degree == 1) & (reverse_degree == 1),
            density=np.zeros(len(edges), dtype=np.int32),
            neighbours_of_left=self.graph.left_degree[: len(self._left)],
        )
        return found if self._settings.radius_arcsec is not None else self._with_density(found)

    def _with_density(self, found: TileMatch) -> TileMatch:
        if self._density is None:
            self._density = Crowding(self._moving, self._staying, self._settings, self._mean_epoch_yr)
        density = self._density.about(found.left_row)
        score = found.score - ln_density_per_mas2(density, self._settings.density_radius_arcsec)
        return replace(found, density=density, score=score)
