"""Runs of the real command that are hurt on the way: processes killed, disks filled, inputs replaced."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stellarml.run.memory import descendants

TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000", "train.max_epochs=30")
ORDER = ("ingest", "select", "crossmatch", "features", "train", "label", "report")
ENDS_S = 20.0
SIGNALS = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}
FEATURES = """
id = "source_id"
labels = [{name = "teff", column = "teff", error = "e_teff", unit = "K"}]
features = [
    {name = "gabs", expression = "gabs", unit = "mag"},
    {name = "bp_rp", expression = "bp - rp", unit = "mag"},
    {name = "g_i", expression = "gabs - iabs", unit = "mag"},
]
"""


@dataclass(frozen=True)
class Command:
    """A command on a copy of the finished small chain.

    arguments
        After ``stellarml <name>``, paths relative to the folder.
    outputs
        What the command makes, below the folder: removed before.
    began
        A file or folder, a pattern, that is there as soon as the work has begun.
    inputs
        Patterns of files that it reads.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    began: str
    inputs: str

    @property
    def line(self) -> list[str]:
        """The command line, but for its program."""
        given = [part for value in TILES for part in ("--set", value)]
        return [self.name.split()[0], *self.arguments, *given]


CHAIN = ("--config", "config.toml")
LAKE = {
    "ingest": ("lake/gaia_dr3", "lake/gaia_distances", "lake/skymapper_dr2", "lake/sos"),
    "select": ("lake/stars",),
    "crossmatch": ("lake/matched", "lake/neighbourhood", "lake/best_neighbour"),
    "features": ("lake/training",),
    "train": ("models",),
    "label": ("labels",),
    "report": ("report",),
}
COMMANDS = {
    command.name: command
    for command in (
        Command("ingest", CHAIN, LAKE["ingest"], "lake/*/_state.json", "raw/*/*.csv.gz"),
        Command(
            "select", CHAIN, LAKE["select"], "lake/stars/_state.json", "lake/gaia_dr3/dataset/**/*.parquet"
        ),
        Command(
            "crossmatch",
            CHAIN,
            LAKE["crossmatch"],
            "lake/matched/_state.json",
            "lake/stars/dataset/**/*.parquet",
        ),
        Command(
            "features",
            CHAIN,
            LAKE["features"],
            "lake/training/_state.json",
            "lake/matched/dataset/**/*.parquet",
        ),
        Command("train", CHAIN, LAKE["train"], "models/*/_state.json", "lake/training/dataset/**/*.parquet"),
        Command("label", CHAIN, LAKE["label"], "labels/*/_state.json", "lake/matched/dataset/**/*.parquet"),
        Command("report", CHAIN, LAKE["report"], "report/_state.json", "lake/matched/dataset/**/*.parquet"),
        Command(
            "match",
            (
                *("lake/gaia_dr3", "lake/skymapper_dr2", "--left-survey", "gaia_dr3"),
                *("--right-survey", "skymapper_dr2", "--out", "xm"),
            ),
            ("xm",),
            "xm/_state.json",
            "lake/skymapper_dr2/dataset/**/*.parquet",
        ),
        Command(
            "train --table",
            (
                "--table",
                "stars.parquet",
                "--features",
                "features.toml",
                "--out",
                "own/model",
                "--preset",
                "small",
            ),
            ("own",),
            "own/.model.lock",
            "stars.parquet",
        ),
        Command(
            "label --table",
            ("--table", "matched.parquet", "--model", "model", "--out", "own/labels.parquet"),
            ("own",),
            "own/.labels.parquet.lock",
            "matched.parquet",
        ),
    )
}


def prepare(chain: Path, folder: Path, command: Command) -> None:
    """Copy the chain without what `command` makes and what is made from that."""
    own = command.name in ORDER
    later = ORDER[ORDER.index(command.name) :] if own else ORDER[1:]
    left_out = {path for stage in later for path in LAKE[stage]} | {"truth"}

    def ignored(at: str, names: list[str]) -> list[str]:
        below = Path(at).relative_to(chain)
        return [name for name in names if (below / name).as_posix() in left_out]

    shutil.copytree(chain, folder, ignore=ignored, dirs_exist_ok=True)
    if command.name == "train --table":
        table = pq.read_table(chain / "lake" / "training" / "dataset", partitioning=None)
        pq.write_table(table.sort_by("source_id"), folder / "stars.parquet")
        (folder / "features.toml").write_text(FEATURES)
    if command.name == "label --table":
        table = pq.read_table(chain / "lake" / "matched" / "dataset", partitioning=None)
        pq.write_table(table.sort_by("source_id"), folder / "matched.parquet")
        shutil.copytree(next((chain / "models").iterdir()), folder / "model", dirs_exist_ok=True)


