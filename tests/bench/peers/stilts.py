"""STILTS, the system's package: one command a match, uncompressed FITS in and out, all cores."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

HEAP = "-Xmx10g"


def version() -> str:
    """Return the version, or nothing where STILTS is not installed."""
    if shutil.which("stilts") is None:
        return ""
    told = subprocess.run(["stilts", "-version"], capture_output=True, text=True, check=True).stdout
    return next((line.strip() for line in told.splitlines() if "STILTS version" in line), "STILTS")


def launch_seconds() -> float:
    """Return what starting the command takes without any work."""
    started = time.perf_counter()
    subprocess.run(["stilts", "-version"], capture_output=True, check=True)
    return time.perf_counter() - started


def match(left: Path, right: Path, out: Path, *, find: str, radius_arcsec: float) -> dict[str, Any]:
    """Match two FITS tables of `match_data`; `find` is best (symmetric), best1 (each left row's nearest) or all."""
    from astropy.io import fits

    out.unlink(missing_ok=True)
    command = [
        "stilts", HEAP, "tmatch2", f"in1={left}", f"in2={right}", "ifmt1=fits", "ifmt2=fits", "matcher=sky",
        f"params={radius_arcsec}", "values1=ra dec", "values2=raj2000 dej2000", f"find={find}", "join=1and2",
        "runner=parallel", "progress=none", f"out={out}", "ofmt=fits",
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": int(fits.getheader(out, 1)["NAXIS2"])}
