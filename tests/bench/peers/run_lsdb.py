"""LSDB as its documentation sets it up: a started dask client, a margin catalogue on the right, chosen columns.

Runs in LSDB's own environment; requests and answers as in `serve`.
"""

import shutil
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import lsdb
from hats import read_hats
from serve import serve_with_dask

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


if __name__ == "__main__":
    serve_with_dask(f"lsdb {version('lsdb')}", lambda request, _: match(request))
