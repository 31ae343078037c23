"""Small inputs that once went wrong, each for a kind of fault (tests/cases), run as their users would."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.places import CHECKOUT

from stellarml.cli import main as cli

CASES = CHECKOUT / "tests" / "cases"


@pytest.fixture
def matched(spark: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Match two files of a case; return the table of matches."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)

    def match(left: Path, right: Path, left_survey: str, right_survey: str, *more: str) -> pd.DataFrame:
        surveys = ["--left-survey", left_survey, "--right-survey", right_survey]
        arguments = ["match", str(left), str(right), *surveys, "--format", "parquet", *more]
        monkeypatch.setattr(
            sys, "argv", ["stellarml", *arguments, "--out", str(tmp_path / "xm"), "--overwrite"]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return pq.read_table(tmp_path / "xm" / "matches.parquet").to_pandas()

    return match


def test_a_fast_star_is_matched_and_its_decoy_is_not(matched: Callable[..., pd.DataFrame]) -> None:
    """The shipped descriptor of 2MASS: its floor of 60 mas was once written as 60 arcsec."""
    case = CASES / "10-fast-star-with-decoy"
    files = case / "gaia.csv", case / "2mass.csv"
    found = matched(*files, str(case / "gaia.toml"), "twomass", "--mode", "unique")
    own = matched(*files, str(case / "gaia.toml"), str(case / "own2mass.toml"), "--mode", "unique")
    assert len(found) == 41 and found["angular_distance"].max() < 1.0
    pd.testing.assert_frame_equal(found, own)
    everything = matched(*files, str(case / "gaia.toml"), "twomass", "--mode", "all")
    assert len(everything) == 41
