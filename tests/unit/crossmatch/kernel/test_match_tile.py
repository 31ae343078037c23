"""The kernel against a match of all pairs written from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.crossmatch_oracle import brute_force, crowded_field

from stellarml.core.errors import ConfigError, InputError
from stellarml.core.match_flags import MatchFlag
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, PositionErrors, Sources, sources

SKYMAPPER = MatchSettings(right_errors=PositionErrors(36.0, 1000.0, 100.0))
PLACES = {
    "ra_zero": (0.0, -30.0),
    "steep": (211.3, -72.0),
    "north_pole": (123.0, 90.0),
    "south_pole": (77.0, -89.9999),
    "base_pixel_corner": (45.0, 0.0),
    "polar_cap_seam": (90.0, 41.8103149),
}
COUNTS = (
    "number_of_neighbours",
    "number_of_mates",
    "number_of_reverse_neighbours",
    "density",
    "best",
    "unique",
)


def disagreements(found: TileMatch, expected: dict[tuple[int, int], dict[str, float]]) -> list[str]:
    pairs_found = list(zip(found.left_id.tolist(), found.right_id.tolist(), strict=True))
    problems = [f"missing {pair}" for pair in expected.keys() - set(pairs_found)]
    problems += [f"unexpected {pair}" for pair in set(pairs_found) - expected.keys()]
    problems += ["a pair twice"] * (len(pairs_found) - len(set(pairs_found)))
    for row, pair in enumerate(pairs_found):
        for name, value in expected.get(pair, {}).items():
            got = getattr(found, name)[row]
            same = (
                got == value
                if name in COUNTS
                else np.isclose(got, value, rtol=1e-6, atol=1e-8, equal_nan=True)
            )
            if not same:
                problems.append(f"{name} of {pair}: {got}, expected {value}")
    return problems


@pytest.mark.parametrize("place", PLACES)
def test_every_pair_and_count_equals_brute_force(place: str) -> None:
    left, right = crowded_field(*PLACES[place], seed=1, stars=110, radius_arcsec=13.0)
    expected = brute_force(left, right, SKYMAPPER)
    found = match_tile(left, right, SKYMAPPER)
    assert disagreements(found, expected) == []
    assert found.number_of_neighbours.max() > 2 and found.number_of_mates[found.best].max() >= 1
    assert 10 < found.unique.sum() < found.best.sum() < len(found.best)


@pytest.mark.parametrize("place", ["ra_zero", "north_pole"])
@pytest.mark.parametrize(
    "change",
    [
        {"radius_arcsec": 1.0},
        {"radius_arcsec": 6.0},
        {"gamma": 0.9},
        {"sigma_mu_mas_yr": 200.0, "density_radius_arcsec": 4.0},
        {"left_errors": PositionErrors(50.0, 55.0, 20.0, missing_mas=30.0)},
        {"right_errors": PositionErrors(36.0, 300.0, 100.0, missing_mas=400.0)},
    ],
)
def test_settings_against_brute_force(place: str, change: dict[str, object]) -> None:
    left, right = crowded_field(*PLACES[place], seed=2, stars=100)
    chosen = MatchSettings(**{"right_errors": SKYMAPPER.right_errors, **change})
    expected = brute_force(left, right, chosen)
    assert len(expected) > 20
    assert disagreements(match_tile(left, right, chosen), expected) == []


@pytest.mark.parametrize("place", ["ra_zero", "south_pole"])
def test_the_right_side_may_be_the_one_that_moves(place: str) -> None:
    gaia, skymapper = crowded_field(*PLACES[place], seed=3, stars=100)
    chosen = MatchSettings(moving="right", left_errors=SKYMAPPER.right_errors)
    expected = brute_force(skymapper, gaia, chosen)
    assert disagreements(match_tile(skymapper, gaia, chosen), expected) == []
    mirrored = match_tile(gaia, skymapper, SKYMAPPER)
    assert {(b, a) for a, b in expected} == set(
        zip(mirrored.left_id.tolist(), mirrored.right_id.tolist(), strict=True)
    )


def chain(*offsets_arcsec: float, dec_deg: float = 0.0) -> Sources:
    dec = dec_deg + np.array(offsets_arcsec) / 3600.0
    return sources(
        np.arange(len(dec)) + 1, np.full(len(dec), 10.0), dec, ra_error_mas=100.0, dec_error_mas=100.0
    )


def test_chain_g1_s1_g2_s2_is_unique_for_nobody() -> None:
    found = match_tile(chain(0.0, 1.0), chain(0.6, 1.1), MatchSettings())
    table = {
        (int(a), int(b)): (int(n), int(m), int(r), bool(best), bool(unique))
        for a, b, n, m, r, best, unique in zip(
            found.left_id, found.right_id, found.number_of_neighbours, found.number_of_mates,
            found.number_of_reverse_neighbours, found.best, found.unique, strict=True,
        )
    }  # fmt: skip
    assert table == {
        (1, 1): (1, 0, 2, True, False),
        (2, 1): (2, 1, 2, False, False),
        (2, 2): (2, 0, 1, True, False),
    }
    assert (found.xm_flag & MatchFlag.HAS_MULTIPLES).tolist() == [1, 1, 0]


def test_ties_go_to_the_smaller_right_id_in_any_order() -> None:
    left, right = chain(0.0), chain(0.5, 0.5, 0.5)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = match_tile(left, right.take(np.array(order)), MatchSettings())
        assert found.right_id[found.best].tolist() == [1]
        assert found.right_id.tolist() == [1, 2, 3]


def test_smaller_errors_can_beat_a_nearer_source() -> None:
    right = sources([1, 2], [10.0, 10.0], np.array([0.2, 0.25]) / 3600.0, ra_error_mas=[900.0, 100.0],
                    dec_error_mas=[900.0, 100.0])  # fmt: skip
    found = match_tile(chain(0.0), right, MatchSettings())
    assert found.right_id[found.best].tolist() == [2]
    nearest = match_tile(chain(0.0), right, MatchSettings(radius_arcsec=1.0))
    assert nearest.right_id[nearest.best].tolist() == [1]
    assert np.isnan(nearest.d2).all() and np.allclose(nearest.score, [-0.2, -0.25])


def test_flags_say_how_a_pair_was_made() -> None:
    left = sources(
        [1, 2, 3, 4], [10.0, 20.0, 30.0, 40.0], np.zeros(4), epoch_yr=2016.0, ra_error_mas=[1.0, 1.0, 1.0, np.nan],
        dec_error_mas=1.0, pmra_mas_yr=[np.nan, 3000.0, 0.0, 0.0], pmdec_mas_yr=0.0,
        parallax_mas=[0.0, 1.0, 500.0, 0.0],
        pmra_error_mas_yr=1.0, pmdec_error_mas_yr=1.0, ra_dec_corr=0.0, ra_pmra_corr=0.0, ra_pmdec_corr=0.0,
        dec_pmra_corr=0.0, dec_pmdec_corr=0.0, pmra_pmdec_corr=[0.0, 0.0, np.nan, 0.0],
    )  # fmt: skip
    right = sources(
        [1, 2, 3, 4], [10.0, 20.0 - 3.0 / 3600.0, 30.0, 40.0], np.zeros(4), epoch_yr=[2015.0, 2015.0, np.nan, 2015.0],
        ra_error_mas=[100.0, 10.0, 100.0, 100.0], dec_error_mas=100.0,
    )  # fmt: skip
    found = match_tile(left, right, MatchSettings(left_errors=PositionErrors(missing_mas=5.0),
                                                  right_errors=PositionErrors(36.0, 1000.0)))  # fmt: skip
    assert found.xm_flag[np.argsort(found.left_id)].tolist() == [
        MatchFlag.NO_PROPER_MOTION,
        MatchFlag.MOVED_FAR | MatchFlag.ERROR_AT_FLOOR,
        MatchFlag.EPOCH_REPLACED | MatchFlag.PARALLAX_LEADS | MatchFlag.COVARIANCE_PARTIAL,
        MatchFlag.ERROR_REPLACED,
    ]
    assert found.unique.all()


def test_rows_without_position_or_error_take_no_part() -> None:
    errors = {"ra_error_mas": [10.0, 10.0, np.nan], "dec_error_mas": 10.0}
    left = sources([1, 2, 3], [10.0, np.nan, 10.0], [0.0, 0.0, 0.0], **errors)
    right = sources([1, 2], [10.0, 10.0], [0.0, 0.0], ra_error_mas=[10.0, 2000.0], dec_error_mas=10.0)
    chosen = MatchSettings(right_errors=PositionErrors(reject_above_mas=1000.0))
    found = match_tile(left, right, chosen)
    assert (found.left_id.tolist(), found.right_id.tolist(), found.density.tolist()) == ([1], [1], [1])
    assert found.neighbours_of_left.tolist() == [1, 0, 0]
    everything = match_tile(left, right, MatchSettings(radius_arcsec=1.0))
    assert everything.neighbours_of_left.tolist() == [2, 0, 2]


def test_empty_sides_give_no_edges() -> None:
    nobody = chain()
    for left, right in ((nobody, chain(0.0)), (chain(0.0), nobody), (nobody, nobody)):
        found = match_tile(left, right, SKYMAPPER)
        assert len(found.left_row) == 0 and len(found.neighbours_of_left) == len(left)


def test_the_limit_is_five_sigma_in_one_dimension() -> None:
    assert MatchSettings().limit == pytest.approx(28.74, abs=0.01)


def test_wrong_settings_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        MatchSettings(gamma=1.5, radius_arcsec=-1.0, sigma_mu_mas_yr=np.nan)
    assert all(
        word in str(caught.value) for word in ("gamma", "radius_arcsec", "sigma_mu_mas_yr", "3 problems")
    )


def test_wrong_columns_are_refused() -> None:
    with pytest.raises(InputError, match="'pm_ra' is not a column"):
        sources([1], [0.0], [0.0], pm_ra=[1.0])
    with pytest.raises(InputError, match=r"dec_deg has shape \(2,\)"):
        sources([1], [0.0], [0.0, 1.0])
