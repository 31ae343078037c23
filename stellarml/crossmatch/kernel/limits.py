"""What must be known of whole catalogues before a tile can be matched? Shares of tiles that merge.

Two passes over slim columns, each a small record a tile that merges in any order to the same bytes (integers, maxima):

1. `staying_part` of every tile of the side that stays, `merge_staying`: the mean epoch (it stands in for missing ones),
   the first and the last, and the largest admitted variance.
2. `measure_moving` of every tile of the side that moves, `choose_edge_radius`: a histogram of how far each row's edges
   can reach. The edge radius r bounds every edge of the rows within it; the few rows beyond are movers (fast, or with
   huge errors) and are resolved first, against the whole catalogue (`fast_movers`). r is the smallest that leaves at
   most `max_movers` rows out, but never below `comfort_arcsec`, because a halo of 30 arcsec costs nothing.

The choice of r decides what is read, never what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stellarml.core.sky import ARCSEC_PER_RAD
from stellarml.crossmatch.kernel.astrometry import (
    Mask,
    Moving,
    longest_shift_rad,
    prepare_moving,
    prepare_staying,
)
from stellarml.crossmatch.kernel.candidates import SAFETY
from stellarml.crossmatch.kernel.pairs import epoch_limits, search_radius_rad
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings, Sources

COMFORT_ARCSEC = 10.0
"""A halo of a few times this costs little; no row that reaches less far is a mover."""
MAX_MOVERS = 10_000
_STEPS_PER_YEAR = 1_000_000
_BIN_EDGES_ARCSEC: Floats = 2.0 ** (np.arange(-120, 161) / 8.0)


@dataclass(frozen=True)
class StayingPart:
    """One tile's share of what must be known of the side that stays; epochs summed in whole micro-years."""

    rows: int
    epochs: int
    epoch_steps: int
    first_epoch_yr: float
    last_epoch_yr: float
    widest_mas2: float


@dataclass(frozen=True)
class Limits:
    """What the kernel and the halo planner must know of both whole catalogues.

    `edge_radius_arcsec` bounds every edge whose moving row is not a mover, measured between positions as given;
    `shift_arcsec` is how far such a row travels at most. An infinite radius means that there are no movers.
    `frame_arcsec` is how far the position of a row of the right side, its frame offset removed, lies at most from the
    one that its stored index belongs to. Epochs are NaN where the side that stays has none: nothing is then moved.
    """

    mean_epoch_yr: float
    first_epoch_yr: float
    last_epoch_yr: float
    widest_staying_mas2: float
    edge_radius_arcsec: float = math.inf
    shift_arcsec: float = 0.0
    movers: int = 0
    frame_arcsec: float = 0.0

    @property
    def epochs_yr(self) -> tuple[float, float]:
        """First and last epoch of the side that stays."""
        return self.first_epoch_yr, self.last_epoch_yr


@dataclass(frozen=True)
class MovingPart:
    """One tile's share of how far edges reach: counts, largest reach and largest shift by bin of reach."""

    counts: Integers
    reach_arcsec: Floats
    shift_arcsec: Floats


def staying_part(rows: Sources, settings: MatchSettings) -> StayingPart:
    """Epochs and errors of the rows that take part, on the side that stays."""
    staying = prepare_staying(rows, settings, math.nan, placed=False)
    dated = staying.usable & np.isfinite(rows.epoch_yr)
    epochs = rows.epoch_yr[dated]
    steps = np.rint((epochs - 2000.0) * _STEPS_PER_YEAR).astype(np.int64)
    first, last = epoch_limits(epochs)
    return StayingPart(
        rows=int(staying.usable.sum()),
        epochs=len(epochs),
        epoch_steps=int(steps.sum()),
        first_epoch_yr=first,
        last_epoch_yr=last,
        widest_mas2=float(staying.variance[staying.usable, 3].max(initial=0.0)),
    )


