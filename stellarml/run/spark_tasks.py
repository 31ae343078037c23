"""How far the running Spark job is, for the stages that are one job and not a list of units."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext

_PERIOD_S = 1.0


def tasks_of(context: SparkContext) -> Callable[[], tuple[int, int] | None]:
    """Return what counts the finished tasks of the jobs that are running, and all of them; None while none is.

    Spark is asked once a second at most: each question is a few round trips to the JVM.
    """
    tracker = context.statusTracker()
    known: tuple[int, int] | None = None
    asked = float("-inf")

    def count() -> tuple[int, int] | None:
        nonlocal known, asked
        if time.monotonic() - asked < _PERIOD_S:
            return known
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        found = [(stage.numCompletedTasks, stage.numTasks) for stage in stages if stage]
        known = (sum(done for done, _ in found), sum(number for _, number in found)) if found else None
        asked = time.monotonic()
        return known

    return count
