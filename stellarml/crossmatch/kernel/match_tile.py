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

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import StellarmlError
from stellarml.core.match_flags import MatchFlag
from stellarml.crossmatch.kernel.astrometry import Mask, Moving, Staying, prepare_moving, prepare_staying
from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.density import Counts, count_within, ln_density_per_mas2
from stellarml.crossmatch.kernel.fast_movers import MoverEdges, no_edges
from stellarml.crossmatch.kernel.limits import Limits, limits_of, reach_arcsec
from stellarml.crossmatch.kernel.pairs import find_pairs, index_staying
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings, Sources
from stellarml.crossmatch.kernel.zones import build_zones


@dataclass(frozen=True)
class TileMatch:
    """Edges of the owned left rows, sorted by (left ``_healpix_29``, left id, right id); arrays of shape (n_edges,).

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


def match_tile(
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    *,
    owned: Mask | None = None,
    limits: Limits | None = None,
    edges: MoverEdges | None = None,
) -> TileMatch:
    """Match the owned left rows; see the module for what the rows must hold.

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
    StellarmlError
        Where an owned row's mover edge leads to a right row that was not given.
    """
    settled = (
        limits if limits is not None else limits_of(right if settings.moving == "left" else left, settings)
    )
    graph, moving, staying = _edges(left, right, settings, settled, edges)
    mine = np.ones(len(graph.left_ids), dtype=bool)
    mine[len(left) :] = False
    if owned is not None:
        mine[: len(left)] = owned
    kept = np.flatnonzero(mine[graph.left_node])
    if (graph.right_node[kept] >= len(right)).any():
        raise StellarmlError(
            "cross-match: a mover's counterpart is not among the right rows; read the ranges of halo.plan_tile"
        )
    found = _numbers(graph, left, right, kept)
    if settings.radius_arcsec is not None:
        return found
    density = _density(moving, staying, settings, settled.mean_epoch_yr, found.left_row)
    score = found.score - ln_density_per_mas2(density, settings.density_radius_arcsec)
    return replace(found, density=density, score=score)


@dataclass(frozen=True)
class _Edges:
    """All good neighbours, near ones and those of movers, as edges between nodes: rows, then sources not given."""

    left_node: Integers
    right_node: Integers
    left_ids: Integers
    right_ids: Integers
    distance_arcsec: Floats
    d2: Floats
    rank: Floats
    flags: NDArray[np.int16]


def _edges(
    left: Sources, right: Sources, settings: MatchSettings, settled: Limits, edges: MoverEdges | None
) -> tuple[_Edges, Moving, Staying]:
    """Find the pairs of the rows that do not reach beyond the edge radius, and add the movers' edges."""
    moving_rows, staying_rows = (left, right) if settings.moving == "left" else (right, left)
    moving = prepare_moving(moving_rows, settings)
    staying = prepare_staying(staying_rows, settings, settled.mean_epoch_yr)
    reach = reach_arcsec(moving, settings, settled)
    near = replace(moving, usable=moving.usable & ~(reach > settled.edge_radius_arcsec))
    zones = index_staying(staying, float(np.median(reach)) / 3600.0 if len(reach) else 1.0)
    found = find_pairs(near, staying, zones, settings)
    far = edges if edges is not None else no_edges()
    left_far, left_ids = _nodes(left.id, far.left_id)
    right_far, right_ids = _nodes(right.id, far.right_id)
    by_moving = (found.moving_row, found.staying_row)
    near_left, near_right = by_moving if settings.moving == "left" else by_moving[::-1]
    graph = _Edges(
        left_node=np.concatenate([near_left, left_far]),
        right_node=np.concatenate([near_right, right_far]),
        left_ids=left_ids,
        right_ids=right_ids,
        distance_arcsec=np.concatenate([found.distance_arcsec, far.distance_arcsec]),
        d2=np.concatenate([found.d2, far.d2]),
        rank=np.concatenate([found.rank, far.rank]),
        flags=np.concatenate([found.flags, far.flags]),
    )
    return graph, moving, staying


