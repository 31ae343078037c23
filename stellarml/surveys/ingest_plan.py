"""Which columns of which files, and which shards make which tile: settled before any row is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Ingest, Tiles
from stellarml.core.errors import InputError
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.core.tiles import INDEX_ORDER, PIXEL_FOLDER, SOURCE_ID_PIXEL_SHIFT, Tile, choose_tiles
from stellarml.run.log import get_logger
from stellarml.surveys.absent_columns import consequences_of_absence
from stellarml.surveys.column_mapping import Resolved, resolve
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.raw_reader import Header, SourceFile
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.shards import FILE, LINE, FileTask, SurveyTask
from stellarml.surveys.text_types import Guess, scan_texts
from stellarml.surveys.tile_rows import TileTask, overlapping, read_histograms

_Plan = tuple[str, tuple[tuple[int, int], ...], tuple[Path, ...], int]


@dataclass(frozen=True)
class IngestPlan:
    """What is settled before any row is read: what all tasks know, and what each file's own task knows."""

    task: SurveyTask
    resolved: Resolved
    files: tuple[FileTask, ...]


def read_plan(
    descriptor: Descriptor, files: Sequence[SourceFile], out: Path, settings: Ingest, tiles: Tiles
) -> IngestPlan:
    """Read every header and settle the columns; columns of text without a stated type cost one pass over the rows.

    Raises
    ------
    InputError
        If a file is damaged or a column is missing, in any of the files.
    """
    resolved = settled_columns(descriptor, files)
    log = get_logger()
    for note, warns in resolved.notes:
        (log.warning if warns else log.info)(note, survey=descriptor.name)
    for line in consequences_of_absence(descriptor, resolved):
        log.warning(line, survey=descriptor.name)
    if not descriptor.has_positions and resolved.schema.field(descriptor.id_column).type != pa.int64():
        raise InputError(
            f"survey '{descriptor.name}': column '{descriptor.id_column}' must hold integers: a table without "
            f"positions is keyed by source_id; found {resolved.schema.field(descriptor.id_column).type}."
        )
    shift = 2 * (INDEX_ORDER - tiles.max_order) if descriptor.has_positions else SOURCE_ID_PIXEL_SHIFT
    task = SurveyTask(out, descriptor, resolved.schema, settings.block_bytes, shift)
    return IngestPlan(task, resolved, tuple(_file_task(resolved, number) for number in range(len(files))))


def _file_task(resolved: Resolved, number: int) -> FileTask:
    header = resolved.headers[number]
    return FileTask(
        number,
        f"{number:05d}-{_stem(header.file.path)}",
        header,
        resolved.sources[number],
        resolved.read_schema(number),
        resolved.conversions[number],
    )


def declared_columns(descriptor: Descriptor, files: Sequence[SourceFile]) -> Resolved:
    """Read every header and settle which column of which file serves what; no row is read.

    Columns of text whose type nobody states are taken for numbers.

    Raises
    ------
    InputError
        If a file is damaged or a column is missing, in any of the files.
    """
    return resolve(descriptor, _headers(descriptor, files), {})


def settled_columns(descriptor: Descriptor, files: Sequence[SourceFile]) -> Resolved:
    """Settle the columns as `declared_columns` does, and the types that nobody states from all rows.

    Raises
    ------
    InputError
        As `declared_columns`.
    """
    given = _headers(descriptor, files)
    resolved = resolve(descriptor, given, {})
    untyped = _untyped(descriptor, resolved)
    if not untyped:
        return resolved
    return resolve(descriptor, given, _types_from_all_rows(descriptor, resolved, untyped))


def _headers(descriptor: Descriptor, files: Sequence[SourceFile]) -> list[tuple[Header, ...]]:
    def headers_of(file: SourceFile) -> tuple[Header, ...]:
        return reader_of(file).headers(file, descriptor.files)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(headers_of, files))


def _untyped(descriptor: Descriptor, resolved: Resolved) -> list[str]:
    """Return the columns whose type neither the descriptor nor some text file that has them states."""
    columns = [c.canonical for c in descriptor.wanted() if c.spark_type is None]
    untyped = []
    for name in columns:
        for number in resolved.files_with(name):
            source = resolved.sources[number][resolved.schema.get_field_index(name)]
            found = next(c for c in resolved.headers[number].columns if c.name == source)
            if found.type is None:
                untyped.append(name)
                break
    return untyped


def _types_from_all_rows(
    descriptor: Descriptor, resolved: Resolved, untyped: Sequence[str]
) -> dict[str, pa.DataType]:
    """Read the columns without a type once, in all text files, and return the types that hold all their values."""
    headers, wanted = [], []
    for number, header in enumerate(resolved.headers):
        if header.file.family == "text":
            names = {n: resolved.sources[number][resolved.schema.get_field_index(n)] for n in untyped}
            headers.append(header)
            wanted.append({canonical: source for canonical, source in names.items() if source is not None})
    scans = scan_texts(headers, [list(names.values()) for names in wanted], descriptor.files)
    guesses = {name: Guess() for name in untyped}
    for names, scan in zip(wanted, scans, strict=True):
        for canonical, source in names.items():
            guesses[canonical] = guesses[canonical].merged(scan.guesses[source])
    return {n: guess.type(exact=n == descriptor.id_column) for n, guess in guesses.items()}


def _stem(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in path.name.split(".")[0])[:60]


def output_schema(task: SurveyTask) -> pa.Schema:
    """Return the columns of the ingested table: those of the survey, `repairs`, `cuts_failed`, and the index."""
    fields = [f for f in task.schema if f.name not in (FILE, LINE)]
    fields += [pa.field(REPAIRS, pa.int64()), pa.field(CUTS_FAILED, pa.int64())]
    if task.descriptor.has_positions:
        fields.insert(0, pa.field(HEALPIX_COLUMN, pa.int64()))
    return pa.schema(fields)


def tile_tasks(
    task: SurveyTask, shards: Sequence[dict[str, Any]], tiling: Tiles
) -> list[tuple[TileTask, int]]:
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
        tasks.append((TileTask(task.out, name, ranges, paths, groups, key, task.id, unique, tiling), rows))
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