def merge_staying(parts: Iterable[StayingPart]) -> Limits:
    """Join the tiles' shares, in any order, to limits without a mover threshold."""
    given = list(parts)
    known = sum(part.epochs for part in given)
    steps = sum(part.epoch_steps for part in given)
    dated = [part for part in given if part.epochs]
    mean = 2000.0 + steps / (known * _STEPS_PER_YEAR) if known else math.nan
    first = min((part.first_epoch_yr for part in dated), default=math.nan)
    last = max((part.last_epoch_yr for part in dated), default=math.nan)
    return Limits(
        mean_epoch_yr=min(max(mean, first), last) if known else mean,
        first_epoch_yr=first,
        last_epoch_yr=last,
        widest_staying_mas2=max((part.widest_mas2 for part in given), default=0.0),
    )


def reach_arcsec(moving: Moving, settings: MatchSettings, limits: Limits) -> Floats:
    """Per moving row, the bound on the length of its edges between stored positions, over the whole catalogue."""
    return ARCSEC_PER_RAD * search_radius_rad(moving, settings, limits.epochs_yr, limits.widest_staying_mas2)


def moving_part(rows: Sources, settings: MatchSettings, limits: Limits) -> MovingPart:
    """Histogram of the reach of the rows that take part, on the side that moves."""
    return measure_moving(rows, settings, limits)[0]


def measure_moving(rows: Sources, settings: MatchSettings, limits: Limits) -> tuple[MovingPart, Mask]:
    """Return `moving_part`, and which rows may turn out to be movers: those that reach beyond `COMFORT_ARCSEC`."""
    moving = prepare_moving(rows, settings, placed=False)
    reach = reach_arcsec(moving, settings, limits)
    may_be_mover: Mask = moving.usable & (reach > COMFORT_ARCSEC)
    reach = reach[moving.usable]
    shift = ARCSEC_PER_RAD * longest_shift_rad(moving, *limits.epochs_yr)[moving.usable]
    bins = np.searchsorted(_BIN_EDGES_ARCSEC, reach)
    size = len(_BIN_EDGES_ARCSEC) + 1
    largest_reach, largest_shift = np.zeros(size), np.zeros(size)
    np.maximum.at(largest_reach, bins, reach)
    np.maximum.at(largest_shift, bins, shift)
    return MovingPart(np.bincount(bins, minlength=size), largest_reach, largest_shift), may_be_mover


def choose_edge_radius(
    parts: Iterable[MovingPart],
    limits: Limits,
    *,
    comfort_arcsec: float = COMFORT_ARCSEC,
    max_movers: int = MAX_MOVERS,
) -> Limits:
    """Add the edge radius, the largest shift within it and the number of movers to `limits`."""
    given = list(parts)
    if not given:
        return replace(limits, edge_radius_arcsec=0.0, shift_arcsec=0.0, movers=0)
    counts = np.sum([part.counts for part in given], axis=0)
    reach = np.max([part.reach_arcsec for part in given], axis=0)
    shift = np.max([part.shift_arcsec for part in given], axis=0)
    beyond = int(counts.sum()) - np.cumsum(counts)
    few_enough = int(np.flatnonzero(beyond <= max_movers)[0])
    comfortable = int(np.searchsorted(_BIN_EDGES_ARCSEC, comfort_arcsec))
    last = max(few_enough, comfortable)
    return replace(
        limits,
        edge_radius_arcsec=float(reach[: last + 1].max()),
        shift_arcsec=float(shift[: last + 1].max()),
        movers=int(beyond[last]),
    )


def still(settings: MatchSettings, limits: Limits) -> Limits:
    """Complete the limits of a match within a fixed radius whose sources all stay where they are."""
    if settings.radius_arcsec is None:
        raise ValueError("a match by errors has limits of its own")
    return replace(limits, edge_radius_arcsec=settings.radius_arcsec * SAFETY, shift_arcsec=0.0, movers=0)


def is_mover(rows: Sources, settings: MatchSettings, limits: Limits) -> Mask:
    """Which rows of the side that moves reach beyond the edge radius and must be resolved first."""
    moving = prepare_moving(rows, settings, placed=False)
    mover: Mask = moving.usable & (reach_arcsec(moving, settings, limits) > limits.edge_radius_arcsec)
    return mover


def limits_of(staying: Sources, settings: MatchSettings) -> Limits:
    """Limits of a catalogue that is in memory as a whole: no movers."""
    return merge_staying([staying_part(staying, settings)])
