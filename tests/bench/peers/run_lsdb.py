"""LSDB as its documentation sets it up: a started dask client, a margin catalogue on the right, chosen columns.

Runs in LSDB's own environment. Each line on standard input is a request, each line on standard output its answer, so
that the caller can take turns with other tools while this client stays up and warm.
"""

import json
import os
import shutil
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import lsdb
from dask.distributed import Client, LocalCluster
from hats import read_hats

warnings.filterwarnings("ignore")


def match(request: dict) -> dict:
    """Nearest right row within the radius of each left row, up to the written catalogue."""
    out = Path(request["out"])
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    left = lsdb.open_catalog(request["left"], columns=request["left_columns"])
    right = lsdb.open_catalog(
        request["right"], columns=request["right_columns"], margin_cache=request["margin"]
    )
    matched = left.crossmatch(
        right,
        n_neighbors=1,
        radius_arcsec=request["radius_arcsec"],
        suffixes=("_left", "_right"),
        suffix_method="overlapping_columns",
        log_changes=False,
        require_right_margin=True,
    )
    matched.write_catalog(
        out,
        catalog_name="matches",
        as_collection=False,
        progress_bar=False,
        write_table_kwargs=request["write"],
    )
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": int(read_hats(out).catalog_info.total_rows)}


def main() -> None:
    """Start the client, say that it is up, answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=sys.argv[1]
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        workers = list(client.run(os.getpid).values())
        answers.write(json.dumps({"version": f"lsdb {version('lsdb')}", "workers": workers}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(match(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
