"""Progress where there is no terminal, the log's two shapes, and what an unchanged stage says."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stellarml.core import progress
from stellarml.core.config import Log, load_config
from stellarml.core.progress import Status
from stellarml.run.log import UNCHANGED, configure_logging, log_done
from stellarml.run.marks import write_mark
from stellarml.run.progress_lines import clock, count_of, log_status
from stellarml.run.progress_thread import Pace, Watcher
from stellarml.run.row_tally import rows_told, tell_rows
from stellarml.run.units import Shown, _counter

LOG = load_config(environment={}).log
DONE = {"stage": "select", "rows": {"in": 5, "out": 4}, "seconds": 7.5}


@pytest.fixture(autouse=True)
def nobody_looks() -> Iterator[None]:
    """No display of other tests, and none left for them."""
    progress.show_with(None)
    yield
    progress.show_with(None)
    configure_logging(LOG)


def log(shape: str) -> Log:
    return LOG.model_copy(update={"format": shape})


def watched(show: Callable[[Status], None], after_s: float, every_s: float) -> None:
    progress.show_with(Watcher(Pace(after_s, every_s), show))


def some_work(until: threading.Event, name: str = "select") -> None:
    """Count rows until somebody has looked, for a second at most."""
    with progress.task(name):
        progress.step("tiles", 1000)
        progress.advance(250)
        until.wait(1.0)


def looked_at() -> tuple[threading.Event, list[Status], Callable[[Status], None]]:
    event, seen = threading.Event(), []

    def show(status: Status) -> None:
        seen.append(status)
        event.set()

    return event, seen, show


def test_a_line_has_the_rows_the_rate_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log("auto"))
    log_status(Status("crossmatch", "matching tiles", 250, 1000, "rows", 250, 12.0, 5.0))
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \[info +\] progress +stage=crossmatch step='matching tiles' done='250 of 1,000 rows' "
        r"rows_a_second=50 time=0:12 time_left=0:15\n",
        line,
    ), line


def test_the_same_line_for_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log("json"))
    log_status(Status("train", "teff", 6, 60, "epochs", None, 12.0, 5.0, 40.0, ("loss 0.1", "best 0.2")))
    found = json.loads(capsys.readouterr().err)
    assert found["event"] == "progress" and found["done"] == "6 of 60 epochs"
    assert found["now"] == "loss 0.1, best 0.2" and found["time_left"] == "0:40"
    assert "rows_a_second" not in found


@pytest.mark.parametrize(("shape", "is_json"), [("auto", False), ("text", False), ("json", True)])
def test_the_log_is_json_where_it_is_asked_for_only(
    capsys: pytest.CaptureFixture[str], shape: str, is_json: bool
) -> None:
    configure_logging(log(shape))
    log_done(DONE)
    line = capsys.readouterr().err
    assert line.startswith("{") == is_json
    assert "\x1b" not in line and "\r" not in line, "not a terminal: no control characters"


def test_the_cluster_profile_asks_for_json_and_the_others_do_not() -> None:
    assert load_config(environment={}, profile="cluster").log.format == "json"
    for profile in (None, "demo"):
        assert load_config(environment={}, profile=profile).log.format != "json"


def test_an_unchanged_stage_says_so_without_the_seconds_of_another_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(log("text"))
    log_done(DONE)
    assert "] done" in (done := capsys.readouterr().err) and "seconds=7.5" in done
    log_done(DONE | {UNCHANGED: True})
    told = capsys.readouterr().err
    assert "] unchanged" in told and "out=4" in told and "seconds" not in told and "done" not in told


def test_a_task_that_takes_long_is_shown() -> None:
    event, seen, show = looked_at()
    watched(show, 0.02, 60.0)
    some_work(event)
    assert [(status.task, status.done) for status in seen] == [("select", 250)]


def test_nothing_is_shown_of_what_ends_soon() -> None:
    event, seen, show = looked_at()
    watched(show, 60.0, 0.001)
    event.set()
    for name in ("a", "b", "c"):
        some_work(event, name)
    time.sleep(0.01)
    assert seen == []


def test_the_pace_holds_across_tasks() -> None:
    event, seen, show = looked_at()
    watched(show, 0.0, 60.0)
    some_work(event)
    with progress.task("crossmatch"):
        time.sleep(0.05)
    assert [status.task for status in seen] == ["select"]


def test_a_count_that_fails_harms_nobody_and_is_tried_again() -> None:
    event, seen, show = looked_at()
    watched(show, 0.02, 0.001)
    tries: list[int] = []

    def count() -> progress.Count:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("gone")
        return progress.Count(4)

    with progress.task("select"):
        progress.step("tiles", 8, counted=count)
        event.wait(5.0)
    assert seen[0].done == 4


def test_no_thread_stays_behind() -> None:
    watched(lambda status: None, 0.0, 0.001)
    with progress.task("select"):
        assert any(thread.name == "progress" for thread in threading.enumerate())
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_finished_units_are_counted_by_their_marks(tmp_path: Path) -> None:
    write_mark(tmp_path, "before", {"rows": 100})
    count = _counter(tmp_path, Shown("tiles", {"a": 30, "b": 12}))
    assert count().done == 0
    write_mark(tmp_path, "a", {"rows": {"matched": 7}})
    time.sleep(0.05)  # a look is not repeated within a hundred times what it took
    assert count().done == 30
    rows = _counter(tmp_path, Shown("files", {"c": 5000}, "bytes"))
    write_mark(tmp_path, "c", {"rows": 77})
    found = rows()
    assert (found.done, found.rows) == (5000, 77)


def test_rows_told_by_processes_of_a_job(tmp_path: Path) -> None:
    assert rows_told(tmp_path) == 0
    tell_rows(tmp_path, 300)
    tell_rows(tmp_path, 200)
    assert rows_told(tmp_path) == 500
    tell_rows(tmp_path / "not seen by this executor", 5)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (7, "0:07"), (59.6, "1:00"), (750, "12:30"), (11_100, "3:05:00")]
)
def test_time_spans(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_counts() -> None:
    def status(done: int, total: int, unit: str, rows: int | None) -> Status:
        return Status("t", "", done, total, unit, rows, 1.0, 1.0)

    assert count_of(status(1200, 5000, "rows", 1200)) == "1,200 of 5,000 rows"
    assert count_of(status(1200, 0, "rows", 1200)) == "1,200 rows"
    assert count_of(status(10_000, 90_000, "bytes", 500)) == "500 rows"
