"""What does the graph of good neighbours say of each source? Gathered edge by edge, in any order, in bounded memory.

Of all edges only what each node needs is kept: degrees, and of each left source its best edge. So a crowded tile, whose
edges are too many to hold, is counted in one pass and can be written in a second.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stellarml.crossmatch.kernel.compiled import compiled
from stellarml.crossmatch.kernel.settings import Floats, Integers, Sources

Counts = NDArray[np.int32]


@dataclass(frozen=True)
class Edges:
    """Good neighbours as edges between nodes (rows that were given, then sources that were not); shape (n_edges,)."""

    left_node: Integers
    right_node: Integers
    distance_arcsec: Floats
    d2: Floats
    rank: Floats
    flags: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.left_node)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Edges:
        """Those edges only, by index or mask."""
        return Edges(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @staticmethod
    def concatenate(parts: list[Edges]) -> Edges:
        """All edges of parts, in their order; one part at least."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        return Edges(
            **{
                name.name: np.concatenate([getattr(part, name.name) for part in parts])
                for name in fields(Edges)
            }
        )


class NeighbourGraph:
    """Degrees of both sides, and the best edge of each left node, of all edges that were added.

    left_degree, right_degree
        Good neighbours of each node.
    best
        The best edge of each left node; where it has none, ``right_node`` is -1.
    """

    def __init__(self, lefts: int, right_ids: Integers) -> None:
        self._right_ids = right_ids
        self.left_degree: Counts = np.zeros(lefts, dtype=np.int32)
        self.right_degree: Counts = np.zeros(len(right_ids), dtype=np.int32)
        self.best = Edges(
            left_node=np.arange(lefts),
            right_node=np.full(lefts, -1, dtype=np.int64),
            distance_arcsec=np.zeros(lefts),
            d2=np.zeros(lefts),
            rank=np.zeros(lefts),
            flags=np.zeros(lefts, dtype=np.int16),
        )

    def add(self, edges: Edges) -> None:
        """Take in further edges; no edge comes twice."""
        best = self.best
        _add(
            edges.left_node,
            edges.right_node,
            edges.distance_arcsec,
            edges.d2,
            edges.rank,
            edges.flags,
            self._right_ids,
            self.left_degree,
            self.right_degree,
            best.right_node,
            best.distance_arcsec,
            best.d2,
            best.rank,
            best.flags,
        )

    def is_best(self, edges: Edges) -> NDArray[np.bool_]:
        """Tell which edges are the best of their left node."""
        found: NDArray[np.bool_] = self.best.right_node[edges.left_node] == edges.right_node
        return found

    def mates(self, edges: Edges, times_best: Counts) -> Counts:
        """Count, for each edge, the other left nodes whose best edge leads to its right node."""
        found: Counts = times_best[edges.right_node] - self.is_best(edges).astype(np.int32)
        return found

    def times_best(self) -> Counts:
        """Count, for each right node, the left nodes whose best edge leads to it."""
        return _times_best(self.best.right_node, len(self.right_degree))


def in_order(left: Sources) -> Integers:
    """Return the left rows in the order of the catalogue: by ``_healpix_29``, then by id."""
    place, name = left.healpix_29, left.id
    near, far = slice(None, -1), slice(1, None)
    if ((place[near] < place[far]) | ((place[near] == place[far]) & (name[near] < name[far]))).all():
        return np.arange(len(left))
    return np.lexsort((name, place)).astype(np.int64)


def nodes_of(ids: Integers, far_ids: Integers) -> tuple[Integers, Integers]:
    """Return the node of each of `far_ids`, and the ids of all nodes: the rows' own `ids`, then those of none."""
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


def edge_order(
    index: Integers, left_ids: Integers, right_ids: Integers, left_node: Integers, right_node: Integers
) -> Integers:
    """Return the order of edges by the left node's ``_healpix_29``, its id, and the right node's id."""
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
def _add(
    left_node: Integers,
    right_node: Integers,
    distance: Floats,
    d2: Floats,
    rank: Floats,
    flags: NDArray[np.int16],
    right_ids: Integers,
    left_degree: Counts,
    right_degree: Counts,
    best_right: Integers,
    best_distance: Floats,
    best_d2: Floats,
    best_rank: Floats,
    best_flags: NDArray[np.int16],
) -> None:
    for e in range(len(left_node)):
        a, b = left_node[e], right_node[e]
        left_degree[a] += 1
        right_degree[b] += 1
        better = best_right[a] < 0 or rank[e] > best_rank[a]
        if not better and rank[e] == best_rank[a]:
            nearer, farther = d2[e] < best_d2[a], d2[e] > best_d2[a]
            better = nearer or (not farther and right_ids[b] < right_ids[best_right[a]])
        if better:
            best_right[a], best_distance[a], best_d2[a] = b, distance[e], d2[e]
            best_rank[a], best_flags[a] = rank[e], flags[e]


@compiled
def _times_best(best_right: Integers, rights: int) -> Counts:
    times = np.zeros(rights, dtype=np.int32)
    for b in best_right:
        if b >= 0:
            times[b] += 1
    return times
