"""The bar of a terminal: what it shows, what it leaves behind, and that there is none where there is no terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.places import CHECKOUT

from stellarml.cli.progress_bar import fitted
from stellarml.core.progress import Status

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
WORK = """
import sys, time
from stellarml.cli.exit_status import run_to_the_end
from stellarml.cli.progress_bar import configure_output
from stellarml.core import progress
from stellarml.core.config import load_config
from stellarml.run.log import get_logger

def work():
    configure_output(load_config().log)
    with progress.task("crossmatch"):
        progress.step("matching tiles", 20_000)
        time.sleep(0.3)
        progress.advance(5_000)
        time.sleep(0.9)
        get_logger().info("halo: neighbouring leaves", side="left")
        time.sleep(0.6)
        if "wait" in sys.argv:
            time.sleep(60)
    print("20,000 rows")

run_to_the_end(work)
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STELLARML_", "COVERAGE"))}
    return kept | {"PYTHONPATH": str(CHECKOUT), "TERM": "xterm", "COLUMNS": "100", **more}


def on_terminal(*arguments: str, interrupt_at: str = "", **more: str) -> tuple[int, str]:
    """Run Python on a pseudo-terminal; return its status and all that it wrote. `interrupt_at`: press Ctrl-C there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(**more), start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    written, until, pressed = b"", time.monotonic() + 60, False
    while time.monotonic() < until:
        if not select.select([controller], [], [], 1.0)[0]:
            continue
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
        if interrupt_at and not pressed and interrupt_at.encode() in written:
            pressed = True
            os.kill(process.pid, signal.SIGINT)
    os.close(controller)
    return process.wait(timeout=30), written.decode()


def screen_of(written: str) -> list[str]:
    """Return the lines that are left on the screen, as a terminal that knows erasing and moving up would show them."""
    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|\n|[^\x1b\r\n]+", written):
        if piece in ("\r\n", "\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.startswith("\x1b") and piece.endswith("A"):
            row -= int(piece[2:-1] or 1)
        elif piece.startswith("\x1b") and piece.endswith("K"):
            lines[row] = ""
        elif not piece.startswith("\x1b") and piece != "\r":
            lines[row] += piece
    return [line.rstrip() for line in lines if line.strip()]


def test_a_bar_with_rows_rate_and_time_left_that_leaves_nothing_behind() -> None:
    status, written = on_terminal("-c", WORK, STELLARML_LOG__PROGRESS_AFTER_S="0.1")
    assert status == 0
    assert re.search(
        r"crossmatch: matching tiles .*5,000 of 20,000 rows, [\d,]+ rows/s, \d:\d\d left", written
    )
    left = screen_of(written)
    assert len(left) == 2, left
    assert "halo: neighbouring leaves" in left[0] and "side" in left[0], "the log's line is whole"
    assert left[1] == "20,000 rows"
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is there again"


@pytest.mark.parametrize("after_s", ["0.1", "0.5"], ids=["begun before", "begun meanwhile"])
def test_the_bar_is_drawn_while_standard_error_is_discarded(after_s: str) -> None:
    """As it is for the seconds that TensorFlow takes to load."""
    work = "from stellarml.training.network import _standard_error_closed" + WORK.replace(
        "        time.sleep(0.9)\n",
        "        with _standard_error_closed():\n"
        "            progress.advance(777)\n"
        "            time.sleep(0.9)\n"
        "        progress.advance(1)\n",
    )
    status, written = on_terminal("-c", work, STELLARML_LOG__PROGRESS_AFTER_S=after_s)
    assert status == 0 and "5,777 of 20,000 rows" in written.partition("halo")[0], "drawn at once, not later"
    assert len(screen_of(written)) == 2


def test_nothing_on_a_terminal_of_what_ends_soon() -> None:
    status, written = on_terminal("-c", WORK, STELLARML_LOG__PROGRESS_AFTER_S="30")
    assert status == 0 and "matching tiles" not in written


def test_ctrl_c_takes_the_bar_away_and_says_one_thing() -> None:
    status, written = on_terminal(
        "-c", WORK, "wait", interrupt_at="5,000 of", STELLARML_LOG__PROGRESS_AFTER_S="0.1"
    )
    assert status == 130
    left = screen_of(written)
    assert [line for line in left if "halo" not in line] == [
        "stellarml: interrupted; what was finished is kept, the same command goes on from there"
    ]
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("shape", ["auto", "json"])
def test_lines_without_control_characters_where_there_is_no_terminal(shape: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, timeout=60, check=True,
        env=environment(
            STELLARML_LOG__PROGRESS_AFTER_S="0.5", STELLARML_LOG__PROGRESS_EVERY_S="60", STELLARML_LOG__FORMAT=shape
        ),
    )  # fmt: skip
    assert done.stdout == "20,000 rows\n"
    assert not CONTROL.search(done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 2, "one of progress, one of the work itself"
    assert "5,000 of 20,000 rows" in lines[0] and "rows_a_second" in lines[0]
    assert lines[0].startswith("{") == (shape == "json")


def test_json_on_a_terminal_is_not_mixed_with_bars() -> None:
    status, written = on_terminal(
        "-c", WORK, STELLARML_LOG__PROGRESS_AFTER_S="0.1", STELLARML_LOG__FORMAT="json"
    )
    assert status == 0 and "\x1b[" not in written and '"event": "progress"' in written


def test_who_wants_warnings_only_gets_no_bar() -> None:
    status, written = on_terminal(
        "-c", WORK, STELLARML_LOG__PROGRESS_AFTER_S="0.1", STELLARML_LOG__LEVEL="warning"
    )
    assert status == 0 and screen_of(written) == ["20,000 rows"]


def test_a_simulated_sky_is_counted_as_it_is_written(tmp_path: Path) -> None:
    status, written = on_terminal(
        "-m", "stellarml.cli.main", "simulate", "--out", str(tmp_path / "sky"), "--stars", "30000",
        STELLARML_LOG__PROGRESS_AFTER_S="0",
    )  # fmt: skip
    assert status == 0 and "simulate: " in written
    assert re.search(r"[\d,]+ of [\d,]+ rows", written)
    assert len(screen_of(written)) == 1, "the summary"


EPOCH = Status(
    "train", "teff, logg, feh (member 2 of 3), network 2 of 3", 12, 60, "epochs", None, 30.0, 9.0, 36.0,
    ("loss 0.1045", "validation 0.1283", "best MAE 0.1282 sd in 11"),
)  # fmt: skip
ROWS = Status("ingest skymapper_dr2", "writing tiles", 123_456, 9_876_543, "rows", 123_456, 30.0, 9.0)


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
@pytest.mark.parametrize("status", [EPOCH, ROWS], ids=["epochs", "rows"])
def test_the_line_fits_the_terminal(status: Status, width: int) -> None:
    name, bar, text = fitted(width, status)
    assert len(name) + bar + len(text) + 2 <= width, (name, bar, text)
    assert status.task[:5] in name or width < 80
    assert ("12 of 60 epochs" in text and "0:36 left" in text) or (
        "123,456 of 9,876,543 rows, 13,717 rows/s, 11:51 left" in text
    )


def test_a_wide_terminal_shows_the_losses() -> None:
    assert fitted(200, EPOCH)[2] == (
        "12 of 60 epochs, loss 0.1045, validation 0.1283, best MAE 0.1282 sd in 11, 0:36 left"
    )
    assert "loss" in fitted(120, EPOCH)[2]
