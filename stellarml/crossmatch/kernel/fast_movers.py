"""Which edges have the few sources whose counterparts lie too far for a halo? Resolved first.

Fast movers (and rows with huge errors) would make every halo as large as their path: a star of 10 arcsec/yr has
candidates 40 arcsec apart over 2014-2018. They are matched first, against the whole catalogue of the other side. Their
edges, positions included, go to every tile: there they count as mates and reverse neighbours of the other stars, and
show the planner where a tile that owns one of them must read beyond its halo.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core import sky
from stellarml.core.errors import UserError
from stellarml.crossmatch.kernel.astrometry import Flags, prepare_moving, prepare_staying
from stellarml.crossmatch.kernel.limits import Limits, reach_arcsec
from stellarml.crossmatch.kernel.pairs import Pairs, Search, index_staying
from stellarml.crossmatch.kernel.settings import Floats, Integers, MatchSettings, Sources

MOST_EDGES = 4_000_000
"""About 100 bytes each, in the driver and in every worker."""


@dataclass(frozen=True)
class MoverEdges:
    """Good-neighbour edges of movers; all arrays of shape (n_edges,). `density_*` is where density is counted."""

    left_id: Integers
    left_healpix_29: Integers
    left_ra_deg: Floats
    left_dec_deg: Floats
    density_ra_deg: Floats
    density_dec_deg: Floats
    right_id: Integers
    right_ra_deg: Floats
    right_dec_deg: Floats
    distance_arcsec: Floats
    d2: Floats
    rank: Floats
    flags: Flags

    def __len__(self) -> int:
        return len(self.left_id)

    def take(self, rows: NDArray[Any]) -> MoverEdges:
        """Those edges only, by index or mask."""
        return MoverEdges(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


def no_edges() -> MoverEdges:
    """Make an empty table of edges."""
    kinds = {"left_id": np.int64, "left_healpix_29": np.int64, "right_id": np.int64, "flags": np.int16}
    columns: dict[str, Any] = {
        column.name: np.empty(0, dtype=kinds.get(column.name, np.float64)) for column in fields(MoverEdges)
    }
    return MoverEdges(**columns)


def merge_edges(parts: list[MoverEdges]) -> MoverEdges:
    """All edges of parts that share no row of the staying side, ordered by left id and right id."""
    columns = {
        column.name: np.concatenate([getattr(part, column.name) for part in [no_edges(), *parts]])
        for column in fields(MoverEdges)
    }
    return MoverEdges(**columns).take(np.lexsort((columns["right_id"], columns["left_id"])))


def mover_ranges(movers: Sources, settings: MatchSettings, limits: Limits) -> Integers:
    """Ranges of ``_healpix_29``, shape (n, 2), of the staying side that hold every candidate of the movers."""
    moving = prepare_moving(movers, settings)
    reach = reach_arcsec(moving, settings, limits)
    if settings.moving == "left":
        reach = reach + limits.frame_arcsec
    return sky.cone_ranges(movers.ra_deg, movers.dec_deg, reach)


def mover_edges(movers: Sources, staying: Sources, settings: MatchSettings, limits: Limits) -> MoverEdges:
    """Good neighbours of the movers among `staying`: any part of the other catalogue, each row in one part.

    Parameters
    ----------
    movers : Sources
        Rows of the side that moves for which `limits.is_mover` holds.
    staying : Sources
        Rows of the other side, the whole catalogue or one tile's share of `mover_ranges`; join with `merge_edges`.

    Raises
    ------
    UserError
        If there are more than `MOST_EDGES`: every tile is given all of them.
    """
    prepared = prepare_staying(staying, settings, limits.mean_epoch_yr)
    zones = index_staying(prepared, max(limits.edge_radius_arcsec, 1.0) / 3600.0)
    found = _bounded(Search(prepare_moving(movers, settings), prepared, zones, settings), len(movers))
    moving, stayed = movers.take(found.moving_row), staying.take(found.staying_row)
    left, right = (moving, stayed) if settings.moving == "left" else (stayed, moving)
    centre_ra, centre_dec = left.ra_deg, left.dec_deg
    if settings.moving == "left":
        interval = limits.mean_epoch_yr - left.epoch_yr
        centre_ra, centre_dec, _, _ = sky.propagate(
            left.ra_deg, left.dec_deg, left.pmra_mas_yr, left.pmdec_mas_yr, interval
        )
    edges = MoverEdges(
        left_id=left.id,
        left_healpix_29=left.healpix_29,
        left_ra_deg=left.ra_deg,
        left_dec_deg=left.dec_deg,
        density_ra_deg=centre_ra,
        density_dec_deg=centre_dec,
        right_id=right.id,
        right_ra_deg=right.ra_deg,
        right_dec_deg=right.dec_deg,
        distance_arcsec=found.distance_arcsec,
        d2=found.d2,
        rank=found.rank,
        flags=found.flags,
    )
    return merge_edges([edges])


def _bounded(search: Search, movers: int) -> Pairs:
    """Search chunk by chunk, so that too many pairs are noticed before they fill the memory."""
    parts: list[Pairs] = []
    first, number = 0, 0
    while first < movers or not parts:
        found, first = search.pairs(first, MOST_EDGES)
        parts.append(found)
        number += len(found.rank)
        if number > MOST_EDGES:
            raise UserError(
                f"{movers:,} sources that may be matched far away (fast ones, or with large positional errors) have "
                f"about {number * movers / first:,.0f} pairs, and {MOST_EDGES:,} are the most that can be resolved. "
                "Leave out rows with large errors by a cut, or search less far."
            )
    if len(parts) == 1:
        return parts[0]
    return Pairs(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Pairs)})
