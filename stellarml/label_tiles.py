"""Which tiles of the matched catalogue have to be labelled, and which labels are still right.

A tile is known by the fingerprint of its leaf; a mark of the output carries the key that its leaf was made with: that
fingerprint, the model, the settings and the code. So a run on a schedule labels what has changed, and nothing else. A
leaf that is damaged or missing keeps no other from being labelled: the problem is told at the end, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.errors import InputError
from stellarml.fingerprint import digest, file_fingerprint
from stellarml.hats_layout import parquet_metadata, partition_list, raw_schema
from stellarml.manifest import mark_path
from stellarml.storage import Tile

_THREADS = 8


@dataclass(frozen=True)
class InputTile:
    """One leaf: where it is, its rows and fingerprint; or what is wrong with it."""

    tile: Tile
    path: Path
    rows: int = 0
    fingerprint: str = ""
    problem: str = ""


def input_tiles(root: Path) -> list[InputTile]:
    """Return every tile that a catalogue of ours lists, in the order of the sky.

    Raises
    ------
    InputError
        If the list of tiles is missing or damaged.
    """
    path = root / "partition_info.csv"
    if not path.is_file():
        raise InputError(f"{path}: is missing, the list of the tiles. Run the stage crossmatch again.")

    def look(tile: Tile) -> InputTile:
        leaf = root / tile.path
        try:
            rows = parquet_metadata(leaf).num_rows
            return InputTile(tile, leaf, rows, file_fingerprint(leaf)["fingerprint"])
        except InputError as error:
            return InputTile(tile, leaf, problem=str(error))

    with ThreadPoolExecutor(_THREADS) as pool:
        return sorted(pool.map(look, partition_list(path)), key=lambda found: found.tile.range)


def schema_of(root: Path, tiles: Sequence[InputTile]) -> pa.Schema:
    """Return the columns of the leaves."""
    return raw_schema(root, (found.path for found in tiles if not found.problem))


def changed(found: InputTile) -> str:
    """Return what has happened to a leaf since `input_tiles`, for a person; empty if nothing."""
    try:
        now = file_fingerprint(found.path)["fingerprint"]
    except InputError as error:
        return str(error)
    return "" if now == found.fingerprint else f"{found.path}: has changed while it was being labelled."


def why_unreadable(found: InputTile) -> str:
    """Return why a leaf gave no row, for a person."""
    try:
        pq.read_table(found.path)
    except (pa.ArrowException, OSError) as error:
        return f"{found.path}: cannot be read ({error})."
    return changed(found) or f"{found.path}: gave no row."


def tile_key(found: InputTile, common: Iterable[str]) -> str:
    """Return what the labels of a tile were made from; `common` is what all tiles share."""
    return digest([found.fingerprint, *common])


def split_done(
    tiles: Sequence[InputTile], marks: Mapping[str, Mapping[str, Any]], common: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[InputTile]]:
    """Return the marks that are still right by tile name, and the tiles that have to be labelled."""
    kept: dict[str, dict[str, Any]] = {}
    pending = []
    for found in tiles:
        mark = marks.get(found.tile.name)
        if mark is not None and not found.problem and mark.get("key") == tile_key(found, common):
            kept[found.tile.name] = dict(mark)
        elif found.rows or found.problem:
            pending.append(found)
    return kept, pending


def remove_vanished(out: Path, tiles: Sequence[InputTile]) -> int:
    """Remove leaves and marks of tiles that the input no longer has; return how many leaves there were.

    The leaf goes first: a mark without its file is known for what it is.
    """
    leaves = {out / found.tile.path for found in tiles}
    gone = [path for path in (out / "dataset").rglob("*.parquet") if path not in leaves]
    for path in gone:
        path.unlink()
    marks = {mark_path(out, found.tile.name) for found in tiles}
    for path in (out / "_done").glob("*.json"):
        if path not in marks:
            path.unlink()
    return len(gone)
