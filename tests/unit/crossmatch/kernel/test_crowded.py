"""Tiles with more pairs than can be held: the same edges in parts, the same counts, a bound on what is written."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from helpers.crossmatch_tiles import columns, joined, serialised

from stellarml.core.errors import UserError
from stellarml.crossmatch.kernel.fast_movers import MOST_EDGES, mover_edges
from stellarml.crossmatch.kernel.limits import limits_of
from stellarml.crossmatch.kernel.match_tile import Bounds, TileMatch, match_parts, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources
from stellarml.crossmatch.statistics import add_statistics, tile_statistics

KINDS = {
    "errors": MatchSettings(),
    "radius": MatchSettings(radius_arcsec=20.0),
    "right moves": MatchSettings(radius_arcsec=20.0, moving="right"),
    "right moves by errors": MatchSettings(moving="right"),
}
TIGHT = Bounds(held=400, chunk=150)


def crowd(n: int, seed: int, *, same_place: int = 0) -> Sources:
    """Stars within an arcminute about RA = 0, some of them at one place."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(-0.01, 0.01, n) % 360.0, rng.uniform(-30.01, -29.99, n)
    ra[:same_place], dec[:same_place] = 0.001, -30.0
    rows = sources(
        rng.permutation(n) + 1,
        ra,
        dec,
        ra_error_mas=4000.0,
        dec_error_mas=4000.0,
        epoch_yr=2016.0 + seed,
        pmra_mas_yr=rng.normal(0, 300, n),
        pmdec_mas_yr=rng.normal(0, 300, n),
    )
    return rows.take(np.argsort(rows.healpix_29, kind="stable"))


@pytest.fixture(scope="module")
def both() -> tuple[Sources, Sources]:
    return crowd(300, 0, same_place=40), crowd(250, 1, same_place=30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_the_whole(both: tuple[Sources, Sources], kind: str, seed: int) -> None:
    left, right = both
    if seed == 2:  # in no order at all
        left = left.take(np.random.default_rng(5).permutation(len(left)))
    owned = np.random.default_rng(seed).random(len(left)) < (1.0, 0.6, 0.8)[seed]
    whole = match_tile(left, right, KINDS[kind], owned=owned)
    assert len(whole.left_id) > 10 * TIGHT.held, "too few edges: nothing is shown"
    parts = list(match_parts(left, right, KINDS[kind], owned=owned, bounds=TIGHT))
    assert len(parts) > 5
    assert max(len(part.left_id) for part in parts) <= TIGHT.held
    assert serialised(joined([columns(left, part) for part in parts])) == serialised(columns(left, whole))
    np.testing.assert_array_equal(np.sum([part.rows for part in parts], axis=0), owned)
    added = add_statistics([tile_statistics(part, part.rows) for part in parts])
    assert added == tile_statistics(whole, owned)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_alone_are_those_of_the_whole(both: tuple[Sources, Sources], kind: str) -> None:
    left, right = both
    owned = np.arange(len(left)) % 3 > 0
    whole = match_tile(left, right, KINDS[kind], owned=owned)
    (part,) = match_parts(
        left, right, KINDS[kind], owned=owned, bounds=replace(TIGHT, only_best=True, most=10)
    )
    assert part.best.all() and len(part.left_id) == whole.best.sum()
    for name in (f.name for f in fields(TileMatch) if f.name not in ("rows", "neighbours_of_left")):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[whole.best], err_msg=name)
    counted = tile_statistics(part, owned)
    assert counted == tile_statistics(whole, owned)


def test_too_many_pairs_are_refused_with_their_number(both: tuple[Sources, Sources]) -> None:
    left, right = both
    number = len(match_tile(left, right, KINDS["radius"]).left_id)
    with pytest.raises(UserError, match=r"a tile of 300 rows has about [0-9,]+ pairs") as refused:
        list(match_parts(left, right, KINDS["radius"], bounds=replace(TIGHT, most=1000)))
    told = int(str(refused.value).split("about ")[1].split()[0].replace(",", ""))
    assert 0.3 < told / number < 3.0, "the number expected is far from the truth"
    with pytest.raises(UserError, match=f"has {number:,} pairs"):
        list(match_parts(left, right, KINDS["radius"], bounds=replace(TIGHT, most=number - 1)))
    assert list(match_parts(left, right, KINDS["radius"], bounds=replace(TIGHT, most=number)))


def test_pairs_of_movers_are_bounded(both: tuple[Sources, Sources], monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = both
    settings, limits = KINDS["radius"], limits_of(right, KINDS["radius"])
    known = replace(limits, edge_radius_arcsec=0.0)
    edges = mover_edges(left, right, settings, known)
    assert len(edges) < MOST_EDGES
    monkeypatch.setattr("stellarml.crossmatch.kernel.fast_movers.MOST_EDGES", len(edges))
    again = mover_edges(left, right, settings, known)
    for column in fields(edges):
        np.testing.assert_array_equal(getattr(again, column.name), getattr(edges, column.name))
    monkeypatch.setattr("stellarml.crossmatch.kernel.fast_movers.MOST_EDGES", len(edges) // 4)
    with pytest.raises(UserError, match=r"about [0-9,]+ pairs"):
        mover_edges(left, right, settings, known)
