"""The two halves of an ingest that run on executors: files to sorted shards, shards to tiles.

A file becomes one or more shards, each sorted by the key (``_healpix_29``, or the id of a table without positions),
with the key range of every row group written down; a tile then reads just the row groups that touch it. Between
reading and sharding the rows pass through Spark once, for the SQL expressions of the descriptor. No shuffle, and every
shard and tile is a unit that survives a kill. In the shards each row knows its file and line, so that a later reject
can name them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stellarml.core import errors, sky
from stellarml.core.config import Tiles
from stellarml.core.errors import StellarmlError
from stellarml.core.files import storage_errors, write_atomically
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.run.ownership import WORK
from stellarml.run.units import failure, guarded, outcome_batch
from stellarml.storage.parquet import write_parquet
from stellarml.surveys.column_mapping import Resolved
from stellarml.surveys.descriptor import Descriptor, position_columns
from stellarml.surveys.raw_reader import Block, Header
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.unit_conversion import wrapped_ra

FILE, LINE = "_file", "_line"
ROW_NUMBER = "row_number"
_SHARD_ROWS = 1_000_000
_GROUP_ROWS = 32_768
REJECT_SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])


@dataclass(frozen=True)
class ReadTask:
    """What a task needs to read any of a survey's files."""

    out: Path
    descriptor: Descriptor
    headers: tuple[Header, ...]
    resolved: Resolved
    names: tuple[str, ...]
    block_bytes: int
    histogram_shift: int

    @property
    def id(self) -> str:
        """Name of the id column."""
        return self.descriptor.id_column

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows on their way to Spark."""
        fields = list(self.resolved.schema)
        if self.id == ROW_NUMBER:
            fields.insert(0, pa.field(ROW_NUMBER, pa.int64()))
        return pa.schema([*fields, pa.field(FILE, pa.int32()), pa.field(LINE, pa.int64())])


def read_file(task: ReadTask, index: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file; write down what was rejected, or why the file cannot be read."""
    summary: dict[str, Any] = {"rows": 0, "rejected": 0}
    rejects: list[tuple[int, str]] = []
    path = str(task.headers[index].file.path)
    summary_file = summary_path(task.out, task.names[index])
    summary_file.unlink(missing_ok=True)
    try:
        for block in _blocks(task, index):
            table = _checked(task, index, block, rejects)
            summary["rows"] += table.num_rows
            yield from table.combine_chunks().to_batches()
        summary["rejected"] = len(rejects)
        if rejects:
            write_rejects(
                task.out, task.names[index], [(path, line, reason) for line, reason in sorted(rejects)]
            )
    except (StellarmlError, OSError) as error:
        summary = failure(error)
    write_atomically(summary_file, json.dumps(summary))


def summary_path(out: Path, name: str) -> Path:
    """Return where `read_file` writes how it went: rows and rejects, or an error."""
    return out / WORK / "read" / f"{name}.json"


def _blocks(task: ReadTask, index: int) -> Iterator[Block]:
    """Yield the rows of one file in the survey's types and units."""
    header, resolved = task.headers[index], task.resolved
    schema, names = resolved.read_schema(index), list(resolved.sources[index])
    blocks = reader_of(header.file).blocks(header, names, schema, task.descriptor.files, task.block_bytes)
    for block in blocks:
        table = block.table
        for column, conversion in resolved.conversions[index].items():
            values = conversion(table.column(column).combine_chunks())
            table = table.set_column(column, resolved.schema.field(column), values)
        yield replace(block, table=table)


def _checked(task: ReadTask, index: int, block: Block, rejects: list[tuple[int, str]]) -> pa.Table:
    """Reject rows without a usable id or position; add row number, file and line."""
    rejects.extend(block.rejects)
    table, lines = block.table, block.lines
    if task.id == ROW_NUMBER:
        numbers = (index << 40) + lines - task.headers[index].lines - 1
        table = table.add_column(0, ROW_NUMBER, pa.array(numbers, pa.int64()))
    table = table.append_column(FILE, pa.array(np.full(table.num_rows, index), pa.int32()))
    table = table.append_column(LINE, pa.array(lines, pa.int64()))
    good = pc.is_valid(table[task.id].combine_chunks()).to_numpy(zero_copy_only=False)
    rejects.extend((int(n), f"column '{task.id}': no id") for n in lines[~good])
    if task.descriptor.has_positions:
        ra, dec = position_columns(task.descriptor)
        given = table[ra].to_numpy()
        turned = wrapped_ra(given)
        if turned is not given:
            table = table.set_column(table.column_names.index(ra), ra, pa.array(turned, from_pandas=True))
        placed = _on_the_sphere(turned, table[dec].to_numpy())
        rejects.extend(
            (int(n), f"columns '{ra}', '{dec}': no position on the sky") for n in lines[good & ~placed]
        )
        good &= placed
    return table if good.all() else table.filter(pa.array(good))


