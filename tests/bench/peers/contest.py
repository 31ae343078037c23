"""A contest: tools that take turns, so that a change of the machine's mood meets all of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from peers.processes import core_seconds


@dataclass(frozen=True)
class Entry:
    """One way to do the work; it runs in the first `runs` turns after the discarded one.

    `root` and its descendants, without those of `leave_out`, are the processes that work.
    """

    name: str
    run: Callable[[], dict[str, Any]]
    runs: int
    root: int
    leave_out: tuple[int, ...] = ()


@dataclass
class Result:
    """Seconds of the timed runs, and rows of the last output."""

    seconds: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)
    rows: int = 0

    @property
    def median(self) -> float:
        """Median of the timed runs."""
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return asdict(self) | {"median": self.median}


def contest(entries: Sequence[Entry], runs: int) -> dict[str, Result]:
    """Let all entries take turns; the first turn warms them and is discarded."""
    results = {entry.name: Result() for entry in entries}
    for turn in range(runs + 1):
        for entry in entries:
            if turn > entry.runs:
                continue
            before = core_seconds(entry.root, entry.leave_out)
            told = entry.run()
            cores = told.get("core_seconds", core_seconds(entry.root, entry.leave_out) - before)
            sys.stderr.write(
                f"turn {turn}  {entry.name:<24} {told['seconds']:8.2f} s {cores:8.1f} core-s {told['rows']:>10} rows\n"
            )
            results[entry.name].rows = told["rows"]
            if turn:
                results[entry.name].seconds.append(told["seconds"])
                results[entry.name].core_seconds.append(cores)
    return results


def show(title: str, results: dict[str, Result], targets: Sequence[tuple[str, str, float | None]]) -> str:
    """Return the table of one contest and its ratios: of medians of seconds, and of core-seconds."""
    lines = [title, f"{'':<24} {'rows':>10} {'median s':>9} {'min':>8} {'max':>8} {'core-s':>8}"]
    for name, result in results.items():
        if not result.seconds:
            continue
        low, high = min(result.seconds), max(result.seconds)
        cores = statistics.median(result.core_seconds)
        lines.append(
            f"{name:<24} {result.rows:>10} {result.median:>9.2f} {low:>8.2f} {high:>8.2f} {cores:>8.1f}"
        )
    for a, b, most in targets:
        if a in results and b in results and results[a].seconds and results[b].seconds:
            cores = statistics.median(results[a].core_seconds) / statistics.median(results[b].core_seconds)
            told = f", target: at most {most}" if most else ""
            ratio = results[a].median / results[b].median
            lines.append(f"{a} / {b} = {ratio:.2f} ({cores:.2f} of its core-seconds){told}")
    return "\n".join(lines) + "\n\n"
