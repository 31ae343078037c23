"""Labelled versions: listed, compared, pruned, published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stellarml.cli.main import app
from stellarml.core.config import Config
from stellarml.core.errors import InputError, OutputBusyError, UserError
from stellarml.labelling.compare import compare
from stellarml.labelling.versions import current_model, prune, version_named, versions_of
from stellarml.run.ownership import held
from stellarml.stages import label, train

Configured = Callable[..., Config]


SECOND = ("train.max_epochs=2", "train.seed=5")


@pytest.fixture(scope="module")
def second(
    labelled_in: Callable[..., Configured],
    spark: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a second model beside the first; the second is published."""
    folder = tmp_path_factory.mktemp("second")
    config = labelled_in(folder)(*SECOND)
    train.run(spark, config)
    label.run(spark, config)
    return folder


@pytest.fixture
def two(second: Path, labelled_in: Callable[..., Configured], tmp_path: Path) -> Config:
    """A copy of both models and their labels."""
    return labelled_in(tmp_path, second)(*SECOND)


def rows_of(folder: Path) -> pd.DataFrame:
    parts = [pq.read_table(p, partitioning=None).to_pandas() for p in (folder / "dataset").rglob("*.parquet")]
    return pd.concat(parts).set_index("source_id").sort_index()


def test_versions_are_listed_compared_and_pruned(two: Config, spark: Any, tmp_path: Path) -> None:
    first, second = versions_of(two.labels_folder)
    assert (first.current, second.current) == (False, True)
    assert second.id == current_model(two.labels_folder) and second.record["preset"] == "small"

    found = compare(spark, first, second)
    a, b = rows_of(first.folder), rows_of(second.folder)
    assert (found.both, found.only_first, found.only_second) == (len(a), 0, 0)
    assert found.flags_differ == pytest.approx((a.quality_flags != b.quality_flags).mean())
    by_label = {name: [m for m in found.moved if m.label == name] for name in ("teff", "logg", "feh")}
    for name, moved in by_label.items():
        step = (b[name] - a[name]).astype(float)
        outside = (b[name] < a[f"{name}_lo"]) | (b[name] > a[f"{name}_hi"])
        whole, *bins = moved
        assert whole.stars == len(a) and whole.low is None
        assert whole.largest == pytest.approx(step.abs().max(), rel=1e-5)
        assert whole.beyond == pytest.approx(outside.mean())
        assert np.allclose(whole.quantiles, np.quantile(step, [0.16, 0.5, 0.84]), atol=0.02 * step.std())
        assert len(bins) > 2
        for row in bins:
            chosen = (a[name] >= row.low) & (a[name] < row.high)
            assert row.stars == chosen.sum() and row.beyond == pytest.approx(outside[chosen].mean())
    same = compare(spark, first, first)
    assert same.flags_differ == 0 and all(m.largest == 0 and m.beyond == 0 for m in same.moved)

    assert prune(two.labels_folder, 2) == []
    with pytest.raises(UserError, match="expected at least 1"):
        prune(two.labels_folder, 0)
    with held(first.folder), pytest.raises(OutputBusyError):
        prune(two.labels_folder, 1)
    assert prune(two.labels_folder, 1) == [first.id]
    assert [v.id for v in versions_of(two.labels_folder)] == [second.id] and not first.folder.exists()
    assert prune(two.labels_folder, 1) == []


def test_pruning_leaves_what_a_user_has_put_there(two: Config) -> None:
    first, _ = versions_of(two.labels_folder)
    mine = first.folder / "mine.txt"
    mine.write_text("mine")
    assert prune(two.labels_folder, 1) == [first.id]
    assert list(first.folder.iterdir()) == [mine]


def test_the_published_version_is_never_pruned(two: Config) -> None:
    first, second = versions_of(two.labels_folder)
    pointer = two.labels_folder / "current.json"
    pointer.write_text(json.dumps({"model_id": first.id}))
    assert prune(two.labels_folder, 1) == []
    assert {v.id for v in versions_of(two.labels_folder)} == {first.id, second.id}


def test_stars_of_one_version_only(two: Config, spark: Any) -> None:
    first, second = versions_of(two.labels_folder)
    listed = second.folder / "partition_info.csv"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(lines[:-1]) + "\n")
    found = compare(spark, first, second)
    assert 0 < found.only_first == first.record["rows"]["out"] - found.both


def test_unknown_unfinished_and_damaged(two: Config) -> None:
    first, _ = versions_of(two.labels_folder)
    with pytest.raises(UserError, match=rf"no finished version '{first.id}x'. Did you mean '{first.id}'"):
        version_named(two.labels_folder, first.id + "x")
    (first.folder / "run.json").unlink()
    assert len(versions_of(two.labels_folder)) == 1
    (first.folder / "run.json").write_text("{")
    assert len(versions_of(two.labels_folder)) == 1
    (two.labels_folder / "current.json").write_text("{")
    with pytest.raises(InputError, match=r"current.json: is damaged"):
        versions_of(two.labels_folder)


def test_the_commands(two: Config, small_chain: Path, tmp_path: Path) -> None:
    first, second = versions_of(two.labels_folder)
    given = ["--config", str(small_chain / "config.toml"), "--set", f"paths.labels={tmp_path / 'labels'}"]
    run = CliRunner(env={"COLUMNS": "200"})
    listed = run.invoke(app, ["models", *given])
    assert listed.exit_code == 0, listed.output
    assert first.id in listed.output and second.id in listed.output and "yes" in listed.output
    told = run.invoke(app, ["diff", first.id, second.id, *given, "--out", str(tmp_path / "diff.json")])
    assert told.exit_code == 0, told.output
    assert "left its interval" in told.output and "teff" in told.output
    numbers = json.loads((tmp_path / "diff.json").read_text())
    assert numbers["both"] == first.record["rows"]["out"] and len(numbers["moved"]) > 9
    none = run.invoke(app, ["models", "--config", given[1], "--set", f"paths.labels={tmp_path / 'nowhere'}"])
    assert none.exit_code == 0 and "No version has been labelled" in none.output
