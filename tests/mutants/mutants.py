"""What is broken, one place at a time, to see whether the exactness suite turns red."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGE = "stellarml/crossmatch/kernel"
EVERYTHING = (
    "kernel",
    "epochs",
    "swap",
    "halos",
    "rotation",
    "conservation",
    "partition",
    "occupancy",
    "crowded",
)
FILES = {name: f"crossmatch/kernel/test_{name}.py" for name in EVERYTHING} | {
    "kernel": "crossmatch/kernel/test_match_tile.py",
    "sky": "core/test_sky.py",
}


@dataclass(frozen=True)
class Mutant:
    """One change of the source: `old`, which stands in `file` exactly once, becomes `new`.

    suites
        The test files, or ``file::test``, that run on it, in this order, up to the first failure.
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    suites: tuple[str, ...] = EVERYTHING


NAMED_BY_THE_ISSUE = (
    Mutant(
        "no_cos_dec",
        f"{PACKAGE}/zones.py",
        "    if abs(dec_deg) + radius_deg + SLACK_DEG >= 90.0:\n        return 180.0\n",
        "    return radius_deg\n",
        "the window in right ascension is as wide as at the equator",
    ),
    Mutant(
        "no_ra_wrap",
        f"{PACKAGE}/zones.py",
        "    if low < 0.0:\n        return 0.0, high, low + 360.0, 360.0\n",
        "    if low < 0.0:\n        return 0.0, high, 1.0, 0.0\n",
        "sources on the other side of RA = 0 are not looked at",
    ),
    Mutant(
        "float32_coordinates",
        f"{PACKAGE}/astrometry.py",
        "    out = np.empty((len(ra_deg), 3))\n",
        "    out = np.empty((len(ra_deg), 3), dtype=np.float32)\n",
        "unit vectors of 32 bits err by 12 mas",
    ),
    Mutant(
        "ring_for_nested",
        "stellarml/core/sky.py",
        "healpy.ang2pix(1 << INDEX_ORDER, ra, dec, nest=True, lonlat=True)",
        "healpy.ang2pix(1 << INDEX_ORDER, ra, dec, nest=False, lonlat=True)",
        "ranges of the index are no tiles",
        ("halos::test_the_planner_reads_whatever_lies_within_them",),
    ),
    Mutant(
        "halo_of_1r",
        f"{PACKAGE}/halo.py",
        "    return 2.0 * radius, max(3.0 * radius, density + limits.shift_arcsec)",
        "    return 0.0 * radius, max(1.0 * radius, density + limits.shift_arcsec)",
        "other tools' layout: right 1r, left nothing",
        ("partition",),
    ),
    Mutant(
        "epochs_ignored",
        f"{PACKAGE}/astrometry.py",
        "    angle = speed * interval\n",
        "    interval = 0.0\n    angle = speed * interval\n",
        "sources stay where they were catalogued",
    ),
)

