"""Whether a file is still the one that an output was made from, and by which libraries.

Reading 750 GB to hash it would cost more than the stage it guards, so a raw file is known by its size and by 16 blocks
of 64 KiB spread over it, first and last included. In a gzip file any change of the content alters the checksum in the
last 8 bytes; in Parquet and FITS a change of the table alters footer or header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stellarml.core.errors import InputError

_BLOCK = 65_536
_SAMPLES = 16
_PACKAGES = (
    "pyspark",
    "pyarrow",
    "numpy",
    "pandas",
    "tensorflow",
    "keras",
    "healpy",
    "astropy",
    "hats",
    "numba",
    "onnxruntime",
)


def digest(parts: Iterable[str]) -> str:
    """Return a hex digest of `parts`; order counts."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part.encode())
        hasher.update(b"\0")
    return hasher.hexdigest()


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return ``{"path", "bytes", "fingerprint"}`` of one raw file.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            last = max(size - _BLOCK, 0)
            for sample in range(_SAMPLES):
                stream.seek(last * sample // (_SAMPLES - 1))
                hasher.update(stream.read(_BLOCK))
                if size <= _BLOCK:
                    break
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    return {"path": str(path), "bytes": size, "fingerprint": hasher.hexdigest()}


def origin_of(records: Sequence[dict[str, Any]]) -> str:
    """Return a digest of raw inputs by name, size and content: moving a folder does not change it."""
    return digest(sorted(f"{Path(r['path']).name}:{r['bytes']}:{r['fingerprint']}" for r in records))


def package_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on, where they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
