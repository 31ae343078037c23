"""The temporary folder of this process: removed at its end, and by the next run where it was killed."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path

from stellarml.core.files import LOCK


@cache
def scratch() -> Path:
    """Return the folder; what processes that are dead have left of theirs is removed first."""
    base = Path(tempfile.gettempdir())
    # Locks of some shared file systems are those of one machine.
    host = re.sub(r"\W", "-", socket.gethostname())
    name = f"stellarml-run-{os.getuid()}-{host}-"
    _sweep(base, name)
    # Locked before it has its name: whoever sweeps meanwhile finds a folder that is held.
    fresh = Path(tempfile.mkdtemp(prefix=f"new-{name}", dir=base))
    _hold(fresh / LOCK)
    folder = fresh.rename(base / f"{name}{secrets.token_hex(6)}")
    atexit.register(_remove, folder, os.getpid())
    return folder


def _hold(lock: Path) -> None:
    """Hold a lock as long as this process lives: nothing closes the file but its end.

    On a file system without locks there is none, and nobody sweeps the folder.
    """
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.unlink(missing_ok=True)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path, name: str) -> None:
    for folder in base.glob(f"{name}*"):
        with contextlib.suppress(OSError):  # held by a living run, or gone in the meantime
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("r") as stream:  # without a lock nobody knows whose it is: left alone
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
