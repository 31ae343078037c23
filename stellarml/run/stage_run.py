"""What an output was made from, which parts of it are done, and whether a run may touch it.

Every stage keeps three things in its output folder: ``.lock`` (held while a run lives; the kernel frees it when the
process dies, however it dies), ``_state.json`` with ``_done/<unit>.json`` (what is being made, from what, and each unit
of work that is whole), and ``run.json`` (written last: the output is complete). From these follow the four rules:
unchanged, nothing is done; killed, it goes on; configuration or code changed, it is redone; other raw inputs, it
refuses.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stellarml.core import progress
from stellarml.core.config import Config
from stellarml.core.errors import ChangedInputError, StaleOutputError, StellarmlError
from stellarml.core.files import LOCK, storage_errors, write_atomically
from stellarml.run.code import code_identity
from stellarml.run.fingerprint import digest, file_fingerprint, origin_of, package_versions
from stellarml.run.log import UNCHANGED
from stellarml.run.marks import Record, mark_files, read_json, read_marks, read_record, sizes_of, write_mark
from stellarml.run.memory import PeakMemory
from stellarml.run.ownership import (
    DONE,
    RECORD,
    STATE,
    WORK,
    clear,
    held,
    names_made,
    names_of_others,
    refuse_foreign_folder,
    refuse_inputs_inside,
    refuse_other_stage,
)


@dataclass(frozen=True)
class Recipe:
    """What an output is made from: where any of it changes, the output is made anew.

    stage
        Its name, as run.json gives it.
    module
        The module that makes it: what its imports reach is the code that counts.
    settings
        The part of the configuration that the output depends on.
    raw, derived
        Raw input files, and folders of finished stages.
    """

    stage: str
    module: str
    settings: Mapping[str, Any]
    raw: Sequence[Path] = ()
    derived: Sequence[Path] = ()


@dataclass
class StageRun:
    """One run of one stage on one output folder."""

    stage: str
    out: Path
    siblings: tuple[Path, ...]
    config: Config
    code: Mapping[str, str]
    key: str
    origin: str
    inputs: list[dict[str, Any]]
    recipe: Recipe
    others: dict[str, list[str]] = field(default_factory=dict)
    complete: bool = False
    record: Record = field(default_factory=dict)
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    memory: PeakMemory = field(default_factory=PeakMemory)

    def forget(self) -> None:
        """Forget the marks and the work of units."""
        for name in (DONE, WORK):
            shutil.rmtree(self.out / name, ignore_errors=True)

    def settle(self, files: Iterable[Path]) -> None:
        """Forget the marks and the work of intermediate units; note the output's `files`, paths below `out`.

        For stages whose output is not written unit by unit: a file deleted afterwards is then missed, and made again.
        """
        self.forget()
        write_mark(self.out, "output", {"files": sizes_of(self.out, files)})

    def finish(self, rows: Mapping[str, Any], **extra: Any) -> Record:
        """Write run.json in the output folder and its siblings: the output is whole.

        Raises
        ------
        InputError
            If an input is not what it was when the run began; nothing of the output is then trusted.
        """
        self._refuse_changed_inputs()
        record: Record = {
            "stage": self.stage,
            "config": self.config.as_record(),
            "code": dict(self.code),
            "inputs": self.inputs,
            "rows": dict(rows),
            "seconds": round(time.monotonic() - self.started, 3),
            "peak_memory_bytes": self.memory.stop(),
            "versions": package_versions(),
            "key": self.key,
            "origin": self.origin,
            "marks": len(mark_files(self.out)),
            "made": {f.name: names_made(f, self.others.get(f.name, ())) for f in (*self.siblings, self.out)},
            **extra,
        }
        text = json.dumps(record, indent=2, default=str) + "\n"
        for folder in (*self.siblings, self.out):
            write_atomically(folder / RECORD, text)
        self.record = record
        self.complete = True
        return record

    def _refuse_changed_inputs(self) -> None:
        try:
            now, _ = describe_inputs(self.recipe.raw, self.recipe.derived)
        except StellarmlError as error:
            self.forget()
            raise ChangedInputError(
                f"{self.stage}: an input has vanished while it was read. {error}"
            ) from None
        if now != self.inputs:
            self.forget()
            changed = _difference({"inputs": self.inputs}, now)
            raise ChangedInputError(
                f"{self.stage}: inputs were replaced while they were read ({changed}). Nothing of the output is kept; "
                "run again when they stay as they are."
            )


def describe_inputs(raw: Sequence[Path], derived: Sequence[Path]) -> tuple[list[dict[str, Any]], str]:
    """Return the records of all inputs, and the digest of the raw files that everything goes back to."""
    records = [file_fingerprint(path) for path in raw]
    origins = [origin_of(records)] if raw else []
    for folder in derived:
        record = read_record(folder)
        size = sum(entry["bytes"] for entry in record["inputs"])
        records.append({"path": str(folder), "bytes": size, "fingerprint": record["key"]})
        origins.append(record["origin"])
    return records, digest(sorted(set(origins)))


@contextmanager
def stage_run(
    recipe: Recipe,
    out: Path,
    config: Config,
    *,
    siblings: Sequence[Path] = (),
    overwrite: bool = False,
    incremental: bool = False,
) -> Iterator[StageRun]:
    """Open `out` for a run of a stage; ``complete`` is set where there is nothing to do.

    Parameters
    ----------
    config
        What run.json says the configuration was.
    siblings
        Further output folders of the same stage, kept and removed with `out`.
    incremental
        Keep the output of an earlier run, its run.json and its marks: the stage itself finds out which units are still
        right, and replaces what there is when the new output is whole. With `overwrite` of an output from the same raw
        inputs the marks are forgotten.

    Raises
    ------
    OutputBusyError
        If another run holds the output.
    StaleOutputError
        If the output was made from other raw inputs and `overwrite` is not set (`incremental` stages know by
        the keys of their units what is still right, and go on).
    UserError
        If a folder holds files that stellarml did not make, an input of this run, or the output of another stage.
    """
    with progress.task(recipe.stage):
        refuse_inputs_inside((out, *siblings), (*recipe.raw, *recipe.derived))
        run = _described(recipe, out, tuple(siblings), config)
        refuse_foreign_folder(out)
        if not (out / STATE).exists():
            for folder in siblings:
                refuse_foreign_folder(folder)
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        with _opened(run, overwrite=overwrite, incremental=incremental):
            yield run


@contextmanager
def _opened(run: StageRun, *, overwrite: bool, incremental: bool) -> Iterator[None]:
    """Hold the output folder, and settle what of it is still right."""
    out, siblings = run.out, run.siblings
    with storage_errors(out), held(out):
        for folder in siblings:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LOCK).touch()
        before = _state(out)
        refuse_other_stage(out, run.stage, before)
        run.others = {folder.name: names_of_others(folder, before) for folder in (out, *siblings)}
        _drop_what_is_stale(run, before, overwrite=overwrite, incremental=incremental)
        _find_what_is_done(run, before, incremental=incremental)
        if run.complete:
            run.record |= {UNCHANGED: True}
        else:
            _begin(run, incremental=incremental)
        try:
            yield
        finally:
            run.memory.stop()


def _described(recipe: Recipe, out: Path, siblings: tuple[Path, ...], config: Config) -> StageRun:
    """Return the run with its key: a digest of all that its output is made from."""
    inputs, origin = describe_inputs(recipe.raw, recipe.derived)
    code = code_identity(recipe.module)
    settings = json.dumps(recipe.settings, sort_keys=True, default=str)
    contents = (f"{entry['bytes']}:{entry['fingerprint']}" for entry in inputs)
    key = digest([recipe.stage, settings, code["digest"], *contents])
    return StageRun(recipe.stage, out, siblings, config, code, key, origin, inputs, recipe)


def _drop_what_is_stale(
    run: StageRun, before: Mapping[str, Any], *, overwrite: bool, incremental: bool
) -> None:
    """Remove an output that was made from something else, or refuse to; `before` is what it was made from."""
    if not overwrite and before["key"] == run.key:
        return
    if not (overwrite or incremental) and before["origin"] != run.origin and _has_output(run.out):
        raise StaleOutputError(
            f"{run.out}: was made from other inputs than those now named ({_difference(before, run.inputs)}). "
            "Give another output folder, or --overwrite to make it anew."
        )
    if not incremental:
        _clear(run)
    elif overwrite and before["origin"] == run.origin:
        run.forget()


def _find_what_is_done(run: StageRun, before: Mapping[str, Any], *, incremental: bool) -> None:
    """Read the marks of whole units, and whether the output as a whole is there."""
    run.marks = read_marks(run.out)
    if not (run.out / RECORD).exists():
        return
    run.record = read_json(run.out / RECORD) if incremental else read_record(run.out)
    whole = len(run.marks) == len(mark_files(run.out)) == run.record.get("marks")
    same = before["key"] == run.key == run.record.get("key")
    run.complete = same and whole and all((folder / RECORD).exists() for folder in run.siblings)


def _begin(run: StageRun, *, incremental: bool) -> None:
    """Take away what a killed run left half-written, and note what is now being made, and from what."""
    for folder in (*run.siblings, run.out):
        if not incremental:
            (folder / RECORD).unlink(missing_ok=True)
        for half in list(folder.rglob(".*.tmp")):
            if half.is_dir():
                shutil.rmtree(half, ignore_errors=True)
            else:
                half.unlink(missing_ok=True)
    state = {name: getattr(run, name) for name in ("stage", "key", "origin", "inputs", "others")}
    write_atomically(run.out / STATE, json.dumps(state))
    run.memory.start()


def _state(out: Path) -> dict[str, Any]:
    """Return what `out` was made from; where nothing says so, a key that no run has."""
    found: dict[str, Any] = {}
    for name in (STATE, RECORD):
        state = read_json(out / name)
        if {"key", "origin", "inputs"} <= set(state):
            found = {**state, **found}
    return found or {"key": "", "origin": "", "inputs": []}


def _has_output(out: Path) -> bool:
    return (out / RECORD).exists() or bool(mark_files(out))


def _difference(state: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> str:
    def names(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {Path(r["path"]).name: (r["bytes"], r["fingerprint"]) for r in records}

    before, now = names(state.get("inputs", [])), names(inputs)
    parts = [
        f"gone: {', '.join(sorted(set(before) - set(now))[:3])}" if set(before) - set(now) else "",
        f"new: {', '.join(sorted(set(now) - set(before))[:3])}" if set(now) - set(before) else "",
        f"changed: {', '.join(sorted(n for n in set(now) & set(before) if now[n] != before[n])[:3])}"
        if any(now[n] != before[n] for n in set(now) & set(before))
        else "",
    ]
    return "; ".join(p for p in parts if p) or "what they were made from differs"


def _clear(run: StageRun) -> None:
    """Remove what an earlier run left; only in folders that this stage owns, and nothing that is not its own.

    ``_state.json`` goes last: while it is there, a clearing that was killed is known as such and begun again.
    """
    state = {k: v for k, v in _state(run.out).items() if k in ("stage", "key", "origin", "inputs")}
    if state["key"]:
        write_atomically(run.out / STATE, json.dumps({**state, "others": run.others}))
    for folder in (run.out, *run.siblings):
        (folder / RECORD).unlink(missing_ok=True)
    for folder in (*run.siblings, run.out):
        clear(folder, run.others[folder.name])
    (run.out / STATE).unlink(missing_ok=True)
