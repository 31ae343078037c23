"""HATS-tiled Parquet in and out.

A table with positions is a HATS catalogue (IVOA note "HATS"): adaptive HEALPix tiles, NESTED, leaves sorted by
``_healpix_29``. Leaves are written by the task that owns the tile, first under a hidden name, then renamed, so that a
reader sees a whole leaf or none; what belongs to the whole catalogue (properties, partition list, Parquet metadata) is
written last, by the hats library itself. The file system must be one that driver and executors share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Tiles
from stellarml.core.files import replacing
from stellarml.core.names import HEALPIX_COLUMN


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


class LeafParts:
    """Writes the parts of a leaf as they come, and no file where none has a row.

    When all parts are written, `rows` and `bytes` are those of the file.
    """

    def __init__(self, path: Path, tiles: Tiles) -> None:
        self._path, self._tiles, self._stack = path, tiles, ExitStack()
        self._writer: LeafWriter | None = None
        self.rows, self.bytes = 0, 0

    def __enter__(self) -> LeafParts:
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if self._writer is not None and error[0] is None:
            self.bytes = self._path.stat().st_size

    def write(self, part: pa.Table) -> None:
        """Add the rows of a part; all parts have the same columns."""
        if not part.num_rows:
            return
        if self._writer is None:
            self._writer = self._stack.enter_context(leaf_writer(self._path, part.schema, self._tiles))
        self._writer.write(part)
        self.rows += part.num_rows


def sort_rows(table: pa.Table, *keys: str) -> pa.Table:
    """Return `table` sorted by `keys`; ties keep no memory of the input's order only if the keys are unique."""
    return table.take(pa.compute.sort_indices(table, [(key, "ascending") for key in keys]))
