"""What a run leaves on disk of what is done: a mark for each unit that is whole, and the record of a finished stage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stellarml.core.errors import InputError
from stellarml.core.files import write_atomically
from stellarml.run.ownership import DONE, RECORD

Record = dict[str, Any]
"""What run.json says of a finished stage."""


def sizes_of(out: Path, files: Iterable[Path]) -> dict[str, int]:
    """Return what a mark's ``files`` says of `files`, paths below `out`."""
    return {str(path): (out / path).stat().st_size for path in sorted(files)}


def mark_path(out: Path, unit: str) -> Path:
    """Return where the mark of `unit` is."""
    return out / DONE / f"{unit}.json"


def write_mark(out: Path, unit: str, payload: Mapping[str, Any]) -> None:
    """Record, from any process, that `unit` is whole; ``files`` in the payload are checked before it is trusted."""
    write_atomically(mark_path(out, unit), json.dumps(payload))


def read_marks(out: Path) -> dict[str, dict[str, Any]]:
    """Return the marks of all units whose files are still there, whole."""
    marks = {}
    for path in mark_files(out):
        payload = read_json(path)
        if payload and all(_same_size(out / name, size) for name, size in payload.get("files", {}).items()):
            marks[path.stem] = payload
    return marks


def mark_files(out: Path) -> list[Path]:
    """Return the marks below `out`, whether what they speak of is still there or not."""
    return sorted((out / DONE).glob("*.json"))


def _same_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def read_record(out: Path) -> Record:
    """Return the run.json of a finished stage.

    Raises
    ------
    InputError
        If the stage has not finished there.
    """
    if not (out / RECORD).exists():
        raise InputError(
            f"{out}: no run.json, so this stage's output is missing or unfinished. Run it first."
        )
    record = read_json(out / RECORD)
    if not record:
        raise InputError(f"{out / RECORD}: is damaged. Run the stage again with --overwrite.")
    return record


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; nothing where there is none."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
