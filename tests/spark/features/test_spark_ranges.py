"""Values outside their range are null, the same on every way into a model, and counted without a pass of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.label_leaves import Configured
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from stellarml.core.config import Labels
from stellarml.features.feature_file import FeatureFile
from stellarml.features.spark_columns import feature_columns, packed_features, spark_label_columns
from stellarml.features.spark_ranges import within_ranges
from stellarml.run.marks import read_record
from stellarml.stages.features import run as run_features
from stellarml.stages.spectroscopic_labels import label_rows, resolved_labels
from stellarml.surveys.descriptor import Descriptor

FEATURES = FeatureFile(
    id="source_id",
    labels=({"name": "teff", "column": "t", "error": "e_t", "unit": "K", "range": [3000, 50_000]},),
    features=(
        {"name": "g", "expression": "g", "unit": "mag", "range": [-0.1, 0.1]},
        {"name": "twice", "expression": "2 * g", "unit": "mag", "range": False},
        {"name": "flag", "expression": "g > 0", "unit": ""},
    ),
)
EDGE = float(np.nextafter(np.float32(0.1), np.float32(1)))
VALUES = {0.1: True, -0.1: True, 0.0: True, EDGE: False, -EDGE: False, 10_013.0: False, -99.99: False}
VALUES |= {float("inf"): False, float("-inf"): False, float("nan"): False}


@pytest.fixture(params=["double", "float"])
def table(request: pytest.FixtureRequest, spark: SparkSession) -> DataFrame:
    """The same values as 64-bit and as 32-bit floats; their last row is null."""
    rows = [(n, value) for n, value in enumerate([*VALUES, None])]
    return spark.createDataFrame(rows, "source_id long, g double").select(
        "source_id", sf.col("g").cast(request.param)
    )


def test_bounds_belong_to_the_range_in_tables_of_any_type(table: DataFrame) -> None:
    rows = table.select("source_id", *feature_columns(FEATURES, table.columns)).orderBy("source_id").collect()
    assert [row.g is not None for row in rows] == [*VALUES.values(), False]
    assert [rows[n].g for n in range(3)] == [float(np.float32(v)) for v in (0.1, -0.1, 0.0)]
    assert [row.twice is not None for row in rows] == [*np.isfinite(list(VALUES)), False]


def test_every_way_into_a_model_gives_the_same_bits(table: DataFrame) -> None:
    names = FEATURES.feature_names
    direct = table.select("source_id", *feature_columns(FEATURES, table.columns))
    raw = table.select("source_id", *feature_columns(FEATURES, table.columns, ranges=False))
    counted, _ = within_ranges(raw, FEATURES.features)
    packed = table.select("source_id", packed_features(FEATURES, table.columns).alias("x")).orderBy(
        "source_id"
    )
    wanted = np.array([row.x for row in packed.collect()], np.float32)
    for frame in (direct, counted):
        found = frame.orderBy("source_id").toPandas()[list(names)].to_numpy(np.float32)
        assert np.array_equal(found, wanted, equal_nan=True)
    assert np.isnan(wanted[:, 0]).sum() == 8


def test_only_finite_values_outside_are_counted(table: DataFrame) -> None:
    raw = table.select("source_id", *feature_columns(FEATURES, table.columns, ranges=False))
    counted, counts = within_ranges(raw, FEATURES.features)
    assert counted.columns == raw.columns
    counted.toArrow()
    (found,) = counts.found()
    assert (found.kind, found.name, found.unit) == ("feature", "g", "mag")
    assert (found.outside, found.values, found.low, found.high) == (4, 7, -0.1, 0.1)


def test_nothing_outside_is_nothing_told(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, 0.05)], "source_id long, g double")
    counted, counts = within_ranges(
        frame.select(*feature_columns(FEATURES, frame.columns)), FEATURES.features
    )
    counted.toArrow()
    assert counts.found() == ()


def test_no_rows_and_no_ranges_end_too(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], "source_id long, g double")
    raw = frame.select(*feature_columns(FEATURES, frame.columns, ranges=False))
    for entries in (FEATURES.features, FEATURES.features[1:]):
        counted, counts = within_ranges(raw, entries)
        assert counted.toArrow().num_rows == 0
        assert counts.found() == ()


def test_a_label_outside_is_unknown_and_its_error_stays(spark: SparkSession) -> None:
    rows = [(3000.0, 1.0), (2999.0, 2.0), (50_000.0, 3.0), (float("nan"), 4.0), (5.7, 5.0)]
    frame = spark.createDataFrame(rows, "t double, e_t double")
    found = frame.select(*spark_label_columns(FEATURES, frame.columns)).collect()
    assert [row.teff for row in found] == [3000.0, None, 50_000.0, None, None]
    assert [row.e_teff for row in found] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_median_tells_the_unit(spark: SparkSession) -> None:
    values = [(float(v),) for v in np.linspace(4.7, 6.7, 2001)]
    frame = spark.createDataFrame(values, "t double").withColumn("e_t", sf.lit(0.1))
    raw = frame.select(*spark_label_columns(FEATURES, frame.columns, ranges=False))
    counted, counts = within_ranges(raw, FEATURES.labels)
    assert counted.toArrow()["teff"].null_count == 2001
    (found,) = counts.found()
    assert found.median == pytest.approx(5.7, abs=0.05)
    assert "their median is 5.699: the unit is probably not K" in str(found.warning())


def test_an_error_of_no_size_is_no_error(spark: SparkSession) -> None:
    """Also that a row with -9999 is not the most precise one of its star."""
    errors = [50.0, 0.0, -9999.0, float("nan"), float("inf"), float("-inf"), None]
    frame = spark.createDataFrame([(5000.0 + j, e) for j, e in enumerate(errors)], "t double, e_t double")
    found = frame.select(*spark_label_columns(FEATURES, frame.columns)).collect()
    assert [row.e_teff for row in found] == [50.0, *[None] * 6]
    assert [row.teff for row in found] == [5000.0 + j for j in range(7)]


def test_of_two_rows_of_a_star_a_sentinel_for_an_error_does_not_win(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = pd.DataFrame(
        {"source_id": [1, 1], "t": [5000.0, 5010.0], "e_t": [-9999.0, 50.0], "cuts_failed": 0}
    )
    spark.createDataFrame(rows).write.parquet(str(tmp_path / "spectra" / "dataset"))
    usable, _ = label_rows(spark, tmp_path / "spectra", LABELS, 0, FEATURES, None)
    limits = Labels(match_radius_arcsec=1, conflict_teff_k=300, conflict_logg_dex=1, conflict_feh_dex=1)
    labels, _ = resolved_labels([usable], ["teff"], limits)
    (star,) = labels.collect()
    assert (star.teff, star.e_teff, star.repeat_teff) == (5010.0, 50.0, 10.0)
    assert not star.e_repeat_teff < float("inf"), "one stated error says nothing of a difference"


LABELS = Descriptor(
    name="spectra",
    kind="labels",
    citation="none",
    files={"format": "csv", "glob": "*"},
    position={"id": "source_id"},
    labels={"teff": {"value": "t", "error": "e_t", "unit": "K"}},
)


def test_a_row_of_a_label_table_outside_the_range_is_no_label(spark: SparkSession, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"source_id": [1, 2, 3, 4, 5], "t": [5000.0, 824.0, np.nan, np.inf, 6e4], "e_t": 50.0}
    )
    folder = tmp_path / "spectra" / "dataset"
    spark.createDataFrame(rows.assign(cuts_failed=[0, 0, 0, 0, 1])).write.parquet(str(folder))
    usable, counts = label_rows(spark, tmp_path / "spectra", LABELS, 0, FEATURES, None)
    assert [row.source_id for row in usable.collect()] == [1]
    (found,) = counts.found()
    assert (found.outside, found.values, found.table) == (1, 2, "spectra"), (
        "a row that fails a cut is not counted"
    )


def test_the_chain_counts_in_run_json_and_takes_what_is_outside_as_missing(
    labelled: Configured,
    spark: SparkSession,
    small_chain: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ranges narrower than the sky's values, so that every kind of loss happens, against a count with pandas."""
    text = (Path(__file__).parents[3] / "conf" / "features" / "paper.toml").read_text()
    text = text.replace("range = [2000, 250000]", "range = [4800, 5600]", 1)
    text = text.replace('name = "bp"\n', 'name = "bp"\nrange = [14, 40]\n')
    (tmp_path / "narrow.toml").write_text(text)
    config = labelled(f"features.file={tmp_path / 'narrow.toml'}")
    before = training_of(config.lake_folder)
    bp = leaves_of(config.lake_folder / "matched").phot_bp_mean_mag.astype(np.float32)
    for name in ("gaia_dr3", "skymapper_dr2", *config.surveys.labels):
        source, place = small_chain / "lake" / name, config.lake_folder / name
        if source.is_dir() and not place.exists():
            place.symlink_to(source)
    record = run_features(spark, config, overwrite=True)
    after = training_of(config.lake_folder)
    found = {(one["kind"], one["name"]): one for one in record["outside_range"]}
    assert set(found) == {("label", "teff"), ("feature", "bp")}
    kept = before[before.teff.between(4800, 5600)]
    assert set(kept.index) <= set(after.index) and len(after) < len(before)
    assert after.teff.between(4800, 5600).all()
    bp = bp.loc[after.index]
    assert found["feature", "bp"]["outside"] == (bp < 14).sum() > 0
    assert found["feature", "bp"]["values"] == bp.notna().sum()
    assert after.bp.isna().sum() == (bp < 14).sum() + bp.isna().sum()
    assert (np.bitwise_and(after.missing_mask, 2) != 0).sum() == after.bp.isna().sum()
    assert read_record(config.lake_folder / "training")["outside_range"] == record["outside_range"]
    told = capfd.readouterr()
    assert "values outside 4800 to 5600 K are taken as missing" in told.out + told.err


def training_of(lake: Path) -> pd.DataFrame:
    return leaves_of(lake / "training")


def leaves_of(root: Path) -> pd.DataFrame:
    leaves = sorted((root / "dataset").rglob("Npix=*.parquet"))
    return pd.concat([pd.read_parquet(leaf, partitioning=None) for leaf in leaves]).set_index("source_id")


def test_the_small_chain_lost_nothing(small_chain: Path) -> None:
    models = [json.loads(path.read_text()) for path in (small_chain / "models").glob("*/run.json")]
    assert read_record(small_chain / "lake" / "training")["outside_range"] == []
    assert models and all(record["outside_range"] == [] for record in models)
