"""What a cross-match must know before any tile can be matched: light passes over slim columns of whole catalogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.config import Tiles
from stellarml.crossmatch.limits import (
    Limits,
    MovingPart,
    StayingPart,
    choose_edge_radius,
    is_mover,
    merge_staying,
    moving_part,
    staying_part,
)
from stellarml.crossmatch.movers import MoverEdges, merge_edges, mover_edges, mover_ranges, no_edges
from stellarml.crossmatch.rows import match_columns, taking_part, to_sources
from stellarml.crossmatch.settings import MatchSettings, Sources
from stellarml.engine import Unit, run_units
from stellarml.hats_catalogue import Leaf, read_ranges
from stellarml.schema import CUTS_FAILED
from stellarml.sources.descriptor import Descriptor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Side:
    """One catalogue of a match: its leaves, what its columns mean, and which rows take part."""

    leaves: tuple[Leaf, ...]
    schema: pa.Schema
    descriptor: Descriptor
    scope: str

    def read(self, ranges: npt.NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Read the rows in `ranges` that take part."""
        names = list(dict.fromkeys([*columns, CUTS_FAILED]))
        return taking_part(read_ranges(self.leaves, ranges, names, self.schema), self.scope)

    def sources(self, ranges: npt.NDArray[np.int64]) -> Sources:
        """Read the rows in `ranges` that take part, in the kernel's form."""
        return to_sources(self.read(ranges, match_columns(self.descriptor, self.schema)), self.descriptor)


@dataclass(frozen=True)
class MatchPlan:
    """All that a tile's task needs to know."""

    out: Path
    left: Side
    right: Side
    settings: MatchSettings
    limits: Limits
    edges: MoverEdges
    tiles: Tiles


def plan_match(
    spark: SparkSession,
    stage: str,
    out: Path,
    marks: dict[str, dict[str, Any]],
    left: Side,
    right: Side,
    settings: MatchSettings,
    tiles: Tiles,
) -> MatchPlan:
    """Gather what must be known of whole catalogues before any tile can be matched."""
    moving, staying = (left, right) if settings.moving == "left" else (right, left)
    pieces = _each_leaf(
        spark, stage, out, marks, "staying", staying, lambda s: _pack(staying_part(s, settings))
    )
    limits = merge_staying([StayingPart(**piece) for piece in pieces])
    pieces = _each_leaf(
        spark, stage, out, marks, "moving", moving, lambda s: _pack(moving_part(s, settings, limits))
    )
    parts = [MovingPart(**{name: np.array(value) for name, value in piece.items()}) for piece in pieces]
    limits = choose_edge_radius(parts, limits)
    edges = no_edges()
    if limits.movers:
        settled = limits
        pieces = _each_leaf(
            spark,
            stage,
            out,
            marks,
            "movers",
            moving,
            lambda s: _pack(s.take(is_mover(s, settings, settled))),
        )
        movers = Sources.concatenate([_unpack_sources(piece) for piece in pieces])
        candidates = staying.sources(mover_ranges(movers, settings, limits))
        edges = merge_edges([mover_edges(movers, candidates, settings, limits)])
    return MatchPlan(out, left, right, settings, limits, edges, tiles)


def _each_leaf(
    spark: SparkSession,
    stage: str,
    out: Path,
    marks: dict[str, dict[str, Any]],
    what: str,
    side: Side,
    measure: Callable[[Sources], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Run `measure` on the rows of every leaf of one side; each is a unit with a mark of its own."""

    def work(leaf: Leaf) -> dict[str, Any]:
        return {"files": {}, "part": measure(side.sources(np.array([leaf.tile.range])))}

    units = [Unit(f"{what}-{leaf.tile.name}", leaf.rows, leaf) for leaf in side.leaves]
    pending = [unit for unit in units if unit.name not in marks]
    done = marks | run_units(spark, stage, out, pending, work)
    return [done[unit.name]["part"] for unit in units]


def _pack(record: Any) -> dict[str, Any]:
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in vars(record).items()}


def _unpack_sources(piece: dict[str, Any]) -> Sources:
    integers = ("id", "healpix_29")
    columns: Any = {n: np.array(v, np.int64 if n in integers else np.float64) for n, v in piece.items()}
    return Sources(**columns)
