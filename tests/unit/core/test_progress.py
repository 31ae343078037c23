"""What is under way, as those see it who show it: task, step, count, rate, time left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stellarml.core import progress
from stellarml.core.progress import Count


class Clock:
    """Stands for time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)  # type: ignore[attr-defined]
    return clock


@pytest.fixture(autouse=True)
def nobody_looks() -> Iterator[None]:
    """No display and no Spark jobs of other tests."""
    display, jobs = progress._display, progress._jobs
    progress.show_with(None)
    progress.count_jobs_with(None)
    yield
    progress.show_with(display)
    progress.count_jobs_with(jobs)


def test_outside_of_a_task_nothing_is_noted() -> None:
    progress.step("s", 3)
    progress.advance(1)
    progress.reached(2)
    progress.expect(9)
    progress.steps(4)
    assert progress.status() is None


def test_rows_rate_and_time_left(clock: Clock) -> None:
    with progress.task("select"):
        clock.now += 7
        progress.step("tiles", 1000)
        clock.now += 5
        progress.advance(250)
        found = progress.status()
    assert found is not None
    assert (found.task, found.step, found.done, found.total, found.unit) == (
        "select",
        "tiles",
        250,
        1000,
        "rows",
    )
    assert found.rows_a_second == 50 and found.seconds_left == 15
    assert (found.seconds, found.step_seconds) == (12, 5)
    assert progress.status() is None


def test_nothing_is_said_of_a_rate_before_anything_is_done(clock: Clock) -> None:
    with progress.task("select"):
        progress.step("tiles", 1000)
        clock.now += 5
        found = progress.status()
    assert found is not None and found.rows_a_second is None and found.seconds_left is None


def test_rows_of_a_step_that_is_measured_in_bytes(clock: Clock) -> None:
    with progress.task("ingest"):
        progress.step("files", 100, "bytes", lambda: Count(25, rows=4000))
        clock.now += 4
        found = progress.status()
    assert found is not None
    assert (found.done, found.rows, found.rows_a_second, found.seconds_left) == (25, 4000, 1000, 12)


def test_epochs_are_no_rows(clock: Clock) -> None:
    with progress.task("train"):
        progress.step("teff", 60, "epochs")
        clock.now += 4
        progress.reached(6, ("loss 0.1",), seconds_left=99.0)
        found = progress.status()
    assert found is not None
    assert (found.done, found.rows_a_second, found.seconds_left) == (6, None, 99.0)
    assert found.remarks == ("loss 0.1",)


def test_tasks_of_spark_serve_a_step_without_a_count() -> None:
    progress.count_jobs_with(lambda: (3, 8))
    with progress.task("features"):
        progress.step("joining")
        found = progress.status()
        progress.step("tiles", 10)
        counted = progress.status()
    assert found is not None and (found.done, found.total, found.unit, found.rows) == (3, 8, "tasks", None)
    assert counted is not None and counted.unit == "rows"


def test_the_inner_task_is_shown_with_the_time_of_the_outer_one(clock: Clock) -> None:
    with progress.task("match"):
        progress.step("outer")
        clock.now += 8
        with pytest.raises(ValueError), progress.task("ingest gaia"):
            clock.now += 1
            inner = progress.status()
            raise ValueError
        outer = progress.status()
    assert inner is not None and (inner.task, inner.seconds) == ("ingest gaia", 9)
    assert outer is not None and (outer.task, outer.step) == ("match", "outer")


def test_steps_are_numbered_from_where_their_number_was_said() -> None:
    seen = []
    with progress.task("train"):
        progress.step("reading")
        progress.steps(2)
        for text in ("calibrating", "", "measuring"):
            progress.step(text)
            found = progress.status()
            assert found is not None
            seen.append(found.step)
    assert seen == ["calibrating, 1 of 2", "", "measuring, 2 of 2"]


def test_threads_count_together() -> None:
    with progress.task("simulate"):
        progress.step("writing", 80_000)
        threads = [
            threading.Thread(target=lambda: [progress.advance(1) for _ in range(20_000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = progress.status()
    assert found is not None and found.done == 80_000


def test_a_display_begins_with_the_outermost_task_and_ends_with_it_however_it_ends() -> None:
    told = []

    class Display:
        def begin(self) -> None:
            told.append("begin")

        def end(self) -> None:
            told.append("end")

    progress.show_with(Display())
    with pytest.raises(KeyboardInterrupt), progress.task("a"), progress.task("b"):
        raise KeyboardInterrupt
    assert told == ["begin", "end"]
