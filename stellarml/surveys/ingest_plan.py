"""Which columns of which files, and which shards make which tile: settled before any row is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Ingest, Tiles
from stellarml.core.errors import InputError
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.core.tiles import INDEX_ORDER, PIXEL_FOLDER, SOURCE_ID_PIXEL_SHIFT, Tile, choose_tiles
from stellarml.run.log import get_logger
from stellarml.surveys.column_mapping import resolve
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.raw_reader import Header, SourceFile
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.shards import FILE, LINE, ReadTask, TileTask, overlapping, read_histograms

_Plan = tuple[str, tuple[tuple[int, int], ...], tuple[Path, ...], int]


def read_plan(
    descriptor: Descriptor, files: Sequence[SourceFile], out: Path, settings: Ingest, tiles: Tiles
) -> ReadTask:
    """Read every header and settle the columns, before any row is read."""

    def header_of(file: SourceFile) -> Header:
        return reader_of(file).header(file, descriptor.files)

    with ThreadPoolExecutor(8) as pool:
        headers = tuple(pool.map(header_of, files))
    guess = reader_of(headers[0].file).guessed_types(headers[0], descriptor.files)
    resolved = resolve(descriptor, headers, {name.lower(): kind for name, kind in guess.items()})
    if resolved.absent:
        get_logger().warning(
            "optional columns are absent", survey=descriptor.name, columns=list(resolved.absent)
        )
    if not descriptor.has_positions and resolved.schema.field(descriptor.id_column).type != pa.int64():
        raise InputError(
            f"survey '{descriptor.name}': column '{descriptor.id_column}' must hold integers: a table without "
            f"positions is keyed by source_id; found {resolved.schema.field(descriptor.id_column).type}."
        )
    shift = 2 * (INDEX_ORDER - tiles.max_order) if descriptor.has_positions else SOURCE_ID_PIXEL_SHIFT
    names = tuple(f"{i:05d}-{_stem(file.path)}" for i, file in enumerate(files))
    return ReadTask(out, descriptor, headers, resolved, names, settings.block_bytes, shift)


def _stem(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in path.name.split(".")[0])[:60]


def output_schema(task: ReadTask) -> pa.Schema:
    """Return the columns of the ingested table: those of the survey, `repairs`, `cuts_failed`, and the index."""
    fields = [f for f in task.schema if f.name not in (FILE, LINE)]
    fields += [pa.field(REPAIRS, pa.int64()), pa.field(CUTS_FAILED, pa.int64())]
    if task.descriptor.has_positions:
        fields.insert(0, pa.field(HEALPIX_COLUMN, pa.int64()))
    return pa.schema(fields)


def tile_tasks(task: ReadTask, shards: Sequence[dict[str, Any]], tiling: Tiles) -> list[tuple[TileTask, int]]:
    """Return what each tile gathers from which row groups of the shards, and its rows."""
    cells, counts = read_histograms(task.out, [s["name"] for s in shards])
    if task.descriptor.has_positions:
        key = HEALPIX_COLUMN
        chosen = choose_tiles(cells, counts, tiling.max_order, tiling)
        plans: list[_Plan] = [(tile.name, (tile.range,), (tile.path,), rows) for tile, rows in chosen]
    else:
        key = task.id
        plans = list(_pixel_plans(cells, counts, tiling.max_rows))
    unique = task.descriptor.kind != "labels"
    tasks = []
    for name, ranges, paths, rows in plans:
        low, high = ranges[0][0], ranges[-1][1]
        groups = tuple((s["name"], overlapping(s["groups"], low, high)) for s in shards)
        groups = tuple((shard, numbers) for shard, numbers in groups if numbers)
        files = tuple(str(header.file.path) for header in task.headers)
        tasks.append(
            (TileTask(task.out, name, ranges, paths, groups, key, task.id, unique, files, tiling), rows)
        )
    return tasks


def _pixel_plans(cells: np.ndarray, counts: np.ndarray, max_rows: int) -> Iterator[_Plan]:
    """Group neighbouring level-5 pixels into units of about `max_rows` rows."""
    unit = np.cumsum(counts) // max(max_rows, 1)
    for number in np.unique(unit):
        pixels = cells[unit == number].tolist()
        ranges = tuple((p << SOURCE_ID_PIXEL_SHIFT, (p + 1) << SOURCE_ID_PIXEL_SHIFT) for p in pixels)
        paths = tuple(Path("dataset", f"{PIXEL_FOLDER}={p}", "part.parquet") for p in pixels)
        yield f"pixels-{pixels[0]}-{pixels[-1]}", ranges, paths, int(counts[unit == number].sum())


def tile_of(task: TileTask) -> Tile:
    """Return the tile that a task writes."""
    order, pixel = task.name.removeprefix("Norder=").split("_Npix=")
    return Tile(int(order), int(pixel))
