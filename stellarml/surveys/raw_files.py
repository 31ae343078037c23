"""Which files a survey has, and how each is really written.

The descriptor names a format and a pattern, but archives hand out the same table in several: the first bytes decide, so
that one descriptor reads the bulk ECSV, the VOTable and the Parquet copy of the same columns.
"""

from __future__ import annotations

import re
from pathlib import Path

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Descriptor, Files
from stellarml.surveys.raw_reader import Family, SourceFile, decompressing
from stellarml.surveys.raw_readers import reader_that_begins

_ADDRESS = re.compile(r"(?:^|/)(?:https?|s?ftp|s3|gs|hdfs|file):/", re.IGNORECASE)


def find_files(descriptor: Descriptor, path: Path) -> list[SourceFile]:
    """List the files of a survey, in a fixed order.

    Parameters
    ----------
    path
        A file, a table of a file (``file.fits#NAME``), a glob pattern, a folder (the descriptor's pattern applies
        inside) or a HATS catalogue.

    Raises
    ------
    InputError
        If there is none, or one is not of any known format.
    """
    who = f"survey '{descriptor.name}'"
    path, named = named_table(path)
    table = named or descriptor.files.table
    try:
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = _in_folder(descriptor, path)
        else:
            found = _by_pattern(path)
    except (OSError, ValueError, NotImplementedError) as error:  # a name or a pattern that no file can have
        raise InputError(f"{path}: cannot be looked for ({error}; {who}).") from None
    if not found:
        raise no_such_file(path, who)
    return [describe(p, descriptor.files, who, table) for p in found]


def _by_pattern(path: Path) -> list[Path]:
    base = next((p for p in path.parents if not set(str(p)) & set("*?[")), Path())
    pattern = str(path.relative_to(base))
    return sorted(p for p in base.glob(pattern) if p.is_file()) if set(pattern) & set("*?[") else []


def no_such_file(path: Path, who: str) -> InputError:
    """Return the error for a path at which nothing is; an address is told apart: it is never fetched."""
    if _ADDRESS.search(str(path)):
        return InputError(
            f"{path}: is an address, and nothing is downloaded. Fetch the file, and name it ({who})."
        )
    return InputError(f"{path}: no such file or folder ({who}).")


def named_table(path: Path) -> tuple[Path, str | None]:
    """Take ``file.fits#NAME`` apart where there is no file of that whole name; None where no table is named."""
    name, mark, table = path.name.rpartition("#")
    if mark and not path.exists() and path.with_name(name).is_file():
        return path.with_name(name), table
    return path, None


def _in_folder(descriptor: Descriptor, folder: Path) -> list[Path]:
    if (folder / "dataset").is_dir():
        return sorted(p for p in (folder / "dataset").rglob("*.parquet") if not p.name.startswith((".", "_")))
    found = sorted(p for p in folder.glob(descriptor.files.glob) if p.is_file())
    if not found:
        there = sorted(p.name for p in folder.iterdir())[:5]
        raise InputError(
            f"{folder}: no file matches '{descriptor.files.glob}', the pattern of survey '{descriptor.name}'; "
            f"found {', '.join(there) or 'an empty folder'}. Name a file or a pattern in [raw], or change files.glob."
        )
    return found


def describe(path: Path, written: Files, who: str, table: str | None = None) -> SourceFile:
    """Look at the first bytes of a file: its family of formats, and whether it is gzipped.

    Parameters
    ----------
    who
        Expects the format that `written` names, for the message.
    table
        The table of the file that was asked for.

    Raises
    ------
    InputError
        If it cannot be read, or is of no known format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
        gzipped = head[:2] == b"\x1f\x8b"
        if gzipped:
            with decompressing(path), SourceFile(path, size, "text", True).open() as stream:
                head = stream.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
    return SourceFile(path, size, _family(head, path, written, who), gzipped, table)


def _family(head: bytes, path: Path, written: Files, who: str) -> Family:
    reader = reader_that_begins(head)
    if reader is not None and reader.family != "text":
        return reader.family
    if written.format in ("fits", "votable", "parquet", "hats") and (not head or b"\0" in head):
        raise InputError(
            f"{path}: is not a {written.format} file, which {who} expects (it begins with {head[:8]!r})."
        )
    if reader is None:
        raise InputError(f"{path}: is neither text, FITS, VOTable nor Parquet (it begins with {head[:8]!r}).")
    return reader.family
