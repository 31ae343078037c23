"""The frame offset: a planted one is found, cell by cell, whatever the tiles; without it the match is exact as ever."""

from __future__ import annotations

import json
from dataclasses import replace

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from helpers.crossmatch_oracle import brute_force, crowded_field
from helpers.crossmatch_tiles import (
    PLACES,
    SKYMAPPER,
    columns,
    each_tile,
    joined,
    pairs_of,
    serialised,
    tiles_of,
    within,
)
from helpers.crossmatch_tiles import read as read_rows
from helpers.places import REAL

from stellarml.core import sky
from stellarml.core.config import load_config
from stellarml.crossmatch.kernel import halo
from stellarml.crossmatch.kernel.fast_movers import MoverEdges, mover_edges, mover_ranges
from stellarml.crossmatch.kernel.frame_offset import (
    WHOLE,
    FrameLevel,
    FrameOffsets,
    centre_of,
    frame_part,
    frame_record,
    frame_search,
    measure_frame,
    merge_frame,
)
from stellarml.crossmatch.kernel.limits import (
    Limits,
    choose_edge_radius,
    is_mover,
    limits_of,
    merge_staying,
    moving_part,
    staying_part,
)
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.pair_offsets import cell_axes, pair_offsets_mas
from stellarml.crossmatch.kernel.settings import FrameSettings, MatchSettings, Sources, sources
from stellarml.crossmatch.source_columns import is_bright, match_settings
from stellarml.crossmatch.statistics import is_sampled, merge_statistics, tile_statistics
from stellarml.surveys.descriptor import load_descriptor

NOISE_MAS = 40.0
DISC = replace(SKYMAPPER, density_radius_arcsec=51.0)


def with_frame(**frame: float) -> MatchSettings:
    return replace(SKYMAPPER, frame=FrameSettings(**frame))  # type: ignore[arg-type]


def measured(left: Sources, right: Sources, settings: MatchSettings) -> FrameOffsets:
    return measure_frame(left, right, settings, limits_of(right, settings))


def in_order(rows: Sources) -> Sources:
    return rows.take(np.lexsort((rows.id, rows.healpix_29)))