def _numbers(graph: _Edges, left: Sources, right: Sources, kept: Integers) -> TileMatch:
    """Return the edges `kept`, in the order of the catalogue, with what the whole graph says of each."""
    left_node, right_node, left_ids, right_ids = (
        graph.left_node,
        graph.right_node,
        graph.left_ids,
        graph.right_ids,
    )
    neighbours, reverse, best, mates = _graph(
        left_node, right_node, graph.rank, graph.d2, right_ids, len(left_ids)
    )
    kept = kept[_order(left.healpix_29, left_ids, right_ids, left_node[kept], right_node[kept])]
    a, b = left_node[kept], right_node[kept]
    degree, reverse_degree = neighbours[a], reverse[b]
    xm_flag = graph.flags[kept]
    xm_flag[reverse_degree > 1] |= np.int16(MatchFlag.HAS_MULTIPLES)
    return TileMatch(
        left_row=a,
        right_row=b,
        left_id=left.id[a],
        right_id=right.id[b],
        distance_arcsec=graph.distance_arcsec[kept],
        d2=graph.d2[kept],
        score=graph.rank[kept],
        number_of_neighbours=degree,
        number_of_mates=mates[kept],
        number_of_reverse_neighbours=reverse_degree,
        xm_flag=xm_flag,
        best=best[a] == kept,
        unique=(degree == 1) & (reverse_degree == 1),
        density=np.zeros(len(kept), dtype=np.int32),
        neighbours_of_left=neighbours[: len(left)],
    )


def _nodes(ids: Integers, far_ids: Integers) -> tuple[Integers, Integers]:
    if not len(far_ids):
        return np.empty(0, dtype=np.int64), ids
    distinct, which = np.unique(far_ids, return_inverse=True)
    position = np.minimum(np.searchsorted(distinct, ids), len(distinct) - 1)
    present = np.flatnonzero(distinct[position] == ids)
    node = np.full(len(distinct), -1, dtype=np.int64)
    node[position[present]] = present
    absent = np.flatnonzero(node < 0)
    node[absent] = len(ids) + np.arange(len(absent))
    return node[which], np.concatenate([ids, distinct[absent]])


def _density(
    moving: Moving,
    staying: Staying,
    settings: MatchSettings,
    mean_epoch_yr: float,
    left_row: Integers,
) -> Counts:
    radius = settings.density_radius_arcsec
    left: Moving | Staying
    right: Moving | Staying
    if settings.moving == "left":
        left, right = moving, staying
        motions = (moving.motion_rad_yr, moving.speed_rad_yr, moving.epoch_yr)
    else:
        left, right = staying, moving
        motions = (np.zeros_like(staying.vector), np.zeros_like(staying.epoch_yr), staying.epoch_yr)
    # an index of its own: the zones of the pair search are a tenth as high, and each would cost a binary search
    zones = build_zones(right.ra_deg, right.dec_deg, right.vector, right.usable, radius / 3600.0)
    wanted = np.zeros(len(left.ra_deg), dtype=bool)
    wanted[left_row] = True
    place = (left.ra_deg, left.dec_deg, left.vector)
    counts = count_within(np.flatnonzero(wanted), place, motions, mean_epoch_yr, zones, radius)
    density: Counts = counts[left_row]
    return density


def _order(
    index: Integers, left_ids: Integers, right_ids: Integers, left_node: Integers, right_node: Integers
) -> Integers:
    order = np.arange(len(left_node))
    near, far = slice(None, -1), slice(1, None)
    place, name = index[left_node], left_ids[left_node]
    same = left_node[near] == left_node[far]
    later = (place[near] < place[far]) | ((place[near] == place[far]) & (name[near] < name[far]))
    if not (same | later).all():
        return np.lexsort((right_ids[right_node], name, place)).astype(np.int64)
    shared = np.zeros(len(order), dtype=bool)
    shared[near] |= same
    shared[far] |= same
    some = np.flatnonzero(shared)
    order[some] = some[np.lexsort((right_ids[right_node[some]], left_node[some]))]
    return order


@compiled
def _graph(
    left_node: Integers, right_node: Integers, rank: Floats, d2: Floats, right_ids: Integers, lefts: int
) -> tuple[Counts, Counts, Integers, Counts]:
    neighbours = np.zeros(lefts, dtype=np.int32)
    reverse = np.zeros(len(right_ids), dtype=np.int32)
    chosen = np.zeros(len(right_ids), dtype=np.int32)
    best = np.full(lefts, -1, dtype=np.int64)
    for e in range(len(left_node)):
        a, b = left_node[e], right_node[e]
        neighbours[a] += 1
        reverse[b] += 1
        f = best[a]
        if f < 0 or rank[e] > rank[f]:
            best[a] = e
        elif rank[e] == rank[f]:
            nearer, farther = d2[e] < d2[f], d2[e] > d2[f]
            if nearer or (not farther and right_ids[b] < right_ids[right_node[f]]):
                best[a] = e
    for a in range(lefts):
        if best[a] >= 0:
            chosen[right_node[best[a]]] += 1
    mates = np.empty(len(left_node), dtype=np.int32)
    for e in range(len(left_node)):
        mates[e] = chosen[right_node[e]] - (1 if best[left_node[e]] == e else 0)
    return neighbours, reverse, best, mates
