"""The report's counts, made by Spark, against the same sums made by pandas; and the whole report end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from stellarml.core.names import G_MAG
from stellarml.report.accuracy import Label, evaluate
from stellarml.report.catalogue_counts import catalogue_counts, flag_fractions, matched_counts, sky_map
from stellarml.report.page import ReportInputs, measure, metrics_json, write_report

LABELS = [Label("teff", "K"), Label("logg", "dex"), Label("feh", "dex")]
NAMED = [{"name": label.name, "unit": label.unit} for label in LABELS]
ERRORS = {"teff": 70.0, "logg": 0.09, "feh": 0.1}
STARS = 6000


def sky_of(patch: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return training, labelled and matched rows: NaN, null, outliers, failed cuts and stars without a prediction."""
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0, 360, STARS), np.degrees(np.arcsin(rng.uniform(-1, 0, STARS)))
    if patch:
        ra, dec = (45 + rng.uniform(-2, 2, STARS)) % 360, -30 + rng.uniform(-2, 2, STARS)
    index = healpy.ang2pix(2**29, ra, dec, nest=True, lonlat=True).astype(np.int64)
    ids = (index >> 34 << 35) + np.arange(STARS)
    magnitude = rng.uniform(11, 17.9, STARS)
    true = {
        "teff": rng.uniform(3600, 7400, STARS),
        "logg": rng.uniform(0, 5, STARS),
        "feh": rng.normal(-0.5, 0.5, STARS),
    }
    predicted = {name: value + rng.standard_t(3, STARS) * ERRORS[name] for name, value in true.items()}
    predicted["feh"][::50] = np.nan
    predicted["teff"][3] += 40_000
    cuts = np.where(rng.random(STARS) < 0.3, 1 << rng.integers(0, 40, STARS), 0)
    place = {"source_id": ids, "ra": ra, "dec": dec, "_healpix_29": index}
    labelled = pd.DataFrame(
        place
        | predicted
        | {f"{n}_lo": predicted[n] - ERRORS[n] for n in true}
        | {f"{n}_hi": predicted[n] + ERRORS[n] for n in true}
        | {"quality_flags": rng.integers(0, 4, STARS).astype(np.int32), "cuts_failed": cuts, "model_id": "m1"}
    )
    photometry = {
        "phot_g_mean_mag": magnitude,
        "phot_bp_mean_mag": magnitude + 0.4,
        "phot_rp_mean_mag": np.where(rng.random(STARS) < 0.02, np.nan, magnitude - rng.uniform(0, 1, STARS)),
        "r_med_geo": rng.uniform(100, 5000, STARS),
    }
    split = np.array(["train", "test"])[(rng.random(STARS) < 0.4).astype(int)]
    training = pd.DataFrame({"source_id": ids} | photometry | true | {"split": split})
    training.loc[training.index[::40], "logg"] = np.nan
    matched = pd.DataFrame(
        place
        | photometry
        | {
            "angular_distance": rng.rayleigh(0.08, STARS),
            "cuts_failed_gaia": cuts,
            "cuts_failed_skymapper": 0,
        }
    )
    return training.iloc[: STARS * 3 // 4], labelled.iloc[200:], matched


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return sky_of(patch=False)


@pytest.fixture(scope="module")
def tables(spark: SparkSession, rows: tuple[pd.DataFrame, ...]) -> tuple[DataFrame, DataFrame, DataFrame]:
    training, labelled, matched = (spark.createDataFrame(part) for part in rows)
    # Spark's tables carry null where pandas has NaN; both must be taken as missing.
    labelled = labelled.withColumn("teff", F.when(F.col("source_id") % 97 != 0, F.col("teff")))
    return training, labelled, matched


@pytest.fixture(scope="module")
def pairs(rows: tuple[pd.DataFrame, ...]) -> pd.DataFrame:
    """Return the test stars of both tables, joined by pandas."""
    training, labelled, _ = rows
    labelled = labelled.copy()
    labelled.loc[labelled["source_id"] % 97 == 0, "teff"] = np.nan
    test = training[training["split"] == "test"]
    return test.merge(labelled, on="source_id", suffixes=("_true", ""))


def robust(residual: pd.Series) -> dict[str, float]:
    residual = residual.dropna()
    median = residual.median()
    mad = 1.4826 * (residual - median).abs().median()
    return {
        "mean": residual.mean(),
        "median": median,
        "std": residual.std(ddof=0),
        "mad": mad,
        "n": len(residual),
    }


@pytest.fixture(scope="module")
def metrics(tables: tuple[DataFrame, ...]):  # type: ignore[no-untyped-def]
    return evaluate(tables[0], tables[1], LABELS, 68)


@pytest.mark.parametrize("name", ERRORS)
def test_residuals_are_those_of_pandas(metrics, pairs: pd.DataFrame, name: str) -> None:  # type: ignore[no-untyped-def]
    expected, found = robust(pairs[name] - pairs[f"{name}_true"]), metrics.test[name]
    assert metrics.stars == len(pairs)
    assert found["n"] == expected["n"] < len(pairs)
    assert found["mean"] == pytest.approx(expected["mean"], abs=1e-5 * expected["std"])
    assert found["std"] == pytest.approx(expected["std"], rel=1e-6)
    assert found["mad"] == pytest.approx(expected["mad"], rel=3e-3)
    assert found["median"] == pytest.approx(expected["median"], abs=3e-3 * expected["mad"])


def test_bins_are_those_of_pandas(metrics, pairs: pd.DataFrame) -> None:  # type: ignore[no-untyped-def]
    columns = {"teff": "teff_true", "logg": "logg_true", "feh": "feh_true", G_MAG: G_MAG}
    assert {(row["by"], row["label"]) for row in metrics.by_bin} == {
        (by, name) for by in columns for name in ERRORS
    }
    for row in metrics.by_bin:
        mine = pairs[(pairs[columns[row["by"]]] >= row["lo"]) & (pairs[columns[row["by"]]] < row["hi"])]
        expected = robust(mine[row["label"]] - mine[f"{row['label']}_true"])
        assert row["n"] == expected["n"]
        if row["n"] < 20:
            continue
        assert row["std"] == pytest.approx(expected["std"], rel=1e-6)
        assert row["mad"] == pytest.approx(expected["mad"], rel=0.01)
        assert row["median"] == pytest.approx(expected["median"], abs=0.01 * expected["mad"])


def test_regression_to_the_mean_is_that_of_pandas(metrics, pairs: pd.DataFrame) -> None:  # type: ignore[no-untyped-def]
    columns = {"label": "feh_true", "prediction": "feh"}
    found = [row for row in metrics.regression if row["label"] == "feh"]
    assert [row["by"] for row in found] == ["label"] * 8 + ["prediction"] * 8
    checked = 0
    for row in found:
        x, residual = pairs[columns[row["by"]]], pairs["feh"] - pairs["feh_true"]
        low, high = (-5, 1) if row["lo"] is None else (row["lo"], row["hi"])
        inside = residual.notna() & (x >= low) & (x < high)
        assert row["n"] == inside.sum()
        if row["n"] < 200:
            continue
        checked += 1
        expected = robust(residual[inside])
        slope, error = np.polyfit(x[inside], residual[inside], 1, cov=True)
        assert row["mad"] == pytest.approx(expected["mad"], rel=0.01)
        assert row["median"] == pytest.approx(expected["median"], abs=0.01 * expected["mad"])
        assert row["slope"] == pytest.approx(slope[0], abs=0.1 * np.sqrt(error[0, 0]))
    assert checked >= 8
    whole = {row["by"]: row["slope"] for row in found if row["lo"] is None}
    assert whole["label"] < whole["prediction"], "noise of a label makes a slope in bins of the label only"


@pytest.mark.parametrize("name", ERRORS)
def test_coverage_is_that_of_pandas(metrics, pairs: pd.DataFrame, name: str) -> None:  # type: ignore[no-untyped-def]
    known = pairs.dropna(subset=[f"{name}_true", f"{name}_lo", f"{name}_hi"])
    inside = (known[f"{name}_true"] >= known[f"{name}_lo"]) & (known[f"{name}_true"] <= known[f"{name}_hi"])
    found = metrics.coverage[name]
    assert metrics.coverage["level"] == 0.68
    assert found["n"] == len(known)
    assert found["fraction"] == pytest.approx(inside.mean(), rel=1e-6)
    assert found["median_half_width"] == pytest.approx(ERRORS[name], rel=0.01)
    for row in found["by_g"]:
        mine = inside[(known[G_MAG] >= row["lo"]) & (known[G_MAG] < row["hi"])]
        assert row["n"] == len(mine)
        assert (
            row["fraction"] is None if mine.empty else row["fraction"] == pytest.approx(mine.mean(), rel=1e-6)
        )


def test_catalogue_counts_are_those_of_pandas(
    tables: tuple[DataFrame, ...], rows: tuple[pd.DataFrame, ...]
) -> None:
    labelled = rows[1]
    counts = catalogue_counts(tables[1], LABELS)
    assert counts["passing"].n.tolist() == [
        (labelled["cuts_failed"] != 0).sum(),
        (labelled["cuts_failed"] == 0).sum(),
    ]
    fractions = flag_fractions(counts["flags"])
    assert fractions == pytest.approx(
        {bit: ((labelled["quality_flags"].to_numpy() >> bit) & 1).mean() for bit in (0, 1)}
    )
    kiel = labelled[(labelled["cuts_failed"] == 0) & (labelled["source_id"] % 97 != 0)].dropna(subset=["feh"])
    kiel = kiel[kiel["teff"].between(2500, 9000, "left") & kiel["logg"].between(-1, 6, "left")]
    assert counts["kiel"].rows == len(kiel)
    assert counts["kiel"].total.sum() == pytest.approx(kiel["feh"].sum())


def test_matched_counts_are_those_of_pandas(
    tables: tuple[DataFrame, ...], rows: tuple[pd.DataFrame, ...]
) -> None:
    matched = rows[2]
    counts = matched_counts(tables[2])
    assert set(counts) == {"separation", "cmd"}
    assert np.array_equal(
        counts["separation"].n, np.histogram(matched["angular_distance"], np.linspace(0, 10, 2001))[0]
    )
    passing = matched[matched["cuts_failed_gaia"] == 0].dropna(subset=["phot_rp_mean_mag"])
    colour = passing["phot_bp_mean_mag"] - passing["phot_rp_mean_mag"]
    absolute = passing["phot_g_mean_mag"] - 5 * np.log10(passing["r_med_geo"]) + 5
    edges = [axis.edges for axis in counts["cmd"].histogram.axes]
    expected = np.histogram2d(colour, absolute, edges)[0]
    assert counts["cmd"].rows == expected.sum() > 1000
    # log10 of the JVM and of NumPy differ in the last digit: a star on a border may change bins.
    assert np.abs(counts["cmd"].n - expected).sum() <= 4


def test_sky_map_counts_and_medians_are_those_of_pandas(
    tables: tuple[DataFrame, ...], rows: tuple[pd.DataFrame, ...]
) -> None:
    found = sky_map(tables[1], LABELS[1:2], 3)
    expected = rows[1].groupby(rows[1]["_healpix_29"].to_numpy() >> 2 * (29 - found.order))["logg"]
    assert found.order == 3
    assert found.pixels.tolist() == expected.size().index.tolist()
    assert found.stars.tolist() == expected.size().tolist()
    # Spark's percentile is a value of the sample, pandas' the mean of the middle two.
    assert np.all(found.medians["logg"] >= expected.quantile(0.5, interpolation="lower").to_numpy() - 1e-12)
    assert np.all(found.medians["logg"] <= expected.quantile(0.5, interpolation="higher").to_numpy() + 1e-12)


def test_a_thin_sky_gets_coarser_pixels_and_a_patch_finer_ones(
    spark: SparkSession, tables: tuple[DataFrame, ...]
) -> None:
    assert sky_map(tables[1], [], 7).order < 5
    patch = spark.createDataFrame(sky_of(patch=True)[1][["_healpix_29"]])
    fine = sky_map(patch, [], 5)
    assert fine.order > 5 and int(fine.stars.sum()) == STARS - 200


def test_the_report_holds_every_figure_and_number(tables: tuple[DataFrame, ...], tmp_path: Path) -> None:
    curve = {"label": "teff", "unit": "K", "epochs": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.1, 1.2]}
    inputs = ReportInputs(
        labels=NAMED,
        level=68,
        training=tables[0],
        labelled=tables[1],
        matched=tables[2],
        cut_flow=[{"survey": "gaia_dr3", "cut": "all rows", "rows_left": 9, "failed_alone": None}],
        match={"pairs": 3},
        bundle={"id": "m1", "preset": "small"},
        curves=[curve | {"phase": ["mae", "mae"]}],
        stage_rows=[
            {"stage": "ingest", "rows_in": 9, "rows_out": 9, "seconds": 1.0, "peak_memory_bytes": 10**9}
        ],
        provenance={"code": {"version": "0"}},
        sky_order=4,
    )
    page = write_report(tmp_path, inputs)
    text = page.read_text()
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert drawn == {
        *(
            "figure_1_one_to_one",
            "figure_2_errors",
            "residuals",
            "coverage",
            "kiel",
            "colour_magnitude",
            "sky",
        ),
        *("separations", "training_curves", "cut_flow"),
    }
    assert text.count("data:image/png;base64,") == len(drawn)
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["test"]["teff"]["n"] > 1000 and set(numbers["test"]["teff"]) == {
        "mean",
        "median",
        "std",
        "mad",
        "n",
    }
    assert numbers["catalogue"]["rows"] == STARS - 200
    assert len(numbers["by_bin"]) == 4 * 7 * 3
    assert metrics_json(inputs, measure(replace(inputs, labelled=tables[1].repartition(7)))) == numbers