def placed(
    ra: np.ndarray, dec: np.ndarray, east_mas: np.ndarray, north_mas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return sky.propagate(ra, dec, east_mas, north_mas, 1.0)[:2]


def scattered(
    ra: float, dec: float, radius_deg: float, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    angle, far = rng.uniform(0, 2 * np.pi, n), radius_deg * np.sqrt(rng.random(n))
    there = SkyCoord(ra, dec, unit="deg").directional_offset_by(angle * u.rad, far * u.deg)
    return there.ra.deg, there.dec.deg


def catalogue(
    first_id: int, ra: np.ndarray, dec: np.ndarray, epoch_yr: float = 2016.0, **more: float
) -> Sources:
    return in_order(
        sources(
            first_id + np.arange(len(ra)),
            ra,
            dec,
            epoch_yr=epoch_yr,
            ra_error_mas=40.0,
            dec_error_mas=40.0,
            **more,
        )
    )


def pair_of_catalogues(
    place: tuple[float, float], radius_deg: float, n: int, seed: int, offset_mas: tuple[float, float]
) -> tuple[Sources, Sources]:
    rng = np.random.default_rng(seed)
    ra, dec = scattered(*place, radius_deg, n, rng)
    noise = rng.normal(0.0, NOISE_MAS, (2, n))
    seen = placed(ra, dec, noise[0] + offset_mas[0], noise[1] + offset_mas[1])
    return catalogue(0, ra, dec), catalogue(100_000, *seen)


def planted_by_cell(seed: int) -> tuple[Sources, Sources, dict[int, tuple[float, float]]]:
    """Cells of order 8, 14 arcmin wide, each with an offset of its own of up to 300 mas an axis."""
    rng = np.random.default_rng(seed)
    ra, dec = scattered(200.0, -31.0, 0.6, 4000, rng)
    cells = sky.pixel_at_order(sky.healpix_29(ra, dec), 8)
    offsets = {int(c): tuple(rng.uniform(-300.0, 300.0, 2)) for c in np.unique(cells)}
    planted = np.array([offsets[int(c)] for c in cells]).T + rng.normal(0.0, NOISE_MAS, (2, len(ra)))
    return catalogue(0, ra, dec), catalogue(100_000, *placed(ra, dec, *planted)), offsets


def test_the_offset_of_every_cell_is_found_within_its_error() -> None:
    left, right, planted = planted_by_cell(1)
    found = measured(left, right, with_frame(order=8))
    cells = frame_record(found)["cells"]
    assert len(cells) == len(planted) > 20
    own = [c for c in cells if c["from_order"] == 8]
    assert len(own) > 15
    pulls = []
    for cell in own:
        expected = planted[cell["pixel"]]
        assert cell["error_mas"] == pytest.approx(1.2533 * NOISE_MAS / np.sqrt(cell["pairs"]), rel=0.45)
        pulls += [
            (cell["d_ra_mas"] - expected[0]) / cell["error_mas"],
            (cell["d_dec_mas"] - expected[1]) / cell["error_mas"],
        ]
        centre = SkyCoord(cell["ra"], cell["dec"], unit="deg")
        assert sky.pixel_at_order(sky.healpix_29(centre.ra.deg, centre.dec.deg), 8)[0] == cell["pixel"]
    assert np.abs(pulls).max() < 4.0 and 0.6 < np.std(pulls) < 1.3
    after = measured(left, found.removed_from(right), with_frame(order=8))
    level = after.levels[0]
    assert np.abs(level.offset_mas / level.error_mas).max() < 1.0, "what was taken off is not there again"


@pytest.mark.parametrize("place", [*PLACES, (359.99, 0.1)])
def test_a_turned_frame_is_found_anywhere_on_the_sky(place: tuple[float, float]) -> None:
    """A small rotation moves all stars of a field alike, though close to a pole their east points anywhere."""
    rng = np.random.default_rng(3)
    ra, dec = scattered(*place, 1.0, 3000, rng)
    here = sky.unit_vectors(ra, dec)
    axis = np.cross(sky.unit_vectors(*place), [0.3, 0.5, -0.81])
    axis *= 400.0 / sky.MAS_PER_RAD / np.linalg.norm(axis)
    turned = here + np.cross(axis, here)
    left, right = catalogue(0, ra, dec), catalogue(0, *sky.from_unit_vectors(turned))
    found = measured(left, right, with_frame(order=5, min_pairs=5))
    assert 0.3 < found.largest_arcsec < 0.41
    back = found.removed_from(right)
    there = {int(i): k for k, i in enumerate(back.id)}
    match = [there[int(i)] for i in left.id]
    apart = sky.separation_arcsec(left.ra_deg, left.dec_deg, back.ra_deg[match], back.dec_deg[match])
    # a cell's rotation about its own centre is not an offset: 400 mas times the sine of its radius
    assert 1000.0 * apart.max() < 15.0
    assert (back.ra_deg >= 0.0).all() and (back.ra_deg < 360.0).all()


def by_hand(order: int, pixel: int, offset_mas: tuple[float, float]) -> FrameOffsets:
    level = FrameLevel(
        order, np.array([pixel]), np.array([offset_mas]), np.array([[5.0, 5.0]]), np.array([50])
    )
    return FrameOffsets(order, (level,), np.array([pixel]), np.array([50]))


@pytest.mark.parametrize("place", PLACES)
def test_offsets_are_taken_off_as_astropy_would(place: tuple[float, float]) -> None:
    pixel = int(sky.pixel_at_order(sky.healpix_29(*place), 5)[0])
    ra, dec = sky.from_unit_vectors(sky.pixel_centres(5, [pixel]))
    there = sources([1], ra, dec)
    moved = by_hand(5, pixel, (1200.0, -500.0)).removed_from(there)
    east, north = 1.2 * u.arcsec, -0.5 * u.arcsec
    expected = SkyCoord(ra[0], dec[0], unit="deg").directional_offset_by(
        np.arctan2(-east, -north), np.hypot(east, north)
    )
    assert sky.separation_arcsec(moved.ra_deg, moved.dec_deg, expected.ra.deg, expected.dec.deg)[0] < 1e-7
    assert (moved.healpix_29 == there.healpix_29).all(), "the index stays that of the stored position"


def test_an_offset_keeps_its_length_in_a_cell_of_any_size() -> None:
    """Also 40 degrees from the centre of a base pixel; and what is measured there is what is taken off."""
    rng = np.random.default_rng(2)
    ra, dec = scattered(45.0, 0.0, 40.0, 300, rng)
    right = sources(np.arange(300), ra, dec)
    pixel = int(sky.pixel_at_order(sky.healpix_29(45.0, 0.0), 0)[0])
    inside = right.take(sky.pixel_at_order(right.healpix_29, 0) == pixel)
    back = by_hand(0, pixel, (300.0, -400.0)).removed_from(inside)
    apart = sky.separation_arcsec(inside.ra_deg, inside.dec_deg, back.ra_deg, back.dec_deg)
    assert len(apart) > 50 and np.abs(apart - 0.5).max() < 1e-6
    assert np.abs(pair_offsets_mas(back, inside, SKYMAPPER, 2016.0, 0) - [300.0, -400.0]).max() < 0.01


def test_rows_elsewhere_and_without_a_position_stay_to_the_bit() -> None:
    ra, dec = np.array([200.0, 200.1, 20.0, 200.0]), np.array([-31.0, -31.1, 40.0, np.nan])
    rows = sources(np.arange(4), ra, dec)
    pixel = int(sky.pixel_at_order(rows.healpix_29[:1], 5)[0])
    back = by_hand(5, pixel, (100.0, 0.0)).removed_from(rows)
    assert (back.ra_deg[:2] != ra[:2]).all() and back.ra_deg[2:].tobytes() == ra[2:].tobytes()
    assert back.dec_deg[2:].tobytes() == dec[2:].tobytes()


def test_proper_motions_are_no_offset() -> None:
    rng = np.random.default_rng(4)
    ra, dec = scattered(50.0, -60.0, 0.4, 600, rng)
    noise = rng.normal(0.0, NOISE_MAS, (2, 600))
    then = sky.propagate(ra, dec, 300.0, -200.0, 2.0)[:2]
    right = catalogue(0, *placed(*then, noise[0] + 150.0, noise[1]), epoch_yr=2018.0)
    left = catalogue(0, ra, dec, pmra_mas_yr=300.0, pmdec_mas_yr=-200.0)
    for moving in ("left", "right"):
        if moving == "left":
            first, second, sign = left, right, 1.0
        else:
            first, second, sign = right, left, -1.0
        settings = replace(with_frame(order=8), moving=moving)
        staying = second if moving == "left" else first
        found = measure_frame(first, second, settings, limits_of(staying, settings)).levels[-1]
        assert np.abs(found.offset_mas[0] - [150.0 * sign, 0.0]).max() < 12.0


def test_chance_pairs_do_not_pull_the_median() -> None:
    """Half the stars have no counterpart, and the right catalogue is so dense that most of them find a stranger."""
    rng = np.random.default_rng(5)
    ra, dec = scattered(80.0, -20.0, 0.1, 1000, rng)
    noise = rng.normal(0.0, NOISE_MAS, (2, 500))
    true = placed(ra[:500], dec[:500], noise[0] + 900.0, noise[1] - 500.0)
    strangers = scattered(80.0, -20.0, 0.1, 3000, rng)
    right = catalogue(0, np.append(true[0], strangers[0]), np.append(true[1], strangers[1]))
    found = measured(catalogue(0, ra, dec), right, with_frame(order=8))
    level = found.levels[-1]
    assert found.pairs.sum() > 300
    assert np.abs(level.offset_mas[0] - [900.0, -500.0]).max() < 12.0
    assert level.error_mas.max() < 8.0

    alone = measured(catalogue(0, ra[500:], dec[500:]), catalogue(0, *strangers), with_frame(order=8))
    assert alone.pairs.sum() > 50 and not any(len(level.pixel) for level in alone.levels)
    assert frame_record(alone)["median"] is None and alone.largest_arcsec == 0.0


def test_only_pairs_that_are_alone_count() -> None:
    left, right = pair_of_catalogues((10.0, -45.0), 0.3, 100, 6, (0.0, 0.0))
    extra = placed(right.ra_deg[:30], right.dec_deg[:30], np.full(30, 2500.0), np.zeros(30))
    crowded = catalogue(0, np.append(right.ra_deg, extra[0]), np.append(right.dec_deg, extra[1]))
    assert measured(left, right, with_frame()).pairs.sum() == 100
    assert measured(left, crowded, with_frame()).pairs.sum() == 70
    assert measured(crowded, left, with_frame()).pairs.sum() == 70


def test_a_cell_with_few_pairs_borrows_from_its_parents() -> None:
    children = 4 * np.array([5000, 5000, 5001, 9000]) + np.array([0, 1, 2, 3])
    offsets = [(100.0, 0.0), (0.0, 200.0), (-50.0, -50.0), (300.0, 300.0)]
    numbers = [60, 8, 8, 8]
    rng = np.random.default_rng(7)
    parts = []
    for pixel, offset, n in zip(children, offsets, numbers, strict=True):
        for axis in (0, 1):
            bins = np.floor(rng.normal(offset[axis], NOISE_MAS, n) / 5.0).astype(int)
            parts.append(
                {
                    "cell": [int(pixel)] * n,
                    "axis": [axis] * n,
                    "bin": bins.tolist(),
                    "count": [1] * n,
                }
            )
    found = merge_frame(parts, FrameSettings(order=6, min_pairs=20))
    offset, error, order = found.of_cells(
        np.array([*children, 4 * 5000 + 3, 4 * 5003, 4 * 5004 + 1, 4 * 1000, -1])
    )
    assert order.tolist() == [6, 5, 4, WHOLE, 5, 4, 3, WHOLE, -2]
    assert (offset[4] == offset[1]).all() and (offset[5] == offset[2]).all()
    assert not (offset[2] == offset[1]).all(), "more cells, another median"
    assert (offset[8] == 0.0).all() and np.isnan(error[8]).all()
    record = frame_record(found)
    assert [c["from_order"] for c in record["cells"]] == [6, 5, 4, WHOLE]
    assert [c["pairs"] for c in record["cells"]] == numbers and record["pairs"] == 84
    assert record["median"]["d_ra_mas"] == pytest.approx(offset[3, 0], abs=0.01)
    assert json.loads(json.dumps(record)) == record

    few = merge_frame(parts, FrameSettings(order=6, min_pairs=100))
    assert (few.of_cells(children)[0] == 0.0).all()
    assert {c["from_order"] for c in frame_record(few)["cells"]} == {None}
    assert {c["error_mas"] for c in frame_record(few)["cells"]} == {None}
    nothing = merge_frame([], FrameSettings())
    assert frame_record(nothing)["cells"] == [] and nothing.largest_arcsec == 0.0
    listed = replace(found, pixel=np.arange(12_300), pairs=1 + np.arange(12_300) % 7)
    cells = frame_record(listed)["cells"]
    assert len(cells) == 12_288 and frame_record(listed)["number_of_cells"] == 12_300
    assert sum(c["pairs"] == 1 for c in cells) == (listed.pairs == 1).sum() - 12, (
        "those with fewest are left out"
    )


def test_the_median_of_binned_offsets() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(173.0, 60.0, 4000)
    outliers = rng.uniform(-3000.0, 3000.0, 800)
    bins, counts = np.unique(np.floor(np.append(values, outliers) / 5.0).astype(int), return_counts=True)
    median, error, sigma = centre_of(bins, counts)
    assert median == pytest.approx(173.0, abs=3.0 * error) and sigma == pytest.approx(60.0, rel=0.07)
    assert error == pytest.approx(np.sqrt(np.pi / 2) * sigma / np.sqrt(4000), rel=0.05)
    assert abs(np.median(np.append(values, outliers)) - 173.0) > 1.5 * abs(median - 173.0)
    assert centre_of(np.array([-7]), np.array([9])) == pytest.approx((-32.5, 0.603, 1.443), abs=0.35)


def same(first: FrameOffsets, second: FrameOffsets) -> bool:
    def serial(offsets: FrameOffsets) -> list[bytes]:
        levels = [
            a.tobytes()
            for level in offsets.levels
            for a in (level.pixel, level.offset_mas, level.error_mas, level.pairs)
        ]
        return [*levels, offsets.pixel.tobytes(), offsets.pairs.tobytes()]

    return serial(first) == serial(second)


def by_tiles(
    left: Sources,
    right: Sources,
    settings: MatchSettings,
    tiles: list[tuple[int, int]],
    known: Limits,
    narrow: float = 1.0,
) -> FrameOffsets:
    search, wide = frame_search(settings, known)
    reach = replace(wide, edge_radius_arcsec=narrow * wide.edge_radius_arcsec)
    parts = []
    for tile in tiles:
        wanted = halo.plan_tile(*tile, search, reach)
        rows, others = read_rows(left, wanted.left), read_rows(right, wanted.right)
        parts.append(json.loads(json.dumps(frame_part(rows, others, settings, known, within(rows, *tile)))))
    assert settings.frame is not None
    return merge_frame(parts, settings.frame)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("moving", ["left", "right"])
def test_any_tiling_measures_the_same_frame(place: tuple[float, float], moving: str) -> None:
    gaia, other = crowded_field(*place, seed=9, stars=500, radius_arcsec=120.0, fast=5)
    left, right = (gaia, other) if moving == "left" else (other, gaia)
    settings = replace(with_frame(order=8, min_pairs=5), moving=moving)
    right = stored_off(right, across(place, 2.0))
    staying = right if moving == "left" else left
    known = limits_of(staying, settings)
    whole = measure_frame(left, right, settings, known)
    assert whole.pairs.sum() > 20 and whole.largest_arcsec > 1.0
    narrow_fails = 0
    for seed, (coarse, fine) in ((1, (10, 13)), (2, (13, 15)), (3, (0, 15)), (4, (0, 0))):
        shares = tiles_of(staying, coarse, fine, seed + 10)
        merged = merge_staying([staying_part(staying.take(within(staying, *t)), settings) for t in shares])
        tiles = tiles_of(left, coarse, fine, seed)
        assert same(whole, by_tiles(left, right, settings, tiles, merged)), (coarse, fine)
        narrow_fails += not same(whole, by_tiles(left, right, settings, tiles, merged, narrow=0.01))
    assert narrow_fails > 0, "a halo too narrow must show"


def stored_off(right: Sources, shift: np.ndarray) -> Sources:
    """Make the right catalogue as a frame that is off by a small vector would have stored it."""
    ra, dec = sky.from_unit_vectors(sky.unit_vectors(right.ra_deg, right.dec_deg) + shift)
    keep = np.isfinite(right.dec_deg)
    ra, dec = np.where(keep, ra, right.ra_deg), np.where(keep, dec, right.dec_deg)
    index = right.healpix_29.copy()
    index[keep] = sky.healpix_29(ra[keep], dec[keep])
    return in_order(replace(right, ra_deg=ra, dec_deg=dec, healpix_29=index))


def across(place: tuple[float, float], length_arcsec: float) -> np.ndarray:
    """A small vector across the line of sight, about north-east."""
    here = sky.unit_vectors(*place)
    along = np.cross(here, [0.6, 0.3, 0.74])
    return along / np.linalg.norm(along) * length_arcsec / sky.ARCSEC_PER_RAD


def every_cell(shift: np.ndarray, *, bare: bool = True, order: int = 9) -> FrameOffsets:
    """Offsets that undo `shift`, every other one 0.1 arcsec more; a third of the cells may be without one."""
    pixel = np.arange(12 * 4**order)
    pixel = pixel[pixel % 3 > 0] if bare else pixel
    _, east, north = cell_axes(order, pixel)
    more = 1.0 + 0.1 / (np.linalg.norm(shift) * sky.ARCSEC_PER_RAD) * (pixel % 2)
    own = sky.MAS_PER_RAD * np.column_stack([east @ shift, north @ shift]) * more[:, None]
    level = FrameLevel(order, pixel, own, np.ones_like(own), np.full(len(pixel), 30))
    return FrameOffsets(order, (level,), pixel[:1], np.array([30]))


def planned(
    left: Sources, right: Sources, settings: MatchSettings, max_movers: int, frame_arcsec: float
) -> tuple[Limits, MoverEdges]:
    moving, staying = (left, right) if settings.moving == "left" else (right, left)
    known = limits_of(staying, settings)
    parts = [moving_part(moving, settings, known)]
    known = choose_edge_radius(parts, known, comfort_arcsec=0.0, max_movers=max_movers)
    known = replace(known, frame_arcsec=frame_arcsec)
    movers = moving.take(is_mover(moving, settings, known))
    assert len(movers) == known.movers
    candidates = read_rows(staying, mover_ranges(movers, settings, known))
    return known, mover_edges(movers, candidates, settings, known)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "shift_arcsec"),
    [
        (SKYMAPPER, 1.2),
        (replace(SKYMAPPER, moving="right", left_errors=SKYMAPPER.right_errors), 1.2),
        (MatchSettings(radius_arcsec=1.0), 20.0),
    ],
    ids=["errors", "right moves", "radius"],
)
@pytest.mark.parametrize("place", PLACES[:4])
def test_a_match_without_the_offset_is_exact_in_tiles_of_any_size(
    place: tuple[float, float], settings: MatchSettings, shift_arcsec: float
) -> None:
    gaia, other = crowded_field(*place, seed=6, stars=250, radius_arcsec=60.0, fast=5)
    left, stored = (gaia, other) if settings.moving == "left" else (other, gaia)
    shift = across(place, shift_arcsec)
    stored, frame = stored_off(stored, shift), every_cell(shift)
    right = frame.removed_from(stored)
    moved = sky.separation_arcsec(stored.ra_deg, stored.dec_deg, right.ra_deg, right.dec_deg)
    assert 0.99 * shift_arcsec < np.nanmax(moved) <= frame.largest_arcsec
    whole = columns(left, match_tile(left, right, settings))
    truth = brute_force(left, right, settings)
    assert set(truth) == set(zip(whole["left_id"].tolist(), whole["right_id"].tolist(), strict=True))
    assert len(truth) > 40
    for name in ("number_of_neighbours", "number_of_mates", "density", "unique", "best"):
        values = zip(whole["left_id"].tolist(), whole["right_id"].tolist(), whole[name].tolist(), strict=True)
        assert {(a, b): v for a, b, v in values} == {pair: told[name] for pair, told in truth.items()}, name
    for seed, (coarse, fine), max_movers in ((1, (9, 11), 5), (2, (13, 15), 5), (3, (14, 15), 1)):
        known, edges = planned(left, right, settings, max_movers, frame.largest_arcsec)
        tiles = tiles_of(left, coarse, fine, seed)
        parts = [columns(rows, m) for rows, _, m in each_tile(left, right, tiles, settings, known, edges)]
        assert serialised(joined(parts)) == serialised(whole), (coarse, fine)


