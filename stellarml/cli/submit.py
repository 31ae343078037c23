"""What every job under spark-submit shares: its options, its session, its exit status."""

from __future__ import annotations

import argparse
from pathlib import Path

from stellarml.cli.exit_status import run_to_the_end
from stellarml.cli.options import configured
from stellarml.run.spark_session import start_session
from stellarml.stages.chain import STAGES, run_all, run_stage
from stellarml.stages.preflight import preflight


def submitted(doc: str | None, stage: str | None = None) -> None:
    """Parse the options of a job, run the stage (or all of them), and end with the contract's exit status."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the run's TOML file")
    parser.add_argument("--profile", help="shipped profile or path to a TOML")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="strongest of all")
    parser.add_argument("--overwrite", action="store_true", help="make the output anew")
    options = parser.parse_args()

    def job() -> None:
        config = configured(options.config, options.profile, options.set)
        preflight(config, [stage] if stage else STAGES)
        spark = start_session(config.spark)
        try:
            if stage:
                run_stage(stage, spark, config, overwrite=options.overwrite)
            else:
                run_all(spark, config, overwrite=options.overwrite)
        finally:
            spark.stop()

    run_to_the_end(job)
