"""The frame offset in the stage: measured by leaves, taken off, told in run.json; the same whatever the tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.small_surveys import DESCRIPTOR, stars, write_csv, write_surveys

from stellarml.core import sky
from stellarml.core.config import Config, load_config
from stellarml.crossmatch.kernel.frame_offset import frame_record, measure_frame
from stellarml.crossmatch.kernel.limits import limits_of
from stellarml.crossmatch.kernel.match_tile import match_tile
from stellarml.crossmatch.source_columns import match_settings, to_sources
from stellarml.stages.chain import run_stage
from stellarml.storage.hats_reader import open_catalogue
from stellarml.surveys.descriptor import load_descriptor

STARS = 1500
PLANTED_MAS = {0: (300.0, -250.0), 1: (-280.0, 150.0)}
FAINT_MAG = 17.0
BANDS = '\n[bands.g]\nmagnitude = "g"\n[columns]\n'
EVERY = ("ingest", "select", "crossmatch")
OPTIONS = (
    "crossmatch.frame_offset=measure",
    "crossmatch.frame_min_pairs=10",
    f"crossmatch.frame_bright_mag={FAINT_MAG}",
)


def planted(folder: Path) -> Path:
    """Surveys whose right frame is off by the parity of the cell; its faint stars mislead, they are off by more."""
    config = write_surveys(folder, STARS)
    left = stars(STARS)
    parity = sky.pixel_at_order(sky.healpix_29(left.ra, left.dec), 5) % 2
    offset = np.array([PLANTED_MAS[int(p)] for p in parity]).T
    noise = np.random.default_rng(1).normal(0.0, 40.0, (2, STARS))
    faint = np.where(left.g > FAINT_MAG, 1800.0, 0.0)
    ra, dec, _, _ = sky.propagate(left.ra, left.dec, *(offset + noise + faint), 1.0)
    right = left.rename(columns={"source_id": "object_id"}).assign(
        object_id=np.arange(STARS) + 1, ra=ra, dec=dec
    )
    write_csv(folder / "raw" / "right" / "a.csv.gz", right[["object_id", "ra", "dec", "flag", "g", "u"]])
    for name, kind, key in (
        ("left_survey", "astrometry", "source_id"),
        ("right_survey", "photometry", "object_id"),
    ):
        text = DESCRIPTOR.format(name=name, kind=kind, id=key)
        (folder / f"{name}.toml").write_text(text.replace("[columns]\n", BANDS, 1))
    return config


def run(
    spark: Any, path: Path, stages: tuple[str, ...], *overrides: str
) -> tuple[Config, list[dict[str, Any]]]:
    config = load_config(path, overrides=("tiles.max_rows=250", *overrides), environment={})
    return config, [run_stage(stage, spark, config, overwrite=True) for stage in stages]


def whole(root: Path) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(leaf.path, partitioning=None) for leaf in open_catalogue(root).leaves
    )


def test_a_planted_offset_is_measured_and_taken_off(spark: Any, tmp_path: Path) -> None:
    path = planted(tmp_path)
    lake = tmp_path / "lake"
    _, (*_, plain) = run(spark, path, EVERY)
    assert "frame" not in plain["match"]
    assert abs(plain["match"]["offset_ra_mas"]) > 100.0, "told though it is not taken off"

    config, (record,) = run(spark, path, ("crossmatch",), *OPTIONS)
    told = record["match"]
    # only stars that are not faint are within reach of each other, and of these nearly all are found
    bright = int((stars(STARS).g <= FAINT_MAG).sum())
    assert plain["match"]["unique"] < 0.8 * bright < 0.99 * bright < told["unique"] <= bright
    assert len(open_catalogue(lake / "stars").leaves) > 10
    cells = told["frame"]["cells"]
    assert told["frame"]["order"] == 5 and told["frame"]["number_of_cells"] == len(cells) > 8
    own = [cell for cell in cells if cell["from_order"] == 5]
    assert len(own) >= 8
    for cell in own:
        east, north = PLANTED_MAS[cell["pixel"] % 2]
        # in such a wide cell, this far south, east and north turn by a degree or two on the way to its rim
        tolerance = 4.0 * cell["error_mas"] + 12.0
        assert abs(cell["d_ra_mas"] - east) < tolerance and abs(cell["d_dec_mas"] - north) < tolerance
    assert abs(told["offset_ra_mas"]) < 10.0 and abs(told["offset_dec_mas"]) < 10.0, "nothing is left of it"

    # the same as one tile for all, in memory
    left, right = (load_descriptor(f"{side}_survey.toml", tmp_path) for side in ("left", "right"))
    settings = match_settings(config.crossmatch, left, right)
    tables = whole(lake / "stars"), whole(lake / "right_survey")
    shining = [table.filter(pa.array(table["g"].to_numpy() <= FAINT_MAG)) for table in tables]
    known = limits_of(to_sources(tables[1], right), settings)
    frame = measure_frame(to_sources(shining[0], left), to_sources(shining[1], right), settings, known)
    assert json.loads(json.dumps(frame_record(frame))) == told["frame"]
    expected = match_tile(
        to_sources(tables[0], left), frame.removed_from(to_sources(tables[1], right)), settings
    )
    found = whole(lake / "neighbourhood")
    assert np.array_equal(found["source_id"].to_numpy(), expected.left_id)
    assert np.array_equal(found["original_ext_source_id"].to_numpy(), expected.right_id)
    assert np.array_equal(found["score"].to_numpy(), expected.score)

    # stored columns stay what the survey says
    matched = whole(lake / "matched").to_pandas()
    stored = tables[1].to_pandas().set_index("object_id").loc[matched.original_ext_source_id]
    for axis in ("ra", "dec"):
        pd.testing.assert_series_equal(
            matched[f"{axis}_right_survey"], stored[axis], check_names=False, check_index=False
        )

    _, (*_, coarse) = run(spark, path, EVERY, *OPTIONS, "tiles.max_rows=100000")
    assert len(open_catalogue(lake / "stars").leaves) < 5
    assert coarse["match"]["frame"] == told["frame"]
    assert whole(lake / "neighbourhood").equals(found)
