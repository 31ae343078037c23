"""`stellarml label --table`: any table in, the labels of the catalogue out; what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.label_leaves import Configured, out_of, read_leaf
from helpers.small_surveys import FEATURES
from typer.testing import CliRunner

from stellarml.cli.main import app
from stellarml.core.errors import UserError
from stellarml.core.quality_flags import QualityFlag
from stellarml.model.bundle import load_bundle
from stellarml.standalone.own_table import label_table, train_on_table


@pytest.fixture
def stars(labelled: Configured) -> pa.Table:
    """One leaf of matched stars."""
    config = labelled()
    leaf = sorted((config.lake_folder / "matched" / "dataset").rglob("*.parquet"))[0]
    return read_leaf(leaf).slice(0, 300)


@pytest.fixture
def label(labelled: Configured, spark: Any, tmp_path: Path) -> Callable[..., pa.Table]:
    """Label a file with the chain's model; returns the labels."""
    config = labelled()
    model = next(path.parent for path in config.models_folder.glob("*/bundle.json"))

    def run(table: Path) -> pa.Table:
        out = tmp_path / "out.parquet"
        label_table(spark, config, table, model, out)
        return pq.read_table(out)

    return run


def test_the_same_labels_as_in_the_catalogue(
    labelled: Configured, stars: pa.Table, label: Callable[..., pa.Table], tmp_path: Path
) -> None:
    pq.write_table(stars, tmp_path / "stars.parquet")
    found = label(tmp_path / "stars.parquet")
    config = labelled()
    parts = [read_leaf(p) for p in (out_of(config) / "dataset").rglob("*.parquet")]
    catalogue = pa.concat_tables(parts).to_pandas().set_index("source_id").loc[stars["source_id"].to_numpy()]
    assert found["source_id"].to_pylist() == stars["source_id"].to_pylist()
    for name in ("teff", "teff_lo", "logg_hi", "feh"):
        assert np.array_equal(found[name].to_numpy(), catalogue[name].to_numpy())
    assert np.array_equal(found["quality_flags"].to_numpy(), catalogue["quality_flags"].to_numpy())
    assert 0 < (found["quality_flags"].to_numpy() & QualityFlag.CUT_FAILED != 0).sum() < len(stars)
    assert found.schema.field("teff").metadata[b"unit"] == b"K"


def test_a_whole_catalogue_and_other_cases_of_names(
    labelled: Configured, stars: pa.Table, label: Callable[..., pa.Table], tmp_path: Path
) -> None:
    config = labelled()
    matched = config.lake_folder / "matched"
    every = label(matched)
    assert every.num_rows == sum(pq.read_metadata(p).num_rows for p in (matched / "dataset").rglob("Npix*"))
    pq.write_table(stars, tmp_path / "lower.parquet")
    pq.write_table(stars.rename_columns([n.upper() for n in stars.column_names]), tmp_path / "upper.parquet")
    lower, upper = label(tmp_path / "lower.parquet"), label(tmp_path / "upper.parquet")
    assert lower["quality_flags"].equals(upper["quality_flags"]) and lower["feh"].equals(upper["feh"])


def test_failed_cuts_of_any_column_are_flagged(
    stars: pa.Table, label: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """One column, several, null: every form in which ingest, the cross-match and `match` write them."""
    names = [name for name in stars.column_names if name.startswith("cuts_failed")]
    bare = stars.slice(0, 6).drop_columns(names)
    failed = {"cuts_failed": [0, 1, None, 0, 0, 0], "Cuts_failed_right": [0, 0, None, 1 << 40, 0, 0]}
    table = bare
    for name, values in failed.items():
        table = table.append_column(name, pa.array(values, pa.int64()))
    table = table.append_column("cuts_failed_note", pa.array(["x"] * 6))
    pq.write_table(bare, tmp_path / "bare.parquet")
    pq.write_table(table, tmp_path / "failed.parquet")
    before, after = (label(tmp_path / f"{n}.parquet")["quality_flags"].to_numpy() for n in ("bare", "failed"))
    assert not (before & QualityFlag.CUT_FAILED).any()
    assert (after & QualityFlag.CUT_FAILED != 0).tolist() == [False, True, False, True, False, False]
    assert np.array_equal(after & ~int(QualityFlag.CUT_FAILED), before)


def test_text_without_values_and_without_rows(
    stars: pa.Table, label: Callable[..., pa.Table], tmp_path: Path
) -> None:
    frame = stars.slice(0, 20).to_pandas()
    frame["phot_bp_mean_mag"] = np.nan
    frame.to_csv(tmp_path / "stars.csv", index=False)
    found = label(tmp_path / "stars.csv")
    assert found.num_rows == 20
    assert (found["quality_flags"].to_numpy() & QualityFlag.MISSING_BANDS != 0).all()
    frame.head(0).to_csv(tmp_path / "none.csv", index=False)
    assert label(tmp_path / "none.csv").num_rows == 0


def test_the_table_itself_and_folders_are_no_outputs(
    labelled: Configured, stars: pa.Table, spark: Any, tmp_path: Path
) -> None:
    config = labelled()
    model = next(path.parent for path in config.models_folder.glob("*/bundle.json"))
    table = tmp_path / "stars.parquet"
    pq.write_table(stars, table)
    content = table.read_bytes()
    with pytest.raises(UserError, match="is the table that is to be labelled"):
        label_table(spark, config, table, model, table)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        label_table(spark, config, table, model, tmp_path / "folder.parquet")
    assert table.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--config", "c.toml", "--level", "0"), "label.level"),
        (("--config", "c.toml", "--model", "m"), "--model and --out go with --table"),
        (("--config", "c.toml", "--out", "o.csv"), "--model and --out go with --table"),
    ],
)
def test_options_that_would_be_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("")
    done = CliRunner().invoke(app, ["label", *options])
    assert isinstance(done.exception, UserError) and told in str(done.exception)


def test_a_table_teaches_a_model_that_knows_its_reddening(
    labelled: Configured, spark: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    n = 1500
    g, u_g, reddening = rng.uniform(10, 15, n), rng.uniform(1.0, 2.5, n), rng.uniform(0, 0.2, n)
    teff, feh = 8000 - 1500 * u_g, 0.3 * rng.normal(size=n)
    reddening[-1], teff[-1], feh[-1] = 0.9, np.nan, np.nan
    columns = {"source_id": np.arange(n), "g": g, "u": g + u_g, "u_right_survey": g + u_g}
    columns |= {"teff": teff, "feh": feh, "ebmv_sfd": reddening}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    (tmp_path / "features.toml").write_text(FEATURES)
    told: list[str] = []
    config = labelled("train.preset=small", "train.max_epochs=2")
    model = train_on_table(
        spark, config, tmp_path / "table.parquet", tmp_path / "features.toml", tmp_path / "model", told.append
    )
    assert any("1 rows without labels are too few" in line for line in told)
    assert 0.19 < (load_bundle(model).manifest.reddening_high_mag or 0) < 0.2
    label_table(spark, config, tmp_path / "table.parquet", model, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["source_id"].to_pylist() == list(range(n))
    beyond = (found["quality_flags"].to_numpy() & QualityFlag.REDDENING_BEYOND) != 0
    assert beyond[-1]
    assert beyond.mean() < 0.01
