"""The first half of an ingest that runs on executors: files to sorted shards; `tile_rows` is the second.

A file becomes one or more shards, each sorted by the key (``_healpix_29``, or the id of a table without positions),
with the key range of every row group written down; a tile then reads just the row groups that touch it. Between
reading and sharding the rows pass through Spark once, for the SQL expressions of the descriptor. No shuffle, and every
shard and tile is a unit that survives a kill. In the shards each row knows its file and line, so that a later reject
can name them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stellarml.core import errors, sky
from stellarml.core.errors import StellarmlError
from stellarml.core.files import storage_errors, write_atomically
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS, ROW_NUMBER
from stellarml.run.ownership import WORK
from stellarml.run.units import failure, guarded, outcome_batch
from stellarml.surveys.descriptor import Descriptor, position_columns
from stellarml.surveys.raw_reader import Block, Header
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.unit_conversion import Conversion, wrapped_ra

FILE, LINE = "_file", "_line"
_SHARD_ROWS = 1_000_000
_GROUP_ROWS = 32_768
REJECT_SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])


@dataclass(frozen=True)
class SurveyTask:
    """What every task of an ingest needs, however many files there are: it says nothing of single files.

    `columns` is the schema of the survey's own columns.
    """

    out: Path
    descriptor: Descriptor
    columns: pa.Schema
    block_bytes: int
    histogram_shift: int

    @property
    def id(self) -> str:
        """Name of the id column."""
        return self.descriptor.id_column

    @property
    def numbered(self) -> bool:
        """Whether rows get a number: those without an id, and those of labels, whose ids may repeat."""
        labels = self.descriptor.kind == "labels" and self.descriptor.has_positions
        return self.id == ROW_NUMBER or labels

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows on their way to Spark."""
        fields = list(self.columns)
        if self.numbered:
            fields.insert(0, pa.field(ROW_NUMBER, pa.int64()))
        return pa.schema([*fields, pa.field(FILE, pa.int32()), pa.field(LINE, pa.int64())])


@dataclass(frozen=True)
class FileTask:
    """One file: its number and name in the ingest, its header, and how its columns become the survey's."""

    number: int
    name: str
    header: Header
    names: tuple[str | None, ...]
    read_as: pa.Schema
    conversions: Mapping[int, Conversion]


def read_file(task: SurveyTask, file: FileTask) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file; write down what was rejected, or why the file cannot be read."""
    summary: dict[str, Any] = {"rows": 0, "rejected": 0}
    rejects: list[tuple[int, str]] = []
    path = str(file.header.file.path)
    summary_file = summary_path(task.out, file.number)
    summary_file.unlink(missing_ok=True)
    try:
        for block in _blocks(task, file):
            table = _checked(task, file, block, rejects)
            summary["rows"] += table.num_rows
            yield from table.combine_chunks().to_batches()
        summary["rejected"] = len(rejects)
        if rejects:
            rows = [(path, line, reason) for line, reason in sorted(rejects)]
            write_rejects(task.out, file.name, rows)
    except (StellarmlError, OSError) as error:
        summary = failure(error)
    write_atomically(summary_file, json.dumps(summary | {"name": file.name, "path": path}))


def summary_path(out: Path, number: int) -> Path:
    """Return where `read_file` writes how a file went: its name, and rows and rejects, or an error."""
    return out / WORK / "read" / f"{number:05d}.json"


def _blocks(task: SurveyTask, file: FileTask) -> Iterator[Block]:
    """Yield the rows of one file in the survey's types and units."""
    reader, written = reader_of(file.header.file), task.descriptor.files
    for block in reader.blocks(file.header, list(file.names), file.read_as, written, task.block_bytes):
        table = block.table
        for column, conversion in file.conversions.items():
            values = conversion(table.column(column).combine_chunks())
            table = table.set_column(column, task.columns.field(column), values)
        yield replace(block, table=table)


