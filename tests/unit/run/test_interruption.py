"""Signals end a run in one line, wherever it is, also where the exception that they raise gets lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stellarml.core.errors import ChangedInputError, SparkError, StorageError
from stellarml.run import interruption, scratch, spark_end

SETTING = """
import signal, subprocess, sys, time
from stellarml.cli.exit_status import run_to_the_end
from stellarml.run import interruption
interruption._AGAIN_S, interruption._LONGEST_S = 0.3, 1.5

def work():
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    print(child.pid, flush=True)
    {body}

run_to_the_end(work)
"""
WAITING = "time.sleep(300)"
LOST = """
    class Careless:
        def __del__(self):
            time.sleep(1.0)
    sys.unraisablehook = lambda error: None
    careless = Careless()
    del careless
    time.sleep(300)
"""
SWALLOWED = """
    while True:
        try:
            time.sleep(300)
        except BaseException:
            pass
"""
TRANSLATED = """
    try:
        time.sleep(300)
    except BaseException as error:
        raise RuntimeError("something else") from error
"""
TIDYING = """
    try:
        time.sleep(300)
    finally:
        print("tidied", flush=True)
"""
NAMES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "the terminal was closed",
}


def gone(pid: int) -> bool:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("body", [WAITING, LOST, SWALLOWED, TRANSLATED, TIDYING])
@pytest.mark.parametrize("number", NAMES)
def test_one_line_and_no_child(body: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SETTING.replace("{body}", body.strip())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    time.sleep(0.2)
    process.send_signal(number)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert (
        told
        == f"stellarml: {NAMES[number]}; what was finished is kept, the same command goes on from there\n"
    )
    assert gone(child)
    assert (out == "tidied\n") == (body is TIDYING)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_from_the_start_ends_nothing(number: signal.Signals) -> None:
    """A closed terminal under nohup; Ctrl-C for something else while a script has this in the background."""
    script = SETTING.replace("{body}", "time.sleep(1.0)\n    child.kill(); child.wait()\n    print('ended')")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "ended\n"
    assert process.returncode == 0


def test_a_host_that_goes_on_is_not_ended_later() -> None:
    """A notebook that catches the end of a run lives on, when the thread that would have ended it looks again."""
    script = SETTING.replace("{body}", WAITING).replace(
        "run_to_the_end(work)",
        "try:\n    run_to_the_end(work)\nexcept SystemExit:\n    time.sleep(3)\n    print('alive', flush=True)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "alive\n"


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with interruption.interruptible(str):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


class TestDeadSpark:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("java.io.FileNotFoundException: File file:/a/b.parquet does not exist", ChangedInputError),
            ("[FAILED_READ_FILE.NO_HINT] Error while reading file a.parquet", ChangedInputError),
            ("java.lang.RuntimeException: a.parquet is not a Parquet file", ChangedInputError),
            ("java.io.IOException: No space left on device", StorageError),
        ],
    )
    def test_what_java_says_of_files(self, error: str, kind: type[Exception]) -> None:
        told = spark_end.foreseen(RuntimeError(f"An error occurred while calling o1.x.\nCaused by: {error}"))
        assert isinstance(told, kind) and error in str(told) and told.exit_status == 1

    @pytest.mark.parametrize(
        ("error", "part"),
        [
            (
                RuntimeError("x: Python worker exited unexpectedly (crashed)"),
                "a Python process of Spark has ended",
            ),
            (RuntimeError("Caused by: java.lang.OutOfMemoryError: Java heap space"), "driver_memory higher"),
        ],
    )
    def test_deaths_are_told_by_their_words(self, error: Exception, part: str) -> None:
        told = spark_end.foreseen(error)
        assert isinstance(told, SparkError) and part in str(told) and told.exit_status == 1

    def test_a_dead_java_is_named_with_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with subprocess.Popen(["sleep", "300"]) as java:
            monkeypatch.setattr(spark_end, "_java_process", lambda: java)
            assert spark_end.foreseen(ValueError("of something else")) is None
            java.kill()
            java.wait()
            told = spark_end.foreseen(ConnectionRefusedError(111, "Connection refused"))
        assert "killed by SIGKILL" in str(told) and "same command again" in str(told)

    def test_other_errors_are_not_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spark_end, "_java_process", lambda: None)
        assert spark_end.foreseen(ConnectionRefusedError(111, "Connection refused")) is None


class TestScratch:
    MAKE = (
        "from stellarml.run.scratch import scratch; import time; print(scratch(), flush=True); time.sleep({})"
    )

    def start(self, folder: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", self.MAKE.format(seconds)],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(folder)},
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as told:
            return process, Path(told.readline().strip())

    def test_it_goes_with_its_process(self, tmp_path: Path) -> None:
        process, made = self.start(tmp_path, 0.0)
        assert made.name.startswith("stellarml-run-")
        assert process.wait(30) == 0
        assert list(tmp_path.iterdir()) == []

    def test_of_the_dead_it_is_swept_and_of_the_living_not(self, tmp_path: Path) -> None:
        dead, left = self.start(tmp_path, 60.0)
        living, kept = self.start(tmp_path, 60.0)
        (left / "large.bin").write_text("x")
        dead.kill()
        dead.wait()
        assert left.is_dir()
        third, _ = self.start(tmp_path, 0.0)
        third.wait(30)
        assert not left.exists()
        assert kept.is_dir()
        living.kill()
        living.wait()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "mine.txt").write_text("x")
        (tmp_path / f"stellarml-run-{os.getuid()}-link").symlink_to(other)
        scratch._sweep(tmp_path, f"stellarml-run-{os.getuid()}-")
        assert (other / "mine.txt").read_text() == "x"
