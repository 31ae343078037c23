"""hats-import as its documentation sets it up: its pipeline runner on a dask client of two workers of one thread.

Runs in its own environment; requests and answers as in `run_lsdb`. The task ``import`` makes a catalogue from plain
Parquet files, the task ``margin`` a margin catalogue of one.
"""

import json
import os
import shutil
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

from dask.distributed import Client, LocalCluster
from hats import read_hats
from hats_import.catalog.arguments import ImportArguments
from hats_import.catalog.file_readers import ParquetPyarrowReader
from hats_import.margin_cache.margin_cache_arguments import MarginCacheArguments
from hats_import.pipeline import pipeline_with_client

warnings.filterwarnings("ignore")


def run(request: dict, client: Client) -> dict:
    """Run one pipeline, up to the written catalogue."""
    out = Path(request["out"])
    shutil.rmtree(out, ignore_errors=True)
    common = {"output_path": out.parent, "output_artifact_name": out.name, "progress_bar": False}
    started = time.perf_counter()
    if request["task"] == "margin":
        arguments = MarginCacheArguments(
            input_catalog_path=request["catalogue"], margin_threshold=request["margin_arcsec"], **common
        )
    else:
        arguments = ImportArguments(
            input_file_list=request["files"],
            file_reader=ParquetPyarrowReader(),
            ra_column=request["ra"],
            dec_column=request["dec"],
            sort_columns=request["id"],
            pixel_threshold=request["max_rows"],
            write_table_kwargs=request["write"],
            **common,
        )
    pipeline_with_client(arguments, client)
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
        answers.write(
            json.dumps({"version": f"hats-import {version('hats-import')}", "workers": workers}) + "\n"
        )
        for line in sys.stdin:
            answers.write(json.dumps(run(json.loads(line), client)) + "\n")


if __name__ == "__main__":
    main()