GEOMETRY = (
    Mutant(
        "float32_columns",
        f"{PACKAGE}/settings.py",
        "    return np.ascontiguousarray(column)",
        "    return np.ascontiguousarray(column).astype(np.float32).astype(np.float64)",
        "degrees of 32 bits err by 55 mas at RA 180",
    ),
    Mutant(
        "pole_not_special",
        f"{PACKAGE}/zones.py",
        "        return 180.0\n    sine = radius_deg",
        "        return 90.0\n    sine = radius_deg",
        "a disc over the pole reaches every right ascension",
    ),
    Mutant(
        "bitmap_of_own_cells",
        f"{PACKAGE}/occupancy.py",
        "bits, reach_dec = grid.bits, radius_deg + SLACK_DEG",
        "bits, reach_dec = grid.bits, 0.0",
        "a place north or south of a source, in the next cell, counts as empty",
        ("occupancy",),
    ),
    Mutant(
        "bitmap_without_cos_dec",
        f"{PACKAGE}/occupancy.py",
        "        reach_ra = ra_half_width_deg(dec_deg[k], radius_deg)",
        "        reach_ra = radius_deg",
        "a place east or west of a source, in the next cell, counts as empty",
        ("occupancy",),
    ),
    Mutant(
        "bitmap_across_the_seam",
        f"{PACKAGE}/occupancy.py",
        "    if west - reach < 0.0 or east + reach >= 360.0:",
        "    if west - reach < -720.0:",
        "places on the other side of RA = 0 count as empty",
        ("occupancy",),
    ),
    Mutant(
        "no_ra_wrap_from_the_east",
        f"{PACKAGE}/zones.py",
        "        return low, 360.0, 0.0, high - 360.0",
        "        return low, 360.0, 1.0, 0.0",
        "sources at RA = 0 are not looked at from RA = 360",
    ),
    Mutant(
        "a_zone_too_few",
        f"{PACKAGE}/zones.py",
        "- zones.first_dec_deg) / zones.height_deg) + 1",
        "- zones.first_dec_deg) / zones.height_deg)",
        "the northernmost zone of a disc is left out",
    ),
    Mutant(
        "linear_motion",
        f"{PACKAGE}/astrometry.py",
        "    return x * along + mx * across, y * along + my * across, z * along + mz * across",
        "    return x + mx * interval, y + my * interval, z + mz * interval",
        "off the sphere, and not back within a microarcsecond",
    ),
    Mutant(
        "motion_without_sin_dec",
        f"{PACKAGE}/astrometry.py",
        "-east * sin_ra - north * sin_dec * cos_ra",
        "-east * sin_ra - north * cos_ra",
        "the tangent north of the equator has a part towards the axis",
    ),
    Mutant(
        "motion_backwards",
        f"{PACKAGE}/pairs.py",
        "        interval = zero_if_missing(details[k, 4] - epoch[i])\n        if not",
        "        interval = zero_if_missing(epoch[i] - details[k, 4])\n        if not",
        "the interval has the wrong sign",
    ),
    Mutant(
        "east_mirrored",
        f"{PACKAGE}/pairs.py",
        "    east = dy * cos_ra - dx * sin_ra",
        "    east = dx * sin_ra - dy * cos_ra",
        "correlations then have the wrong sign",
    ),
    Mutant(
        "radius_open",
        f"{PACKAGE}/pairs.py",
        "distance <= fixed_arcsec",
        "distance < fixed_arcsec",
        "a pair at the radius itself is within",
        ("swap::test_the_radius_itself_is_within",),
    ),
)

ERRORS = (
    Mutant(
        "errors_not_carried_along",
        f"{PACKAGE}/pairs.py",
        "            c1, s1 = turn(x, y, z, vector[i, 0], vector[i, 1], vector[i, 2])\n",
        "            c1, s1 = 1.0, 0.0\n",
        "about a pole, east turns under a moving star",
    ),
    Mutant(
        "errors_not_carried_over",
        f"{PACKAGE}/pairs.py",
        "            c2, s2 = turn(x, y, z, xs[k], ys[k], zs[k])\n",
        "            c2, s2 = 1.0, 0.0\n",
        "about a pole, one source's east is not its neighbour's",
    ),
    Mutant(
        "cross_term_dropped",
        f"{PACKAGE}/astrometry.py",
        "r_a_md * s_a * s_md + r_d_ma * s_d * s_ma",
        "r_a_md * s_a * s_md",
        "V_ad has two mixed terms",
    ),
    Mutant(
        "cross_terms_exchanged",
        f"{PACKAGE}/astrometry.py",
        "r_a_md * s_a * s_md + r_d_ma * s_d * s_ma",
        "r_d_ma * s_a * s_md + r_a_md * s_d * s_ma",
        "ra_pmdec belongs to s_a s_md",
    ),
    Mutant(
        "half_the_cross_term",
        f"{PACKAGE}/astrometry.py",
        "2.0 * r_a_ma * s_a * s_ma",
        "r_a_ma * s_a * s_ma",
        "V_aa has twice the mixed term",
    ),
    Mutant(
        "parallax_ignored",
        f"{PACKAGE}/astrometry.py",
        "parallax[i] * parallax[i] / 2.0",
        "0.0 * parallax[i]",
        "Barnard's star is lost",
    ),
    Mutant(
        "whole_parallax",
        f"{PACKAGE}/astrometry.py",
        "parallax[i] * parallax[i] / 2.0",
        "parallax[i] * parallax[i]",
        "parallax^2 / 2 an axis",
    ),
    Mutant(
        "no_spread_without_motion",
        f"{PACKAGE}/astrometry.py",
        "            c[2], c[5] = sigma_mu * sigma_mu, sigma_mu * sigma_mu\n",
        "",
        "an unknown motion widens the error",
    ),
    Mutant(
        "floor_ignored",
        f"{PACKAGE}/astrometry.py",
        "    return max(given, floor), mark, True",
        "    return given, mark, True",
        "errors below the floor are not believed",
    ),
    Mutant(
        "systematic_once",
        f"{PACKAGE}/astrometry.py",
        "variance[i, 1] = s_d * s_d + errors[2] * errors[2]",
        "variance[i, 1] = s_d * s_d",
        "the systematic error is on both axes",
    ),
    Mutant(
        "determinant_not_root",
        f"{PACKAGE}/pairs.py",
        "- 0.5 * math.log(determinant)",
        "- math.log(determinant)",
        "ln sqrt(det C) in the figure of merit",
    ),
    Mutant(
        "limit_of_two_dimensions",
        f"{PACKAGE}/settings.py",
        "        return -2.0 * float(np.log1p(-self.gamma))",
        "        return 25.0",
        "K2 is 28.74, not 5 squared",
    ),
    Mutant(
        "missing_epochs_at_the_first",
        f"{PACKAGE}/limits.py",
        "        mean_epoch_yr=min(max(mean, first), last) if known else mean,",
        "        mean_epoch_yr=first,",
        "the mean stands in for a missing epoch",
    ),
    Mutant(
        "density_at_the_wrong_epoch",
        f"{PACKAGE}/density.py",
        "zero_if_missing(epoch_yr - epoch[i])",
        "0.0",
        "the density is counted where the source was, not where it is at the mean epoch",
    ),
    Mutant(
        "density_without_itself",
        f"{PACKAGE}/density.py",
        "        counts[i] = total",
        "        counts[i] = total - 1",
        "N counts the counterpart, too",
    ),
)

