"""How much memory a run takes: the proportional set size of this process and all its children, sampled.

Proportional, because the Python workers are forked and share most of their pages: the sum of their resident sizes
counts those pages once for each worker.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

_PERIOD_S = 1.0
_LARGEST_SHARE = 0.005  # of a core; the kernel walks all pages of a process to compute its share of them


class PeakMemory:
    """Samples the process tree in a thread between `start` and `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.peak_bytes = 0

    def start(self) -> None:
        """Begin to sample; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
            self._thread.start()

    def stop(self) -> int:
        """End sampling and return the peak in bytes (0 where /proc does not say)."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes())
        return self.peak_bytes

    def _sample(self) -> None:
        pause = _PERIOD_S
        while not self._stop.wait(pause):
            started = time.thread_time()
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes())
            pause = max(_PERIOD_S, (time.thread_time() - started) / _LARGEST_SHARE)


def tree_memory_bytes() -> int:
    """Return the proportional set size of this process and its descendants, in bytes."""
    return sum(proportional_bytes(pid) for pid in (os.getpid(), *descendants(os.getpid())))


def descendants(pid: int, leave_out: Collection[int] = ()) -> list[int]:
    """Return all processes that `pid` has started, children first; but none of `leave_out`, nor what those started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: list[int] = []
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - {pid, *found, *leave_out}
        found += sorted(level)
    return found


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of one process, in bytes; 0 where /proc does not say."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def available_bytes() -> int | None:
    """Return the memory that new processes can have, in bytes; None where the system does not say.

    The smaller of the machine's and the control group's: a container may have less than the machine shows.
    """
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            found.append(int(limit) - used)
    except (OSError, ValueError):
        pass
    return min(found) if found else None
