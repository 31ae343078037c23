"""What every job under spark-submit shares: its options, its session, its exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.cli.exit_status import run_to_the_end
from stellarml.cli.options import configured
from stellarml.core.config import Config
from stellarml.run.spark_session import start_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def submitted(doc: str | None, work: Callable[[SparkSession, Config, bool], Any]) -> None:
    """Parse the options of a job, run `work` in the session, and end with the contract's exit status."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the run's TOML file")
    parser.add_argument("--profile", help="shipped profile or path to a TOML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="strongest of all")
    parser.add_argument("--overwrite", action="store_true", help="make the output anew")
    options = parser.parse_args()

    def job() -> None:
        config = configured(options.config, options.profile, options.set)
        spark = start_session(config.spark)
        try:
            work(spark, config, options.overwrite)
        finally:
            spark.stop()

    run_to_the_end(job)