def test_a_halo_that_forgets_the_offset_is_too_small() -> None:
    left, stored = crowded_field(0.0, -30.0, seed=6, stars=250, radius_arcsec=60.0, fast=0)
    shift = across((0.0, -30.0), 20.0)
    right = every_cell(shift).removed_from(stored_off(stored, shift))
    settings = MatchSettings(radius_arcsec=1.0)
    known, edges = planned(left, right, settings, 5, 0.0)
    tiles = tiles_of(left, 14, 15, 3)
    parts = [columns(rows, m) for rows, _, m in each_tile(left, right, tiles, settings, known, edges)]
    assert len(joined(parts)["left_id"]) < len(match_tile(left, right, settings).left_id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "shift_arcsec"),
    [(DISC, 49.0), (MatchSettings(radius_arcsec=0.7), 40.0), (MatchSettings(radius_arcsec=0.7), 900.0)],
    ids=["errors", "radius", "far off"],
)
@pytest.mark.parametrize("place", PLACES[:3])
def test_a_fast_star_is_matched_without_the_offset(
    place: tuple[float, float], settings: MatchSettings, shift_arcsec: float
) -> None:
    """Its counterpart is 400 arcsec from it and stored further on by the offset, in tiles 6 arcsec wide."""
    rng = np.random.default_rng(11)
    ra, dec = scattered(*place, 50.0 / 3600.0, 120, rng)
    noise = rng.normal(0.0, NOISE_MAS, (2, 120))
    seen = placed(ra, dec, *noise)
    start = sky.propagate(ra[:1], dec[:1], 120_000.0, -160_000.0, -2.0)
    motion = [np.append(values, np.zeros(120)) for values in start[2:]]
    blended = placed(ra[:1], dec[:1], np.array([250.0]), np.array([50.0]))
    left = in_order(
        sources(
            np.arange(121), np.append(start[0], [*blended[0], *ra[1:]]), np.append(start[1], [*blended[1], *dec[1:]]),
            epoch_yr=2016.0, ra_error_mas=1.0, dec_error_mas=1.0, pmra_mas_yr=motion[0], pmdec_mas_yr=motion[1],
        )
    )  # fmt: skip
    onwards = sky.unit_vectors(ra[0], dec[0]) - sky.unit_vectors(start[0][0], start[1][0])
    shift = onwards / np.linalg.norm(onwards) * shift_arcsec / sky.ARCSEC_PER_RAD
    frame = every_cell(shift, bare=False)
    right = frame.removed_from(stored_off(catalogue(1000, *seen, epoch_yr=2018.0), shift))
    whole = match_tile(left, right, settings)
    truth = brute_force(left, right, settings)
    assert {(0, 1000), (1, 1000)} <= set(truth) == pairs_of(whole)
    density = dict(zip(pairs_of_in_order(whole), whole.density.tolist(), strict=True))
    assert density == {pair: told["density"] for pair, told in truth.items()}
    assert settings.radius_arcsec or density[0, 1000] > 50
    known, edges = planned(left, right, settings, 1, frame.largest_arcsec)
    assert known.movers == 1 and known.edge_radius_arcsec < 2.0
    tiles = tiles_of(left, 15, 15, 1)
    parts = [columns(rows, m) for rows, _, m in each_tile(left, right, tiles, settings, known, edges)]
    assert serialised(joined(parts)) == serialised(columns(left, whole))


