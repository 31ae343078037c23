"""Every command hurt on the way: it ends in words, leaves no process behind, and goes on to the same bytes.

In the tests each command is hit once, and the seven that take long by Ctrl-C or SIGTERM, too. ``STELLARML_FAULTS``
sets how many runs are hit (`make faults`: 60), over all commands and kinds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.faults import COMMANDS, SIGNALS, Run, bytes_below, made, prepare, remains, small_disk, strike

MANY = int(os.environ.get("STELLARML_FAULTS", "0"))
OF_WORKERS = ("ingest", "crossmatch", "label", "match", "label --table")
KINDS = ("driver", "java", "interrupted", "terminated", "full disk", "input changed", "input gone")
SHORT = [
    ("ingest", "interrupted"),
    ("ingest", "worker"),
    ("select", "driver"),
    ("crossmatch", "terminated"),
    ("crossmatch", "daemon"),
    ("features", "java"),
    ("train", "interrupted"),
    ("train", "driver"),
    ("label", "terminated"),
    ("label", "input gone"),
    ("report", "interrupted"),
    ("report", "java"),
    ("match", "terminated"),
    ("match", "full disk"),
    ("train --table", "interrupted"),
    ("train --table", "full disk"),
    ("label --table", "worker"),
]
HIT: dict[tuple[str, str], bool] = {}


def drawn(number: int) -> list[tuple[str, str]]:
    """Return so many pairs of command and kind, each pair once before any comes again."""
    every = [(name, kind) for name in COMMANDS for kind in KINDS]
    every += [(name, kind) for name in OF_WORKERS for kind in ("worker", "daemon")]
    random.Random(7).shuffle(every)
    return [every[i % len(every)] for i in range(number)]


CASES = drawn(MANY) if MANY else SHORT


@pytest.fixture(scope="module")
def whole(
    small_chain: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, str], float]]:
    """What each command makes when nothing happens, and the seconds from its beginning to its end; filled on demand."""
    return {}


def undisturbed(
    chain: Path, name: str, known: dict[str, tuple[dict[str, str], float]], folder: Path
) -> tuple[dict[str, str], float]:
    if name not in known:
        prepare(chain, folder, COMMANDS[name])
        run = Run(COMMANDS[name], folder, folder.with_name("scratch"))
        run.wait_until(run.began)
        began = time.monotonic()
        status, told = run.ended()
        assert status == 0, told
        assert not remains(folder)
        assert left_in(run.scratch) == []
        known[name] = made(folder, COMMANDS[name]), time.monotonic() - began
        assert known[name][0], "nothing was made: the test shows nothing"
        shutil.rmtree(folder)
    return known[name]


def left_in(scratch: Path) -> list[str]:
    """Return what is in a folder for temporary files but for the wrapper of Java, which is kept on purpose."""
    return [path.name for path in scratch.iterdir() if not path.name.startswith("stellarml-java-")]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{n}-{k}-{i}" for i, (n, k) in enumerate(CASES)])
def test_hurt_and_run_again(
    small_chain: Path,
    whole: dict[str, tuple[dict[str, str], float]],
    tmp_path: Path,
    name: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    command, draw = COMMANDS[name], random.Random(request.node.name)
    expected, lasts_s = undisturbed(small_chain, name, whole, tmp_path / "whole")
    folder, kept = tmp_path / "hurt", tmp_path / "kept"
    with ExitStack() as stack:
        enlarge = None
        if kind == "full disk":
            prepare(small_chain, kept, command)
            room = sum(size_of_output(small_chain, tmp_path, name, expected).values())
            enlarge = stack.enter_context(small_disk(folder, bytes_below(kept) + (1 << 20) + room // 2))
        prepare(small_chain, folder, command)
        run = Run(command, folder, tmp_path / "scratch")
        struck = True if enlarge else strike(run, kind, draw, lasts_s)
        HIT[name, f"{kind} {request.node.name}"] = struck
        status, told = run.ended()
        judge(kind, status, told, struck)
        if enlarge:
            enlarge()
        prepare(small_chain, folder, command)  # inputs as they were
        run = Run(command, folder, tmp_path / "scratch")
        status, told = run.ended()
        assert status == 0, told
        assert made(folder, command) == expected
        assert remains(folder) == []
        assert left_in(run.scratch) == []


def size_of_output(chain: Path, scratch: Path, name: str, expected: dict[str, str]) -> dict[str, int]:
    """Return the bytes of each output, from a run that nothing happens to."""
    folder = scratch / "sizes"
    prepare(chain, folder, COMMANDS[name])
    status, told = Run(COMMANDS[name], folder, scratch / "scratch").ended()
    assert status == 0, told
    sizes = {path: (folder / path).stat().st_size for path in expected}
    shutil.rmtree(folder)
    return sizes


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
    assert HIT and sum(HIT.values()) >= 0.6 * len(HIT), HIT