def made(folder: Path, command: Command) -> dict[str, str]:
    """Return the SHA-256 of everything that the command has made, but for times, dates and sizes of memory."""
    found = {}
    for output in command.outputs:
        for path in sorted((folder / output).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and _is_data(path):
                found[name] = hashlib.sha256(_content(path)).hexdigest()
    return found


def _is_data(path: Path) -> bool:
    if path.name in ("run.json", "_state.json", "current.json", "metrics.prom", "report.html"):
        return False
    return not path.name.startswith(".") and not {"_done", "_rejected"} & set(path.parts)


def _content(path: Path) -> bytes:
    if path.name == "bundle.json":
        kept = json.loads(path.read_text())
        kept = {k: v for k, v in kept.items() if k not in ("created_utc", "sha256", "files", "provenance")}
        return json.dumps(kept, sort_keys=True).encode()
    if path.name in ("metrics.json", "card.md", "MODEL_CARD.md"):
        lines = path.read_text().splitlines()
        dated = re.compile(r"seconds|memory|bytes|utc|\d{4}-\d\d-\d\d|\d\d:\d\d", re.IGNORECASE)
        return "\n".join(line for line in lines if not dated.search(line)).encode()
    return path.read_bytes()


def remains(folder: Path) -> list[str]:
    """Return what a run should have taken away: half files, work, locks beside files."""
    found = [
        path for path in folder.rglob("*") if path.name.endswith((".tmp", ".old")) or path.name == "_work"
    ]
    found += [path for path in folder.rglob(".*.lock") if path.name != ".lock"]
    return [path.relative_to(folder).as_posix() for path in found]


class Run:
    """One process of the command, with all that it starts, known by a mark in the environment."""

    def __init__(self, command: Command, folder: Path, scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        self.command, self.folder, self.scratch = command, folder, scratch
        self.mark = f"TESTED_RUN={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, name: value, "TMPDIR": str(scratch)}
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stellarml.cli.start", *command.line],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, holds: Callable[[], object], seconds: float = 120.0) -> bool:
        """Wait until `holds`; tell whether the process was still there."""
        end = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, f"{self.command.name} does not come so far"
            time.sleep(0.01)
        return True

    def began(self) -> bool:
        """Tell whether the work has begun."""
        return any(self.folder.glob(self.command.began))

    def ended(self) -> tuple[int, str]:
        """Return status and standard error; all that was started must end, too."""
        _, told = self.process.communicate(timeout=300)
        end = time.monotonic() + ENDS_S
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, f"still there {ENDS_S:g} s after the end: {left}\n{told}"
        return self.process.returncode, told

    def alive(self) -> list[str]:
        """Return the processes of this run that live."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in environ.read_bytes():
                    line = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
                    if line:
                        found.append(f"{environ.parent.name} {line}")
        return found

    def pids(self, kind: str) -> list[int]:
        """Return the processes of a kind: ``java``, ``daemon``, or ``worker``, which the daemon has forked."""
        every = descendants(self.process.pid)
        lines = {pid: _line_of(pid) for pid in every}
        daemons = [
            pid for pid, line in lines.items() if "worker_daemon" in line and "java" not in line.split()[0]
        ]
        if kind == "java":
            return [
                pid for pid, line in lines.items() if line.split()[:1] and line.split()[0].endswith("java")
            ]
        forked = [pid for pid in daemons if _parent_of(pid) in daemons]
        return forked if kind == "worker" else [pid for pid in daemons if pid not in forked]


def _line_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or "-"
    except OSError:
        return "-"


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def strike(run: Run, kind: str, draw: random.Random, lasts_s: float) -> bool:
    """Hurt a run of about `lasts_s` seconds once it has begun; tell whether it was still there."""
    if not run.wait_until(run.began):
        return False
    if kind in ("worker", "daemon", "java"):
        pids: list[int] = []

        def there() -> bool:
            pids[:] = run.pids(kind)
            return bool(pids)

        if not run.wait_until(there):
            return False
        time.sleep(draw.uniform(0.0, 0.4 * lasts_s))
        return any(_kill(pid, signal.SIGKILL) for pid in (run.pids(kind) or pids)[:1])
    time.sleep(draw.uniform(0.0, 0.8 * lasts_s))
    if run.process.poll() is not None:
        return False
    if kind == "input changed":
        for path in _inputs(run, draw):
            path.write_bytes(path.read_bytes()[::-1])
    elif kind == "input gone":
        for path in _inputs(run, draw):
            path.unlink()
    else:
        return _kill(run.process.pid, SIGNALS.get(kind, signal.SIGKILL))
    return True


def _inputs(run: Run, draw: random.Random) -> list[Path]:
    found = sorted(run.folder.glob(run.command.inputs))
    assert found, run.command
    return [draw.choice(found)]


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], Any]]:
    """Mount a file system of `size` bytes on `folder`; the function that is given makes it large enough."""
    import pytest

    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    larger = ["mount", "-o", "remount,size=2g", str(folder)]
    try:
        yield lambda: subprocess.run(larger, check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def bytes_below(folder: Path) -> int:
    """Return the bytes that files below a folder take on a tmpfs, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
