"""One Spark task a unit of work: run it where there is room, keep what is whole, report all failures at once.

A unit is a tile or a file. Spark aborts a job when one task fails for good, so a unit never fails its task: it returns
what went wrong, the others go on, and the driver raises when all have ended. Units are handed out largest first, so
that the last tasks are short; or in runs of neighbours, where a unit profits from what the one before it has read.
"""

from __future__ import annotations

import errno
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stellarml.core import errors, progress
from stellarml.core.progress import Count
from stellarml.run.log import get_logger
from stellarml.run.marks import mark_path, read_json, write_mark
from stellarml.run.ownership import DONE
from stellarml.run.stage_run import StageRun

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SHOWN = 20  # failures in the message that ends a run
RESULT_SCHEMA = "unit string, outcome string"
_ARROW_RESULT = pa.schema([("unit", pa.string()), ("outcome", pa.string())])


@dataclass(frozen=True)
class Unit:
    """A piece of work: a stable name, a weight (rows or bytes) for the order, and what the work needs to know."""

    name: str
    weight: int
    task: Any


def run_units(
    spark: SparkSession,
    run: StageRun,
    units: Sequence[Unit],
    work: Callable[[Any], dict[str, Any]],
    *,
    in_runs: bool = False,
    step: str = "tiles",
) -> list[dict[str, Any]]:
    """Run `work` on every unit that has no mark yet; return the marks of all, in the order of `units`.

    Parameters
    ----------
    run
        Its output folder takes the mark of each unit that is finished.
    work
        Called on an executor with the unit's task; returns the mark's payload, ``files`` (path below the output
        folder to bytes) included. It must be a plain function of picklable arguments.
    in_runs
        Keep the order of `units` and give each task a run of consecutive ones, long runs first.
    step
        What the user is shown as being done; the weights of `units` are then rows.

    Raises
    ------
    StellarmlError
        Naming every unit that failed, after all the others are done.
    """
    out = run.out
    pending = [unit for unit in units if unit.name not in run.marks]
    if len(pending) < len(units):
        counts = {"kept": len(units) - len(pending), "to_do": len(pending)}
        get_logger().info("goes on", stage=run.stage, units=step, **counts)
    if not pending:
        return [run.marks[unit.name] for unit in units]
    if in_runs:
        runs = runs_of_neighbours(pending, spark.sparkContext.defaultParallelism)
    else:
        runs = [[unit] for unit in sorted(pending, key=lambda unit: (-unit.weight, unit.name))]
    for unit in pending:
        mark_path(out, unit.name).unlink(missing_ok=True)

    def run_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                for unit in runs[index]:
                    yield outcome_batch(unit.name, _once(out, unit, work))

    frame = spark.range(0, len(runs), 1, len(runs)).mapInArrow(run_partition, RESULT_SCHEMA)
    weights = {unit.name: unit.weight for unit in pending}
    done = run.marks | collect_outcomes(frame, run.stage, out, Shown(step, weights))
    return [done[unit.name] for unit in units]


def runs_of_neighbours(units: Sequence[Unit], slots: int) -> list[list[Unit]]:
    """Cut `units` into runs, each about the rest's weight over twice the `slots`: long ones first, short ones last."""
    left = sum(unit.weight for unit in units)
    runs: list[list[Unit]] = []
    taken, share = 0, -1.0
    for unit in units:
        if taken + unit.weight / 2 > share:
            left -= taken
            runs.append([])
            taken, share = 0, left / (2 * slots)
        runs[-1].append(unit)
        taken += unit.weight
    return runs


