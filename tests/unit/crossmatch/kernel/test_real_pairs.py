"""Real rows: SkyMapper DR4 on Gaia in NGC 1097, 2MASS on Gaia over 16 years, SkyMapper DR2 on itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import angular_separation
from astropy.io import fits
from helpers.places import REAL
from scipy.spatial import ConvexHull

from stellarml.core import sky
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.kernel.settings import MatchSettings, PositionErrors, sources

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real catalogue rows: {REAL} is absent")


def test_ngc1097_within_one_arcsecond() -> None:
    gaia = pd.read_csv(REAL / "skymapper_dr4" / "NGC1097_GAIA.csv")
    skymapper = pd.read_csv(REAL / "skymapper_dr4" / "NGC1097_SMSS.csv")
    left = sources(np.arange(len(gaia)), gaia["RA_ICRS"], gaia["DE_ICRS"])
    right = sources(skymapper["ObjectId"], skymapper["RAICRS"], skymapper["DEICRS"])
    found = match_tile(left, right, MatchSettings(radius_arcsec=1.0))
    assert found.best.sum() / len(left) >= 0.98
    assert np.median(found.distance_arcsec[found.best]) == pytest.approx(0.06, abs=0.01)

    apart = 3600.0 * np.degrees(
        angular_separation(
            *np.radians([left.ra_deg, left.dec_deg])[:, :, None], *np.radians([right.ra_deg, right.dec_deg])
        )
    )
    a, b = np.nonzero(apart <= 1.0)
    expected = set(zip(a.tolist(), right.id[b].tolist(), strict=True))
    assert set(zip(found.left_id.tolist(), found.right_id.tolist(), strict=True)) == expected
    nearest = {int(row): int(right.id[apart[row].argmin()]) for row in np.unique(a)}
    assert (
        dict(zip(found.left_id[found.best].tolist(), found.right_id[found.best].tolist(), strict=True))
        == nearest
    )
    assert np.allclose(found.distance_arcsec, apart[found.left_row, found.right_row], rtol=1e-9, atol=1e-8)


def open_clusters() -> np.ndarray:
    return np.asarray(fits.getdata(REAL / "epochs" / "gaia_edr3_2mass_open_clusters.fits", 1))


def test_propagation_brings_gaia_to_2mass() -> None:
    rows = open_clusters()
    ra, dec = rows["RAdeg"].astype(float), rows["DEdeg"].astype(float)
    interval = sky.mjd_to_jyear(rows["MeasureJD"].astype(float) - 2_400_000.5) - 2016.0
    moved_ra, moved_dec, _, _ = sky.propagate(ra, dec, rows["pmRA"], rows["pmDE"], interval)
    before = sky.separation_arcsec(ra, dec, rows["RAJ2000"], rows["DEJ2000"])
    after = sky.separation_arcsec(moved_ra, moved_dec, rows["RAJ2000"], rows["DEJ2000"])
    assert np.median(before) == pytest.approx(0.109, abs=0.001)
    assert np.median(after) == pytest.approx(0.084, abs=0.001)


def test_the_match_finds_2mass_counterparts_at_their_epoch() -> None:
    rows = open_clusters()
    first = np.unique(rows["GaiaEDR3"], return_index=True)[1]
    rows = rows[first]
    rows = rows[np.unique(rows["2MASS"], return_index=True)[1]]
    epoch = sky.mjd_to_jyear(rows["MeasureJD"].astype(float) - 2_400_000.5)
    # positions are stored in single precision, 40 mas at 180 degrees
    left = sources(
        rows["GaiaEDR3"].astype(np.int64), rows["RAdeg"].astype(float), rows["DEdeg"].astype(float), epoch_yr=2016.0,
        ra_error_mas=40.0, dec_error_mas=2.0, parallax_mas=rows["plx"].astype(float),
        pmra_mas_yr=rows["pmRA"].astype(float), pmdec_mas_yr=rows["pmDE"].astype(float),
    )  # fmt: skip
    errors = 1000.0 * rows["errHalfMaj"].astype(float)
    right = sources(np.arange(len(rows)), rows["RAJ2000"].astype(float), rows["DEJ2000"].astype(float),
                    epoch_yr=epoch, ra_error_mas=errors, dec_error_mas=errors)  # fmt: skip
    found = match_tile(
        left, right, MatchSettings(right_errors=PositionErrors(floor_mas=60.0, systematic_mas=50.0))
    )
    own = found.left_row[found.best] == found.right_row[found.best]
    assert own.sum() / len(rows) > 0.95
    assert own.mean() > 0.995
    # the few per cent beyond 5 sigma are left out, so the median is a little below that of all rows
    assert np.median(found.distance_arcsec[found.best]) == pytest.approx(0.084, abs=0.006)


@pytest.mark.parametrize("name", ["14hr", "1hr", "8hr", "A3558", "Antlia", "CDFS", "NSF2"])
def test_skymapper_finds_its_own_nearest_neighbours(name: str) -> None:
    """`prox`, `prox_id` are SkyMapper's own answer within 15 arcsec, rounded to 0.1; both are 15 and null beyond."""
    rows = pd.read_csv(REAL / "skymapper_dr2" / f"{name}_SM.tsv", sep="\t").rename(columns=str.lower)
    assert rows["object_id"].is_unique
    field = sources(rows["object_id"], rows["raj2000"], rows["dej2000"])
    found = match_tile(field, field, MatchSettings(radius_arcsec=15.0))
    others = found.left_id != found.right_id
    pairs = pd.DataFrame(
        {"right": found.right_id[others], "apart": found.distance_arcsec[others]}, index=found.left_id[others]
    )
    nearest = pairs.sort_values("apart").groupby(level=0).first().reindex(rows["object_id"])
    inner = deeper_than(rows["raj2000"].to_numpy(), rows["dej2000"].to_numpy(), 15.0)
    assert inner.mean() > 0.9
    found_id, apart = nearest["right"].to_numpy()[inner], nearest["apart"].to_numpy()[inner]
    stated = rows[inner]
    assert np.array_equal(found_id, stated["prox_id"].to_numpy(float), equal_nan=True)
    has = stated["prox_id"].notna().to_numpy()
    assert has.sum() > 200 and (stated["prox"][~has] == 15.0).all()
    assert np.abs(apart[has] - stated["prox"][has]).max() < 0.05 + 1e-9, "prox is rounded to 0.1 arcsec"


def deeper_than(ra_deg: np.ndarray, dec_deg: np.ndarray, margin_arcsec: float) -> np.ndarray:
    """Rows that lie deeper in the convex hull of the field than the margin."""
    centre = np.full_like(ra_deg, ra_deg.mean()), np.full_like(dec_deg, dec_deg.mean())
    plane = np.column_stack(sky.tangent_offsets_mas(*centre, ra_deg, dec_deg)) / 1000.0
    borders = ConvexHull(plane).equations
    return (plane @ borders[:, :2].T + borders[:, 2]).max(axis=1) < -margin_arcsec