NOTHING = {"mean": None, "median": None, "std": None, "mad": None, "n": 0}


@pytest.mark.parametrize("missing", ["rows", "shared stars", "predictions"])
def test_without_a_star_to_compare_nothing_is_measured(tables: tuple[DataFrame, ...], missing: str) -> None:
    training, labelled, _ = tables
    if missing == "rows":
        training, labelled = training.limit(0), labelled.limit(0)
    elif missing == "shared stars":
        training = training.withColumn("source_id", -F.col("source_id") - 1)
    else:
        labelled = labelled.withColumns(dict.fromkeys(ERRORS, F.lit(None).cast("double")))
    metrics = evaluate(training, labelled, LABELS, 68)
    assert metrics.test == dict.fromkeys(ERRORS, NOTHING)
    assert (metrics.by_bin, metrics.scales, metrics.counts) == ([], {}, {})
    assert metrics.coverage["teff"]["fraction"] is None


def test_a_report_without_test_stars_shows_the_catalogue_and_says_so(
    tables: tuple[DataFrame, ...], tmp_path: Path
) -> None:
    training, labelled, matched = tables
    training = training.withColumn("split", F.lit("train"))
    page = write_report(tmp_path, ReportInputs(NAMED, 68, training, labelled, matched, sky_order=3))
    assert "nothing can be measured" in page.read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["test"] == dict.fromkeys(ERRORS, NOTHING)
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "kiel",
        "colour_magnitude",
        "sky",
        "separations",
    }


