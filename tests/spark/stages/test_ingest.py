"""A survey without SQL of its own skips the passage through Spark: nothing else may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.small_surveys import stars, write_csv, write_surveys

from stellarml.core.config import load_config
from stellarml.stages import ingest

TRIVIAL = '[[cuts]]\nname = "all"\nwhere = "true"\nreason = "none is dropped"\n'


def ingested(
    spark: Any, folder: Path, cuts: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], bool]:
    """Ingest rows with duplicates, gaps and garbage; tell whether Spark evaluated anything."""
    config = load_config(write_surveys(folder), environment={})
    descriptor = folder / "left_survey.toml"
    descriptor.write_text(descriptor.read_text().split("[[cuts]]")[0] + cuts)
    rows = stars(300, seed=5)[["source_id", "ra", "dec", "flag", "g", "u"]]
    rows.loc[3:9, "g"] = None
    rows.loc[12, "source_id"] = rows.loc[11, "source_id"]
    (folder / "raw" / "left" / "b.csv.gz").unlink()
    path = write_csv(folder / "raw" / "left" / "a.csv", rows)
    path.write_text(path.read_text().replace(",14.", ",fourteen.", 1))
    seen = []
    whole = ingest.repair_and_cut
    monkeypatch.setattr(ingest, "repair_and_cut", lambda *given: seen.append(1) or whole(*given))
    return ingest.ingest_survey(spark, config, "left_survey.toml"), bool(seen)


def test_the_same_catalogue_with_and_without_sql(
    spark: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, plain_in_spark = ingested(spark, tmp_path / "plain", "", monkeypatch)
    cut, cut_in_spark = ingested(spark, tmp_path / "cut", TRIVIAL, monkeypatch)
    assert not plain_in_spark
    assert cut_in_spark
    assert plain["rows"] == cut["rows"]
    assert plain["rows"]["rejected"] > 0
    assert plain["schema"] == cut["schema"]
    folders = [tmp_path / name / "lake" / "left_survey" for name in ("plain", "cut")]
    leaves = [{p.relative_to(f): p.read_bytes() for p in f.rglob("Npix=*.parquet")} for f in folders]
    assert len(leaves[0]) > 2
    assert leaves[0] == leaves[1]
