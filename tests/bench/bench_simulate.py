"""Seconds and memory of a simulated sky of a million stars. Target: at most 3 minutes."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from stellarml.simulate import SimulateSettings, simulate


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        summary = simulate(SimulateSettings(stars=1_000_000, seed=1), Path(scratch) / "sky")
        seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"{summary.stars} stars: {seconds:.1f} s, {memory:.2f} GiB; target: at most 180 s\n")


if __name__ == "__main__":
    main()
