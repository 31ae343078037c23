"""Features, labels and split as Spark columns, and labelling in Spark, against NumPy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from stellarml.core.config import Split, Train
from stellarml.core.errors import InputError
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.features.spark_columns import (
    check_features,
    feature_columns,
    spark_label_columns,
)
from stellarml.features.spark_split import split_column
from stellarml.features.split import split_of
from stellarml.labelling.spark_label import label_frame, pack_bundle, predictor_of
from stellarml.report.catalogue_counts import absolute_magnitude
from stellarml.training.fit import Task, train
from stellarml.training.presets import Phase, Preset

BANDS = "uvgriz"
SPLIT = Split(salt="0", validation=0.1, test=0.1, calibration=0.1)


def matched(n: int = 400) -> pd.DataFrame:
    """Rows with the archives' column names; some in capitals, as a user's table may have them."""
    rng = np.random.default_rng(11)
    columns: dict[str, np.ndarray] = {
        "source_id": rng.integers(10**17, 6 * 10**18, n),
        "R_MED_GEO": rng.uniform(50, 9000, n),
        "phot_bp_mean_mag": rng.uniform(9, 19, n),
        "Phot_RP_mean_mag": rng.uniform(9, 19, n),
        "ebmv_sfd": rng.uniform(0, 1, n),
    }
    for band in BANDS:
        columns[f"{band}_psf"] = rng.uniform(9, 20, n)
        columns[f"e_{band}_psf"] = rng.uniform(0.003, 0.1, n)
    for name, middle in (("teff", 5500.0), ("logg", 4.0), ("mh", -0.3)):
        columns[f"{name}_gspphot"] = middle + rng.uniform(-1.5, 1.5, n)
        columns[f"{name}_gspphot_lower"] = middle - rng.uniform(0, 1, n)
        columns[f"{name}_gspphot_upper"] = middle + rng.uniform(0, 1, n)
    for name in ("teff", "logg", "feh"):
        columns[name] = rng.normal(5.0, 1.0, n)
        columns[f"e_{name}"] = rng.uniform(0.1, 0.2, n)
    return pd.DataFrame(columns)


def table_1(df: pd.DataFrame) -> dict[str, np.ndarray]:
    """The paper's 27 inputs in NumPy, from the formulas alone."""
    coefficient = {"u": 4.294, "v": 4.026, "g": 2.986, "r": 2.288, "i": 1.588, "z": 1.206}
    df = df.rename(columns=str.lower)
    modulus = 5 * np.log10(df["r_med_geo"]) - 5
    out = {"r_med_geo": df["r_med_geo"], "bp": df["phot_bp_mean_mag"], "rp": df["phot_rp_mean_mag"]}
    for band in BANDS:
        out[f"{band}abs"] = df[f"{band}_psf"] - modulus - coefficient[band] * df["ebmv_sfd"]
        out[f"{band}abs_nored"] = df[f"{band}_psf"] - modulus
        out[f"e_{band}_psf"] = df[f"e_{band}_psf"]
    for name in ("teff", "logg", "mh"):
        out[f"{name}_gspphot"] = df[f"{name}_gspphot"]
        half = (df[f"{name}_gspphot_upper"] - df[f"{name}_gspphot_lower"]) / 2
        out[f"{name}_gspphot_err"] = half
    return {name: values.to_numpy(np.float64) for name, values in out.items()}


def computed(df: DataFrame, spec: FeatureFile) -> pd.DataFrame:
    return df.select(sf.col(spec.id), *feature_columns(spec, df.columns)).toPandas().set_index(spec.id)


def simple(expression: str, **more: object) -> FeatureFile:
    return FeatureFile(
        id="source_id",
        labels=({"name": "teff", "column": "teff", "unit": "K"},),
        features=({"name": "f", "expression": expression, "unit": "mag"},),
        **more,
    )


def test_table_1_equals_numpy(spark: SparkSession) -> None:
    raw = matched()
    df = spark.createDataFrame(raw)
    paper = load_feature_file("paper")
    check_features(df, paper)
    found = computed(df, paper).loc[raw["source_id"]]
    expected = table_1(raw)
    assert list(found.columns) == list(paper.feature_names)
    assert set(expected) == set(paper.feature_names)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].to_numpy() == pytest.approx(values.astype(np.float32), rel=2e-7), name


