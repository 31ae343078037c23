"""A model made elsewhere labels a field without spectra: the same labels as the chain that made it gives its stars."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.odd_bundles import overflowing

from stellarml.cli import main as cli
from stellarml.storage.hats_reader import open_catalogue


def status(*arguments: object) -> int:
    sys.argv = ["stellarml", *map(str, arguments)]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def whole(root: Path) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(leaf.path, partitioning=None) for leaf in open_catalogue(root).leaves
    ).sort_by("source_id")


@pytest.fixture
def field(small_chain: Path, spark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the configuration of a field that has the small chain's files, and no label table."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)
    raw = "".join(
        f'{name} = "{small_chain / "raw" / name}"\n'
        for name in ("gaia_dr3", "gaia_distances", "skymapper_dr2")
    )
    (tmp_path / "field.toml").write_text(f"[surveys]\nlabels = []\n[raw]\n{raw}")
    return tmp_path / "field.toml"


def test_a_field_is_labelled_as_by_the_chain_that_made_the_model(
    small_chain: Path, field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = next(path.parent for path in (small_chain / "models").glob("*/bundle.json"))
    out = field.parent / "elsewhere"
    assert status("apply", model, "--config", field, "--out", out) == 0
    assert f"labels: {out / model.name}" in capsys.readouterr().out
    found, chain = whole(out / model.name), whole(small_chain / "labels" / model.name)
    assert found.num_rows > 1000 and found.equals(chain)
    assert not (field.parent / "lake" / "training").exists()
    assert status("apply", model, "--config", field, "--out", out) == 0
    assert "unchanged" in "".join(capsys.readouterr())
    a_model_that_gives_no_numbers_gives_no_rows(small_chain, field, model, capsys)


def a_model_that_gives_no_numbers_gives_no_rows(
    small_chain: Path, field: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same error from the stage, where it travels with the leaf, and from a table, where a worker raises it."""
    model = overflowing(made, field.parent / made.name)
    out = field.parent / "nowhere"
    told = (
        rf"model {made.name}: its networks give no finite label or interval: [a-z]+ in [\d,]+ of [\d,]+ rows"
    )
    assert status("apply", model, "--config", field, "--out", out) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not list(out.rglob("Npix=*.parquet"))
    leaf = open_catalogue(small_chain / "lake" / "matched").leaves[0].path
    assert status("label", "--table", leaf, "--model", model, "--out", field.parent / "labels.parquet") == 2
    error = capsys.readouterr().err
    assert re.search(rf"^stellarml: {told}", error, re.MULTILINE) and "Traceback" not in error
    assert not (field.parent / "labels.parquet").exists()


def test_a_run_without_labels_says_what_to_do(field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("run", "--config", field) == 2
    assert "stellarml apply MODEL --config FILE" in capsys.readouterr().err
    assert not (field.parent / "lake").exists()


def test_what_is_missing_is_said_before_anything_is_ingested(
    small_chain: Path, field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("apply", "gone", "--config", field) == 2
    assert "gone: no such model" in capsys.readouterr().err
    model = next(path.parent for path in (small_chain / "models").glob("*/bundle.json"))
    field.write_text(field.read_text().replace("[raw]", 'distances = ""\n[raw]'))
    assert status("apply", model, "--config", field) == 2
    said = capsys.readouterr().err
    assert "no survey of the run carries the column 'r_med_geo', needed by feature" in said
    assert not (field.parent / "lake").exists()
