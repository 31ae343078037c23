"""The temporary folder of this process: removed at its end, and by the next run where it was killed."""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import tempfile
from functools import cache
from pathlib import Path

_LOCK = ".lock"


@cache
def scratch() -> Path:
    """Return the folder; what processes that are dead have left of theirs is removed first."""
    base = Path(tempfile.gettempdir())
    name = f"stellarml-run-{os.getuid()}-"
    _sweep(base, name)
    # Locked before it has its name: whoever sweeps meanwhile finds a folder that is held.
    fresh = Path(tempfile.mkdtemp(prefix=f"new-{name}", dir=base))
    _hold(fresh / _LOCK)
    folder = fresh.rename(base / f"{name}{secrets.token_hex(6)}")
    atexit.register(_remove, folder, os.getpid())
    return folder


def _hold(lock: Path) -> None:
    """Hold a lock as long as this process lives: nothing closes the file but its end."""
    fcntl.flock(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path, name: str) -> None:
    for folder in base.glob(f"{name}*"):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        try:
            with (folder / _LOCK).open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
