"""The entry points of spark-submit: short, one a stage, and the same as the command line."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import CHECKOUT

JOBS = CHECKOUT / "jobs"
STAGES = {
    "ingest": "ingest",
    "select_stars": "select",
    "crossmatch": "crossmatch",
    "features": "features",
    "train": "train",
    "label": "label",
    "report": "report",
}


def test_one_job_a_stage() -> None:
    assert {p.stem for p in JOBS.glob("*.py")} == {*STAGES, "run_all"}


@pytest.mark.parametrize("job", [*STAGES, "run_all"])
def test_job_is_thin(job: str) -> None:
    source = (JOBS / f"{job}.py").read_text()
    assert len(source.splitlines()) < 40
    names = {
        n.value
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    assert job == "run_all" or STAGES[job] in names


@pytest.fixture
def own_sky(small_sky: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_sky / "raw", tmp_path / "raw")
    shutil.copy(small_sky / "config.toml", tmp_path / "config.toml")
    return tmp_path


def submit(job: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    command = [
        str(Path(sys.executable).with_name("spark-submit")),
        "--master",
        "local[2]",
        "--driver-memory",
        "2g",
    ]
    return subprocess.run(
        [*command, str(JOBS / f"{job}.py"), *options],
        capture_output=True,
        text=True,
        timeout=400,
        env=environment,
        check=False,
    )


def test_spark_submit_runs_a_stage(own_sky: Path, small_chain: Path) -> None:
    from stellarml.run.marks import read_record

    for survey in ("gaia_dr3", "gaia_distances", "skymapper_dr2"):
        shutil.copytree(small_chain / "lake" / survey, own_sky / "lake" / survey)
    done = submit("select_stars", "--config", str(own_sky / "config.toml"))
    assert done.returncode == 0, done.stderr[-3000:]
    expected = read_record(small_chain / "lake" / "stars")["rows"]
    assert read_record(own_sky / "lake" / "stars")["rows"] == expected


def test_a_users_mistake_ends_with_status_2(own_sky: Path) -> None:
    done = submit("ingest", "--config", str(own_sky / "config.toml"), "--set", "crossmatch.scop=full")
    assert done.returncode == 2
    told = done.stdout + done.stderr  # spark-submit joins the driver's two streams
    assert "Did you mean 'scope'?" in told and "Traceback" not in told
