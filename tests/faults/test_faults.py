"""Every command hurt on the way: it ends in words, leaves no process behind, and goes on to the same bytes.

In the tests each command is hit once, the seven that take long by Ctrl-C or SIGTERM. ``STELLARML_FAULTS`` sets how many
runs are hit (`make faults`: 60), over all commands and kinds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.faults import (
    COMMANDS,
    ORDER,
    SIGNALS,
    Command,
    Run,
    bytes_below,
    made,
    prepare,
    remains,
    small_disk,
    strike,
)

from stellarml.cli import main as cli

MANY = int(os.environ.get("STELLARML_FAULTS", "0"))
OF_WORKERS = ("ingest", "crossmatch", "label", "match", "label --table")
KINDS = ("driver", "java", "interrupted", "terminated", "full disk", "input changed", "input gone")
SHORT = [
    ("ingest", "interrupted"),
    ("select", "driver"),
    ("crossmatch", "terminated"),
    ("features", "java"),
    ("train", "interrupted"),
    ("label", "terminated"),
    ("report", "interrupted"),
    ("match", "terminated"),
    ("train --table", "interrupted"),
    ("label --table", "worker"),
]
HIT: list[tuple[str, str, bool, int]] = []


def drawn(number: int) -> list[tuple[str, str]]:
    """Return so many pairs of command and kind, each pair once before any comes again."""
    every = [(name, kind) for name in COMMANDS for kind in KINDS]
    every += [(name, kind) for name in OF_WORKERS for kind in ("worker", "daemon")]
    random.Random(7).shuffle(every)
    return [every[i % len(every)] for i in range(number)]


CASES = drawn(MANY) if MANY else SHORT


@dataclass(frozen=True)
class Whole:
    """What a command makes when nothing happens, the bytes of it, and the seconds that its work takes."""

    made: dict[str, str]
    bytes: int
    seconds: float


@pytest.fixture(scope="module")
def known() -> dict[str, Whole]:
    """What is known of each command; filled on demand."""
    return {}


Unhurt = Callable[[Command, Path, Path], tuple[int, str]]


@pytest.fixture
def unhurt(
    spark: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Unhurt:
    """Run a command to its end; return its status and standard error.

    Mostly in this process, with the session of the tests: a Java of its own would take most of the time. Of many faults
    every sixth goes on in a process of its own, which must take away what the killed one has left of temporary files.
    """

    def in_a_process(command: Command, folder: Path, scratch: Path) -> tuple[int, str]:
        ended = Run(command, folder, scratch).ended()
        assert left_in(scratch) == []
        return ended

    def here(command: Command, folder: Path, scratch: Path) -> tuple[int, str]:
        monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)
        monkeypatch.setattr(sys, "argv", ["stellarml", *command.line])
        capsys.readouterr()
        try:
            with chdir(folder):  # and out again: it may be a disk that is to be taken away
                cli.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    number = int(request.node.name.rsplit("-", 1)[-1].rstrip("]"))
    return in_a_process if MANY and number % 6 == 0 else here


def undisturbed(chain: Path, name: str, folder: Path, unhurt: Unhurt) -> Whole:
    """The finished chain says it of its stages; other commands are run for it."""
    command = COMMANDS[name]
    if name in ORDER:
        records = [
            json.loads(path.read_text()) for out in command.outputs for path in run_records(chain / out)
        ]
        return whole_of(chain, command, max(record["seconds"] for record in records))
    prepare(chain, folder, command)
    began = time.monotonic()
    status, told = unhurt(command, folder, folder.with_name("scratch"))
    assert status == 0, told
    assert remains(folder) == []
    whole = whole_of(folder, command, time.monotonic() - began)
    shutil.rmtree(folder)
    return whole


def run_records(out: Path) -> list[Path]:
    return [*out.glob("run.json"), *out.glob("*/run.json")]


def whole_of(folder: Path, command: Command, seconds: float) -> Whole:
    found = made(folder, command)
    assert found, "nothing was made: the test shows nothing"
    return Whole(found, sum((folder / path).stat().st_size for path in found), seconds)


def left_in(scratch: Path) -> list[str]:
    """Return what is in a folder for temporary files but for the wrapper of Java, which is kept on purpose."""
    return [path.name for path in scratch.iterdir() if not path.name.startswith("stellarml-java-")]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{n}-{k}-{i}" for i, (n, k) in enumerate(CASES)])
def test_hurt_and_run_again(
    small_chain: Path,
    known: dict[str, Whole],
    tmp_path: Path,
    unhurt: Unhurt,
    name: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    command, draw = COMMANDS[name], random.Random(request.node.name)
    if name not in known:
        known[name] = undisturbed(small_chain, name, tmp_path / "whole", unhurt)
    whole, folder = known[name], tmp_path / "hurt"
    with ExitStack() as stack:
        enlarge = None
        if kind == "full disk":
            prepare(small_chain, tmp_path / "size", command)
            room = bytes_below(tmp_path / "size") + min(1 << 20, whole.bytes // 4) + whole.bytes // 2
            enlarge = stack.enter_context(small_disk(folder, room))
        prepare(small_chain, folder, command)
        run = Run(command, folder, tmp_path / "scratch")
        struck = True if enlarge else strike(run, kind, draw, whole.seconds)
        status, told = run.ended()
        HIT.append((name, kind, struck, status))
        judge(kind, status, told, struck)
        if enlarge:
            enlarge()
        prepare(small_chain, folder, command)  # inputs as they were
        kept = [mark for out in command.outputs for mark in (folder / out).rglob("_done/*.json")]
        status, told = unhurt(command, folder, tmp_path / "scratch")
        assert status == 0, told
        if kept and not kind.startswith("input"):
            assert "goes on" in told or "kept=" in told or "unchanged" in told, told
        assert made(folder, command) == whole.made
        assert remains(folder) == []


def judge(kind: str, status: int, told: str, struck: bool) -> None:
    """A hurt run says what happened in one message of its own, or goes on to the end."""
    assert "Traceback" not in told, told
    assert "unexpected" not in told, told
    assert " ERROR " not in told and "Exception" not in told.replace("Exception: ", ""), told
    messages = [line for line in told.splitlines() if line.startswith("stellarml: ")]
    if kind == "driver":
        assert status in (0, -signal.SIGKILL) and (status == 0) != struck, told
    elif kind in SIGNALS:
        assert status == (128 + SIGNALS[kind] if struck else 0), told
        assert len(messages) == struck, told
    else:
        assert status in (0, 1, 2), told
        assert len(messages) == (status != 0), told
    if kind == "full disk":
        assert status == 1 and "the disk is full" in told, told


def test_the_faults_hit() -> None:
    """A fault that comes when the run is over proves nothing: most of them must have met a living one."""
    for name, kind, struck, status in HIT:
        sys.stdout.write(f"{name:<14} {kind:<14} {'hit' if struck else 'too late':<9} status {status}\n")
    assert HIT and sum(struck for _, _, struck, _ in HIT) >= 0.6 * len(HIT), HIT