COUNTING = (
    Mutant(
        "mates_off_by_one",
        f"{PACKAGE}/neighbour_graph.py",
        "times_best[edges.right_node] - self.is_best(edges).astype(np.int32)",
        "times_best[edges.right_node]",
        "other sources, not all",
    ),
    Mutant(
        "mates_are_rivals",
        f"{PACKAGE}/neighbour_graph.py",
        "        return _times_best(self.best.right_node, len(self.right_degree))",
        "        return self.right_degree",
        "mates chose the same best; reverse neighbours are more",
    ),
    Mutant(
        "tie_to_the_larger_id",
        f"{PACKAGE}/neighbour_graph.py",
        "right_ids[b] < right_ids[best_right[a]]",
        "right_ids[b] > right_ids[best_right[a]]",
        "ties go to the smaller id",
    ),
    Mutant(
        "tie_to_the_first_found",
        f"{PACKAGE}/neighbour_graph.py",
        "better = nearer or (not farther and right_ids[b] < right_ids[best_right[a]])",
        "better = nearer",
        "which comes first depends on the rows' order",
    ),
    Mutant(
        "worst_for_best",
        f"{PACKAGE}/neighbour_graph.py",
        "rank[e] > best_rank[a]",
        "rank[e] < best_rank[a]",
        "best has the highest figure of merit",
    ),
    Mutant(
        "unique_by_mates",
        f"{PACKAGE}/match_tile.py",
        "unique=(degree == 1) & (reverse_degree == 1)",
        "unique=(degree == 1) & (self.graph.mates(edges, times_best) == 0)",
        "not symmetric: a1 of the chain a1-b1-a2-b2 would be kept",
    ),
    Mutant(
        "one_sided_unique",
        f"{PACKAGE}/match_tile.py",
        "unique=(degree == 1) & (reverse_degree == 1)",
        "unique=degree == 1",
        "degree 1 on both sides",
    ),
    Mutant(
        "order_of_rows",
        f"{PACKAGE}/match_tile.py",
        "        order = edge_order(self._left.healpix_29, left_ids, right_ids, left_node, right_node)",
        "        order = np.arange(len(kept))",
        "edges come out in the order of the catalogue",
    ),
    Mutant(
        "not_only_the_owned",
        f"{PACKAGE}/match_tile.py",
        "        mine[: len(rows)] = rows",
        "        mine[: len(rows)] = True",
        "rows of the halo belong to other tiles",
        ("halos", "conservation"),
    ),
)

