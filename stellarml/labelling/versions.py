"""The labelled catalogues on disk: one folder a model, one file that names the published one.

A reader opens ``labels/current.json``, then the folder that it names: it never sees rows of two models. Older folders
stay until they are pruned, so a catalogue can be compared with the one before, and a bad model taken back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stellarml.core.errors import InputError, UserError, did_you_mean
from stellarml.core.files import LOCK, storage_errors, write_atomically
from stellarml.labelling.model_registry import plain_id
from stellarml.run.log import get_logger
from stellarml.run.marks import read_record
from stellarml.run.ownership import RECORD, STATE, clear, held, names_of_others

CURRENT = "current.json"


@dataclass(frozen=True)
class Version:
    """One labelled catalogue: its folder, its run.json, and whether it is the published one."""

    id: str
    folder: Path
    record: dict[str, Any]
    current: bool

    @property
    def level(self) -> int:
        """Per cent inside the intervals."""
        return int(self.record["config"]["label"]["level"])


def publish(labels: Path, model_id: str) -> None:
    """Name the published version in the folder `labels`: one small file, replaced in one step."""
    pointer = labels / CURRENT
    if current_model(labels) == model_id:
        return
    content = {"model_id": model_id, "published_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(pointer, json.dumps(content) + "\n")


def current_model(labels: Path) -> str | None:
    """Return the id of the published version, or None.

    Raises
    ------
    InputError
        If current.json is damaged.
    """
    pointer = labels / CURRENT
    try:
        return plain_id(str(json.loads(pointer.read_text())["model_id"]), str(pointer))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{pointer}: is damaged. Delete it and run  stellarml label  again.") from None


def versions_of(labels: Path) -> list[Version]:
    """Return every finished version, oldest first; one whose run.json is damaged is none."""
    current = current_model(labels)
    paths = [path for path in labels.glob(f"*/{RECORD}") if not path.parent.is_symlink()]
    found = []
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)):
        try:
            record = read_record(path.parent)
        except InputError as error:
            get_logger().warning("damaged version", reason=str(error))
            continue
        if record.get("stage") == "label":
            found.append(Version(path.parent.name, path.parent, record, path.parent.name == current))
    return found


def version_named(labels: Path, name: str) -> Version:
    """Return one finished version.

    Raises
    ------
    UserError
        If there is none of that id.
    """
    found = {version.id: version for version in versions_of(labels)}
    if name not in found:
        raise UserError(
            f"{labels}: holds no finished version '{name}'.{did_you_mean(name, found)} "
            f"Versions there: {', '.join(found) or 'none'}."
        )
    return found[name]


def prune(labels: Path, keep: int) -> list[str]:
    """Remove all but the `keep` newest versions; the published one stays, and so does a user's file among them.

    Return the ids that were removed.

    Raises
    ------
    UserError
        If `keep` is less than 1.
    OutputBusyError
        If a run is writing to one of them.
    """
    if keep < 1:
        raise UserError(f"prune: {keep} versions to keep, expected at least 1")
    versions = versions_of(labels)
    gone = [version for version in versions[:-keep] if not version.current]
    removed: list[str] = []
    for version in gone:
        with held(version.folder), storage_errors(version.folder):
            if current_model(labels) == version.id:  # published in the meantime
                continue
            removed.append(version.id)
            others = names_of_others(version.folder, version.record)
            (version.folder / RECORD).unlink()  # first: what is left of a killed removal is no version
            clear(version.folder, others)
            for name in (STATE, LOCK):
                (version.folder / name).unlink(missing_ok=True)
            if not others:
                version.folder.rmdir()
    return removed
