"""Ingest of bulk ECSV files to HATS against ``gzip -dc`` on the same files, two at a time, in one run.

Both sides are warm and take turns; the session has started. Target: at most 4 times the wall time of gzip.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stellarml.core.config import load_config
from stellarml.run.log import configure_logging
from stellarml.run.spark_session import start_session
from stellarml.simulate import SimulateSettings
from stellarml.simulate.demo_folder import make_sky
from stellarml.stages.ingest import ingest_survey


def gunzip(files: list[Path]) -> float:
    """Decompress all files to nowhere, two at a time; return the seconds."""
    started = time.perf_counter()
    names = "\0".join(map(str, files)).encode()
    subprocess.run(
        ["xargs", "-0", "-n1", "-P2", "sh", "-c", 'gzip -dc "$0" > /dev/null'], input=names, check=True
    )
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sky", type=Path, help="a folder made by stellarml simulate, instead of a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sky = options.sky or Path(scratch) / "sky"
        if not options.sky:
            make_sky(sky, SimulateSettings(stars=options.stars, seed=1), lambda line: None)
        config = load_config(
            sky / "config.toml",
            overrides=[f"paths.lake={scratch}/lake", "spark.master='local[2]'", "log.level=warning"],
        )
        configure_logging(config.log)
        files = sorted((sky / "raw" / "gaia_dr3").glob("*.csv.gz"))
        spark = start_session(config.spark)
        ours, peer, rows = [], [], 0
        for turn in range(options.repeats + 1):
            shutil.rmtree(Path(scratch) / "lake", ignore_errors=True)
            seconds = gunzip(files)
            started = time.perf_counter()
            rows = ingest_survey(spark, config, "gaia_dr3")["rows"]["out"]
            if turn:
                peer.append(seconds)
                ours.append(time.perf_counter() - started)
    a, b = statistics.median(ours), statistics.median(peer)
    sys.stdout.write(
        f"{len(files)} files, {rows} rows, medians of {options.repeats}, warm\n"
        f"gzip -dc, two at a time  {b:7.2f} s   ({min(peer):.2f} - {max(peer):.2f})\n"
        f"stellarml ingest         {a:7.2f} s   ({min(ours):.2f} - {max(ours):.2f})\n"
        f"ratio                    {a / b:7.2f}     target: at most 4\n"
    )


if __name__ == "__main__":
    main()