def test_encoded_nulls_are_missing_and_nothing_else_is(spark: SparkSession) -> None:
    raw = matched(5)
    raw.loc[0, "u_psf"] = 99.0
    raw.loc[1, "e_u_psf"] = -1.0
    raw.loc[2, "u_psf"] = np.nan
    raw.loc[3, "R_MED_GEO"] = -5.0
    found = computed(spark.createDataFrame(raw), load_feature_file("paper")).loc[raw["source_id"]]
    lost = found.isna().to_numpy()
    names = list(found.columns)
    u = {"uabs", "uabs_nored", "e_u_psf"}
    assert {names[j] for j in np.flatnonzero(lost[0])} == u
    assert {names[j] for j in np.flatnonzero(lost[1])} == u
    assert {names[j] for j in np.flatnonzero(lost[2])} == u
    absolute = {f"{b}abs{e}" for b in BANDS for e in ("", "_nored")}
    assert {names[j] for j in np.flatnonzero(lost[3])} == absolute | {"r_med_geo"}, "no distance is negative"
    assert not lost[4].any()


def test_infinities_and_overflow_become_null(spark: SparkSession) -> None:
    df = spark.sql(
        "select * from values (1L, double('inf')), (2L, double('-inf')), (3L, double('nan')), (4L, 1e39), (5L, 2.5), "
        "(6L, null) as t(source_id, x)"
    )
    found = df.select("source_id", *feature_columns(simple("x"), df.columns)).collect()
    assert [row.f for row in sorted(found)] == [None, None, None, None, 2.5, None]


def test_null_rules_see_the_original_columns(spark: SparkSession) -> None:
    spec = simple("a + b", null_when={"a": "b > 5", "B": "a > 5"})
    df = spark.createDataFrame(
        [(1, 1.0, 2.0), (2, 1.0, 9.0), (3, 9.0, 2.0)], "source_id long, a double, b double"
    )
    found = df.select("source_id", *feature_columns(spec, df.columns)).collect()
    assert [row.f for row in sorted(found)] == [3.0, None, None]


def test_missing_columns_are_told_once_each_with_their_features(spark: SparkSession) -> None:
    raw = matched(3).rename(columns={"v_psf": "vpsf"}).drop(columns="mh_gspphot_upper")
    with pytest.raises(InputError) as told:
        check_features(spark.createDataFrame(raw), load_feature_file("paper"))
    text = str(told.value)
    needed = (
        "no column 'v_psf' in the table, needed by features vabs, vabs_nored, e_v_psf; of its 31 columns the"
    )
    assert f"{needed} nearest are 'e_v_psf', 'vpsf'" in text
    assert "no column 'mh_gspphot_upper' in the table, needed by feature mh_gspphot_err; of its" in text
    assert "[null_when] names 'v_psf', which the table lacks." in text
    assert text.count("\n") == 3


