"""What a cross-match must know before any tile can be matched: light passes over slim columns of whole catalogues."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stellarml.config import Tiles
from stellarml.crossmatch.frame import frame_part, frame_record, frame_search, merge_frame
from stellarml.crossmatch.halo import halo_radii_arcsec, plan_tile
from stellarml.crossmatch.limits import (
    MAX_MOVERS,
    Limits,
    MovingPart,
    StayingPart,
    choose_edge_radius,
    is_mover,
    measure_moving,
    merge_staying,
    staying_part,
    still,
)
from stellarml.crossmatch.movers import MoverEdges, merge_edges, mover_edges, mover_ranges, no_edges
from stellarml.crossmatch.settings import MatchSettings, Sources
from stellarml.crossmatch.sides import Side
from stellarml.engine import Unit, run_units
from stellarml.hats_reading import Leaf
from stellarml.leaf_cache import COLUMNS
from stellarml.log import get_logger
from stellarml.margin import halo_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class MatchPlan:
    """All that a tile's task needs to know; `name` tells this run from others."""

    out: Path
    left: Side
    right: Side
    settings: MatchSettings
    limits: Limits
    edges: MoverEdges
    tiles: Tiles
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def record(self) -> dict[str, Any]:
        """Return what run.json tells of the plan beside the counts; `frame` where an offset was measured."""
        told = {
            "left_rows": self.left.rows,
            "right_rows": self.right.rows,
            "edge_radius_arcsec": self.limits.edge_radius_arcsec,
            "fast_movers": self.limits.movers,
        }
        return told if self.right.frame is None else told | {"frame": frame_record(self.right.frame)}


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
    """Gather what must be known of whole catalogues before any tile can be matched, and log where halos come from."""
    plan = _plan(spark, stage, out, marks, left, right, settings, tiles)
    for name, side, arcsec in zip(
        ("left", "right"), (left, right), halo_radii_arcsec(settings, plan.limits), strict=True
    ):
        get_logger().info(
            halo_source(side.catalogue, arcsec), stage=stage, side=name, halo_arcsec=round(arcsec, 3)
        )
    return plan


def _plan(
    spark: SparkSession,
    stage: str,
    out: Path,
    marks: dict[str, dict[str, Any]],
    left: Side,
    right: Side,
    settings: MatchSettings,
    tiles: Tiles,
) -> MatchPlan:
    staying = right if settings.moving == "left" else left
    limits = merge_staying([])
    if staying.with_errors or staying.descriptor.position.epoch is not None:
        pieces = _each_leaf(
            spark, stage, out, marks, "staying", staying, lambda s: _pack(staying_part(s, settings))
        )
        limits = merge_staying([StayingPart(**piece) for piece in pieces])
    if settings.frame is not None:
        bright_mag = settings.frame.bright_mag
        pieces = _frame_parts(spark, stage, out, marks, left, right, settings, bright_mag, limits)
        frame = merge_frame(pieces, settings.frame)
        right, limits = replace(right, frame=frame), replace(limits, frame_arcsec=frame.largest_arcsec)
    moving, staying = (left, right) if settings.moving == "left" else (right, left)
    if not moving.with_errors and moving.descriptor.position.pmra is None:
        return MatchPlan(out, left, right, settings, still(settings, limits), no_edges(), tiles)

    def measure(rows: Sources) -> dict[str, Any]:
        part, may_be_mover = measure_moving(rows, settings, limits)
        few = may_be_mover.sum() <= MAX_MOVERS
        return _pack(part) | {"far": _pack(rows.take(may_be_mover)) if few else None}

    pieces = _each_leaf(spark, stage, out, marks, "moving", moving, measure)
    far = [piece.pop("far") for piece in pieces]
    parts = [MovingPart(**{name: np.array(value) for name, value in piece.items()}) for piece in pieces]
    settled = choose_edge_radius(parts, limits)
    edges = no_edges()
    if settled.movers:
        if None in far:

            def pick(rows: Sources) -> dict[str, Any]:
                return _pack(rows.take(is_mover(rows, settings, settled)))

            far = _each_leaf(spark, stage, out, marks, "movers", moving, pick)
        movers = Sources.concatenate([_unpack_sources(piece) for piece in far])
        movers = movers.take(is_mover(movers, settings, settled))
        candidates = staying.sources(mover_ranges(movers, settings, settled))
        edges = merge_edges([mover_edges(movers, candidates, settings, settled)])
    return MatchPlan(out, left, right, settings, settled, edges, tiles)


def _frame_parts(
    spark: SparkSession,
    stage: str,
    out: Path,
    marks: dict[str, dict[str, Any]],
    left: Side,
    right: Side,
    settings: MatchSettings,
    bright_mag: float,
    limits: Limits,
) -> list[dict[str, Any]]:
    """Compare the positions of bright pairs, by the leaves of the left catalogue."""
    search, wide = frame_search(settings, limits)

    def work(leaf: Leaf) -> dict[str, Any]:
        halo = plan_tile(leaf.tile.order, leaf.tile.pixel, search, wide)
        rows = left.bright_sources(halo.left, bright_mag)
        others = right.bright_sources(halo.right, bright_mag)
        first, end = leaf.tile.range
        owned = (rows.healpix_29 >= first) & (rows.healpix_29 < end)
        return {"files": {}, "part": frame_part(rows, others, settings, limits, owned)}

    return _units(spark, stage, out, marks, "frame", left, work)


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
        COLUMNS.serve(what)
        return {"files": {}, "part": measure(side.sources(np.array([leaf.tile.range])))}

    return _units(spark, stage, out, marks, what, side, work)


def _units(
    spark: SparkSession,
    stage: str,
    out: Path,
    marks: dict[str, dict[str, Any]],
    what: str,
    side: Side,
    work: Callable[[Leaf], dict[str, Any]],
) -> list[dict[str, Any]]:
    units = [Unit(f"{what}-{leaf.tile.name}", leaf.rows, leaf) for leaf in side.leaves]
    pending = [unit for unit in units if unit.name not in marks]
    done = marks | run_units(spark, stage, out, pending, work, in_runs=True)
    return [done[unit.name]["part"] for unit in units]


def _pack(record: Any) -> dict[str, Any]:
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in vars(record).items()}


def _unpack_sources(piece: dict[str, Any]) -> Sources:
    integers = ("id", "healpix_29")
    columns: Any = {n: np.array(v, np.int64 if n in integers else np.float64) for n, v in piece.items()}
    return Sources(**columns)
