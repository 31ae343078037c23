"""Whatever the tiles and their order: the same bytes."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
from helpers.crossmatch_oracle import crowded_field
from helpers.crossmatch_tiles import (
    PLACES,
    SKYMAPPER,
    Columns,
    columns,
    each_tile,
    joined,
    match_by_tiles,
    plan,
    serialised,
    tiles_of,
    within,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stellarml.core import sky
from stellarml.core.errors import StellarmlError
from stellarml.core.tiles import pixel_range
from stellarml.crossmatch.kernel import limits
from stellarml.crossmatch.kernel.fast_movers import MoverEdges
from stellarml.crossmatch.kernel.limits import (
    choose_edge_radius,
    is_mover,
    merge_staying,
    moving_part,
    staying_part,
)
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources

KINDS = {
    "errors": SKYMAPPER,
    "radius": MatchSettings(radius_arcsec=3.0),
    "right_moves": MatchSettings(moving="right", left_errors=SKYMAPPER.right_errors),
}


@cache
def field(place: int, kind: str) -> tuple[Sources, Sources, Columns]:
    left, right = crowded_field(*PLACES[place], seed=6, stars=300, radius_arcsec=50.0, fast=5)
    if kind == "right_moves":
        left, right = right.take(np.isfinite(right.dec_deg)), left
    whole = columns(left, match_tile(left, right, KINDS[kind]))
    assert len(whole["left_id"]) > 200
    return left, right, whole


orders = st.tuples(st.integers(8, 14), st.integers(0, 3)).map(lambda given: (given[0], given[0] + given[1]))


@pytest.mark.slow
@settings(max_examples=40)
@example(place=0, kind="errors", left_orders=(0, 0), right_orders=(0, 0), max_movers=0, seed=0)
@example(place=3, kind="radius", left_orders=(14, 15), right_orders=(0, 0), max_movers=1, seed=0)
@example(place=1, kind="errors", left_orders=(0, 15), right_orders=(13, 14), max_movers=20, seed=3)
@example(place=2, kind="radius", left_orders=(13, 14), right_orders=(13, 14), max_movers=5, seed=2)
@example(place=4, kind="right_moves", left_orders=(10, 14), right_orders=(10, 14), max_movers=5, seed=1)
@given(
    place=st.integers(0, len(PLACES) - 1),
    kind=st.sampled_from(sorted(KINDS)),
    left_orders=orders,
    right_orders=orders,
    max_movers=st.sampled_from([0, 1, 5, 20]),
    seed=st.integers(0, 1_000_000),
)
def test_any_tiling_in_any_order_gives_the_bytes_of_one_tile(
    place: int,
    kind: str,
    left_orders: tuple[int, int],
    right_orders: tuple[int, int],
    max_movers: int,
    seed: int,
) -> None:
    left, right, whole = field(place, kind)
    left_tiles, right_tiles = tiles_of(left, *left_orders, seed), tiles_of(right, *right_orders, seed + 1)
    found = match_by_tiles(left, right, left_tiles, right_tiles, KINDS[kind], max_movers)
    assert serialised(found) == serialised(whole)


def test_the_order_of_rows_in_a_tile_does_not_matter() -> None:
    left, right, whole = field(0, "errors")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mixed = left.take(rng.permutation(len(left))), right.take(rng.permutation(len(right)))
        assert serialised(columns(mixed[0], match_tile(*mixed, SKYMAPPER))) == serialised(whole)


def test_rows_beyond_the_halo_do_no_harm() -> None:
    left, right, whole = field(4, "errors")
    tiles = tiles_of(left, 13, 14, 5)
    known, edges = plan(left, right, tiles, tiles_of(right, 13, 14, 6), SKYMAPPER, 5)
    parts = [
        columns(
            left,
            match_tile(left, right, SKYMAPPER, owned=within(left, *tile), limits=known, edges=edges),
        )
        for tile in random.Random(1).sample(tiles, len(tiles))
    ]
    assert serialised(joined(parts)) == serialised(whole)


def test_movers_left_out_are_missed() -> None:
    left, right = crowded_field(45.0, 0.0, seed=8, stars=300, radius_arcsec=60.0, fast=8)
    whole = columns(left, match_tile(left, right, SKYMAPPER))
    tiles, right_tiles = tiles_of(left, 13, 14, 1), tiles_of(right, 13, 14, 1)
    known, edges = plan(left, right, tiles, right_tiles, SKYMAPPER, 8)
    assert 0 < known.movers <= 8 and known.edge_radius_arcsec < 10.0 and len(edges) > 0

    def run(given: MoverEdges | None) -> bytes:
        found = each_tile(left, right, tiles, SKYMAPPER, known, given)
        return serialised(joined([columns(rows, match) for rows, _, match in found]))

    assert run(edges) == serialised(whole)
    assert run(None) != serialised(whole)
    mine = edges.left_healpix_29[0]
    tile = next(t for t in tiles if pixel_range(*t)[0] <= mine < pixel_range(*t)[1])
    with pytest.raises(StellarmlError, match=r"halo\.plan_tile"):
        match_tile(
            left, right.take(right.id < 0), SKYMAPPER, owned=within(left, *tile), limits=known, edges=edges
        )


def test_whole_catalogue_numbers_do_not_depend_on_tiles_or_order() -> None:
    left, right = crowded_field(10.0, 20.0, seed=9, stars=500, radius_arcsec=100.0)
    seen = set()
    for seed in range(4):
        tiles = tiles_of(right, 12, 15, seed)
        known = merge_staying([staying_part(right.take(within(right, *t)), SKYMAPPER) for t in tiles])
        parts = [
            moving_part(left.take(within(left, *t)), SKYMAPPER, known) for t in tiles_of(left, 11, 15, seed)
        ]
        seen.add(choose_edge_radius(parts, known, max_movers=2))
    assert len(seen) == 1
    known = seen.pop()
    errors = np.maximum(right.ra_error_mas, right.dec_error_mas)
    taking = right.take((errors <= 1000.0) & np.isfinite(right.dec_deg))
    assert known.mean_epoch_yr == pytest.approx(np.nanmean(taking.epoch_yr), abs=1e-6)
    assert known.widest_staying_mas2 == np.max([taking.ra_error_mas, taking.dec_error_mas]) ** 2 + 100.0**2


def test_the_edge_radius_bounds_every_edge_but_the_movers() -> None:
    left, right = crowded_field(10.0, -80.0, seed=10, stars=400, radius_arcsec=60.0, fast=10)
    known = limits.limits_of(right, SKYMAPPER)
    found = match_tile(left, right, SKYMAPPER)
    a, b = found.left_row, found.right_row
    length = sky.separation_arcsec(left.ra_deg[a], left.dec_deg[a], right.ra_deg[b], right.dec_deg[b])
    speed = np.nan_to_num(np.hypot(left.pmra_mas_yr, left.pmdec_mas_yr)) / 1000.0
    shift = speed * max(2016.0 - known.first_epoch_yr, known.last_epoch_yr - 2016.0)
    shift[np.isnan(left.ra_error_mas)] = 0.0
    for max_movers in (0, 3, 12):
        parts = [moving_part(left, SKYMAPPER, known)]
        chosen = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=max_movers)
        mover = is_mover(left, SKYMAPPER, chosen)
        assert mover.sum() == chosen.movers <= max_movers
        assert chosen.shift_arcsec == pytest.approx(shift[~mover].max())
        assert length[~mover[a]].max() <= chosen.edge_radius_arcsec
        assert (length[~mover[a]].max() > 0.3 * chosen.edge_radius_arcsec) or max_movers == 0
    assert choose_edge_radius([], known).edge_radius_arcsec == 0.0


def test_catalogues_without_epochs_are_not_moved() -> None:
    left, right = crowded_field(10.0, -80.0, seed=11)
    errors = {"ra_error_mas": right.ra_error_mas, "dec_error_mas": right.dec_error_mas}
    undated = sources(right.id, right.ra_deg, right.dec_deg, **errors)
    known = limits.limits_of(undated, SKYMAPPER)
    assert np.isnan(known.mean_epoch_yr)
    fast = choose_edge_radius([moving_part(left, SKYMAPPER, known)], known, max_movers=0)
    assert fast.shift_arcsec == 0.0 and np.isfinite(fast.edge_radius_arcsec)
    found = match_tile(left, undated, SKYMAPPER)
    a, b = found.left_row, found.right_row
    stored = sky.separation_arcsec(left.ra_deg[a], left.dec_deg[a], right.ra_deg[b], right.dec_deg[b])
    assert np.allclose(found.distance_arcsec, stored, rtol=1e-9, atol=1e-9) and (found.xm_flag & 2 == 0).all()