def pairs_of_in_order(found: TileMatch) -> list[tuple[int, int]]:
    return list(zip(found.left_id.tolist(), found.right_id.tolist(), strict=True))


def test_statistics_tell_the_offset_of_the_unique_pairs() -> None:
    left, right = pair_of_catalogues((30.0, -50.0), 0.2, 800, 10, (120.0, -35.0))
    tiles = tiles_of(left, 8, 10, 1)
    known, edges = planned(left, right, SKYMAPPER, 0, 0.0)
    parts = []
    for rows, owned, found in each_tile(left, right, tiles, SKYMAPPER, known, edges):
        # the tile's right rows, as the stage has them
        there = {int(i): k for k, i in enumerate(right.id)}
        others = right.take(np.array([there[int(i)] for i in found.right_id[found.unique]], dtype=int))
        offsets = pair_offsets_mas(rows.take(found.left_row[found.unique]), others, SKYMAPPER, 2016.0)
        expected = sky.tangent_offsets_mas(
            rows.ra_deg[found.left_row[found.unique]],
            rows.dec_deg[found.left_row[found.unique]],
            others.ra_deg,
            others.dec_deg,
        )
        assert np.allclose(offsets, np.column_stack(expected), atol=0.01)
        parts.append(json.loads(json.dumps(tile_statistics(found, owned, offsets))))
    told = merge_statistics(parts)
    assert told["offset_pairs"] == told["unique"] > 700
    assert told["offset_error_mas"] == pytest.approx(1.2533 * NOISE_MAS / np.sqrt(800), rel=0.15)
    assert abs(told["offset_ra_mas"] - 120.0) < 3.5 * told["offset_error_mas"]
    assert abs(told["offset_dec_mas"] + 35.0) < 3.5 * told["offset_error_mas"]
    assert merge_statistics(parts[::-1]) == told
    nothing = match_tile(left.take(left.id < 0), right, SKYMAPPER)
    empty = merge_statistics([tile_statistics(nothing, np.zeros(0, dtype=bool))])
    assert empty["offset_pairs"] == 0 and empty["offset_ra_mas"] is None


