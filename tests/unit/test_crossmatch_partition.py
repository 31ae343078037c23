"""Whatever the tiles: the same bytes. The stage's steps, simulated in memory."""

from __future__ import annotations

import random
from dataclasses import fields

import numpy as np
import pytest
from crossmatch_oracle import brute_force, crowded_field

from stellarml import sky
from stellarml.crossmatch import halo, limits
from stellarml.crossmatch.kernel import TileMatch, match_tile
from stellarml.crossmatch.limits import (
    Limits,
    choose_edge_radius,
    is_mover,
    merge_staying,
    moving_part,
    staying_part,
)
from stellarml.crossmatch.movers import MoverEdges, merge_edges, mover_edges, mover_ranges
from stellarml.crossmatch.settings import MatchSettings, PositionErrors, Sources, sources
from stellarml.errors import StellarmlError

SKYMAPPER = MatchSettings(right_errors=PositionErrors(36.0, 1000.0, 100.0))
Tiles = list[tuple[int, int]]
PLACES = [(0.0, -30.0), (123.0, 90.0), (77.0, -89.9999), (45.0, 0.0), (90.0, 41.8103149)]


def tiles_of(rows: Sources, coarse: int, fine: int, seed: int) -> Tiles:
    """Make a quadtree that splits at random between two orders."""
    rng = random.Random(seed)
    waiting = [(coarse, int(p)) for p in np.unique(sky.pixel_at_order(rows.healpix_29, coarse))]
    tiles = []
    while waiting:
        order, pixel = waiting.pop()
        if not within(rows, order, pixel).any():
            continue
        if order < fine and rng.random() < 0.7:
            waiting += [(order + 1, 4 * pixel + child) for child in range(4)]
        else:
            tiles.append((order, pixel))
    rng.shuffle(tiles)
    return tiles


def within(rows: Sources, order: int, pixel: int) -> np.ndarray:
    first, end = sky.pixel_range(order, pixel)
    return (rows.healpix_29 >= first) & (rows.healpix_29 < end)


def read(rows: Sources, ranges: np.ndarray) -> Sources:
    return rows.take(sky.in_ranges(rows.healpix_29, ranges))


def plan(
    left: Sources,
    right: Sources,
    left_tiles: Tiles,
    right_tiles: Tiles,
    settings: MatchSettings,
    max_movers: int,
) -> tuple[Limits, MoverEdges]:
    moving, staying, moving_tiles, staying_tiles = (
        (left, right, left_tiles, right_tiles)
        if settings.moving == "left"
        else (right, left, right_tiles, left_tiles)
    )
    known = merge_staying(staying_part(staying.take(within(staying, *t)), settings) for t in staying_tiles)
    parts = [moving_part(moving.take(within(moving, *t)), settings, known) for t in moving_tiles]
    known = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=max_movers)
    shares = [moving.take(within(moving, *t)) for t in moving_tiles]
    movers = Sources.concatenate([share.take(is_mover(share, settings, known)) for share in shares])
    assert len(movers) == known.movers
    ranges = mover_ranges(movers, settings, known)
    orders, pixels = np.array(staying_tiles).T
    hits = sky.tiles_in_ranges(orders, pixels, ranges)
    touched = [tile for tile, hit in zip(staying_tiles, hits, strict=True) if hit]
    edges = merge_edges(
        [
            mover_edges(movers, read(staying.take(within(staying, *t)), ranges), settings, known)
            for t in touched
        ]
    )
    return known, edges


def match_by_tiles(
    left: Sources,
    right: Sources,
    left_tiles: Tiles,
    right_tiles: Tiles,
    settings: MatchSettings,
    max_movers: int,
) -> dict[str, np.ndarray]:
    known, edges = plan(left, right, left_tiles, right_tiles, settings, max_movers)
    parts = []
    for tile in left_tiles:
        wanted = halo.plan_tile(*tile, settings, known, edges)
        rows, others = read(left, wanted.left), read(right, wanted.right)
        parts.append(
            columns(
                rows, match_tile(rows, others, settings, owned=within(rows, *tile), limits=known, edges=edges)
            )
        )
    return joined(parts)


def columns(left: Sources, found: TileMatch) -> dict[str, np.ndarray]:
    names = [
        f.name for f in fields(TileMatch) if f.name not in ("left_row", "right_row", "neighbours_of_left")
    ]
    return {"index": left.healpix_29[found.left_row], **{name: getattr(found, name) for name in names}}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((whole["right_id"], whole["left_id"], whole["index"]))
    return {name: values[order] for name, values in whole.items()}


