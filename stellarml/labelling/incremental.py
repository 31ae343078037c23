"""Which tiles of the matched catalogue have to be labelled, which labels are still right, and when they are seen.

A tile is known by the fingerprint of its leaf; a mark of the output carries the key that its leaf was made with: that
fingerprint, the model, the settings and the code. So a run on a schedule labels what has changed, and nothing else. A
leaf that is damaged or missing keeps no other from being labelled: the problem is reported at the end, by name.

New leaves wait in ``_work``, beside an older catalogue of the same model that stays as it is, and are renamed into its
``dataset`` when all of them are there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError, UserError
from stellarml.core.files import storage_errors
from stellarml.core.tiles import Tile
from stellarml.run.fingerprint import digest, file_fingerprint
from stellarml.run.marks import mark_path, read_record
from stellarml.run.ownership import WORK
from stellarml.storage.hats_layout import PARTITION_LIST, parquet_metadata, partition_list, raw_schema

_THREADS = 8
_MARK = re.compile(r"Norder=(\d+)_Npix=(\d+)")


@dataclass(frozen=True)
class InputTile:
    """One leaf: where it is, its rows and fingerprint; or what is wrong with it."""

    tile: Tile
    path: Path
    rows: int = 0
    fingerprint: str = ""
    problem: str = ""


def input_tiles(root: Path) -> list[InputTile]:
    """Return every tile with rows that a catalogue of ours lists, in the order of the sky.

    Raises
    ------
    InputError
        If the list of tiles is missing or damaged, or the leaves do not hold as many rows as run.json says.
    """
    path = root / PARTITION_LIST
    if not path.is_file():
        raise InputError(f"{path}: is missing, the list of the tiles. Run the stage crossmatch again.")
    expected = _columns(raw_schema(root, ())) if (root / "dataset" / "_common_metadata").is_file() else None

    def look(tile: Tile) -> InputTile:
        leaf = root / tile.path
        try:
            footer = parquet_metadata(leaf)
            problem = _other_columns(leaf, _columns(footer.schema.to_arrow_schema()), expected)
            return InputTile(tile, leaf, footer.num_rows, file_fingerprint(leaf)["fingerprint"], problem)
        except InputError as error:
            return InputTile(tile, leaf, problem=str(error))

    with ThreadPoolExecutor(_THREADS) as pool:
        tiles = sorted(pool.map(look, partition_list(path)), key=lambda found: found.tile.range)
    rows, recorded = sum(found.rows for found in tiles), read_record(root)["rows"]["out"]
    if rows != recorded and not any(found.problem for found in tiles):
        raise InputError(
            f"{path}: its {len(tiles)} leaves hold {rows:,} rows, run.json beside it says {recorded:,}: one of them is "
            "damaged. Run the stage crossmatch again with --overwrite."
        )
    return [found for found in tiles if found.rows or found.problem]


def _columns(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _other_columns(leaf: Path, found: Mapping[str, str], expected: Mapping[str, str] | None) -> str:
    if expected is None or found == expected:
        return ""
    names = [name for name in (*expected, *found) if expected.get(name) != found.get(name)]
    differences = [
        f"{n} is {found.get(n, 'missing')}, not {expected.get(n, 'there')}" for n in dict.fromkeys(names)
    ]
    return (
        f"{leaf}: its columns are not the catalogue's: {'; '.join(differences[:3]) or 'their order differs'}."
    )


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


def waiting(out: Path, tile: Tile) -> Path:
    """Return where a new leaf waits until all are there."""
    return out / WORK / tile.path


def split_done(
    out: Path, tiles: Sequence[InputTile], marks: Mapping[str, Mapping[str, Any]], common: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[InputTile]]:
    """Return the marks that are still right by tile name, and the tiles that have to be labelled.

    A mark holds the bytes of its leaf, which is waiting or in its place.
    """
    kept: dict[str, dict[str, Any]] = {}
    pending = []
    for found in tiles:
        mark = marks.get(found.tile.name, {})
        leaf = waiting(out, found.tile)
        leaf = leaf if leaf.is_file() else out / found.tile.path
        whole = leaf.is_file() and leaf.stat().st_size == mark.get("bytes")
        if whole and not found.problem and mark.get("key") == tile_key(found, common):
            kept[found.tile.name] = dict(mark)
        else:
            pending.append(found)
    return kept, pending


def vanished(out: Path, tiles: Sequence[InputTile], marks: Iterable[str]) -> list[Tile]:
    """Return the tiles of an older catalogue in `out`, by its list and its marks, that the input no longer has.

    Raises
    ------
    UserError
        If ``dataset`` is a link, or holds leaves of no run: they would be taken for the catalogue's.
    """
    dataset = out / "dataset"
    if dataset.is_symlink():
        raise UserError(f"{dataset}: is a link; expected a folder that stellarml has made.")
    now = {found.tile for found in tiles}
    older = {_tile(found) for found in map(_MARK.fullmatch, marks) if found}
    with suppress(InputError, FileNotFoundError):
        older |= set(partition_list(out / PARTITION_LIST))
    ours = {out / tile.path for tile in now | older}
    foreign = sorted(path for path in dataset.rglob("*.parquet") if path not in ours)
    if foreign:
        raise UserError(
            f"{foreign[0]}: was not made by stellarml ({len(foreign)} such files). Move it away, and run again."
        )
    return sorted(older - now, key=lambda tile: tile.name)


def _tile(name: re.Match[str]) -> Tile:
    return Tile(int(name[1]), int(name[2]))


def put_in_place(out: Path, tiles: Sequence[Tile], gone: Sequence[Tile]) -> None:
    """Rename waiting leaves into the catalogue, remove those of tiles that are `gone`, then their marks.

    Killed in between, the same call does the rest: a mark is as good for a waiting leaf as for one in its place.
    """
    with storage_errors(out):
        for tile in tiles:
            leaf = waiting(out, tile)
            if leaf.is_file():
                (out / tile.path).parent.mkdir(parents=True, exist_ok=True)
                leaf.replace(out / tile.path)
        for tile in gone:
            (out / tile.path).unlink(missing_ok=True)
            mark_path(out, tile.name).unlink(missing_ok=True)
        shutil.rmtree(out / WORK, ignore_errors=True)