def test_the_sample_is_a_matter_of_the_id_alone() -> None:
    ids = np.random.default_rng(0).integers(0, 2**62, 200_000)
    assert is_sampled(ids, 900_000).all() and is_sampled(ids, 1_000_000).all()
    for ids_given in (ids, np.arange(200_000), 4 * np.arange(200_000) + 10**12):
        assert is_sampled(ids_given, 10_000_000).mean() == pytest.approx(0.1, rel=0.05)
    chosen = is_sampled(ids, 50_000_000)
    assert (is_sampled(ids[::-1], 50_000_000)[::-1] == chosen).all()


def test_which_rows_are_bright() -> None:
    table = pa.table(
        {
            "g": pa.array([16.0, 18.0, None, 18.0, None, -99.0], pa.float32()),
            "z": pa.array([None, 17.0, None, 17.1, 3.0, 18.0], pa.float64()),
        }
    )
    assert is_bright(table, ["g", "z"], 17.0).tolist() == [True, True, False, False, True, False]
    assert is_bright(table, ["g"], 17.0).tolist() == [True, False, False, False, False, False]
    assert is_bright(table, [], 17.0).all()


def test_the_configuration_asks_for_it() -> None:
    gaia, skymapper = load_descriptor("gaia_dr3"), load_descriptor("skymapper_dr2")
    assert match_settings(load_config(environment={}).crossmatch, gaia, skymapper).frame is None
    asked = ["crossmatch.frame_offset=measure", "crossmatch.frame_order=7", "crossmatch.frame_bright_mag=15"]
    config = load_config(overrides=asked, environment={}).crossmatch
    assert match_settings(config, gaia, skymapper).frame == FrameSettings(order=7, bright_mag=15.0)


