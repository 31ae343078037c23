"""The files that the guide shows are run as they are: a survey is matched, a table teaches and is labelled."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.places import CHECKOUT

from stellarml.cli import main as cli

EXAMPLES = CHECKOUT / "docs" / "guide" / "examples"


@pytest.fixture
def command(spark: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Run a command of the command line in this process's session, in an empty folder beside the examples."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)
    monkeypatch.chdir(tmp_path)
    for path in EXAMPLES.glob("*.toml"):
        shutil.copy(path, tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["stellarml", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def field(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "ra": 150.0 + rng.uniform(-0.3, 0.3, n),
            "dec": -30.0 + rng.uniform(-0.3, 0.3, n),
            "e_ra": 30.0,
            "e_dec": 30.0,
            "epoch_mjd": 57500.0,
            "g_mag": rng.uniform(12, 18, n),
            "e_g_mag": 0.02,
            "r_mag": rng.uniform(12, 18, n),
            "e_r_mag": 0.02,
            "class_star": 0.95,
        }
    )


def test_the_survey_of_the_guide_is_matched(command: object, tmp_path: Path) -> None:
    stars = field()
    stars.loc[5, ["g_mag", "e_g_mag"]] = 99.9, -1
    stars.loc[6, "class_star"] = 0.1
    (tmp_path / "left").mkdir()
    (tmp_path / "right").mkdir()
    stars.to_csv(tmp_path / "left" / "a.csv", index=False)
    other = stars.assign(id=stars["id"] + 10_000, ra=stars["ra"] + 20 / 3.6e6)
    other.to_csv(tmp_path / "right" / "a.csv", index=False)
    surveys = ("--left-survey", "my_survey.toml", "--right-survey", "my_survey.toml")
    assert command("match", "left", "right", *surveys, "--format", "parquet", "--out", "xm") == 0  # type: ignore[operator]
    found = pq.read_table(tmp_path / "xm" / "matches.parquet").to_pandas()
    assert len(found) == len(stars) and (found["right_id"] == found["left_id"] + 10_000).all()
    assert found["angular_distance"].between(0.01, 0.03).all()
    sixth = found.set_index("left_id").loc[6]
    assert np.isnan(sixth["g_mag_left"]) and sixth["repairs_left"] != 0
    assert found.set_index("left_id")["cuts_failed_left"].loc[7] == 1


@pytest.mark.slow
def test_the_features_of_the_guide_teach_and_label(command: object, tmp_path: Path) -> None:
    rng, n = np.random.default_rng(8), 3000
    stars = pd.DataFrame(
        {
            "star_id": np.arange(n),
            "g_mag": rng.uniform(12, 18, n),
            "r_mag": rng.uniform(12, 18, n),
            "bp_mag": rng.uniform(12, 18, n),
            "rp_mag": rng.uniform(12, 18, n),
            "e_g_mag": 0.02,
            "distance_pc": rng.uniform(100, 3000, n),
            "ebmv_sfd": rng.uniform(0, 0.3, n),
        }
    )
    stars["teff"] = 5500 + 200 * (stars["bp_mag"] - stars["rp_mag"]) + rng.normal(0, 50, n)
    stars["logg"] = 4.0 + rng.normal(0, 0.1, n)
    stars["feh"] = -0.5 + 0.1 * (stars["g_mag"] - stars["r_mag"]) + rng.normal(0, 0.05, n)
    stars = stars.assign(e_teff=50.0, e_logg=0.1, e_feh=0.05)
    stars.loc[:50, "g_mag"] = 99.0
    stars.to_parquet(tmp_path / "stars.parquet")
    train = (
        "train",
        "--table",
        str(tmp_path / "stars.parquet"),
        "--features",
        "my_features.toml",
        "--preset",
        "small",
    )
    assert command(*train, "--set", "train.max_epochs=3", "--out", "model") == 0  # type: ignore[operator]
    label = ("label", "--table", str(tmp_path / "stars.parquet"), "--model", "model", "--level", "90")
    assert command(*label, "--out", "labels.parquet") == 0  # type: ignore[operator]
    found = pq.read_table(tmp_path / "labels.parquet").to_pandas()
    assert list(found.columns[:4]) == ["star_id", "teff", "teff_lo", "teff_hi"]
    assert (found["star_id"] == stars["star_id"]).all() and found.notna().all().all()
    inside = (stars["teff"] >= found["teff_lo"]) & (stars["teff"] <= found["teff_hi"])
    assert 0.85 < inside.mean() < 0.97
