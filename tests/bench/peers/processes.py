"""What a tool costs besides seconds: memory of each of its workers, and core-seconds, which a busy machine alters less.

Memory is the proportional set size, sampled four times a second, in runs that are not timed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType

from stellarml.run.memory import descendants, proportional_bytes

_PERIOD_S = 0.25


class Sampler:
    """Samples the processes below `root` between entry and exit.

    Parameters
    ----------
    root
        Process whose descendants (and itself) count.
    is_worker
        Whether a process, by its id, is a worker.
    leave_out
        Processes that do not count, nor do their descendants.
    size_of
        The memory of a process, in bytes.
    """

    def __init__(
        self,
        root: int,
        is_worker: Callable[[int], bool],
        leave_out: Collection[int] = (),
        size_of: Callable[[int], int] = proportional_bytes,
    ) -> None:
        self._root, self._is_worker, self._leave_out = root, is_worker, frozenset(leave_out)
        self._size_of = size_of
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.total_bytes = 0
        self.worker_bytes = 0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            sizes = {pid: self._size_of(pid) for pid in self._family()}
            self.total_bytes = max(self.total_bytes, sum(sizes.values()))
            workers = [size for pid, size in sizes.items() if self._is_worker(pid)]
            self.worker_bytes = max(self.worker_bytes, max(workers, default=0))

    def _family(self) -> list[int]:
        return [self._root, *descendants(self._root, self._leave_out)]


def core_seconds(root: int, leave_out: Collection[int] = ()) -> float:
    """Return the processor time that `root`, its descendants and their finished children have taken so far."""
    ticks = 0
    for pid in (root, *descendants(root, leave_out)):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def is_spark_worker(pid: int) -> bool:
    """Whether a process is one of Spark's Python workers (or the daemon that they are forked from, a small one).

    The JVM is none, though the daemon's module is among its options.
    """
    words = _command(pid)
    return "-m" in words[:-1] and words[words.index("-m") + 1] in (
        "stellarml.cli.worker_daemon",
        "pyspark.daemon",
    )


def is_spark_jvm(pid: int) -> bool:
    """Whether a process is Spark's JVM."""
    return any(word.startswith("org.apache.spark.") for word in _command(pid))


def resident_bytes(pid: int) -> int:
    """Return the resident set size of a process, shared pages counted in full; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
