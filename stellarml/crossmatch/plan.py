"""What a cross-match must know before any tile can be matched: light passes over slim columns of whole catalogues."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stellarml.core.config import Tiles
from stellarml.core.tiles import Tile
from stellarml.crossmatch.kernel.fast_movers import (
    MoverEdges,
    merge_edges,
    mover_edges,
    mover_ranges,
    no_edges,
)
from stellarml.crossmatch.kernel.frame_offset import (
    FrameOffsets,
    frame_part,
    frame_record,
    frame_search,
    merge_frame,
)
from stellarml.crossmatch.kernel.halo import halo_radii_arcsec, plan_tile
from stellarml.crossmatch.kernel.limits import (
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
from stellarml.crossmatch.kernel.settings import FrameSettings, MatchSettings, Sources
from stellarml.crossmatch.sides import Side
from stellarml.run.log import get_logger
from stellarml.run.stage_run import StageRun
from stellarml.run.units import Unit, run_units
from stellarml.storage.hats_reader import Leaf
from stellarml.storage.leaf_cache import COLUMNS
from stellarml.storage.margin_reader import halo_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_STEPS = {
    "staying": "limits of the positional errors",
    "frame": "frame offset from bright pairs",
    "moving": "limits of the proper motions",
    "movers": "fast movers",
}
"""What the user is shown of each light pass."""


@dataclass(frozen=True)
class MatchPlan:
    """All that a tile's task needs to know; `name` keeps what this match reads apart from what others did."""

    out: Path
    left: Side
    right: Side
    settings: MatchSettings
    limits: Limits
    edges: MoverEdges
    tiles: Tiles
    name: str

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the plan beside the counts; `frame` where an offset was measured."""
        record = {
            "left_rows": self.left.rows,
            "right_rows": self.right.rows,
            "edge_radius_arcsec": self.limits.edge_radius_arcsec,
            "fast_movers": self.limits.movers,
        }
        return record if self.right.frame is None else record | {"frame": frame_record(self.right.frame)}


@dataclass(frozen=True)
class _Passes:
    """The light passes of one match: a unit with a mark of its own for each leaf of the side that is passed over.

    match
        What distinguishes the marks of this match from those of others of the same run.
    """

    spark: SparkSession
    run: StageRun
    match: str
    name: str

    def over(self, what: str, side: Side, work: Callable[[Leaf], Any]) -> list[Any]:
        """Run `work` on every leaf; return what it gave, in the order of the sky."""
        name = self.name

        def unit_work(leaf: Leaf) -> dict[str, Any]:
            COLUMNS.serve(name)
            return {"files": {}, "part": work(leaf)}

        units = [Unit(f"{what}-{self.match}-{leaf.tile.name}", leaf.rows, leaf) for leaf in side.leaves]
        marks = run_units(self.spark, self.run, units, unit_work, in_runs=True, step=_STEPS[what])
        return [mark["part"] for mark in marks]


def plan_match(
    spark: SparkSession, run: StageRun, left: Side, right: Side, settings: MatchSettings
) -> MatchPlan:
    """Gather what must be known of whole catalogues before any tile can be matched, and log where halos come from."""
    match = f"{left.descriptor.name}-{right.descriptor.name}"
    passes = _Passes(spark, run, match, uuid.uuid4().hex)
    limits = _staying_limits(passes, right if settings.moving == "left" else left, settings)
    if settings.unknown_epochs_yr is not None and not math.isfinite(limits.first_epoch_yr):
        first, last = settings.unknown_epochs_yr
        limits = replace(limits, first_epoch_yr=first, last_epoch_yr=last)
    if settings.frame is not None:
        frame = _frame_offsets(passes, left, right, settings, settings.frame, limits)
        right, limits = replace(right, frame=frame), replace(limits, frame_arcsec=frame.largest_arcsec)
    moving, staying = (left, right) if settings.moving == "left" else (right, left)
    limits, edges = _movers(passes, moving, staying, settings, limits)
    radii = halo_radii_arcsec(settings, limits)
    for side, catalogue, arcsec in zip(
        ("left", "right"), (left.catalogue, right.catalogue), radii, strict=True
    ):
        message = halo_source(catalogue, arcsec)
        get_logger().info(message, stage=run.stage, side=side, halo_arcsec=round(arcsec, 3))
    return MatchPlan(run.out, left, right, settings, limits, edges, run.config.tiles, passes.name)


def _staying_limits(passes: _Passes, staying: Side, settings: MatchSettings) -> Limits:
    if not staying.with_errors and staying.descriptor.position.epoch is None:
        return merge_staying([])

    def work(leaf: Leaf) -> dict[str, Any]:
        return _pack(staying_part(staying.unplaced_sources(np.array([leaf.tile.range])), settings))

    pieces = passes.over("staying", staying, work)
    return merge_staying([StayingPart(**piece) for piece in pieces])


def _movers(
    passes: _Passes, moving: Side, staying: Side, settings: MatchSettings, limits: Limits
) -> tuple[Limits, MoverEdges]:
    """Settle the edge radius, and resolve the sources that reach beyond it against the whole other catalogue."""
    if not moving.with_errors and moving.descriptor.position.pmra is None:
        return still(settings, limits), no_edges()

    def measure(leaf: Leaf) -> dict[str, Any]:
        where = np.array([leaf.tile.range])
        rows = moving.unplaced_sources(where)
        part, may_be_mover = measure_moving(rows, settings, limits)
        if may_be_mover.sum() > MAX_MOVERS:
            return _pack(part) | {"far": None}
        far = moving.sources(where) if may_be_mover.any() else rows
        return _pack(part) | {"far": _pack(far.take(may_be_mover))}

    pieces = passes.over("moving", moving, measure)
    far = [piece.pop("far") for piece in pieces]
    parts = [MovingPart(**{name: np.array(value) for name, value in piece.items()}) for piece in pieces]
    settled = choose_edge_radius(parts, limits)
    if not settled.movers:
        return settled, no_edges()
    if None in far:

        def pick(leaf: Leaf) -> dict[str, Any]:
            rows = moving.sources(np.array([leaf.tile.range]))
            return _pack(rows.take(is_mover(rows, settings, settled)))

        far = passes.over("movers", moving, pick)
    movers = Sources.concatenate([_unpack_sources(piece) for piece in far])
    movers = movers.take(is_mover(movers, settings, settled))
    candidates = staying.sources(mover_ranges(movers, settings, settled))
    return settled, merge_edges([mover_edges(movers, candidates, settings, settled)])


def _frame_offsets(
    passes: _Passes, left: Side, right: Side, settings: MatchSettings, frame: FrameSettings, limits: Limits
) -> FrameOffsets:
    """Compare the positions of bright pairs, by the leaves of the left catalogue."""
    search, wide = frame_search(settings, limits)

    def work(leaf: Leaf) -> dict[str, Any]:
        halo = plan_tile(leaf.tile.order, leaf.tile.pixel, search, wide)
        rows = left.bright_sources(halo.left, frame.bright_mag)
        others = right.bright_sources(halo.right, frame.bright_mag)
        first, end = leaf.tile.range
        owned = (rows.healpix_29 >= first) & (rows.healpix_29 < end)
        return frame_part(rows, others, settings, limits, owned)

    return merge_frame(passes.over("frame", left, work), frame)


def _pack(record: Any) -> dict[str, Any]:
    return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in vars(record).items()}


def _unpack_sources(piece: dict[str, Any]) -> Sources:
    integers = ("id", "healpix_29")
    columns: Any = {n: np.array(v, np.int64 if n in integers else np.float64) for n, v in piece.items()}
    return Sources(**columns)


def no_overlap(plan: MatchPlan) -> str:
    """Say why two catalogues without a single pair may have none."""

    def area(side: Side) -> str:
        order = 3
        pixels = {pixel for leaf in side.leaves for pixel in _pixels_at(leaf.tile, order)}
        return (
            f"{sum(leaf.rows for leaf in side.leaves)} rows in {len(pixels)} of 768 HEALPix pixels of order 3"
        )

    return (
        f"no source of {plan.left.descriptor.name} has a counterpart in {plan.right.descriptor.name}: "
        f"{area(plan.left)} against {area(plan.right)}. Check that both cover the same part of the sky, that positions "
        "are in degrees, and unless crossmatch.scope is 'full' that rows pass their cuts."
    )


def _pixels_at(tile: Tile, order: int) -> range:
    if tile.order >= order:
        pixel = tile.pixel >> 2 * (tile.order - order)
        return range(pixel, pixel + 1)
    width = 4 ** (order - tile.order)
    return range(tile.pixel * width, (tile.pixel + 1) * width)