def test_a_missing_column_prints_no_stack_trace(
    spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    df = spark.createDataFrame(matched(2))
    with pytest.raises(InputError, match="no column 'nope'"):
        check_features(df, simple("nope + 1"))
    captured = capfd.readouterr()
    assert "nope" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("cast(u_psf as string)", "is of type string, expected a number"),
        ("abs(u_psf, 2)", "does not fit the table"),
        ("element_at(u_psf, 1)", "does not fit the table"),
    ],
)
def test_bad_expressions_are_told_in_words(spark: SparkSession, expression: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_features(spark.createDataFrame(matched(2)), simple(expression))


def test_labels_and_their_errors(spark: SparkSession) -> None:
    raw = matched(50).assign(teff=np.linspace(4000, 7000, 50), feh=np.linspace(-3, 0.5, 50))
    raw.loc[0, "teff"] = np.inf
    df = spark.createDataFrame(raw)
    paper = load_feature_file("paper")
    found = df.select(*spark_label_columns(paper, df.columns)).toPandas()
    assert list(found.columns) == ["teff", "e_teff", "logg", "e_logg", "feh", "e_feh"]
    assert np.isnan(found["teff"][0])
    assert found["feh"].to_numpy() == pytest.approx(raw["feh"].to_numpy(np.float32))
    with pytest.raises(InputError, match="label 'feh': no column 'e_feh' in the table"):
        spark_label_columns(paper, [c for c in df.columns if c != "e_feh"])


def test_the_split_is_the_same_in_spark_and_python(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    ids = [int(i) for i in rng.integers(0, 2**62, 2000)] + [0, -7]
    df = spark.createDataFrame([(i, f"star {i}") for i in ids], "id long, name string")
    for partitions in (1, 5):
        rows = (
            df.repartition(partitions)
            .select(
                "id",
                "name",
                split_column("id", SPLIT).alias("by_id"),
                split_column("name", SPLIT).alias("by_name"),
            )
            .collect()
        )
        assert [r.by_id for r in rows] == split_of([r.id for r in rows], SPLIT)
        assert [r.by_name for r in rows] == split_of([r.name for r in rows], SPLIT)


def test_absolute_magnitudes_of_the_diagrams(spark: SparkSession) -> None:
    df = spark.createDataFrame([(100.0, 10.0), (-1.0, 10.0)], "d double, m double")
    rows = df.select(absolute_magnitude(sf.col("m"), sf.col("d")).alias("g")).collect()
    assert rows[0].g == pytest.approx(5.0)
    assert rows[1].g is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = matched(900)
    rng = np.random.default_rng(5)
    columns = {name: values.astype(np.float32) for name, values in table_1(raw).items()}
    columns["uabs"][rng.random(900) < 0.3] = np.nan
    table = pd.DataFrame({"source_id": raw["source_id"], **columns})
    table["teff"] = 5000 + 100 * columns["bp"] + rng.normal(size=900)
    table["logg"] = 4 + 0.1 * columns["rp"]
    table["feh"] = rng.normal(size=900)
    table["split"] = split_of(raw["source_id"], SPLIT)
    import pyarrow as pa

    settings = Train(
        preset="small", seed=0, max_epochs=2, max_rows=0, threads=0, max_seconds=0, tensorboard=False
    )
    task = Task(load_feature_file("paper"), settings, SPLIT, Preset("tiny", (8,), (Phase("mae", 2, 1e-2),)))
    return train(
        pa.Table.from_pandas(table, preserve_index=False), task, tmp_path_factory.mktemp("models") / "m"
    )


def test_labelling_in_spark_equals_the_predictor_row_for_row(spark: SparkSession, bundle: Path) -> None:
    raw = matched(700)
    raw.loc[::7, "u_psf"] = 99.0
    df = spark.createDataFrame(raw).repartition(3)
    paper = load_feature_file("paper")
    blob, sha256 = pack_bundle(bundle)
    predictor = predictor_of(blob, sha256)
    inputs = df.select("source_id", "ebmv_sfd", *feature_columns(paper, df.columns)).cache()
    labelled = label_frame(
        inputs,
        spark.sparkContext.broadcast(blob),
        sha256,
        id_column="source_id",
        level=90,
    )
    assert labelled.columns == ["source_id", *predictor.manifest.output_names()]
    found = labelled.toPandas().set_index("source_id").sort_index()
    table = inputs.toPandas().sort_values("source_id")
    assert found.index.tolist() == sorted(raw["source_id"])
    expected = predictor.label(
        table[list(paper.feature_names)].to_numpy(np.float32), 90, table["ebmv_sfd"].to_numpy()
    )
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name].to_numpy(), values), name


def test_a_table_that_lacks_a_feature_is_refused_before_it_runs(spark: SparkSession, bundle: Path) -> None:
    blob, sha256 = pack_bundle(bundle)
    df = spark.createDataFrame([(1, 1.0)], "source_id long, bp float")
    with pytest.raises(InputError, match="'r_med_geo'"):
        label_frame(
            df,
            spark.sparkContext.broadcast(blob),
            sha256,
            id_column="source_id",
        )


def test_training_beside_a_spark_session_leaves_it_alive(spark: SparkSession, bundle: Path) -> None:
    assert "tensorflow" in sys.modules, "the fixture trained in this process"
    assert spark.range(10).count() == 10