def _once(out: Path, unit: Unit, work: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Run one unit, unless an earlier attempt of the same task, which died later, has finished it."""
    try:
        return {"payload": json.loads(mark_path(out, unit.name).read_text())}
    except FileNotFoundError:
        return guarded(out, unit.name, lambda: work(unit.task))


def guarded(out: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one unit on an executor; write its mark, or return what went wrong."""
    try:
        payload = work()
        write_mark(out, name, payload)
    except Exception as error:
        return failure(error)
    return {"payload": payload}


def failure(error: Exception) -> dict[str, Any]:
    """Describe an exception so that the driver can raise it again."""
    kind = type(error).__name__ if isinstance(error, errors.StellarmlError) else ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = errors.StorageError.__name__
    return {"error": str(error) or repr(error), "kind": kind, "trace": "" if kind else traceback.format_exc()}


def outcome_batch(name: str, outcome: dict[str, Any]) -> pa.RecordBatch:
    """Pack one outcome as the row that a task returns."""
    return pa.RecordBatch.from_pylist([{"unit": name, "outcome": json.dumps(outcome)}], schema=_ARROW_RESULT)


@dataclass(frozen=True)
class Shown:
    """What a user is shown of the units of a job: the name of the step, and how much each unit is.

    weights
        Of every unit of the job, by name, in `unit`.
    unit
        ``rows``; or ``bytes`` where rows are known once a unit is done, from its mark.
    """

    step: str
    weights: Mapping[str, int]
    unit: str = "rows"


def collect_outcomes(
    frame: DataFrame,
    stage: str,
    out: Path,
    shown: Shown,
    *,
    lost: Callable[[Mapping[str, Mapping[str, Any]]], dict[str, str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the job, with progress, and return the payload of each unit.

    Parameters
    ----------
    lost
        Given the outcomes by unit, returns the units that have failed without one, and why.

    Raises
    ------
    StellarmlError
        Naming every unit that failed.
    """
    progress.step(shown.step, sum(shown.weights.values()), shown.unit, _counter(out, shown))
    outcomes = {row["unit"]: json.loads(row["outcome"]) for row in frame.collect()}
    progress.step("")
    outcomes |= _failures(lost(outcomes) if lost else {})
    failed = {name: outcome for name, outcome in outcomes.items() if "error" in outcome}
    if failed:
        _raise_failed(stage, failed, len(shown.weights))
    return {name: outcome["payload"] for name, outcome in outcomes.items()}


def _counter(out: Path, shown: Shown) -> Callable[[], Count]:
    """Return what counts the finished units by their marks: those of the whole job reach the driver when it ends.

    Looking takes a hundredth of the time at most, however many marks there are on however slow a disk.
    """
    marks, seen = out / DONE, set(_names(out / DONE))
    done, rows = 0, 0
    next_look = 0.0

    def count() -> Count:
        nonlocal done, rows, next_look
        began = time.monotonic()
        if began >= next_look:
            for name in _names(marks) - seen:
                seen.add(name)
                done += shown.weights.get(name, 0)
                if shown.unit != "rows":
                    rows += int(read_json(mark_path(out, name)).get("rows", 0))
            ended = time.monotonic()
            next_look = ended + 100.0 * (ended - began)
        return Count(done, None if shown.unit == "rows" else rows)

    return count


def _names(folder: Path) -> set[str]:
    try:
        return {name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")}  # noqa: PTH208
    except FileNotFoundError:
        return set()


def refuse_units(stage: str, reasons: Mapping[str, str], total: int) -> None:
    """Raise as `collect_outcomes` does, for units that have no outcome, of `total`, with the reason of each.

    Raises
    ------
    StellarmlError
        Always.
    """
    _raise_failed(stage, _failures(reasons), total)


def _failures(reasons: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    kind = errors.StellarmlError.__name__
    return {name: {"error": reason, "kind": kind, "trace": ""} for name, reason in reasons.items()}


def _raise_failed(stage: str, failed: dict[str, dict[str, Any]], total: int) -> None:
    for name, outcome in sorted(failed.items()):
        if outcome["trace"]:
            get_logger().debug("unit failed", stage=stage, unit=name, trace=outcome["trace"])
        if len(failed) > _SHOWN:
            get_logger().error("unit failed", stage=stage, unit=name, reason=outcome["error"])
    kinds = {outcome["kind"] for outcome in failed.values()}
    single = getattr(errors, kinds.pop(), errors.StellarmlError) if len(kinds) == 1 else errors.StellarmlError
    messages = sorted({outcome["error"] for outcome in failed.values()})
    more = [f"and {len(messages) - _SHOWN:,} more: see the log"] if len(messages) > _SHOWN else []
    title = f"{stage}: {len(failed)} of {total} units failed; what is finished is kept"
    errors.raise_gathered(single, title, [*messages[:_SHOWN], *more])