def field(name: str) -> tuple[Sources, Sources, np.ndarray, np.ndarray]:
    """Gaia DR2 (parallax > 2 mas) and SkyMapper DR2 of one field, and the magnitude of each in its brightest band."""
    path = REAL / "gaia_dr2" / f"{name}field.500pc.sample"
    text = path.read_text().splitlines()
    names = [line[6:] for line in text if line.startswith("#-out=")]
    gaia = pd.read_csv(path, sep="\t", comment="#", names=names, skipinitialspace=True)
    numbers = gaia.drop(columns="Source").apply(pd.to_numeric, errors="coerce")
    other = pd.read_csv(REAL / "skymapper_dr2" / f"{name}_SM.tsv", sep="\t").rename(columns=str.lower)
    left = sources(
        gaia["Source"], numbers["RA_ICRS"], numbers["DE_ICRS"], epoch_yr=2015.5,
        ra_error_mas=numbers["e_RA_ICRS"], dec_error_mas=numbers["e_DE_ICRS"], parallax_mas=numbers["Plx"],
        pmra_mas_yr=numbers["pmRA"], pmdec_mas_yr=numbers["pmDE"],
        pmra_error_mas_yr=numbers["e_pmRA"], pmdec_error_mas_yr=numbers["e_pmDE"],
    )  # fmt: skip
    epoch = sky.mjd_to_jyear(other["mean_epoch"].replace(0.0, np.nan))
    right = sources(other["object_id"], other["raj2000"], other["dej2000"], epoch_yr=epoch,
                    ra_error_mas=other["e_raj2000"], dec_error_mas=other["e_dej2000"])  # fmt: skip
    brightest = numbers[["Gmag", "BPmag", "RPmag"]].min(axis=1).to_numpy()
    return left, right, brightest, other[[f"{b}_psf" for b in "uvgriz"]].min(axis=1).to_numpy()