def _on_the_sphere(
    ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        placed: npt.NDArray[np.bool_] = (ra_deg >= 0) & (ra_deg < 360) & (np.abs(dec_deg) <= 90)
    return placed


def write_rejects(out: Path, name: str, rows: Sequence[tuple[str, int, str]]) -> None:
    """Write rejected rows: file, line, reason."""
    columns = list(zip(*rows, strict=True))
    path = out / WORK / "rejects" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(path):
        pq.write_table(pa.table([list(c) for c in columns], schema=REJECT_SCHEMA), path)


def without_expressions(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add ``repairs`` and ``cuts_failed`` of a survey whose descriptor has neither sentinels nor cuts."""
    for batch in batches:
        zeros = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
        yield batch.append_column(REPAIRS, zeros).append_column(CUTS_FAILED, zeros)


def shard_file(task: ReadTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Take one file's rows back from Spark, write its shards, and return the outcome."""
    kept: list[pa.RecordBatch] = []
    shards: list[dict[str, Any]] = []
    index, rows, problem = -1, 0, None
    for batch in batches:
        if problem is not None or batch.num_rows == 0:
            continue
        index = batch.column(batch.schema.get_field_index(FILE))[0].as_py()
        kept.append(batch)
        rows += batch.num_rows
        try:
            if sum(b.num_rows for b in kept) >= _SHARD_ROWS:
                shards.append(_write_shard(task, index, len(shards), kept))
                kept = []
        except (StellarmlError, OSError) as error:
            problem = error
    if index < 0:
        return
    name = task.names[index]

    def finish() -> dict[str, Any]:
        if problem is not None:
            raise problem
        summary = json.loads(summary_path(task.out, name).read_text())
        if "error" in summary:
            raise getattr(errors, summary["kind"] or "StellarmlError")(summary["error"])
        if summary["rows"] != rows:
            raise StellarmlError(
                f"{task.headers[index].file.path}: {summary['rows']} rows read, {rows} came back from Spark"
            )
        if kept:
            shards.append(_write_shard(task, index, len(shards), kept))
        files = {f"{WORK}/{s['name']}.{kind}": s[kind] for s in shards for kind in ("parquet", "npz")}
        return {"files": files, "rows": rows, "rejected": summary["rejected"], "shards": shards}

    yield outcome_batch(name, guarded(task.out, f"read-{name}", finish))


def _write_shard(task: ReadTask, index: int, number: int, batches: list[pa.RecordBatch]) -> dict[str, Any]:
    table = pa.Table.from_batches(batches)
    # Spark calls some columns "not null", files do not; it knows no unsigned integers
    unsigned = {field.name for field in task.schema if pa.types.is_uint64(field.type)}
    columns = [table[n].cast(pa.uint64()) if n in unsigned else table[n] for n in table.column_names]
    table = pa.table(columns, names=table.column_names)
    key = task.id
    if task.descriptor.has_positions:
        ra, dec = position_columns(task.descriptor)
        pixels = sky.healpix_29(table[ra].to_numpy(), table[dec].to_numpy())
        table = table.add_column(0, HEALPIX_COLUMN, pa.array(pixels))
        key = HEALPIX_COLUMN
    order = _sorted_order(table[key].to_numpy(), table[LINE].to_numpy())
    table = table.take(pa.array(order)).combine_chunks()
    name = f"{task.names[index]}-{number:03d}"
    path = task.out / WORK / f"{name}.parquet"
    with storage_errors(path):
        pq.write_table(
            table,
            path,
            row_group_size=_GROUP_ROWS,
            compression="lz4",
            use_dictionary=False,
            write_statistics=False,
        )
        keys = table[key].to_numpy()
        cells, counts = _runs(keys >> task.histogram_shift)
        histogram = path.with_suffix(".npz")
        with histogram.open("wb") as stream:
            np.savez(stream, cells=cells, counts=counts)
    starts = np.arange(0, len(keys), _GROUP_ROWS)
    ends = np.minimum(starts + _GROUP_ROWS, len(keys)) - 1
    groups = [[int(a), int(b)] for a, b in zip(keys[starts], keys[ends], strict=True)]
    sizes = {"parquet": path.stat().st_size, "npz": histogram.stat().st_size}
    return {"name": name, "groups": groups, **sizes}


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
    files: tuple[str, ...]
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
    order = _sorted_order(keys, ids, table[FILE].to_numpy(), table[LINE].to_numpy())
    table, rejected = table.take(pa.array(order)), 0
    if task.unique:
        table, rejected = _without_duplicates(task, table)
    keys = table[task.key].to_numpy()
    failed, counts = _runs(np.sort(table[CUTS_FAILED].to_numpy()))
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
    rows = sorted(
        (task.files[file[i]], int(line[i]), f"duplicate {task.id} {names[int(i)].as_py()}")
        for i in np.flatnonzero(second)
    )
    write_rejects(task.out, task.name, rows)
    return table.filter(pa.array(~second)), len(rows)


def _ranks(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return integers in the order of the ids: the ids themselves, or the ranks of strings."""
    if pa.types.is_integer(ids.type):
        integers: npt.NDArray[np.int64] = ids.to_numpy()
        return integers
    ranks: npt.NDArray[np.int64] = np.unique(ids.to_numpy().astype(str), return_inverse=True)[1]
    return ranks


def _sorted_order(keys: npt.NDArray[np.int64], *ties: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the order by `keys`, then by each of `ties`; fast where keys come in sorted runs and few are equal."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(np.diff(keys[order]) == 0)
    tied = np.zeros(len(order), dtype=bool)
    tied[same], tied[same + 1] = True, True
    rows = order[tied]
    order[tied] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), keys[rows]))]
    return order


def _runs(ascending: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct values of sorted integers, and how many there are of each."""
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])
    return ascending[starts], np.diff(np.r_[starts, len(ascending)])


def overlapping(groups: Sequence[Sequence[int]], low: int, high: int) -> tuple[int, ...]:
    """Return the row groups whose key range touches the half-open range."""
    return tuple(i for i, (first, last) in enumerate(groups) if first < high and last >= low)


def read_histograms(out: Path, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Add up the shards' histograms; return occupied cells, ascending, and their rows."""
    cells, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for name in names:
        with np.load(out / WORK / f"{name}.npz", allow_pickle=False) as part:
            merged = np.concatenate([cells, part["cells"]])
            rows = np.concatenate([counts, part["counts"]])
        cells, inverse = np.unique(merged, return_inverse=True)
        counts = np.bincount(inverse, weights=rows).astype(np.int64)
    return cells, counts
