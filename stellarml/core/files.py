"""Small files written whole or not at all, and what the file system refuses, said with the path."""

from __future__ import annotations

import errno
import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stellarml.core.errors import StorageError

_PATTERN = re.compile(r"[\[\]{}*?\\]")
LOCK = ".lock"
"""Name of the file that is held while a run writes to its folder."""
_LONGEST_NAME = 255
"""Bytes that the common file systems allow a name."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full. What was finished is kept; free some space and run the same command again."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            where = f": {error.filename}" if error.filename and str(error.filename) != str(path) else ""
            raise StorageError(f"{path}: cannot write here ({error.strerror}{where}).") from error
        raise


def literal(path: Path) -> str:
    """Return a path as Spark takes it where it would take a pattern: brackets, braces, stars mean themselves."""
    return _PATTERN.sub(r"\\\g<0>", str(path))


def hidden_name(name: str, ending: str) -> str:
    """Return the hidden name ``.<name>.<ending>``; of a name that would become too long, its digest and beginning."""
    if len(name.encode()) + len(ending) + 2 > _LONGEST_NAME:
        name = (
            f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{name.encode()[:64].decode(errors='ignore')}"
        )
    return f".{name}.{ending}"


def hidden_beside(path: Path) -> Path:
    """Return a new hidden name in the folder of `path`, for what is to become `path`."""
    return path.with_name(hidden_name(path.name, f"{uuid.uuid4().hex[:8]}.tmp"))


def remains_of(path: Path) -> list[Path]:
    """Return what writers of `path` have left under hidden names: the killed ones', and those of living ones."""
    begin, end = hidden_name(path.name, "00000000.tmp").split("00000000")
    if not path.parent.is_dir():
        return []
    of_a_writer = re.compile(f"{re.escape(begin)}[0-9a-f]{{8}}{re.escape(end)}")
    return [child for child in path.parent.iterdir() if of_a_writer.fullmatch(child.name)]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden name to write to, which becomes `path` if all goes well: a reader never sees a part."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = hidden_beside(path)
        try:
            yield hidden
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    with replacing(path) as hidden:
        hidden.write_bytes(content.encode() if isinstance(content, str) else content)
