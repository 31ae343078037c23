"""The physical limit: a plain pyarrow read of the inputs and write of the output, two processes, one leaf at a time.

Nothing is matched. All columns of both inputs are read once, without halos; then the tables of a finished output, which
lie in memory before the clock starts, are written as stellarml writes them.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stellarml.core.config import Tiles
from stellarml.storage.parquet import write_parquet

PROCESSES = 2


def leaves(catalogue: Path) -> list[Path]:
    """Return the leaves of a HATS catalogue."""
    return sorted((catalogue / "dataset").rglob("Npix=*.parquet"))


def read_and_write(inputs: Sequence[Path], output: Path, out: Path, tiles: Tiles) -> dict[str, Any]:
    """Read the leaves of `inputs`, write those of `output` below `out`; the seconds of the slower process count."""
    shutil.rmtree(out, ignore_errors=True)
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.SimpleQueue()
    reads = _shares([leaf for catalogue in inputs for leaf in leaves(catalogue)])
    writes = _shares(leaves(output))
    workers = [
        context.Process(target=_work, args=(reads[i], writes[i], out, tiles, start, answers))
        for i in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    told = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {
        "seconds": max(seconds for seconds, _, _ in told),
        "core_seconds": sum(cores for _, cores, _ in told),
        "rows": sum(rows for _, _, rows in told),
        "bytes_read": sum(leaf.stat().st_size for share in reads for leaf in share),
        "bytes_written": sum(leaf.stat().st_size for share in writes for leaf in share),
    }


def _shares(files: Sequence[Path]) -> list[list[Path]]:
    """Deal files out so that the processes have about the same number of bytes."""
    shares: list[list[Path]] = [[] for _ in range(PROCESSES)]
    load = [0] * PROCESSES
    for file in sorted(files, key=lambda path: -path.stat().st_size):
        least = load.index(min(load))
        shares[least].append(file)
        load[least] += file.stat().st_size
    return shares


def _work(
    reads: Sequence[Path], writes: Sequence[Path], out: Path, tiles: Tiles, start: Any, answers: Any
) -> None:
    ready = [pq.read_table(file, use_threads=False, partitioning=None) for file in writes]
    start.wait()
    started, cores = time.perf_counter(), time.process_time()
    for file in reads:
        pq.read_table(file, use_threads=False, partitioning=None)
    for file, table in zip(writes, ready, strict=True):
        write_parquet(out / file.parent.parent.name / file.name, table, tiles)
    seconds, cores = time.perf_counter() - started, time.process_time() - cores
    answers.put((seconds, cores, sum(table.num_rows for table in ready)))
