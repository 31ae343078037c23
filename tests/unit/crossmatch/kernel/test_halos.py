"""How much must a tile read? Right max(3r, r_d), left 2r, r over whole catalogues; each less gives a wrong answer."""

from __future__ import annotations

from dataclasses import replace

import healpy
import numpy as np
import pytest
from astropy.coordinates import offset_by
from helpers.crossmatch_oracle import brute_force
from helpers.crossmatch_tiles import (
    PLACES,
    columns,
    each_tile,
    joined,
    match_by_tiles,
    plan,
    read,
    serialised,
    tiles_of,
    within,
)

from stellarml.core import sky
from stellarml.core.tiles import pixel_range
from stellarml.crossmatch.kernel import halo
from stellarml.crossmatch.kernel.halo import halo_radii_arcsec, plan_tile
from stellarml.crossmatch.kernel.limits import choose_edge_radius, limits_of, moving_part
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources

RADIUS_ARCSEC = 10.0
FIXED = MatchSettings(radius_arcsec=RADIUS_ARCSEC)


def on_a_line(first_id: int, *offsets_arcsec: float, error_mas: float | list[float] = 100.0) -> Sources:
    """Sources north of one point, far from every border of coarse pixels."""
    dec = 20.0 + np.array(offsets_arcsec) / 3600.0
    ids = first_id + np.arange(len(dec))
    return sources(ids, np.full(len(dec), 123.4), dec, ra_error_mas=error_mas, dec_error_mas=error_mas)


def within_reach(
    left: Sources, right: Sources, left_reach: float, right_reach: float, settings: MatchSettings
) -> TileMatch:
    """Match the first left row from halos of exactly so many arcsec about it."""
    near, far = (
        sky.separation_arcsec(left.ra_deg[0], left.dec_deg[0], rows.ra_deg, rows.dec_deg) <= reach
        for rows, reach in ((left, left_reach), (right, right_reach))
    )
    rows = left.take(near)
    known = limits_of(right, settings)
    return match_tile(rows, right.take(far), settings, owned=rows.id == left.id[0], limits=known)


def answer(found: TileMatch) -> dict[str, object]:
    return {
        name: getattr(found, name)[found.left_id == 1].tolist()
        for name in (
            "right_id",
            "number_of_neighbours",
            "number_of_mates",
            "number_of_reverse_neighbours",
            "unique",
            "score",
        )
    }


# L1 -0.95r- R11 -0.95r- L2 -0.9r- R12: L2 competes for R11, but prefers R12, which lies 2.8r from L1
CHAIN = on_a_line(1, 0.0, 1.9 * RADIUS_ARCSEC), on_a_line(11, 0.95 * RADIUS_ARCSEC, 2.8 * RADIUS_ARCSEC)


@pytest.mark.parametrize(
    ("left_r", "right_r", "wrong"),
    [
        (2, 3, []),
        (4, 5, []),
        (2, 2, ["number_of_mates"]),
        (2, 1, ["number_of_mates"]),
        (1, 3, ["number_of_reverse_neighbours", "unique"]),
        (0, 3, ["number_of_reverse_neighbours", "unique"]),
        (0, 1, ["number_of_reverse_neighbours", "unique"]),
    ],
)
def test_each_narrower_halo_gives_its_own_wrong_answer(left_r: int, right_r: int, wrong: list[str]) -> None:
    """Zero and one r are the layout of other tools."""
    true = answer(match_tile(*CHAIN, FIXED))
    assert (true["number_of_mates"], true["number_of_reverse_neighbours"]) == ([0], [2])
    found = answer(within_reach(*CHAIN, left_r * RADIUS_ARCSEC, right_r * RADIUS_ARCSEC, FIXED))
    assert [name for name in true if found[name] != true[name]] == wrong


@pytest.mark.parametrize(("right_reach", "exact"), [(15.0, True), (3.0, False)])
def test_the_density_needs_its_own_radius(right_reach: float, exact: bool) -> None:
    left, right = on_a_line(1, 0.0), on_a_line(11, 0.1, 14.0)
    true = answer(match_tile(left, right, MatchSettings()))
    found = answer(within_reach(left, right, 2.0, right_reach, MatchSettings()))
    assert (found == true) == exact


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_r", "right_r", "exact"),
    [(2, 3, True), (1, 3, False), (2, 2, False), (2, 1, False), (0, 1, False)],
)
def test_tiles_of_one_source_in_a_random_field(left_r: int, right_r: int, exact: bool) -> None:
    settings = MatchSettings(radius_arcsec=1.0)
    wrong = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        left, right = scattered(rng), scattered(rng)
        whole = columns(left, match_tile(left, right, settings))
        parts = []
        for row in range(len(left)):
            near, far = (
                sky.separation_arcsec(left.ra_deg[row], left.dec_deg[row], rows.ra_deg, rows.dec_deg) <= reach
                for rows, reach in ((left, left_r), (right, right_r))
            )
            rows = left.take(near)
            owned = rows.id == left.id[row]
            parts.append(columns(rows, match_tile(rows, right.take(far), settings, owned=owned)))
        found = joined(parts)
        wrong += sum(int((found[name] != values)[~np.isnan(values)].sum()) for name, values in whole.items())
    assert (wrong == 0) == exact


