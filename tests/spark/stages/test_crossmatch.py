"""The match as a stage: its tiles together give what the kernel gives for both catalogues whole; labels by position."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import SkyCoord, search_around_sky
from helpers.lake import whole

from stellarml.core.config import Config, load_config
from stellarml.core.errors import InputError
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.source_columns import match_settings, taking_part, to_sources
from stellarml.run.marks import read_record
from stellarml.stages import crossmatch
from stellarml.stages.chain import run_stage
from stellarml.stages.ingest import ingest_survey
from stellarml.storage.hats_reader import open_catalogue
from stellarml.surveys.descriptor import load_descriptor

TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000")


@pytest.fixture
def own_lake(small_chain: Path, tmp_path: Path) -> Path:
    """A copy of the finished lake that a test may change."""
    shutil.copytree(small_chain / "lake", tmp_path / "lake")
    shutil.copytree(small_chain / "raw", tmp_path / "raw")
    shutil.copy(small_chain / "config.toml", tmp_path / "config.toml")
    return tmp_path


def configured(folder: Path, *overrides: str) -> Config:
    return load_config(folder / "config.toml", overrides=(*TILES, *overrides), environment={})


@pytest.mark.parametrize("mode", ["full", "selected", "left_selected", "radius"])
def test_tiles_together_equal_one_tile_for_all(own_lake: Path, spark: Any, mode: str) -> None:
    overrides = {
        "full": (),
        "selected": ("crossmatch.scope=selected",),
        "left_selected": ("crossmatch.scope=left_selected",),
        "radius": ("crossmatch.radius_arcsec=1.0",),
    }
    config = configured(own_lake, *overrides[mode])
    crossmatch.run(spark, config)
    left, right = load_descriptor("gaia_dr3"), load_descriptor("skymapper_dr2")
    scopes = (
        ("full", "full")
        if mode == "radius"
        else {"left_selected": ("selected", "full")}.get(mode, (mode, mode))
    )
    tables = [
        taking_part(whole(own_lake / "lake" / name), scope)
        for name, scope in zip(("stars", "skymapper_dr2"), scopes, strict=True)
    ]
    result = match_tile(
        to_sources(tables[0], left),
        to_sources(tables[1], right),
        match_settings(config.crossmatch, left, right),
    )
    found = whole(own_lake / "lake" / "neighbourhood")
    assert len(open_catalogue(own_lake / "lake" / "stars").leaves) > 5
    assert np.array_equal(found["source_id"].to_numpy(), result.left_id)
    assert np.array_equal(found["original_ext_source_id"].to_numpy(), result.right_id)
    assert np.array_equal(found["score"].to_numpy(), result.score)
    for name in ("number_of_neighbours", "number_of_mates", "number_of_reverse_neighbours", "xm_flag"):
        assert np.array_equal(found[name].to_numpy(), getattr(result, name)), name
    best = whole(own_lake / "lake" / "best_neighbour")
    assert np.array_equal(best["source_id"].to_numpy(), result.left_id[result.best])
    matched = whole(own_lake / "lake" / "matched")
    assert np.array_equal(matched["original_ext_source_id"].to_numpy(), result.right_id[result.unique])


def test_matched_rows_carry_their_own_columns(small_chain: Path) -> None:
    matched = whole(small_chain / "lake" / "matched").to_pandas().set_index("source_id")
    stars = whole(small_chain / "lake" / "stars").to_pandas().set_index("source_id").loc[matched.index]
    right = whole(small_chain / "lake" / "skymapper_dr2").to_pandas().set_index("object_id")
    right = right.loc[matched.original_ext_source_id]
    for column in ("ra", "parallax", "r_med_geo", "phot_variable_flag"):
        pd.testing.assert_series_equal(matched[column], stars[column], check_names=False)
    for column in ("u_psf", "e_z_psf", "ebmv_sfd", "flags", "raj2000"):
        assert np.array_equal(matched[column].to_numpy(), right[column].to_numpy(), equal_nan=True), column
    assert np.array_equal(matched["cuts_failed_gaia_dr3"], stars["cuts_failed"])
    assert np.array_equal(matched["cuts_failed_skymapper_dr2"], right["cuts_failed"])


def test_output_does_not_depend_on_the_tiling(own_lake: Path, spark: Any) -> None:
    names = ("neighbourhood", "best_neighbour", "matched")
    small = [whole(own_lake / "lake" / name) for name in names]
    large = load_config(own_lake / "config.toml", overrides=["tiles.max_rows=100000"], environment={})
    for survey in ("gaia_dr3", "gaia_distances", "skymapper_dr2"):
        ingest_survey(spark, large, survey)
    run_stage("select", spark, large)
    run_stage("crossmatch", spark, large)
    assert len(open_catalogue(own_lake / "lake" / "matched").leaves) < 8
    for name, before in zip(names, small, strict=True):
        assert whole(own_lake / "lake" / name).equals(before), name


DESCRIPTOR = """\
name = "by_position"
kind = "labels"

[files]
format = "csv"
glob = "*.csv"

[position]
id = "spectrum"
ra = "ra"
dec = "dec"

[labels.teff]
value = "t"
unit = "K"

[labels.logg]
value = "g"

