"""Nobody is lost and nobody is counted twice: what goes into a tile comes out of it, matched or not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from helpers.crossmatch_oracle import crowded_field
from helpers.crossmatch_tiles import PLACES, SKYMAPPER, each_tile, plan, tiles_of

from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings
from stellarml.crossmatch.statistics import merge_statistics, tile_statistics


def distinct_bests(found: list[TileMatch]) -> tuple[Fraction, int]:
    """The sum of 1 / (mates + 1) over rows with a best neighbour, and the number of distinct best neighbours."""
    mates = np.concatenate([match.number_of_mates[match.best] for match in found])
    chosen = np.concatenate([match.right_id[match.best] for match in found])
    return sum((Fraction(1, int(n) + 1) for n in mates), Fraction(0)), len(np.unique(chosen))


@pytest.mark.parametrize("settings", [SKYMAPPER, MatchSettings(radius_arcsec=2.5)], ids=["errors", "radius"])
@pytest.mark.parametrize("place", PLACES[:4])
def test_every_row_of_every_tile_is_accounted_for(
    place: tuple[float, float], settings: MatchSettings
) -> None:
    left, right = crowded_field(*place, seed=41, stars=300, radius_arcsec=40.0, fast=4)
    whole = match_tile(left, right, settings)
    tiles, right_tiles = tiles_of(left, 13, 15, 7), tiles_of(right, 12, 15, 8)
    known, edges = plan(left, right, tiles, right_tiles, settings, 4)
    found, statistics, seen = [], [], []
    for rows, owned, match in each_tile(left, right, tiles, settings, known, edges):
        counts = tile_statistics(match, owned)
        matched, unmatched = counts["left_with_neighbours"], counts["left_without"]
        assert matched + unmatched == counts["left_taking_part"] == owned.sum() > 0
        assert matched == len(np.unique(match.left_id)) == match.best.sum() == counts["best"]
        assert set(match.left_id.tolist()) <= set(rows.id[owned].tolist())
        assert match.neighbours_of_left[owned].sum() == len(match.left_id) == counts["pairs"]
        assert (match.number_of_mates[match.unique] == 0).all() and match.best[match.unique].all()
        seen.append(rows.id[owned])
        found.append(match)
        statistics.append(counts)
    assert len(found) > 8 and np.array_equal(np.sort(np.concatenate(seen)), np.sort(left.id))
    assert merge_statistics(statistics) == merge_statistics(
        [tile_statistics(whole, np.ones(len(left), bool))]
    )
    total, distinct = distinct_bests(found)
    assert total == distinct == distinct_bests([whole])[1]
    assert max(match.number_of_mates.max(initial=0) for match in found) > 0


def test_pairs_are_the_same_counted_from_either_side() -> None:
    left, right = crowded_field(*PLACES[0], seed=42, stars=300, radius_arcsec=40.0)
    found = match_tile(left, right, SKYMAPPER)
    for ids, degree in (
        (found.left_id, found.number_of_neighbours),
        (found.right_id, found.number_of_reverse_neighbours),
    ):
        of_each, first, counts = np.unique(ids, return_index=True, return_counts=True)
        assert np.array_equal(degree[first], counts) and counts.sum() == len(found.left_id)
        assert all((degree[ids == one] == n).all() for one, n in zip(of_each[:50], counts[:50], strict=True))
    chosen = dict(zip(*np.unique(found.right_id[found.best], return_counts=True), strict=True))
    expected = [
        chosen.get(b, 0) - int(is_best) for b, is_best in zip(found.right_id, found.best, strict=True)
    ]
    assert found.number_of_mates.tolist() == expected
