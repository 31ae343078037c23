"""The second half of an ingest that runs on executors: a tile gathers, sorts and writes its rows from the shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Tiles
from stellarml.core.files import write_atomically
from stellarml.core.names import CUTS_FAILED
from stellarml.run.ownership import WORK
from stellarml.storage.parquet import write_parquet
from stellarml.surveys.shards import FILE, LINE, runs, sorted_order, write_rejects

_NAMES = "files.json"


@dataclass(frozen=True)
class TileTask:
    """A piece of the output: the key ranges it owns, the files to write, and the row groups that may hold its rows."""

    out: Path
    name: str
    ranges: tuple[tuple[int, int], ...]
    paths: tuple[Path, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    key: str
    id: str
    unique: bool
    tiles: Tiles


def write_tile(task: TileTask) -> dict[str, Any]:
    """Gather, sort and write the rows of one tile.

    A second row of one id is rejected, with file and line; but not in a label table, where a star may have several.
    """
    low, high = task.ranges[0][0], task.ranges[-1][1]
    parts = []
    for name, groups in task.groups:
        with pq.ParquetFile(task.out / WORK / f"{name}.parquet", memory_map=True) as shard:
            table = shard.read_row_groups(list(groups), use_threads=False)
        keys = table[task.key].to_numpy()
        first, last = np.searchsorted(keys, [low, high])
        parts.append(table.slice(int(first), int(last - first)))
    table = pa.concat_tables(parts).combine_chunks()
    del parts
    keys, ids = table[task.key].to_numpy(), _ranks(table[task.id])
    order = sorted_order(keys, ids, table[FILE].to_numpy(), table[LINE].to_numpy())
    table, rejected = table.take(pa.array(order)), 0
    if task.unique:
        table, rejected = _without_duplicates(task, table)
    keys = table[task.key].to_numpy()
    failed, counts = runs(np.sort(table[CUTS_FAILED].to_numpy()))
    table = table.drop_columns([FILE, LINE])
    files = {}
    for (low, high), path in zip(task.ranges, task.paths, strict=True):
        first, last = np.searchsorted(keys, [low, high])
        written = write_parquet(task.out / path, table.slice(int(first), int(last - first)), task.tiles)
        files[str(path)] = written["bytes"]
    return {
        "files": files,
        "rows": table.num_rows,
        "rejected": rejected,
        "cuts": {str(m): int(n) for m, n in zip(failed.tolist(), counts.tolist(), strict=True)},
    }


def _without_duplicates(task: TileTask, table: pa.Table) -> tuple[pa.Table, int]:
    ids = _ranks(table[task.id])
    ascending = np.sort(ids)
    if (ascending[1:] != ascending[:-1]).all():
        return table, 0
    file, line = table[FILE].to_numpy(), table[LINE].to_numpy()
    order = np.lexsort((line, file, ids))
    second = np.zeros(len(ids), dtype=bool)
    second[order[1:]] = ids[order[1:]] == ids[order[:-1]]
    names = table[task.id]
    files = read_names(task.out)
    rows = sorted(
        (files[file[i]], int(line[i]), f"duplicate {task.id} {names[int(i)].as_py()}")
        for i in np.flatnonzero(second)
    )
    write_rejects(task.out, task.name, rows)
    return table.filter(pa.array(~second)), len(rows)


def write_names(out: Path, paths: Sequence[Path]) -> None:
    """Write which file has which number: read where a row is to be named, and not carried by every task."""
    write_atomically(out / WORK / _NAMES, json.dumps([str(path) for path in paths]))


def read_names(out: Path) -> list[str]:
    """Return the paths of the files by number."""
    names: list[str] = json.loads((out / WORK / _NAMES).read_text())
    return names


def overlapping(groups: Sequence[Sequence[int]], low: int, high: int) -> tuple[int, ...]:
    """Return the row groups whose key range touches the half-open range."""
    return tuple(i for i, (first, last) in enumerate(groups) if first < high and last >= low)


def read_histograms(out: Path, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Add up the shards' histograms; return occupied cells, ascending, and their rows."""
    cells, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for name in names:
        with np.load(out / WORK / f"{name}.npz", allow_pickle=False) as part:
            cells.append(part["cells"])
            counts.append(part["counts"])
    occupied, inverse = np.unique(np.concatenate(cells), return_inverse=True)
    rows = np.bincount(inverse, weights=np.concatenate(counts), minlength=len(occupied))
    return occupied, rows.astype(np.int64)


def _ranks(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return integers in the order of the ids: the ids themselves, or the ranks of strings."""
    if pa.types.is_integer(ids.type):
        integers: npt.NDArray[np.int64] = ids.to_numpy()
        return integers
    ranks: npt.NDArray[np.int64] = np.unique(ids.to_numpy().astype(str), return_inverse=True)[1]
    return ranks