[labels.feh]
value = "m"
"""


def by_position(folder: Path, table: pd.DataFrame) -> Config:
    (folder / "by_position.toml").write_text(DESCRIPTOR)
    table.to_csv(folder / "by_position.csv", index=False)
    return configured(
        folder,
        "surveys.labels=['by_position.toml']",
        "raw.by_position='by_position.csv'",
        "ingest.block_bytes=65536",
    )


def test_labels_without_source_id_are_matched_by_position(own_lake: Path, spark: Any) -> None:
    training = whole(own_lake / "lake" / "training").to_pandas()
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "spectrum": np.arange(len(training)),
            "ra": training.ra + rng.normal(0, 5e-5, len(training)) / np.cos(np.radians(training.dec)),
            "dec": np.clip(training.dec + rng.normal(0, 5e-5, len(training)), -90, 90),
            "t": training.teff,
            "g": training.logg,
            "m": training.feh,
        }
    )
    config = by_position(own_lake, table)
    ingest_survey(spark, config, "by_position.toml")
    record = run_stage("features", spark, config, overwrite=True)
    found = whole(own_lake / "lake" / "training").to_pandas().set_index("source_id")
    assert record["rows"]["out"] > 0.98 * len(training)
    wanted = training.set_index("source_id").teff.reindex(found.index)
    assert (wanted.to_numpy() == found.teff.to_numpy()).mean() > 0.99
    assert read_record(own_lake / "lake" / "training")["rows"]["label_rows"] <= len(training)


def test_a_label_row_with_several_stars_is_no_label(own_lake: Path, spark: Any) -> None:
    """A wide radius makes blends of neighbours: only rows with one star near teach, by astropy's count.

    The table says no epoch, so near is a star whose path from 1990 to 2026 comes within the radius.
    """
    training = whole(own_lake / "lake" / "training").to_pandas()
    table = pd.DataFrame({"spectrum": np.arange(len(training)), "ra": training.ra, "dec": training.dec})
    table = table.assign(t=training.teff, g=training.logg, m=training.feh)
    config = by_position(own_lake, table)
    radius = config.labels.model_copy(update={"match_radius_arcsec": 15.0})
    ingest_survey(spark, config, "by_position.toml")
    wide = config.model_copy(update={"labels": radius})
    run_stage("features", spark, wide, overwrite=True)
    found = whole(own_lake / "lake" / "training").to_pandas()
    stars = whole(own_lake / "lake" / "stars").to_pandas()
    places = [SkyCoord(rows.ra.to_numpy(), rows.dec.to_numpy(), unit="deg") for rows in (training, stars)]
    labels, near, _, _ = search_around_sky(*places, 60 * units.arcsec)
    east, north = places[1][near].spherical_offsets_to(places[0][labels])
    apart = np.stack([east.to_value("arcsec"), north.to_value("arcsec")])
    motion = np.nan_to_num(stars[["pmra", "pmdec"]].to_numpy()[near].T / 1000)
    with np.errstate(invalid="ignore"):
        years = np.nan_to_num((apart * motion).sum(0) / (motion**2).sum(0)).clip(1990 - 2016, 2026 - 2016)
    within = np.hypot(*(apart - motion * years)) <= 15
    alone = np.bincount(labels[within], minlength=len(training)) == 1
    assert 0.1 < alone.mean() < 0.95
    assert set(found.source_id) == set(training.source_id[alone])


def test_ids_of_a_label_table_may_repeat(own_lake: Path, spark: Any) -> None:
    """A number of a fibre, say: each row still teaches the star at its own position."""
    training = whole(own_lake / "lake" / "training").to_pandas()
    table = pd.DataFrame({"spectrum": np.arange(len(training)) % 7, "ra": training.ra, "dec": training.dec})
    config = by_position(own_lake, table.assign(t=training.teff, g=training.logg, m=training.feh))
    ingest_survey(spark, config, "by_position.toml")
    run_stage("features", spark, config, overwrite=True)
    found = whole(own_lake / "lake" / "training").to_pandas().set_index("source_id")
    assert len(found) > 0.98 * len(training)
    wanted = training.set_index("source_id").teff.reindex(found.index)
    assert (wanted.to_numpy() == found.teff.to_numpy()).all()


def test_labels_elsewhere_on_the_sky_are_an_error(own_lake: Path, spark: Any) -> None:
    table = pd.DataFrame(
        {"spectrum": [1, 2], "ra": [10.0, 11.0], "dec": [60.0, 61.0], "t": 5000, "g": 4.0, "m": 0.0}
    )
    config = by_position(own_lake, table)
    ingest_survey(spark, config, "by_position.toml")
    with pytest.raises(InputError, match="none is matched"):
        run_stage("features", spark, config, overwrite=True)
    assert not (own_lake / "lake" / "training" / "run.json").exists()


def test_a_hats_catalogue_is_an_input_like_any_other(small_chain: Path, spark: Any, tmp_path: Path) -> None:
    made = small_chain / "lake" / "gaia_dr3"
    config = configured(small_chain, f"raw.gaia_dr3='{made}'", f"paths.lake='{tmp_path}'")
    record = ingest_survey(spark, config, "gaia_dr3")
    assert len(record["inputs"]) == len(open_catalogue(made).leaves)
    assert whole(tmp_path / "gaia_dr3").equals(whole(made))
