"""What is under way and how far it is: told by those who work, read by those who show it.

Work tells without knowing whether anybody looks: on a terminal a bar is drawn (`cli.progress_bar`), elsewhere a line a
minute is logged (`run.progress_lines`), and in a Spark worker, or where the package is a library, nobody looks. All of
it happens on the driver, so one stack of tasks serves the whole process: a match that ingests its inputs is two tasks,
and the inner one is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Count:
    """How much of a step is done: in the step's own unit, and in rows where that is another unit."""

    done: int
    rows: int | None = None


@dataclass(frozen=True)
class Status:
    """One look at what is under way.

    task, step
        Their names; `step` with its number where the task has said how many steps there are.
    done, total
        In `unit`; a `total` of 0 stands for unknown.
    rows
        Rows done, where there are rows.
    seconds, step_seconds
        Since the outermost task and since the step began.
    told_left
        Seconds left, where the work itself has said so.
    remarks
        What else there is to say, the most important first.
    """

    task: str
    step: str
    done: int
    total: int
    unit: str
    rows: int | None
    seconds: float
    step_seconds: float
    told_left: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def rows_a_second(self) -> float | None:
        """Mean rate of the step, in rows a second; None while nothing is done."""
        return self.rows / self.step_seconds if self.rows and self.step_seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the step ends, if it goes on at the same rate; None where that is unknown."""
        if self.told_left is not None:
            return self.told_left
        if not (self.total and self.done):
            return None
        return self.step_seconds / self.done * max(0, self.total - self.done)


class Display(Protocol):
    """Somebody who shows progress."""

    def begin(self) -> None:
        """Look from now on: a task has begun, and there was none."""

    def end(self) -> None:
        """Look no more: the last task has ended, well or not."""


@dataclass
class _Step:
    text: str = ""
    total: int = 0
    unit: str = ""
    counted: Callable[[], Count] | None = None
    done: int = 0
    told_left: float | None = None
    remarks: tuple[str, ...] = ()
    started: float = field(default_factory=lambda: time.monotonic())


@dataclass
class _Task:
    name: str
    started: float = field(default_factory=lambda: time.monotonic())
    step: _Step = field(default_factory=_Step)
    number: int = 0
    steps: int = 0


_tasks: list[_Task] = []
_lock = threading.Lock()
_display: Display | None = None
_jobs: Callable[[], tuple[int, int] | None] | None = None


def show_with(display: Display | None) -> None:
    """Name who shows progress from the next task on; None for nobody."""
    global _display
    _display = display


def count_jobs_with(jobs: Callable[[], tuple[int, int] | None] | None) -> None:
    """Name what knows how many tasks of the running Spark job are done, of how many: for steps without a count."""
    global _jobs
    _jobs = jobs


@contextmanager
def task(name: str) -> Iterator[None]:
    """Have a task under way: a stage, or a command."""
    display = _display if not _tasks else None
    _tasks.append(_Task(name))
    try:
        if display:
            display.begin()
        yield
    finally:
        if display:
            display.end()
        _tasks.pop()


def steps(number: int) -> None:
    """Say how many steps the task has from here on: each is then shown with its number."""
    if _tasks:
        _tasks[-1].number, _tasks[-1].steps = 0, number


def step(text: str, total: int = 0, unit: str = "rows", counted: Callable[[], Count] | None = None) -> None:
    """Begin a step of the task.

    Parameters
    ----------
    total
        How much there is to do, in `unit`; 0 where that is unknown.
    counted
        Asked now and then, from a thread, how much is done. Without it, what `advance` and `reached` say.
    """
    if _tasks:
        present = _tasks[-1]
        present.step = _Step(text, total, unit, counted)
        present.number += bool(text)


def expect(total: int) -> None:
    """Say how much there is to do in the present step, once that is known."""
    if _tasks:
        _tasks[-1].step.total = total


def advance(number: int) -> None:
    """Say that so many more are done; from any thread."""
    with _lock:
        if _tasks:
            _tasks[-1].step.done += number


def reached(done: int, remarks: tuple[str, ...] = (), seconds_left: float | None = None) -> None:
    """Say how many are done by now, what else there is to say of it, and how long the rest will take."""
    if _tasks:
        present = _tasks[-1].step
        present.done, present.remarks, present.told_left = done, remarks, seconds_left


def seconds_under_way() -> float | None:
    """Return the seconds since the outermost task began; None where there is none."""
    tasks = _tasks[:1]
    return time.monotonic() - tasks[0].started if tasks else None


def status() -> Status | None:
    """Look at what is under way: the innermost task and its step; None where there is none."""
    tasks = _tasks[:]
    if not tasks:
        return None
    inner, present, now = tasks[-1], tasks[-1].step, time.monotonic()
    text = present.text
    if inner.steps and text:
        text += f", {min(inner.number, inner.steps)} of {inner.steps}"
    done, total, unit, rows = _counted(present)
    return Status(
        task=inner.name,
        step=text,
        done=done,
        total=total,
        unit=unit,
        rows=rows,
        seconds=now - tasks[0].started,
        step_seconds=now - present.started,
        told_left=present.told_left,
        remarks=present.remarks,
    )


def _counted(present: _Step) -> tuple[int, int, str, int | None]:
    """Return how many are done, of how many, in what unit, and the rows."""
    count = present.counted() if present.counted else Count(present.done)
    jobs = _jobs() if _jobs and not (present.total or count.done) else None
    if jobs:
        return *jobs, "tasks", None
    rows = count.done if present.unit == "rows" and count.rows is None else count.rows
    return count.done, present.total, present.unit, rows
