"""What must a task read so that the counts of the rows it owns are exact? Index ranges of both catalogues.

With r bounding every edge: the neighbours of an owned left row lie within r, the left rows that compete for them within
2r, and what those might prefer within 3r. So the right side is read to max(3r, r_d), r_d reaching from the moved source
to the rim of its density disc, and the left side to 2r. Checked by brute force in the tests: right 2r or left 1r, as in
other layouts, give wrong mates.

An owned row with an edge of a mover has a second neighbourhood elsewhere, about the far ends of that edge and of the
other edges that meet it there; the same argument, started from those points, asks for r on the left and 2r
on the right.

Where a frame offset is taken off the right catalogue (`frame_offset`), all this holds for the positions without it;
leaves are sorted by the stored ones, which lie up to `Limits.frame_arcsec` away: the right side is read that much
further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stellarml.core import sky
from stellarml.core.tiles import pixel_range
from stellarml.crossmatch.kernel.fast_movers import MoverEdges
from stellarml.crossmatch.kernel.limits import Limits
from stellarml.crossmatch.kernel.settings import Integers, MatchSettings


@dataclass(frozen=True)
class TileHalo:
    """Sorted, disjoint, half-open ranges of ``_healpix_29``, shape (n, 2), tile included.

    `left_arcsec` and `right_arcsec` are how far about the tile rows are needed; `far` is whether the ranges have
    parts elsewhere, about edges of movers.
    """

    left: Integers
    right: Integers
    left_arcsec: float = 0.0
    right_arcsec: float = 0.0
    far: bool = False


def halo_radii_arcsec(settings: MatchSettings, limits: Limits) -> tuple[float, float]:
    """Left and right halo: 2r, and the larger of 3r and the reach of the density disc, plus the frame offset."""
    radius = limits.edge_radius_arcsec
    density = 0.0 if settings.radius_arcsec is not None else settings.density_radius_arcsec
    return 2.0 * radius, max(3.0 * radius, density + limits.shift_arcsec) + limits.frame_arcsec


def plan_tile(
    order: int, pixel: int, settings: MatchSettings, limits: Limits, edges: MoverEdges | None = None
) -> TileHalo:
    """Ranges to read for the rows of the left catalogue that tile ``(order, pixel)`` owns."""
    left_radius, right_radius = halo_radii_arcsec(settings, limits)
    left = [sky.halo_ranges(order, pixel, left_radius)]
    right = [sky.halo_ranges(order, pixel, right_radius)]
    far = False
    if edges is not None and len(edges):
        first, end = pixel_range(order, pixel)
        owned = (edges.left_healpix_29 >= first) & (edges.left_healpix_29 < end)
        if owned.any():
            extra_left, extra_right = _far_neighbourhoods(edges, owned, settings, limits)
            left.append(extra_left)
            right.append(extra_right)
            far = True
    return TileHalo(
        sky.merge_ranges(np.concatenate(left)),
        sky.merge_ranges(np.concatenate(right)),
        left_radius,
        right_radius,
        far,
    )


def _far_neighbourhoods(
    edges: MoverEdges,
    owned: np.ndarray[tuple[int], np.dtype[np.bool_]],
    settings: MatchSettings,
    limits: Limits,
) -> tuple[Integers, Integers]:
    meeting = np.isin(edges.right_id, edges.right_id[owned])
    ra = np.concatenate([edges.left_ra_deg[meeting], edges.right_ra_deg[meeting]])
    dec = np.concatenate([edges.left_dec_deg[meeting], edges.right_dec_deg[meeting]])
    points = np.unique(np.column_stack([ra, dec]), axis=0)
    radius = max(limits.edge_radius_arcsec, sky.ROUNDING_ARCSEC)
    left = sky.cone_ranges(points[:, 0], points[:, 1], radius)
    right = [sky.cone_ranges(points[:, 0], points[:, 1], 2.0 * radius + limits.frame_arcsec)]
    if settings.radius_arcsec is None:
        centres = np.unique(
            np.column_stack([edges.density_ra_deg[owned], edges.density_dec_deg[owned]]), axis=0
        )
        reach = settings.density_radius_arcsec + limits.frame_arcsec
        right.append(sky.cone_ranges(centres[:, 0], centres[:, 1], reach))
    return left, sky.merge_ranges(np.concatenate(right))