def _checked(task: SurveyTask, file: FileTask, block: Block, rejects: list[tuple[int, str]]) -> pa.Table:
    """Reject rows without a usable id or position; add row number, file and line."""
    rejects.extend(block.rejects)
    table, lines = block.table, block.lines
    if task.numbered:
        numbers = (file.number << 40) + lines - file.header.lines - 1
        table = table.add_column(0, ROW_NUMBER, pa.array(numbers, pa.int64()))
    table = table.append_column(FILE, pa.array(np.full(table.num_rows, file.number), pa.int32()))
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


def shard_files(task: SurveyTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Take the rows of some files back from Spark, file after file; write their shards, and return the outcomes."""
    for number, pieces in groupby(_by_file(batches), key=itemgetter(0)):
        yield _shard_file(task, number, (piece for _, piece in pieces))


def _by_file(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of each file apart, with its number: a batch that comes from Spark may hold those of several."""
    for batch in batches:
        numbers = batch.column(batch.schema.get_field_index(FILE)).to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in pairwise(starts):
            if end > start:
                yield int(numbers[start]), batch.slice(start, end - start)


def _shard_file(task: SurveyTask, number: int, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch:
    kept: list[pa.RecordBatch] = []
    shards: list[dict[str, Any]] = []
    rows, problem = 0, None
    for batch in batches:
        if problem is not None:
            continue
        kept.append(batch)
        rows += batch.num_rows
        try:
            if sum(b.num_rows for b in kept) >= _SHARD_ROWS:
                shards.append(_write_shard(task, number, len(shards), kept))
                kept = []
        except (StellarmlError, OSError) as error:
            problem = error
    summary = json.loads(summary_path(task.out, number).read_text())

    def finish() -> dict[str, Any]:
        if problem is not None:
            raise problem
        if "error" in summary:
            raise getattr(errors, summary["kind"] or "StellarmlError")(summary["error"])
        if summary["rows"] != rows:
            raise StellarmlError(
                f"{summary['path']}: {summary['rows']} rows read, {rows} came back from Spark"
            )
        if kept:
            shards.append(_write_shard(task, number, len(shards), kept))
        files = {f"{WORK}/{s['name']}.{kind}": s[kind] for s in shards for kind in ("parquet", "npz")}
        return {"files": files, "rows": rows, "rejected": summary["rejected"], "shards": shards}

    return outcome_batch(summary["name"], guarded(task.out, f"read-{summary['name']}", finish))


def _write_shard(task: SurveyTask, file: int, number: int, batches: list[pa.RecordBatch]) -> dict[str, Any]:
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
    order = sorted_order(table[key].to_numpy(), table[LINE].to_numpy())
    table = table.take(pa.array(order)).combine_chunks()
    name = f"{file:05d}-{number:03d}"
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
        cells, counts = runs(keys >> task.histogram_shift)
        histogram = path.with_suffix(".npz")
        with histogram.open("wb") as stream:
            np.savez(stream, cells=cells, counts=counts)
    starts = np.arange(0, len(keys), _GROUP_ROWS)
    ends = np.minimum(starts + _GROUP_ROWS, len(keys)) - 1
    groups = [[int(a), int(b)] for a, b in zip(keys[starts], keys[ends], strict=True)]
    sizes = {"parquet": path.stat().st_size, "npz": histogram.stat().st_size}
    return {"name": name, "groups": groups, **sizes}


def sorted_order(keys: npt.NDArray[np.int64], *ties: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the order by `keys`, then by each of `ties`; fast where keys come in sorted runs and few are equal."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(np.diff(keys[order]) == 0)
    tied = np.zeros(len(order), dtype=bool)
    tied[same], tied[same + 1] = True, True
    rows = order[tied]
    order[tied] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), keys[rows]))]
    return order


def runs(ascending: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct values of sorted integers, and how many there are of each."""
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])
    return ascending[starts], np.diff(np.r_[starts, len(ascending)])
