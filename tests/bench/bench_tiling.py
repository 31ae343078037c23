"""Ingest of a plain Parquet table to HATS against hats-import on the same files, in one run.

Both take turns; the first turn is discarded. Two processes each: ``local[2]``, a dask client of two workers of one
thread, both up before the clock starts. Leaves of at most 500,000 rows.

What favours whom: hats-import compresses with zstd at level 15, stellarml at level 1, so hats-import is measured with
level 1 too, and the ratio is to that one. stellarml also looks for duplicate ids and unreadable rows, evaluates the
survey's cuts (none here) and writes two columns more. hats-import also draws a sky map, which it cannot be a
catalogue without.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from match_data import LEAF_ROWS, LEFT_SLIM, MatchData, default_folder, make
from peers.client import Peer
from peers.contest import Entry, contest, show
from peers.processes import Sampler, is_spark_worker

from stellarml.core.config import Config, load_config
from stellarml.run.log import configure_logging
from stellarml.run.spark_session import start_session
from stellarml.stages.ingest import ingest_survey

AS_OURS = {"compression": "zstd", "compression_level": 1}
TARGETS = (("stellarml", "hats-import", 1.0), ("stellarml", "hats-import as shipped", None))


def configured(scratch: Path, data: MatchData, driver_memory: str) -> Config:
    """Return the configuration of the ingest of the left table."""
    return load_config(
        overrides=[
            "spark.master='local[2]'",
            f"spark.driver_memory='{driver_memory}'",
            f"tiles.max_rows={LEAF_ROWS}",
            f"paths.lake='{scratch / 'lake'}'",
            f"raw.bench_left_full='{data.root / 'left'}'",
            "log.level=warning",
        ]
    )


def request_of(data: MatchData, out: Path, write: dict[str, Any] | None) -> dict[str, Any]:
    """Return what `run_hats_import` is asked."""
    identity, ra, dec = LEFT_SLIM
    return {
        "task": "import",
        "files": [str(path) for path in data.plain("left")],
        "id": identity,
        "ra": ra,
        "dec": dec,
        "max_rows": LEAF_ROWS,
        "write": write,
        "out": str(out),
    }


def main() -> None:
    """Measure, print, and keep the numbers as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--memory", action="store_true", help="instead: memory of one ingest of --memory-rows rows"
    )
    parser.add_argument("--memory-rows", type=int, default=30_000_000)
    parser.add_argument("--data", type=Path, default=default_folder())
    parser.add_argument("--json", type=Path, help="default: bench_tiling.json in the data folder")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    rows = options.memory_rows if options.memory else options.rows
    data = make(options.data, rows, rows * 2 // 5, 1)
    with tempfile.TemporaryDirectory(dir=options.data, prefix="run-") as folder:
        scratch = Path(folder)
        config = configured(scratch, data, "8g" if options.memory else "3g")
        configure_logging(config.log)
        spark = start_session(config.spark)
        survey = str(data.descriptor("left", "full"))

        def us() -> dict[str, Any]:
            shutil.rmtree(scratch / "lake", ignore_errors=True)
            started = perf_counter()
            record = ingest_survey(spark, config, survey)
            return {"seconds": perf_counter() - started, "rows": record["rows"]["out"]}

        if options.memory:
            with Sampler(os.getpid(), is_spark_worker) as sampler:
                told = us()
            found = told | {"worker_bytes": sampler.worker_bytes, "total_bytes": sampler.total_bytes}
            sys.stdout.write(
                f"{told['rows']} rows, driver_memory 8g: {told['seconds']:.1f} s, largest worker "
                f"{sampler.worker_bytes / 2**30:.2f} GiB, all processes {sampler.total_bytes / 2**30:.2f} GiB\n"
            )
        else:
            with Peer("hats-import", "run_hats_import.py", scratch) as peer:
                requests = {
                    "hats-import": request_of(data, scratch / "imported", AS_OURS),
                    "hats-import as shipped": request_of(data, scratch / "imported", None),
                }
                entries = [Entry("stellarml", us, options.runs, os.getpid(), (peer.pid,))]
                for name, request in requests.items():
                    entries.append(Entry(name, lambda r=request: peer.ask(r), options.runs, peer.pid))  # type: ignore[misc]
                results = contest(entries, options.runs)
                found = {name: result.as_json() for name, result in results.items()}
                found["versions"] = {"peer": peer.version}
            title = f"{rows} rows from {len(data.plain('left'))} files, medians of {options.runs}, warm, two processes"
            sys.stdout.write(show(title, results, TARGETS))
        spark.stop()
    (options.json or options.data / "bench_tiling.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
