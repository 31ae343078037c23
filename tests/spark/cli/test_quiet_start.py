"""A session starts without a word of Java or Spark on the user's screen."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers.places import CHECKOUT

WORK = """
from stellarml.core.config import load_config
from stellarml.run.spark_session import start_session
settings = load_config(overrides=["spark.driver_memory='1g'"], environment={}).spark
assert start_session(settings).range(5).count() == 5
"""


def test_nothing_is_said_when_spark_starts() -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("JDK_JAVA_OPTIONS", "PYSPARK_GATEWAY_PORT")}
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, timeout=300, check=True,
        env=kept | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