def good_of_close(left: Sources, right: Sources, settings: MatchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Of the pairs within 1 arcsec: which are good neighbours, and which are alone within that radius."""
    good = match_tile(left, right, settings)
    close = match_tile(left, right, MatchSettings(radius_arcsec=1.0))
    known = set(zip(good.left_id.tolist(), good.right_id.tolist(), strict=True))
    pairs = zip(close.left_id.tolist(), close.right_id.tolist(), strict=True)
    return np.array([pair in known for pair in pairs]), close.unique


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real catalogue rows: {REAL} is absent")
def test_real_skymapper_fields_on_gaia() -> None:
    """Offset as a whole by 0.15 arcsec: the systematic error carries that, and removing it mends the cause."""
    config = load_config(overrides=["crossmatch.frame_offset=measure"], environment={}).crossmatch
    settings = match_settings(config, load_descriptor("gaia_dr3"), load_descriptor("skymapper_dr2"))
    assert settings.right_errors.systematic_mas == 100.0
    bare = replace(settings, right_errors=replace(settings.right_errors, systematic_mas=0.0))
    shares, expected = [], {"A3558": (0.629, 167.5, 16.0), "Antlia": (0.882, 157.5, -12.5)}
    for name, (without, east, north) in expected.items():
        left, right, left_mag, right_mag = field(name)
        good, _ = good_of_close(left, right, settings)
        assert len(good) > 90 and good.mean() >= 0.98
        assert good_of_close(left, right, bare)[0].mean() == pytest.approx(without, abs=0.01)
        bright = settings.frame.bright_mag  # type: ignore[union-attr]
        known = limits_of(right, settings)
        frame = measure_frame(left.take(left_mag <= bright), right.take(right_mag <= bright), settings, known)
        (cell,) = frame_record(frame)["cells"]
        assert cell["from_order"] == 5 and cell["pairs"] >= 30 and cell["error_mas"] < 12.0
        assert (cell["d_ra_mas"], cell["d_dec_mas"]) == pytest.approx((east, north), abs=3.0)
        back = frame.removed_from(right)
        good, alone = good_of_close(left, back, settings)
        assert good[alone].mean() >= 0.99
        assert good_of_close(left, back, bare)[0].mean() > max(0.9, without)
        shares.append(good)
    # one close double star, of which SkyMapper saw one source halfway between, is two of the 208 pairs
    assert np.concatenate(shares).mean() >= 0.99
