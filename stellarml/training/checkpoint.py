"""Where a training is, so that a killed one goes on: one file, replaced as a whole after each epoch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.files import replacing


@dataclass(frozen=True)
class Kept:
    """What a checkpoint holds: numbers and words, and named lists of arrays."""

    record: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def arrays_of(self, name: str) -> list[NDArray[Any]]:
        """Return one list of arrays."""
        return [self.arrays[key] for key in sorted(k for k in self.arrays if k.startswith(f"{name}/"))]


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one network; `key` says what it is a training of: another key is as good as no file."""

    path: Path
    key: str

    def read(self) -> Kept | None:
        """Return what was kept last; None where there is nothing, or what there is is not of this training."""
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            record = json.loads(str(arrays.pop("record")))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return Kept(record, arrays) if record.pop("key", None) == self.key else None

    def write(self, record: Mapping[str, Any], lists: Mapping[str, Sequence[NDArray[Any]]]) -> None:
        """Keep a state.

        Raises
        ------
        StorageError
            If the disk is full, or refuses.
        """
        arrays = {f"{name}/{i:04d}": a for name, values in lists.items() for i, a in enumerate(values)}
        text = np.array(json.dumps({"key": self.key, **record}))
        with replacing(self.path) as hidden, hidden.open("wb") as file:
            np.savez(file, allow_pickle=False, record=text, **arrays)