def scattered(rng: np.random.Generator) -> Sources:
    ra, dec = rng.uniform(0.0, 20.0, (2, 250)) / 3600.0
    rows = sources(rng.permutation(250), 100.0 + ra, dec)
    return rows.take(np.argsort(rows.healpix_29))


def test_the_planner_asks_for_these_radii() -> None:
    known = replace(limits_of(CHAIN[1], FIXED), edge_radius_arcsec=4.0, shift_arcsec=0.5)
    assert halo_radii_arcsec(FIXED, known) == (8.0, 12.0)
    assert halo_radii_arcsec(MatchSettings(), known) == (8.0, 15.5)
    assert halo_radii_arcsec(MatchSettings(density_radius_arcsec=5.0), known) == (8.0, 12.0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("order", [10, 12, 16])
def test_the_planner_reads_whatever_lies_within_them(place: tuple[float, float], order: int) -> None:
    """Rings about sources anywhere in the tile, of exactly the radius: no point may be left out."""
    radius = 4.0
    known = replace(limits_of(CHAIN[1], FIXED), edge_radius_arcsec=radius)
    pixel = int(sky.pixel_at_order(sky.healpix_29(*place), order)[0])
    wanted = plan_tile(order, pixel, FIXED, known)
    inside = np.random.default_rng(0).integers(*pixel_range(order, pixel), 500)
    points = np.radians(healpy.pix2ang(1 << 29, inside, nest=True, lonlat=True))
    angles = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)[:, None]
    for ranges, reach in ((wanted.left, 2.0 * radius), (wanted.right, 3.0 * radius)):
        ring = offset_by(points[0], points[1], angles, np.full_like(angles, np.radians(reach / 3600.0)))
        assert sky.in_ranges(sky.healpix_29(*(angle.deg.ravel() for angle in ring)), ranges).all()


def test_the_radius_of_the_owned_rows_alone_is_too_small() -> None:
    """L1 is sharp; L2, 4 arcsec away, is so uncertain that L1's counterpart is its best, too."""
    left, right = on_a_line(1, 0.0, 4.0, error_mas=[50.0, 1000.0]), on_a_line(11, 0.1, error_mas=50.0)
    settings = MatchSettings(density_radius_arcsec=1.0)
    true = answer(match_tile(left, right, settings))
    assert true["number_of_mates"] == [1] and true["unique"] == [False]
    tile = 20, int(sky.pixel_at_order(left.healpix_29[:1], 20)[0])
    known = limits_of(right, settings)
    for share, exact in ((left, True), (left.take(within(left, *tile)), False)):
        parts = [moving_part(share, settings, known)]
        chosen = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=0)
        wanted = plan_tile(*tile, settings, chosen)
        rows = read(left, wanted.left)
        # rows beyond the threshold would be taken for movers, resolved elsewhere
        asked = replace(chosen, edge_radius_arcsec=np.inf)
        found = match_tile(rows, read(right, wanted.right), settings, owned=within(rows, *tile), limits=asked)
        assert (answer(found) == true) == exact


@pytest.mark.parametrize(
    ("left_r", "right_r", "exact"), [(2.0, 3.0, True), (0.0, 1.0, False), (0.0, 3.0, False)]
)
def test_tiles_of_the_planner_with_narrower_radii(
    left_r: float, right_r: float, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way through the planner, which reads whole pixels and so more than asked for: the extremes fail."""
    rng = np.random.default_rng(7)
    left, right = scattered(rng), scattered(rng)
    settings = MatchSettings(radius_arcsec=1.0)
    whole = columns(left, match_tile(left, right, settings))
    monkeypatch.setattr(
        halo,
        "halo_radii_arcsec",
        lambda _, known: (left_r * known.edge_radius_arcsec, right_r * known.edge_radius_arcsec),
    )
    tiles = tiles_of(left, 22, 22, 0)
    known, edges = plan(left, right, tiles, tiles_of(right, 12, 14, 1), settings, 0)
    found = joined([columns(rows, m) for rows, _, m in each_tile(left, right, tiles, settings, known, edges)])
    assert (serialised(found) == serialised(whole)) == exact


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
    left = left.take(np.argsort(left.healpix_29))
    tiles = tiles_of(left, 14, 14, 0)
    assert len(tiles) == 3
    found = match_by_tiles(left, right, tiles, tiles_of(right, 14, 14, 0), settings, max_movers=1)
    assert serialised(columns(left, match_tile(left, right, settings))) == serialised(found)
    expected = brute_force(left, right, settings)
    assert set(zip(found["left_id"].tolist(), found["right_id"].tolist(), strict=True)) == set(expected)
