"""The profile `paper` from raw files to a bundle: the order of match and cuts, the split, and what calibrates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.lake import whole

from stellarml.core.config import Config, load_config
from stellarml.model.bundle import load_bundle
from stellarml.model.manifest import MANIFEST
from stellarml.run.marks import read_record
from stellarml.stages.chain import run_stage
from stellarml.stages.ingest import ingest_survey

TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000")
QUICK = ("train.preset=small", "train.max_epochs=3")
BLENDS = 60


def blended(raw: Path, lake: Path) -> dict[int, int]:
    """Put a second object, which fails a SkyMapper cut, beside some clean, unique pairs; return the ids of these."""
    matched = whole(lake / "matched").to_pandas()
    clean = matched[(matched.cuts_failed_gaia_dr3 == 0) & (matched.cuts_failed_skymapper_dr2 == 0)]
    clean = clean[clean.e_raj2000.between(30, 300)].head(BLENDS)
    files = sorted(raw.glob("*.csv.gz"))
    tables = [pd.read_csv(file, dtype=str, keep_default_na=False) for file in files]
    every = pd.concat(tables)
    rows = every.set_index("object_id").loc[clean.original_ext_source_id.astype(str)].reset_index()
    rows["object_id"] = [str(9 * 10**12 + n) for n in range(len(rows))]
    rows["dej2000"] = [f"{float(dec) + 0.05 / 3600:.9f}" for dec in rows["dej2000"]]
    rows["class_star"] = "0.10"  # star_like asks for more than 0.8
    pd.concat([tables[0], rows[every.columns]]).to_csv(files[0], index=False, compression="gzip")
    return dict(zip(clean.source_id.tolist(), clean.original_ext_source_id.tolist(), strict=True))


@pytest.fixture(scope="module")
def sky(small_chain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, int]]:
    """A folder like the small chain's, with blends whose second object fails a cut."""
    folder = tmp_path_factory.mktemp("paper")
    for name in ("raw", "lake"):
        shutil.copytree(small_chain / name, folder / name)
    shutil.copy(small_chain / "config.toml", folder / "config.toml")
    return folder, blended(folder / "raw" / "skymapper_dr2", folder / "lake")


def configured(folder: Path, *overrides: str) -> Config:
    return load_config(
        folder / "config.toml", profile="paper", overrides=(*TILES, *QUICK, *overrides), environment={}
    )


@pytest.fixture(scope="module")
def made(sky: tuple[Path, dict[int, int]], spark: Any) -> Config:
    """The profile's own run, as far as the model."""
    config = configured(sky[0])
    for survey in ("gaia_dr3", "skymapper_dr2"):
        ingest_survey(spark, config, survey, overwrite=True)
    for stage in ("select", "crossmatch", "features", "train"):
        run_stage(stage, spark, config, overwrite=True)
    return config


def test_gaias_cuts_come_before_the_match_and_skymappers_after_it(made: Config) -> None:
    matched = whole(made.lake_folder / "matched").to_pandas()
    assert (matched.cuts_failed_gaia_dr3 == 0).all()
    assert 0.02 < (matched.cuts_failed_skymapper_dr2 != 0).mean() < 0.9
    clean = set(matched.source_id[matched.cuts_failed_skymapper_dr2 == 0])
    trained = set(whole(made.lake_folder / "training")["source_id"].to_pylist())
    assert len(trained) > 100 and trained <= clean


def test_a_blend_whose_second_object_fails_a_cut_is_not_unique(
    made: Config, sky: tuple[Path, dict[int, int]], spark: Any
) -> None:
    """With SkyMapper's cuts after the match; with both before it (`selected`) the same stars are one-to-one pairs."""
    folder, blends = sky
    assert len(blends) == BLENDS
    matched = whole(made.lake_folder / "matched").to_pandas()
    assert not set(blends) & set(matched.source_id)
    neighbours = whole(made.lake_folder / "neighbourhood").to_pandas().set_index("source_id")
    assert set(blends) <= set(neighbours.index)
    assert (neighbours.loc[list(blends)].number_of_neighbours > 1).all()
    both = configured(folder, "crossmatch.scope=selected", f"paths.lake={folder / 'both'}")
    for name in ("stars", "skymapper_dr2"):
        shutil.copytree(made.lake_folder / name, folder / "both" / name)
    run_stage("crossmatch", spark, both)
    found = whole(folder / "both" / "matched").to_pandas()
    assert (found.cuts_failed_skymapper_dr2 == 0).all()
    # The profile's cut on magnitudes beyond 25 takes some of the first objects, too.
    objects = whole(made.lake_folder / "skymapper_dr2").to_pandas().set_index("object_id")
    passing = {star for star, own in blends.items() if objects.cuts_failed[own] == 0}
    assert len(passing) > 0.7 * BLENDS and passing == set(blends) & set(found.source_id)


def test_all_but_a_tenth_for_validation_and_a_tenth_for_the_test_are_trained_on(made: Config) -> None:
    counted = read_record(made.lake_folder / "training")["split"]
    assert set(counted) == {"train", "validation", "test"}
    shares = np.array([counted[part] for part in ("train", "validation", "test")]) / sum(counted.values())
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_run_json_and_bundle_say_what_calibrated(made: Config) -> None:
    (record,) = (json.loads(path.read_text()) for path in made.models_folder.glob("small-*/run.json"))
    assert record["calibrated_on"] == "validation" and record["rows"]["calibration"] == 0
    manifest = load_bundle(made.models_folder / record["model_id"]).manifest
    assert manifest.calibration.part == "validation" and manifest.split["calibration"] == 0
    assert (made.models_folder / record["model_id"] / MANIFEST).is_file()


def test_a_missing_band_is_no_reason_to_drop_a_star(made: Config) -> None:
    """The paper drops magnitudes beyond 25 (`no_sentinel_magnitude`); nothing is known of a cut on missing ones."""
    record = read_record(made.lake_folder / "skymapper_dr2")
    cuts = {row["cut"] for row in record["cut_flow"] if row["survey"] == "skymapper_dr2"}
    assert "no_sentinel_magnitude" in cuts and "require_all_bands" not in cuts
    trained = whole(made.lake_folder / "training").to_pandas()
    assert trained[["uabs", "vabs", "gabs", "rabs", "iabs", "zabs"]].isna().any(axis=None)
