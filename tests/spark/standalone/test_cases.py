"""Small inputs that once went wrong, each for a kind of fault (tests/cases), run as their users would."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from helpers.model_tables import SPLIT, TINY, settings
from helpers.places import CHECKOUT

from stellarml.cli import main as cli
from stellarml.features.feature_file import FeatureFile
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_files import describe
from stellarml.surveys.raw_readers import reader_of
from stellarml.training.fit import Task, train

CASES = CHECKOUT / "tests" / "cases"


@pytest.fixture
def matched(spark: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Match two files of a case; return the table of matches."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)

    def match(left: Path, right: Path, left_survey: str, right_survey: str, *more: str) -> pd.DataFrame:
        surveys = ["--left-survey", left_survey, "--right-survey", right_survey]
        out = tmp_path / "odd [out] 100% é:#1"
        run(
            monkeypatch,
            "match",
            left,
            right,
            *surveys,
            "--format",
            "parquet",
            *more,
            "--out",
            out,
            "--overwrite",
        )
        return (
            pq.read_table(next(out.glob("matches.*"))).to_pandas() if "fits" not in more else pd.DataFrame()
        )

    return match


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run a command to its end, which must be a good one."""
    monkeypatch.setattr(sys, "argv", ["stellarml", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that labels the tables of the cases."""
    rng = np.random.default_rng(3)
    colour, g, parallax = rng.uniform(0.3, 2.0, 900), rng.uniform(6, 15, 900), rng.uniform(0.5, 8, 900)
    teff = 8000 - 2000 * colour + rng.normal(0, 50, 900)
    columns = {"colour": colour, "g": g, "absolute": g + 5 * np.log10(parallax) - 10, "teff": teff}
    columns |= {"e_teff": np.full(900, 50.0)}
    table = pa.table({name: pa.array(values, pa.float32()) for name, values in columns.items()})
    table = table.append_column("source_id", pa.array(np.arange(900)))
    table = table.append_column(
        "split", pa.array(rng.choice(["train", "validation", "calibration", "test"], 900))
    )
    features = FeatureFile(
        id="source_id",
        labels=({"name": "teff", "column": "teff", "error": "e_teff", "unit": "K"},),
        features=(
            {"name": "colour", "expression": "bp_mag - rp_mag", "unit": "mag"},
            {"name": "g", "expression": "g_mag", "unit": "mag"},
            {"name": "absolute", "expression": "g_mag + 5 * log10(parallax) - 10", "unit": "mag"},
        ),
    )
    out = tmp_path_factory.mktemp("model") / "m"
    return train(table, Task(features, settings(), SPLIT, TINY), out, provenance={"made": "up"})


@pytest.fixture
def labelled(
    spark: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> Callable[[Path], pa.Table]:
    """Label a table with the command; return what it has written."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)

    def label(table: Path, out: str = "labels.parquet") -> pa.Table:
        run(monkeypatch, "label", "--table", table, "--model", model, "--out", tmp_path / out)
        return pq.read_table(tmp_path / out) if out.endswith("parquet") else pa.table({})

    return label


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


@pytest.mark.parametrize(
    ("case", "right", "survey", "rows"),
    [
        ("01-votable-name-or-id", "irsa.vot", "irsa.toml", 60),
        ("01-votable-name-or-id", "vizier.vot", "vizier.toml", 60),
        ("04-csv-late-values", "right.csv", "right.toml", 4000),
        ("05-fits-null-booleans", "right.fits", "right.toml", 60),
        ("06-unsigned-64bit-ids", "right.fits", "right.toml", 60),
        ("06-unsigned-64bit-ids", "right.parquet", "right.toml", 60),
        ("20-fits-two-tables", "two.fits", "right.toml", 60),
        ("20-fits-two-tables", "second.fits", "right.toml", 60),
    ],
)
def test_every_row_of_a_case_takes_part(
    matched: Callable[..., pd.DataFrame], case: str, right: str, survey: str, rows: int
) -> None:
    folder = CASES / case
    found = matched(
        folder / "left.csv",
        folder / right,
        str(folder / "left.toml"),
        str(folder / survey),
        "--mode",
        "unique",
    )
    assert len(found) == rows
    if case.startswith("05"):
        values = found["binary"].tolist()
        assert [values.count(True), values.count(False), values.count(None)] == [20, 20, 20]
    if case.startswith("06"):
        ids = Table.read(folder / "right.fits")["specobjid"].tolist()
        assert sorted(map(int, found["specobjid"])) == sorted(ids)


def test_unsigned_ids_pass_through_a_match(matched: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    folder = CASES / "06-unsigned-64bit-ids"
    survey = tmp_path / "right.toml"
    survey.write_text((folder / "right.toml").read_text().replace('"specobjid" = "string"', ""))
    found = matched(folder / "left.csv", folder / "right.fits", str(folder / "left.toml"), str(survey))
    ids = Table.read(folder / "right.fits")["specobjid"].tolist()
    assert sorted(found["specobjid"].tolist()) == sorted(ids) and found["specobjid"].dtype == np.uint64


@pytest.mark.parametrize("ending", ["fits", "parquet"])
def test_labels_keep_unsigned_ids(labelled: Callable[..., pa.Table], tmp_path: Path, ending: str) -> None:
    table = CASES / "06-unsigned-64bit-ids" / f"label.{ending}"
    ids = Table.read(table)["source_id"].tolist()
    found = labelled(table)
    assert found["source_id"].to_pylist() == ids and found["teff"].null_count == 0
    labelled(table, "labels.fits")
    assert Table.read(tmp_path / "labels.fits")["source_id"].tolist() == ids
    labelled(table, "labels.vot")
    assert [int(i) for i in Table.read(tmp_path / "labels.vot")["source_id"]] == ids


def test_columns_that_differ_in_case_are_not_read_if_not_named(labelled: Callable[..., pa.Table]) -> None:
    folder = CASES / "16-names-differ-in-case"
    found = [labelled(folder / f"label.{ending}") for ending in ("csv", "fits", "vot", "parquet")]
    assert found[0].num_rows == 40 and found[0]["teff"].null_count == 0
    assert all(table.equals(found[0]) for table in found[1:])


@pytest.mark.parametrize(
    "name",
    [
        "async_2024-01-01T12:00:00.parquet",
        "a [1]{2}.parquet",
        "100% #1?.parquet",
        "étoiles & co.csv",
        "*.vot",
        "no ending",
        "gzipped.tsv",
    ],
)
def test_any_name_that_the_file_system_allows(
    labelled: Callable[..., pa.Table], tmp_path: Path, name: str
) -> None:
    folder = CASES / "16-names-differ-in-case"
    ending = name.rpartition(".")[2] if name.endswith(("csv", "vot")) else "parquet"
    content = (folder / f"label.{ending}").read_bytes()
    if name == "gzipped.tsv":
        content = gzip.compress((folder / "label.csv").read_bytes())
    (tmp_path / name).write_bytes(content)
    assert labelled(tmp_path / name, f"{name} labels.parquet").num_rows == 40


def test_nulls_of_a_match_come_back_from_fits_and_votable(
    matched: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = CASES / "11-nulls-in-fits-votable-output"
    surveys = str(folder / "left.toml"), str(folder / "right.toml")
    files = folder / "left.csv", folder / "right.csv"
    written = matched(*files, *surveys, "--join", "left").sort_values("id_left").reset_index(drop=True)
    assert written["variable"].isna().sum() > 0 and (written["nobs"] == 999999).any()
    for kind in ("fits", "votable"):
        out = tmp_path / kind
        sides = ["--left-survey", surveys[0], "--right-survey", surveys[1]]
        run(monkeypatch, "match", *files, *sides, "--join", "left", "--format", kind, "--out", out)
        descriptor = Files(format="csv", glob="*")
        file = describe(out / f"matches.{kind}", descriptor, "test")
        (header,) = reader_of(file).headers(file, descriptor)
        names = [column.name for column in header.columns]
        schema = pa.schema([pa.field(c.name, c.type) for c in header.columns])
        blocks = reader_of(file).blocks(header, names, schema, descriptor, 1 << 20)
        found = pa.concat_tables(block.table for block in blocks).to_pandas()
        found = found.sort_values("id_left").reset_index(drop=True)
        for name in ("variable", "nobs", "visits", "kind"):
            assert [None if pd.isna(v) else v for v in found[name]] == [
                None if pd.isna(v) else v for v in written[name]
            ], (kind, name)