CROWDS = (
    Mutant(
        "crowds_best_of_the_last_chunk",
        f"{PACKAGE}/neighbour_graph.py",
        "better = best_right[a] < 0 or rank[e] > best_rank[a]",
        "better = True",
        "the best of all chunks, not of the last",
        ("crowded",),
    ),
    Mutant(
        "crowds_parts_too_narrow",
        f"{PACKAGE}/match_tile.py",
        "if least <= high and most >= low:",
        "if least <= low and most >= low:",
        "every chunk that has an edge of the part",
        ("crowded",),
    ),
    Mutant(
        "crowds_a_row_skipped",
        f"{PACKAGE}/candidates.py",
        "            return rows[:count], places[:count], i\n",
        "            return rows[:count], places[:count], i + 1\n",
        "a chunk begins where the one before has ended",
        ("crowded",),
    ),
    Mutant(
        "crowds_halo_counted",
        f"{PACKAGE}/match_tile.py",
        "        rows = self._order[mine[self._order]]",
        "        rows = self._order",
        "rows of the halo belong to other tiles",
        ("crowded",),
    ),
    Mutant(
        "crowds_without_bound",
        f"{PACKAGE}/match_tile.py",
        "        if found > self.bounds.most and not self.bounds.only_best:",
        "        if False:",
        "an absurd output is refused",
        ("crowded",),
    ),
)

TILES = (
    Mutant(
        "left_halo_of_1r",
        f"{PACKAGE}/halo.py",
        "    return 2.0 * radius, max(3.0",
        "    return 1.0 * radius, max(3.0",
        "rivals of an owned row lie within 2r",
        ("halos", "partition"),
    ),
    Mutant(
        "right_halo_of_2r",
        f"{PACKAGE}/halo.py",
        "max(3.0 * radius",
        "max(2.0 * radius",
        "what rivals prefer lies within 3r",
        ("halos", "partition"),
    ),
    Mutant(
        "no_density_halo",
        f"{PACKAGE}/halo.py",
        "max(3.0 * radius, density + limits.shift_arcsec)",
        "3.0 * radius",
        "the density disc may be wider than 3r",
        ("halos", "partition"),
    ),
    Mutant(
        "radius_of_a_typical_row",
        f"{PACKAGE}/limits.py",
        "        edge_radius_arcsec=float(reach[: last + 1].max()),",
        "        edge_radius_arcsec=float(reach[: last + 1].max()) / 3.0,",
        "r bounds every edge of the catalogue",
        ("halos", "partition"),
    ),
    Mutant(
        "shift_not_in_the_reach",
        f"{PACKAGE}/limits.py",
        "    shift = ARCSEC_PER_RAD * longest_shift_rad",
        "    shift = 0.0 * ARCSEC_PER_RAD * longest_shift_rad",
        "a moved source's density disc lies beyond its stored place",
        ("partition::test_the_edge_radius_bounds_every_edge_but_the_movers",),
    ),
    Mutant(
        "movers_lead_nowhere",
        f"{PACKAGE}/halo.py",
        "        if owned.any():",
        "        if False:",
        "an owned mover has a neighbourhood far away",
        ("halos", "epochs", "partition"),
    ),
    Mutant(
        "movers_do_not_compete",
        f"{PACKAGE}/match_tile.py",
        "        self.graph.add(self._far)",
        "        pass",
        "their edges count in every tile",
        ("halos", "epochs", "partition"),
    ),
    Mutant(
        "ranges_closed",
        "stellarml/core/sky.py",
        '    position = np.searchsorted(ranges.ravel(), np.asarray(index, dtype=np.int64), side="right")',
        '    position = np.searchsorted(ranges.ravel(), np.asarray(index, dtype=np.int64), side="left")',
        "ranges hold their first index and not their last",
        ("sky",),
    ),
    Mutant(
        "halo_of_narrow_pixels",
        "stellarml/core/sky.py",
        "    needed = 2.0 * (radius_arcsec + ROUNDING_ARCSEC)",
        "    needed = 0.4 * (radius_arcsec + ROUNDING_ARCSEC)",
        "a pixel's neighbours must reach as far as the halo",
        ("halos", "partition"),
    ),
    Mutant(
        "halo_on_three_sides",
        "stellarml/core/sky.py",
        "    edges = np.concatenate([spread, spread << 1, spread | (last << 1), last | (spread << 1)])",
        "    edges = np.concatenate([spread, spread << 1, spread | (last << 1)])",
        "a tile has four edges",
        ("halos", "partition"),
    ),
)

MUTANTS = (*NAMED_BY_THE_ISSUE, *GEOMETRY, *ERRORS, *COUNTING, *CROWDS, *TILES)
