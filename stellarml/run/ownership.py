"""Which files in an output folder are a run's own, and which it must never remove: its inputs, and a user's files.

A run notes the names that are in its folder before it begins (``others`` in ``_state.json``), and at its end those that
it made (``made`` in ``run.json``). What is cleared later is `made`, or everything but `others` after a killed run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stellarml.core.errors import OutputBusyError, UserError
from stellarml.core.files import LOCK, hidden_name, remains_of, storage_errors

STATE, RECORD = "_state.json", "run.json"
DONE, WORK = "_done", "_work"
_KEPT_BY_RUNS = frozenset({STATE, RECORD, LOCK, DONE, WORK, "_inputs", "_rejected", "_checkpoints"})


def refuse_foreign_folder(root: Path) -> None:
    """Refuse to write into a folder that holds something stellarml did not make.

    Raises
    ------
    UserError
        If `root` is a file, or is not empty and has no trace of a stellarml run.
    """
    if root.is_file():
        raise UserError(f"{root}: is a file, expected a folder to write to.")
    if root.is_dir():
        names = {p.name for p in root.iterdir()}
        if names and not names & {RECORD, STATE, LOCK}:
            raise UserError(
                f"{root}: holds files that stellarml did not make ({', '.join(sorted(names)[:3])}, ...). "
                "Choose an empty or a new folder."
            )


def refuse_inputs_inside(folders: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Refuse output folders that are, or hold, what is to be read: a run would remove its own input.

    Raises
    ------
    UserError
        Naming the folder and the input.
    """
    resolved = {folder: folder.resolve() for folder in folders}
    for path in inputs:
        inner = path.resolve()
        for folder, outer in resolved.items():
            if inner.is_relative_to(outer):
                raise UserError(
                    f"{folder}: holds an input of this run ({path}). Choose another output folder."
                )


def refuse_other_stage(root: Path, stage: str, recorded: Mapping[str, Any]) -> None:
    """Refuse a folder that another stage has made.

    Raises
    ------
    UserError
        Naming that stage.
    """
    made_by = recorded.get("stage", stage)
    if made_by != stage:
        raise UserError(
            f"{root}: is the output of the stage {made_by}, not of {stage}. Choose another output folder."
        )


def names_of_others(folder: Path, recorded: Mapping[str, Any]) -> list[str]:
    """Return the names in `folder` that no run has made, by what an earlier run has recorded.

    Raises
    ------
    UserError
        If a run has written here, and neither of its records can be read any more: nobody knows what is whose.
    """
    present = {p.name for p in folder.iterdir()} - _KEPT_BY_RUNS if folder.is_dir() else set()
    if "made" in recorded:
        return sorted(present - set(recorded["made"].get(folder.name, ())))
    if "others" in recorded:
        return sorted(present & set(recorded["others"].get(folder.name, ())))
    if recorded.get("key"):
        return []
    traces = [name for name in (RECORD, STATE, DONE) if (folder / name).exists()]
    if present and traces:
        raise UserError(
            f"{folder}: holds the output of a run ({', '.join(traces)}) whose records cannot be read, so that its "
            "files cannot be distinguished from yours. Move away what is yours, delete the folder, and run again."
        )
    return sorted(present)


def names_made(folder: Path, others: Iterable[str]) -> list[str]:
    """Return the names in `folder` that a run has made beside those of `others`."""
    return sorted({p.name for p in folder.iterdir()} - _KEPT_BY_RUNS - set(others))


def clear(folder: Path, others: Iterable[str]) -> None:
    """Remove all of a run but the lock and the state; leave what is not its own."""
    kept = {LOCK, STATE, *others}
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name not in kept:
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the lock of an output folder, as a run does.

    Raises
    ------
    OutputBusyError
        If a living run holds it.
    """
    with (out / LOCK).open("a+") as stream:
        _hold(stream, out)
        yield


@contextmanager
def claimed(path: Path, *, patient: bool = False) -> Iterator[None]:
    """Hold the right to make `path`, a file or a folder that no stage writes; first remove what killed runs left of it.

    The lock is a hidden file beside `path`, or in it where it is a folder that exists, and gone at the end. Who is
    `patient` waits for the other run to end.

    Raises
    ------
    OutputBusyError
        If a living run holds it.
    StorageError
        If the folder cannot be written to.
    """
    path = path.resolve() if path.name in ("", "..") else path
    inside = path.is_dir()  # whose folder one may not be able to write to: a mounted disk, for one
    lock = path / LOCK if inside else path.with_name(hidden_name(path.name, "lock"))
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _held_file(lock, path, patient)
    with stream:
        try:
            for remains in [] if inside else remains_of(path):
                shutil.rmtree(remains) if remains.is_dir() else remains.unlink(missing_ok=True)
            yield
        finally:
            lock.unlink(missing_ok=True)


def _held_file(lock: Path, path: Path, patient: bool) -> IO[str]:
    """Open the lock of `path` and hold it; once more where its last holder has just removed it."""
    while True:
        stream = lock.open("a+")
        try:
            _hold(stream, path, patient)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                    return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _hold(stream: IO[str], out: Path, patient: bool = False) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
    except BlockingIOError:
        stream.seek(0)
        raise OutputBusyError(
            f"{out}: is being written by another run (process {stream.read().strip() or 'unknown'}). "
            "Wait for it to end, or give another output."
        ) from None
    stream.truncate(0)
    stream.write(_process())
    stream.flush()


def _process() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"
