"""hats-import as its documentation sets it up: its pipeline runner on a dask client of two workers of one thread.

Runs in its own environment; requests and answers as in `serve`. The task ``import`` makes a catalogue from plain
Parquet files, the task ``margin`` a margin catalogue of one.
"""

import shutil
import time
import warnings
from importlib.metadata import version
from pathlib import Path

from dask.distributed import Client
from hats import read_hats
from hats_import.catalog.arguments import ImportArguments
from hats_import.catalog.file_readers import ParquetPyarrowReader
from hats_import.margin_cache.margin_cache_arguments import MarginCacheArguments
from hats_import.pipeline import pipeline_with_client
from serve import serve_with_dask

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


if __name__ == "__main__":
    serve_with_dask(f"hats-import {version('hats-import')}", run)