def test_empty_tables_give_a_report(tables: tuple[DataFrame, ...], tmp_path: Path) -> None:
    training, labelled, matched = (table.limit(0) for table in tables)
    page = write_report(tmp_path, ReportInputs(NAMED, 68, training, labelled, matched))
    assert "No star has been labelled" in page.read_text()
    assert list(tmp_path.glob("*.png")) == []


def test_any_label_can_be_evaluated_without_photometry(tables: tuple[DataFrame, ...], tmp_path: Path) -> None:
    renamed = {"logg": "age", "logg_lo": "age_lo", "logg_hi": "age_hi"}
    training = tables[0].select("source_id", "split", F.col("logg").alias("age"))
    labelled = (
        tables[1].withColumnsRenamed(renamed).select("source_id", "age", "age_lo", "age_hi", "_healpix_29")
    )
    page = write_report(
        tmp_path, ReportInputs([{"name": "age", "unit": "Gyr"}], 90, training, labelled, sky_order=3)
    )
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert list(numbers["test"]) == ["age"] and numbers["test"]["age"]["n"] > 1000
    assert {row["by"] for row in numbers["by_bin"]} == {"age"} and len(numbers["by_bin"]) == 6
    assert sum(row["n"] for row in numbers["by_bin"]) > 0.9 * numbers["test"]["age"]["n"]
    assert numbers["coverage"]["age"]["by_g"] == []
    assert "age" in page.read_text()
