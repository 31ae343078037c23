"""The bitmap of empty places: it may only tell what is true, and it must not tell anything where it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from stellarml.core import sky
from stellarml.crossmatch.kernel import pairs
from stellarml.crossmatch.kernel.astrometry import vectors
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.kernel.occupancy import Occupancy, mark_occupied, may_have_candidate
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources
from stellarml.crossmatch.kernel.zones import build_zones

RADIUS_ARCSEC = 2.0


def field(rows: int, ra: float, dec: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (ra + rng.uniform(0, 0.3, rows) / np.cos(np.radians(dec))) % 360.0, dec + rng.uniform(0, 0.3, rows)


def marked(ra: np.ndarray, dec: np.ndarray, radius_arcsec: float = RADIUS_ARCSEC) -> Occupancy:
    radius = radius_arcsec / 3600.0
    zones = build_zones(ra, dec, vectors(ra, dec), np.ones(len(ra), dtype=bool), radius)
    return mark_occupied(zones, dec[zones.row], radius)


@pytest.mark.slow
@pytest.mark.parametrize("dec", [-80.0, -30.0, 0.0, 60.0, 84.0])
def test_every_place_within_the_radius_is_marked_and_few_others_are(dec: float) -> None:
    ra, decs = field(2000, 40.0, dec, 1)
    grid = marked(ra, decs)
    assert grid.columns > 0
    rng = np.random.default_rng(2)
    for far in (0.5, 0.999_999):
        angle = rng.uniform(0, 2 * np.pi, len(ra))
        step = far * RADIUS_ARCSEC * 1000.0
        a, d, _, _ = sky.propagate(ra, decs, step * np.cos(angle), step * np.sin(angle), 1.0)
        assert all(may_have_candidate(grid, grid.bits, x, y) for x, y in zip(a, d, strict=True))
    a, d = field(2000, 40.0, dec, 3)
    near = (sky.separation_arcsec(a[:, None], d[:, None], ra, decs) <= RADIUS_ARCSEC).any(axis=1)
    told = np.array([may_have_candidate(grid, grid.bits, x, y) for x, y in zip(a, d, strict=True)])
    assert told[near].all()
    assert told.mean() < 0.4


def test_right_ascensions_beyond_a_turn_are_the_same_place() -> None:
    ra, dec = field(2000, 40.0, -30.0, 1)
    grid = marked(ra, dec)
    assert all(may_have_candidate(grid, grid.bits, x - 360.0, y) for x, y in zip(ra, dec, strict=True))


@pytest.mark.parametrize(("ra", "dec"), [(359.9, 0.0), (0.0, 0.0), (10.0, 86.0), (10.0, -89.9)])
def test_nothing_is_told_at_the_seam_and_at_the_poles(ra: float, dec: float) -> None:
    a, d = field(2000, ra, min(dec, 89.6), 1)
    grid = marked(np.where(np.arange(2000) % 2 == 0, a, ra), d)
    if ra == 0.0:
        a, d = np.append(a, 0.0), np.append(d, 0.1)
        grid = marked(a, d)
    assert grid.columns == 0
    assert may_have_candidate(grid, grid.bits, 123.0, 45.0)


def test_nothing_is_told_of_a_crowd_or_of_no_rows() -> None:
    ra, dec = field(2000, 40.0, 0.0, 1)
    assert marked(ra, dec, 200.0).columns == 0
    assert marked(ra[:0], dec[:0]).columns == 0


@pytest.mark.parametrize("dec", [-70.0, 10.0])
def test_pairs_are_those_of_a_search_without_it(dec: float, monkeypatch: pytest.MonkeyPatch) -> None:
    ra, decs = field(4000, 40.0, dec, 1)
    rng = np.random.default_rng(5)
    a, d, _, _ = sky.propagate(
        ra[:500], decs[:500], *(RADIUS_ARCSEC * 600.0 * rng.normal(size=(2, 500))), 1.0
    )
    left, right = sources(np.arange(4000), ra, decs), sources(np.arange(500), a, d)
    settings = MatchSettings(radius_arcsec=RADIUS_ARCSEC)

    def found(one: Sources, other: Sources) -> list[tuple[int, int]]:
        result = match_tile(one, other, settings)
        return list(zip(result.left_id.tolist(), result.right_id.tolist(), strict=True))

    with_it = found(left, right)
    nothing = Occupancy(0.0, 0.0, 0.0, 0.0, 0, np.zeros(1, dtype=np.uint8))
    monkeypatch.setattr(pairs, "mark_occupied", lambda *a: nothing)
    assert with_it == found(left, right)
    assert len(with_it) > 300
    blind = Occupancy(0.0, -90.0, 1e-3, 1e-3, 1, np.zeros(1, dtype=np.uint8))
    monkeypatch.setattr(pairs, "mark_occupied", lambda *a: blind)
    assert found(left, right) == []  # the search does ask
