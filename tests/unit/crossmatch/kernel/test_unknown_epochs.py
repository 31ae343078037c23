"""Positions of nobody knows when: a star is looked for along its path, and its neighbours are not taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Distance, SkyCoord
from astropy.time import Time

from stellarml.core.errors import ConfigError
from stellarml.crossmatch.kernel.match_tile import TileMatch, match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, Sources, sources

RADIUS = MatchSettings(radius_arcsec=1.0, moving="right")
SPAN = replace(RADIUS, unknown_epochs_yr=(1990.0, 2026.0))
BARNARD = SkyCoord(
    ra=269.4485 * units.deg,
    dec=4.7394 * units.deg,
    pm_ra_cosdec=-801.6 * units.mas / units.yr,
    pm_dec=10362.4 * units.mas / units.yr,
    distance=Distance(parallax=546.98 * units.mas),
    obstime=Time(2016.0, format="jyear", scale="tdb"),
)


def stars(*extra: tuple[float, float]) -> Sources:
    """Return Barnard's star and stars without motion at `extra` offsets (east, north; arcsec) from it."""
    ra = [BARNARD.ra.deg, *(BARNARD.ra.deg + e / 3600 / np.cos(BARNARD.dec.rad) for e, _ in extra)]
    dec = [BARNARD.dec.deg, *(BARNARD.dec.deg + n / 3600 for _, n in extra)]
    rest = [0.0] * len(extra)
    return sources(
        np.arange(1, len(ra) + 1), np.array(ra), np.array(dec), epoch_yr=2016.0,
        pmra_mas_yr=np.array([BARNARD.pm_ra_cosdec.value, *rest]), pmdec_mas_yr=np.array([BARNARD.pm_dec.value, *rest]),
    )  # fmt: skip


def spectrum_of(year: float, east: float = 0.0) -> Sources:
    """Return the position of Barnard's star in a year, by astropy, `east` arcsec beside it."""
    then = BARNARD.apply_space_motion(dt=(year - 2016.0) * units.yr)
    ra = then.ra.deg + east / 3600 / np.cos(then.dec.rad)
    return sources(np.array([7]), np.array([ra]), np.array([then.dec.deg]))


def pairs(found: TileMatch) -> list[tuple[int, int]]:
    return sorted(zip(found.left_row.tolist(), found.right_row.tolist(), strict=True))


@pytest.mark.parametrize("year", [1990.0, 1991.25, 2000.0, 2015.5, 2016.0, 2026.0])
def test_a_fast_star_is_found_wherever_it_was(year: float) -> None:
    found = match_tile(spectrum_of(year), stars(), SPAN)
    assert pairs(found) == [(0, 0)] and found.distance_arcsec[0] < 0.01
    assert pairs(match_tile(spectrum_of(year), stars(), RADIUS)) == ([(0, 0)] if year == 2016.0 else [])


@pytest.mark.parametrize("year", [1985.0, 2031.0])
def test_the_path_ends_with_the_span(year: float) -> None:
    assert pairs(match_tile(spectrum_of(year), stars(), SPAN)) == []


@pytest.mark.parametrize(("east", "found"), [(0.9, 1), (1.1, 0), (-0.9, 1), (-1.1, 0)])
def test_the_radius_is_about_the_path(east: float, found: int) -> None:
    assert len(pairs(match_tile(spectrum_of(2000.0, east), stars(), SPAN))) == found


def test_stars_beside_the_path_are_not_taken() -> None:
    """One stands where the fast star was in the year 2000: the row is of either, and both are said."""
    then = BARNARD.apply_space_motion(dt=-16.0 * units.yr)
    east, north = SkyCoord(BARNARD.ra, BARNARD.dec).spherical_offsets_to(SkyCoord(then.ra, then.dec))
    decoy = (east.to_value("arcsec") + 0.5, north.to_value("arcsec"))
    found = match_tile(spectrum_of(2000.0), stars(decoy, (5.0, 5.0)), SPAN)
    assert pairs(found) == [(0, 0), (0, 1)]


def test_a_known_epoch_is_used() -> None:
    """With the epoch given the span says nothing: the star is looked for where it was then."""
    known = replace(spectrum_of(2000.0), epoch_yr=np.array([2000.0]))
    assert pairs(match_tile(known, stars(), SPAN)) == [(0, 0)]
    wrong = replace(spectrum_of(2000.0), epoch_yr=np.array([2005.0]))
    assert pairs(match_tile(wrong, stars(), SPAN)) == []


def test_the_span_goes_with_a_radius() -> None:
    with pytest.raises(ConfigError, match="goes with a fixed radius"):
        MatchSettings(unknown_epochs_yr=(1990.0, 2026.0))
