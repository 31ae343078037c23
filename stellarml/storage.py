"""HATS-tiled Parquet in and out.

A table with positions is a HATS catalogue (IVOA note "HATS"): adaptive HEALPix tiles, NESTED, leaves sorted by
``_healpix_29``. Leaves are written by the task that owns the tile, first under a hidden name, then renamed, so that a
reader sees a whole leaf or none; what belongs to the whole catalogue (properties, partition list, Parquet metadata) is
written last, by the hats library itself. The file system must be one that driver and executors share.
"""

from __future__ import annotations

import errno
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.config import Tiles
from stellarml.errors import StorageError
from stellarml.schema import HEALPIX_COLUMN

HEALPIX_ORDER = 29
_PATTERN = re.compile(r"[\[\]{}*?\\]")


@dataclass(frozen=True, order=True)
class Tile:
    """One HEALPix pixel, NESTED: `order` k and `pixel` number."""

    order: int
    pixel: int

    @property
    def range(self) -> tuple[int, int]:
        """Half-open range of `_healpix_29` inside the tile."""
        shift = 2 * (HEALPIX_ORDER - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift

    @property
    def name(self) -> str:
        """Stable name of the tile as a unit of work."""
        return f"Norder={self.order}_Npix={self.pixel}"

    @property
    def path(self) -> Path:
        """Path of the leaf below the catalogue."""
        directory = self.pixel // 10_000 * 10_000
        return Path("dataset", f"Norder={self.order}", f"Dir={directory}", f"Npix={self.pixel}.parquet")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full. What was finished is kept; free some space and run the same command again."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            where = f": {error.filename}" if error.filename and str(error.filename) != str(path) else ""
            raise StorageError(f"{path}: cannot write here ({error.strerror}{where}).") from error
        raise


def literal(path: Path) -> str:
    """Return a path as Spark takes it where it would take a pattern: brackets, braces, stars mean themselves."""
    return _PATTERN.sub(r"\\\g<0>", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden name to write to, which becomes `path` if all goes well: a reader never sees a part."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            yield hidden
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    with replacing(path) as hidden:
        hidden.write_bytes(content.encode() if isinstance(content, str) else content)


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that Parquet files encode by dictionary: text. Numbers of a survey hardly ever repeat."""
    return [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]


def write_parquet(path: Path, table: pa.Table, tiles: Tiles) -> dict[str, Any]:
    """Write one Parquet file atomically; return its rows and bytes.

    The bytes depend on the table and on `tiles` alone.
    """
    with leaf_writer(path, table.schema, tiles) as writer:
        writer.write(table)
    return {"rows": table.num_rows, "bytes": path.stat().st_size}


class LeafWriter:
    """Writes a Parquet file a row group at a time, whatever the batches that rows come in: see `leaf_writer`."""

    def __init__(self, path: Path, schema: pa.Schema, tiles: Tiles) -> None:
        self._schema, self._group = schema, tiles.row_group_rows
        self._held: list[pa.Table] = []
        self.rows = 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression=tiles.compression,
            use_dictionary=dictionary_columns(schema),
            write_statistics=[HEALPIX_COLUMN] if HEALPIX_COLUMN in schema.names else True,
            store_schema=True,
        )

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; full row groups are written at once."""
        self._held.append(rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows]))
        self.rows += rows.num_rows
        if sum(table.num_rows for table in self._held) >= self._group:
            self._flush(self._group)

    def close(self, *, flush: bool = True) -> None:
        """End the file, with what is held where `flush` is set."""
        if flush and self._held:
            self._flush(1)
        self._writer.close()

    def _flush(self, least: int) -> None:
        table = pa.concat_tables(self._held)
        start = 0
        while table.num_rows - start >= least:
            group = table.slice(start, self._group).combine_chunks()  # pages end where chunks do
            self._writer.write_table(group, row_group_size=self._group)
            start += group.num_rows
        self._held = [table.slice(start)] if start < table.num_rows else []


@contextmanager
def leaf_writer(path: Path, schema: pa.Schema, tiles: Tiles) -> Iterator[LeafWriter]:
    """Give a writer of one Parquet file, which is there, whole, when all went well, and otherwise not at all.

    The bytes depend on the rows and on `tiles` alone, not on how many are written at once.
    """
    with replacing(path) as hidden:
        writer = LeafWriter(hidden, schema, tiles)
        try:
            yield writer
        except BaseException:
            writer.close(flush=False)
            raise
        writer.close()


def sort_rows(table: pa.Table, *keys: str) -> pa.Table:
    """Return `table` sorted by `keys`; ties keep no memory of the input's order only if the keys are unique."""
    return table.take(pa.compute.sort_indices(table, [(key, "ascending") for key in keys]))


def choose_tiles(
    pixels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], order: int, tiles: Tiles
) -> list[tuple[Tile, int]]:
    """Choose the adaptive tiling of a catalogue: split any tile of more than `tiles.max_rows` rows in four.

    Parameters
    ----------
    pixels, counts
        Shape (n,): occupied pixels of `order`, ascending, and their rows.
    order
        The finest order; a pixel of that order is never split.

    Returns
    -------
    list of (Tile, rows)
        Occupied tiles in the order of the sky, which covers every row once.
    """
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    chosen: list[tuple[Tile, int]] = []

    def visit(tile: Tile) -> None:
        shift = 2 * (order - tile.order)
        low, high = np.searchsorted(pixels, [tile.pixel << shift, (tile.pixel + 1) << shift])
        rows = int(cumulative[high] - cumulative[low])
        if rows == 0:
            return
        splittable = tile.order < order
        if splittable and (rows > tiles.max_rows or tile.order < tiles.min_order):
            for child in range(4):
                visit(Tile(tile.order + 1, 4 * tile.pixel + child))
        else:
            chosen.append((tile, rows))

    for base in range(12):
        visit(Tile(0, base))
    return chosen
