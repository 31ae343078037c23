"""Files and folders that no stage writes: one maker at a time, nothing left of killed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stellarml.core.errors import OutputBusyError, StorageError
from stellarml.core.files import hidden_beside, hidden_name, replacing, write_atomically
from stellarml.run.ownership import claimed

HOLDER = """
import sys, time
from pathlib import Path
from stellarml.core.files import replacing
from stellarml.run.ownership import claimed
with claimed(Path(sys.argv[1])), replacing(Path(sys.argv[1])) as hidden:
    hidden.write_text("half")
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as told:
        assert told.readline() == "held\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


@pytest.mark.parametrize("name", ["labels.parquet", "x" * 250, "ä" * 125])
def test_a_living_maker_is_named_and_a_dead_ones_remains_go(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    other = holder(path, 60.0)
    try:
        assert len(names(tmp_path)) == 2
        with pytest.raises(OutputBusyError, match=f"process {other.pid} on"), claimed(path):
            pass
        assert len(names(tmp_path)) == 2, "the living one lost its files"
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert len(names(tmp_path)) == 2, "nothing was left of the killed one: the test shows nothing"
    with claimed(path):
        assert len(names(tmp_path)) == 1
        write_atomically(path, "whole")
    assert names(tmp_path) == [name]


def test_who_is_patient_waits_for_the_other(tmp_path: Path) -> None:
    path = tmp_path / "current.json"
    other = holder(path, 1.0)
    with claimed(path, patient=True):
        assert path.read_text() == "half", "the other had not ended"
    assert other.wait() == 0
    assert names(tmp_path) == [path.name]


def test_a_claim_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "model"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [".", "..", "there"])
def test_of_a_folder_that_exists_the_lock_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of a disk that is mounted one may write to the folder, and not beside it."""
    inner = tmp_path / "inner"
    (inner / "there").mkdir(parents=True)
    monkeypatch.chdir(inner)
    before = set(tmp_path.rglob("*"))
    with claimed(Path(name)):
        assert set(tmp_path.rglob("*")) - before == {Path(name).resolve() / ".lock"}
        with pytest.raises(OutputBusyError), claimed(Path(name).resolve()):
            pass
    assert set(tmp_path.rglob("*")) == before


def test_only_remains_of_that_very_name_go(tmp_path: Path) -> None:
    kept = [
        ".labels.parquet.backup.tmp",
        ".other.parquet.0123abcd.tmp",
        ".labels.parquet",
        "labels.parquet.tmp",
    ]
    for name in kept:
        (tmp_path / name).write_text("mine")
    folder = hidden_beside(tmp_path / "labels.parquet")
    (folder / "inner").mkdir(parents=True)
    with claimed(tmp_path / "labels.parquet"):
        assert not folder.exists()
    assert names(tmp_path) == sorted(kept)


def test_hidden_names_are_short_enough_for_a_file_system(tmp_path: Path) -> None:
    long = "n" * 255
    assert len(hidden_name(long, "01234567.tmp").encode()) <= 255
    assert hidden_name(long, "lock") != hidden_name("n" * 254 + "m", "lock")
    with replacing(tmp_path / long) as hidden:
        hidden.write_text("x")
    assert names(tmp_path) == [long]


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write here"), claimed(tmp_path / "model"):
        pass


def test_makers_one_after_the_other_never_meet(tmp_path: Path) -> None:
    """Of many who are patient no two are inside at once, though each removes the lock's file at its end."""
    path = tmp_path / "pointer"
    work = (
        "import sys, time\nfrom pathlib import Path\nfrom stellarml.run.ownership import claimed\n"
        "path = Path(sys.argv[1])\nfor _ in range(200):\n"
        "    with claimed(path, patient=True):\n"
        "        inside = path.with_name('inside')\n"
        "        inside.touch(exist_ok=False)\n"
        "        inside.unlink()\n"
    )
    several = [subprocess.Popen([sys.executable, "-c", work, str(path)]) for _ in range(4)]
    started = time.monotonic()
    assert [process.wait(timeout=120) for process in several] == [0] * 4, time.monotonic() - started
    assert names(tmp_path) == []
