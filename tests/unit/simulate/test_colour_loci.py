"""The simulated colours are the real ones, under one selection.

Real medians: 1,007 clean SkyMapper DR4 stars of the NGC1097 field (b = -64; VizieR II/379), evaluated with the same
selection, six errors below 0.03 mag. Without the limit on errors (below 1 mag) 1,334 stars give the second set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.colour_loci import clean_high_latitude, colour_loci, weighted_percentiles
from helpers.places import REAL

from stellarml.simulate import SimulateSettings, simulate

REAL_FIELD = REAL / "skymapper_dr4" / "NGC1097_SMSS.csv"
REAL_MEDIANS = {"u-v": 0.338, "v-g": 1.160, "g-r": 0.318, "g-i": 0.489, "i-z": 0.042}
REAL_MEDIANS_ANY_ERROR = {"u-v": 0.333, "v-g": 1.229, "g-r": 0.338, "g-i": 0.522, "i-z": 0.052}


def observed_sky(out: Path, settings: SimulateSettings) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the objects of a new simulated sky, and their natural weights (NaN without a Gaia source)."""
    simulate(settings, out)
    objects = pd.concat([pd.read_csv(p) for p in sorted((out / "raw/skymapper_dr2").glob("*.csv.gz"))])
    link = pd.read_parquet(out / "truth/skymapper_truth.parquet", dtype_backend="numpy_nullable")
    truth = pd.read_parquet(out / "truth/gaia_truth.parquet").set_index("source_id")["weight"]
    weight = link["source_id"].map(truth).to_numpy(dtype=np.float64, na_value=np.nan)
    return objects, weight


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, np.ndarray]:
    return observed_sky(tmp_path_factory.mktemp("loci"), SimulateSettings(stars=40_000, seed=1))


@pytest.mark.slow
def test_colour_medians_are_the_real_ones(sky: tuple[pd.DataFrame, np.ndarray]) -> None:
    loci = colour_loci(*sky)
    for colour, real in REAL_MEDIANS.items():
        assert loci[colour][1] == pytest.approx(real, abs=0.03), colour


@pytest.mark.slow
def test_colour_medians_are_the_real_ones_without_the_limit_on_errors(
    sky: tuple[pd.DataFrame, np.ndarray],
) -> None:
    loci = colour_loci(*sky, max_error_mag=1.0)
    for colour, real in REAL_MEDIANS_ANY_ERROR.items():
        assert loci[colour][1] == pytest.approx(real, abs=0.03), colour


def test_weights_matter_to_the_loci(sky: tuple[pd.DataFrame, np.ndarray]) -> None:
    assert colour_loci(*sky)["v-g"] != colour_loci(sky[0])["v-g"]


@pytest.mark.skipif(not REAL_FIELD.exists(), reason="real rows (../shared) are absent")
@pytest.mark.parametrize(
    ("limit", "expected", "n"), [(0.03, REAL_MEDIANS, 1007), (1.0, REAL_MEDIANS_ANY_ERROR, 1334)]
)
def test_real_medians_are_those_of_the_real_field(limit: float, expected: dict[str, float], n: int) -> None:
    real = pd.read_csv(REAL_FIELD)
    names = {"RAICRS": "raj2000", "DEICRS": "dej2000", "ClassStar": "class_star", "flags": "flags"}
    names |= {f"{b}PSF": f"{b}_psf" for b in "uvgriz"} | {f"e_{b}PSF": f"e_{b}_psf" for b in "uvgriz"}
    objects = real.rename(columns=names)
    assert clean_high_latitude(objects, limit).sum() == n
    loci = colour_loci(objects, max_error_mag=limit)
    for colour, median in expected.items():
        assert loci[colour][1] == pytest.approx(median, abs=0.0015), colour


def test_selection_keeps_only_clean_objects_of_high_latitude() -> None:
    n = 7
    objects = {f"{b}_psf": np.full(n, 15.0) for b in "uvgriz"} | {
        f"e_{b}_psf": np.full(n, 0.01) for b in "uvgriz"
    }
    objects |= {
        "raj2000": np.full(n, 41.6),
        "dej2000": np.full(n, -30.3),
        "flags": np.zeros(n),
        "class_star": np.ones(n),
    }
    objects["flags"][1] = 4
    objects["class_star"][2] = 0.9
    objects["g_psf"][3] = 17.2
    objects["e_u_psf"][4] = np.nan
    objects["dej2000"][5], objects["raj2000"][5] = -40.0, 110.0
    objects["v_psf"][6] = 99.0
    assert clean_high_latitude(objects).tolist() == [True] + [False] * 6
    with pytest.raises(ValueError, match="no object passes"):
        colour_loci(objects, np.zeros(n))


def test_weighted_percentiles_equal_repeated_values() -> None:
    values, weight = np.array([3.0, 1.0, 2.0]), np.array([10_000.0, 30_000.0, 20_000.0])
    repeated = np.repeat(values, weight.astype(int))
    assert weighted_percentiles(values, weight, (50.0,))[0] == pytest.approx(np.median(repeated), abs=0.51)
    many = np.random.default_rng(0).normal(size=4000)
    np.testing.assert_allclose(
        weighted_percentiles(many, np.ones(4000), (16.0, 50.0, 84.0)),
        np.percentile(many, [16, 50, 84]),
        atol=2e-3,
    )
