"""Who is left and who is right does not matter to a unique pair; ties and duplicates always end the same way."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from helpers.crossmatch_oracle import crowded_field
from helpers.crossmatch_tiles import (
    PLACES,
    SKYMAPPER,
    columns,
    match_by_tiles,
    pairs_of,
    serialised,
    tiles_of,
)

from stellarml.core import sky
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources


def mirrored(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(b, a) for a, b in pairs}


def with_duplicates(rows: Sources, offset: int) -> Sources:
    """A fifth of the rows twice, to the last bit, under other ids."""
    twice = rows.take(np.arange(len(rows)) % 5 == 0)
    again = Sources(**{**vars(twice), "id": twice.id + offset})
    both = Sources.concatenate([rows, again])
    return both.take(np.lexsort((both.id, both.healpix_29)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("radius_arcsec", [0.5, 3.0])
def test_swapped_sides_have_the_same_unique_pairs(place: tuple[float, float], radius_arcsec: float) -> None:
    left, right = crowded_field(*place, seed=21, stars=250, radius_arcsec=40.0)
    left, right = with_duplicates(left, 50_000), with_duplicates(right, 50_000)
    there = match_tile(left, right, MatchSettings(radius_arcsec=radius_arcsec))
    back = match_tile(right, left, MatchSettings(radius_arcsec=radius_arcsec, moving="right"))
    unique = pairs_of(there, there.unique)
    assert len(unique) > 15 and len(pairs_of(there)) > 1.5 * len(unique)
    assert mirrored(pairs_of(back, back.unique)) == unique
    assert mirrored(pairs_of(back)) == pairs_of(there)
    assert multiplicities(there) == {pair[::-1]: n[::-1] for pair, n in multiplicities(back).items()}


@pytest.mark.parametrize("place", PLACES[:3])
def test_swapped_sides_without_epochs_and_by_tiles(place: tuple[float, float]) -> None:
    settings = MatchSettings(radius_arcsec=1.5)
    left, right = crowded_field(*place, seed=22, stars=200, radius_arcsec=40.0)
    left, right = (
        with_duplicates(sources(rows.id, rows.ra_deg, rows.dec_deg), 50_000)
        for rows in (left, right.take(np.isfinite(right.dec_deg)))
    )
    there = match_tile(left, right, settings)
    tiles = tiles_of(left, 13, 15, 1), tiles_of(right, 12, 14, 2)
    back = match_by_tiles(right, left, *tiles[::-1], settings, 0)
    unique = back["unique"]
    assert set(zip(back["right_id"][unique].tolist(), back["left_id"][unique].tolist(), strict=True)) == (
        pairs_of(there, there.unique)
    )
    assert len(back["left_id"]) == len(there.left_id)


def multiplicities(found: TileMatch) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        (int(a), int(b)): (int(n), int(m))
        for a, b, n, m in zip(
            found.left_id,
            found.right_id,
            found.number_of_neighbours,
            found.number_of_reverse_neighbours,
            strict=True,
        )
    }


def test_unique_means_one_neighbour_on_both_sides() -> None:
    left, right = crowded_field(10.0, 20.0, seed=23, stars=250, radius_arcsec=40.0)
    for settings in (SKYMAPPER, MatchSettings(radius_arcsec=2.0)):
        found = match_tile(left, right, settings)
        degrees = [np.unique(ids, return_counts=True) for ids in (found.left_id, found.right_id)]
        once = [set(ids[counts == 1].tolist()) for ids, counts in degrees]
        assert pairs_of(found, found.unique) == {
            (a, b) for a, b in pairs_of(found) if a in once[0] and b in once[1]
        }


@pytest.mark.parametrize("settings", [SKYMAPPER, MatchSettings(radius_arcsec=2.0)], ids=["errors", "radius"])
def test_duplicates_go_to_the_smallest_id_in_any_order_and_any_tiling(settings: MatchSettings) -> None:
    left, right = crowded_field(*PLACES[0], seed=24, stars=200, radius_arcsec=40.0)
    left = with_duplicates(left, 50_000)
    doubled = with_duplicates(right.take(np.isfinite(right.dec_deg)), 50_000)
    doubled = with_duplicates(doubled, -500_000)
    found = match_tile(left, doubled, settings)
    original = {
        (float(ra), float(dec)): int(doubled.id[(doubled.ra_deg == ra) & (doubled.dec_deg == dec)].min())
        for ra, dec in zip(doubled.ra_deg, doubled.dec_deg, strict=True)
    }
    rows = found.right_row[found.best]
    chosen = [original[float(doubled.ra_deg[row]), float(doubled.dec_deg[row])] for row in rows]
    assert found.right_id[found.best].tolist() == chosen
    assert (np.array(chosen) < 0).sum() > 10, "duplicates must matter here"
    whole = serialised(columns(left, found))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mixed = left.take(rng.permutation(len(left))), doubled.take(rng.permutation(len(doubled)))
        assert serialised(columns(mixed[0], match_tile(*mixed, settings))) == whole
        tiles = tiles_of(left, 13, 15, seed), tiles_of(doubled, 12, 14, seed)
        assert serialised(match_by_tiles(left, doubled, *tiles, settings, 5)) == whole


def test_ties_end_the_same_way_in_every_order() -> None:
    """Three left sources at one point, three right ones at another, all distances equal to the last bit."""
    a = sources([5, 3, 4], [10.0] * 3, [1.0] * 3)
    b = sources([8, 9, 7], [10.0] * 3, [1.0 + 0.5 / 3600.0] * 3)
    for order in permutations(range(3)):
        found = match_tile(a.take(np.array(order)), b.take(np.array(order)), MatchSettings(radius_arcsec=1.0))
        assert pairs_of(found, found.best) == {(3, 7), (4, 7), (5, 7)}
        assert found.left_id.tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5]
        assert found.right_id.tolist() == [7, 8, 9] * 3
        assert found.number_of_mates.tolist() == [2, 3, 3][:1] + [0, 0] + [2, 0, 0] * 2
        assert not found.unique.any()


def test_the_radius_itself_is_within() -> None:
    a, b = sources([1], [10.0], [-33.0]), sources([2], [10.0001], [-33.0001])
    apart = float(match_tile(a, b, MatchSettings(radius_arcsec=2.0)).distance_arcsec[0])
    assert len(match_tile(a, b, MatchSettings(radius_arcsec=apart)).left_id) == 1
    assert len(match_tile(a, b, MatchSettings(radius_arcsec=float(np.nextafter(apart, 0.0)))).left_id) == 0


@pytest.mark.parametrize(("ra", "dec", "order"), [(45.0, 0.0, 0), (45.0, 0.0, 18), (315.0, 0.0, 10)])
def test_a_chain_over_four_tiles_is_unique_for_nobody(ra: float, dec: float, order: int) -> None:
    """a1 (north), b1 (east), a2 (south), b2 (west) of a point where four tiles meet, each about 1.3 from the next."""
    a = sources([1, 2], ra + np.array([0.3, 0.0]) / 3600.0, dec + np.array([1.0, -1.0]) / 3600.0)
    b = sources([11, 12], ra + np.array([1.0, -0.9]) / 3600.0, dec + np.zeros(2))
    cells = sky.pixel_at_order(np.concatenate([a.healpix_29, b.healpix_29]), order)
    assert len(np.unique(cells)) == 4
    settings = MatchSettings(radius_arcsec=1.5)
    expected = {(1, 11): (1, 0, 2, True), (2, 11): (2, 1, 2, False), (2, 12): (2, 0, 1, True)}
    swapped = {(11, 1): (2, 0, 1, True), (11, 2): (2, 1, 2, False), (12, 2): (1, 0, 2, True)}
    for left, right, table in ((a, b, expected), (b, a, swapped)):
        left, right = (rows.take(np.argsort(rows.healpix_29)) for rows in (left, right))
        tiles = tiles_of(left, order, order, 0), tiles_of(right, order, order, 0)
        assert len(tiles[0]) == 2
        found = match_by_tiles(left, right, *tiles, settings, 0)
        got = {
            (int(i), int(j)): (int(n), int(m), int(r), bool(best))
            for i, j, n, m, r, best in zip(
                found["left_id"], found["right_id"], found["number_of_neighbours"], found["number_of_mates"],
                found["number_of_reverse_neighbours"], found["best"], strict=True,
            )
        }  # fmt: skip
        assert got == table and not found["unique"].any()
