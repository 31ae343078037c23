"""ACID (pyacid on PyPI) as its documentation sets it up: a connection with two workers, a margin cache on the right.

Runs in ACID's own environment; requests and answers as in `serve`. Catalogues without a point map, as stellarml's, need
ACID's enumeration by leaves (ACID_WORK_AUTOSIZE=0).
"""

import os
import shutil
import sys
import time
from importlib.metadata import version
from itertools import count
from pathlib import Path

os.environ["ACID_WORK_AUTOSIZE"] = "0"

import acid
import astropy.units as u
import pyarrow.parquet as pq
import yaml
from serve import answering


def match(request: dict, registry: Path, number: int) -> dict:
    """Nearest right row within the radius of each left row, up to the written catalogue."""
    out = Path(request["out"])
    shutil.rmtree(out, ignore_errors=True)
    right = {
        "path": request["right"],
        "neighbor_path": request["margin"],
        "neighbor_margin_arcsec": request["margin_arcsec"],
    }
    registry.write_text(
        yaml.safe_dump({"catalogs": {"left_cat": {"path": request["left"]}, "right_cat": right}})
    )
    with acid.Connection(str(registry), workers=2) as connection:
        connection.open("left_cat").head(1).to_arrow()  # the pool is up before the clock starts
        started = time.perf_counter()
        matched = connection.open("left_cat").crossmatch(
            connection.open("right_cat"), radius=request["radius_arcsec"] * u.arcsec, dist_col="distance"
        )
        if request["left_columns"] != "all":
            matched = matched.select(
                ", ".join([*request["left_columns"], *request["right_columns"], "distance"])
            )
        matched.save(str(out), name=f"matches_{number}")
        seconds = time.perf_counter() - started
    leaves = [p for p in (out / "dataset").rglob("*.parquet") if not p.name.startswith("_")]
    return {"seconds": seconds, "rows": sum(pq.read_metadata(p).num_rows for p in leaves)}


if __name__ == "__main__":
    registry = Path(sys.argv[1]) / "catalogs.yaml"
    registry.parent.mkdir(parents=True, exist_ok=True)
    number = count()
    with answering(f"acid {version('pyacid')}") as serve:
        serve([], lambda request: match(request, registry, next(number)))
