"""The whole chain, a spark-submit a stage, on a standalone cluster: package and environment come with the job.

Long: it runs where ``STELLARML_DIST`` names the folder of ``make dist`` (`make cluster` does that).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.standalone_cluster import Cluster, Shipment

from stellarml.core.config import load_config
from stellarml.stages.chain import STAGES

JOBS = {stage: "select_stars" if stage == "select" else stage for stage in STAGES}
TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000", "train.max_epochs=30")


@pytest.fixture(scope="module")
def dist() -> Path:
    if "STELLARML_DIST" not in os.environ:
        pytest.skip("STELLARML_DIST is not set: `make cluster` builds the archives and runs this")
    return Path(os.environ["STELLARML_DIST"]).absolute()


@pytest.fixture(scope="module")
def cluster(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def leaves(root: Path) -> dict[str, bytes]:
    found = (path for name in ("lake", "labels") for path in (root / name).rglob("dataset/**/*.parquet"))
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(found)}


def test_every_stage_makes_the_bytes_of_local_mode(
    cluster: Cluster, dist: Path, small_chain: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_chain / "raw", tmp_path / "raw")
    shutil.copy(small_chain / "config.toml", tmp_path / "config.toml")
    options = [part for value in TILES for part in ("--set", value)]
    for stage, job in JOBS.items():
        command = cluster.submit_command(
            job, "--config", str(tmp_path / "config.toml"), *options, shipment=Shipment.of(dist)
        )
        done = subprocess.run(
            command, capture_output=True, text=True, env=cluster.environment(), timeout=600, check=False
        )
        assert done.returncode == 0, f"{stage}:\n{done.stderr[-3000:]}"
    expected, found = leaves(small_chain), leaves(tmp_path)
    assert sorted(found) == sorted(expected)
    assert len(expected) > 20
    assert [name for name in expected if found[name] != expected[name]] == []
    config = load_config(tmp_path / "config.toml", overrides=TILES, environment={})
    for name in (*config.surveys.names, "stars", "matched", "training"):
        ours, theirs = (
            json.loads((root / "lake" / name / "run.json").read_text()) for root in (tmp_path, small_chain)
        )
        assert ours["rows"] == theirs["rows"]
    assert (tmp_path / "report" / "report.html").stat().st_size > 100_000