def same_bytes(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("settings", [SKYMAPPER, MatchSettings(radius_arcsec=3.0)], ids=["errors", "radius"])
@pytest.mark.parametrize("place", PLACES)
def test_any_tiling_gives_the_bytes_of_the_whole(place: tuple[float, float], settings: MatchSettings) -> None:
    left, right = crowded_field(*place, seed=6, stars=400, radius_arcsec=60.0, fast=5)
    whole = columns(left, match_tile(left, right, settings))
    assert len(whole["left_id"]) > 300
    for seed, (coarse, fine), max_movers in (
        (1, (10, 13), 5),
        (2, (13, 14), 1),
        (3, (0, 15), 20),
        (4, (0, 0), 0),
    ):
        left_tiles, right_tiles = tiles_of(left, coarse, fine, seed), tiles_of(right, coarse, fine, seed + 10)
        found = match_by_tiles(left, right, left_tiles, right_tiles, settings, max_movers)
        assert same_bytes(whole, found), (coarse, fine)


def test_tiling_when_the_right_side_moves() -> None:
    gaia, skymapper = crowded_field(0.0, -30.0, seed=7, stars=400, radius_arcsec=60.0, fast=5)
    settings = MatchSettings(moving="right", left_errors=SKYMAPPER.right_errors)
    whole = columns(skymapper, match_tile(skymapper, gaia, settings))
    for seed, (coarse, fine), max_movers in ((1, (10, 13), 5), (2, (13, 14), 20)):
        left_tiles, right_tiles = (
            tiles_of(skymapper, coarse, fine, seed),
            tiles_of(gaia, coarse, fine, seed + 10),
        )
        found = match_by_tiles(skymapper, gaia, left_tiles, right_tiles, settings, max_movers)
        assert same_bytes(whole, found), (coarse, fine)


def test_a_fast_mover_meets_its_neighbours_tiles_away() -> None:
    """Barnard's star over 16 yr, into a pair of slow stars that it competes with 166 arcsec from home."""
    dec = 4.69339
    moved_ra, moved_dec, _, _ = sky.propagate(269.45, dec, -801.551, 10_362.394, -16.0)
    near = 0.15 / 3600.0
    left = sources(
        [1, 2, 3], [269.45, float(moved_ra), 269.46], [dec, float(moved_dec) + near, dec], epoch_yr=2016.0,
        ra_error_mas=1.0, dec_error_mas=1.0, pmra_mas_yr=[-801.551, 0.0, 0.0], pmdec_mas_yr=[10_362.394, 0.0, 0.0],
        pmra_error_mas_yr=0.1, pmdec_error_mas_yr=0.1, parallax_mas=[547.0, 1.0, 1.0],
    )  # fmt: skip
    right = sources([7, 8], [float(moved_ra), 269.46], [float(moved_dec) + 2 * near, dec], epoch_yr=2000.0,
                    ra_error_mas=100.0, dec_error_mas=100.0)  # fmt: skip
    settings = MatchSettings()
    whole = match_tile(left, right, settings)
    by_left = dict(zip(whole.left_id.tolist(), whole.number_of_reverse_neighbours.tolist(), strict=True))
    assert by_left == {1: 2, 2: 2, 3: 1}
    order = np.argsort(left.healpix_29)
    left = left.take(order)
    tiles = tiles_of(left, 14, 14, 0)
    assert len(tiles) == 3
    found = match_by_tiles(left, right, tiles, tiles_of(right, 14, 14, 0), settings, max_movers=1)
    assert same_bytes(columns(left, match_tile(left, right, settings)), found)
    expected = brute_force(left, right, settings)
    assert {(int(a), int(b)) for a, b in zip(found["left_id"], found["right_id"], strict=True)} == set(
        expected
    )


@pytest.mark.parametrize(
    ("left_reach", "right_reach", "exact"), [(2, 3, True), (1, 3, False), (2, 2, False), (2, 1, False), (0, 1, False)]
)  # fmt: skip
def test_halos_are_as_wide_as_they_must_be(left_reach: int, right_reach: int, exact: bool) -> None:
    """Tiles of one source each, halos of exact width: 2r and 3r do, less does not (0 and 1 are LSDB's layout)."""
    radius = 1.0
    settings = MatchSettings(radius_arcsec=radius)
    wrong = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        left, right = scattered(rng), scattered(rng)
        whole = columns(left, match_tile(left, right, settings))
        parts = []
        for row in range(len(left)):
            near, far = (
                sky.separation_arcsec(left.ra_deg[row], left.dec_deg[row], rows.ra_deg, rows.dec_deg)
                <= reach * radius
                for rows, reach in ((left, left_reach), (right, right_reach))
            )
            rows = left.take(near)
            owned = rows.id == left.id[row]
            parts.append(columns(rows, match_tile(rows, right.take(far), settings, owned=owned)))
        found = joined(parts)
        for name, values in whole.items():
            wrong += int((found[name] != values)[~np.isnan(values)].sum())
    assert (wrong == 0) == exact


def scattered(rng: np.random.Generator) -> Sources:
    ra, dec = rng.uniform(0.0, 20.0, (2, 250)) / 3600.0
    rows = sources(rng.permutation(250), 100.0 + ra, dec)
    return rows.take(np.argsort(rows.healpix_29))


def test_movers_left_out_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = crowded_field(45.0, 0.0, seed=8, stars=300, radius_arcsec=60.0, fast=8)
    whole = columns(left, match_tile(left, right, SKYMAPPER))
    tiles, right_tiles = tiles_of(left, 13, 14, 1), tiles_of(right, 13, 14, 1)
    known, edges = plan(left, right, tiles, right_tiles, SKYMAPPER, 8)
    assert 0 < known.movers <= 8 and known.edge_radius_arcsec < 10.0 and len(edges) > 0

    def run(given: MoverEdges | None) -> dict[str, np.ndarray]:
        parts = []
        for tile in tiles:
            wanted = halo.plan_tile(*tile, SKYMAPPER, known, given)
            rows, others = read(left, wanted.left), read(right, wanted.right)
            owned = within(rows, *tile)
            parts.append(
                columns(rows, match_tile(rows, others, SKYMAPPER, owned=owned, limits=known, edges=given))
            )
        return joined(parts)

    assert same_bytes(whole, run(edges))
    assert not same_bytes(whole, run(None))
    mine = edges.left_healpix_29[0]
    tile = next(t for t in tiles if sky.pixel_range(*t)[0] <= mine < sky.pixel_range(*t)[1])
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
    for max_movers in (0, 3, 12):
        parts = [moving_part(left, SKYMAPPER, known)]
        chosen = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=max_movers)
        mover = is_mover(left, SKYMAPPER, chosen)
        assert mover.sum() == chosen.movers <= max_movers
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
