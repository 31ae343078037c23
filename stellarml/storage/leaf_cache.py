"""Which decoded columns does this process still hold? A row group is decoded once for many tasks.

The border of a tile runs through many row groups of its neighbours, and the tasks of neighbouring tiles run after one
another in the same process. Whole decoded columns of row groups are kept, the least recently used go first; a task that
needs a few rows of one takes a view. Files are distinguished by size and time of change, so a leaf that was written
anew is read anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.storage.hats_layout import leaf_metadata, parquet_metadata

CACHE_BYTES = 512 << 20
_MAX_FOOTERS = 64
FileKey = tuple[str, int, int]
Name = tuple[str, pa.DataType]
"""A column and the type it is read as."""


class ColumnCache:
    """Decoded columns of row groups, the least recently used dropped beyond `limit_bytes`."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._reader = ""
        self._columns: OrderedDict[Hashable, tuple[pa.ChunkedArray, int]] = OrderedDict()

    def fetch(
        self,
        block: Hashable,
        names: Sequence[Name],
        decode: Callable[[list[Name]], dict[Name, pa.ChunkedArray]],
    ) -> dict[Name, pa.ChunkedArray]:
        """Return the columns `names` of a row group; `decode` is called once, with those that are not held."""
        found = {}
        for name in names:
            held = self._columns.get((block, name))
            if held is not None:
                self._columns.move_to_end((block, name))
                found[name] = held[0]
        missing = [name for name in names if name not in found]
        if missing:
            for name, column in decode(missing).items():
                found[name] = column
                self._keep((block, name), column)
        return found

    def serve(self, reader: str) -> None:
        """Forget everything if what was read last was for another `reader`: no run profits from the one before it."""
        if reader != self._reader:
            self.clear()
            self._reader = reader

    def clear(self) -> None:
        """Forget everything."""
        self._columns.clear()
        self.bytes = 0

    def _keep(self, key: Hashable, column: pa.ChunkedArray) -> None:
        size = column.get_total_buffer_size()
        if size > self.limit_bytes:
            return
        if key in self._columns:
            self.bytes -= self._columns.pop(key)[1]
        self._columns[key] = column, size
        self.bytes += size
        while self.bytes > self.limit_bytes:
            _, (_, dropped) = self._columns.popitem(last=False)
            self.bytes -= dropped


COLUMNS = ColumnCache()
_FOOTERS: OrderedDict[FileKey, pq.FileMetaData] = OrderedDict()


def file_key(path: Path) -> FileKey:
    """Return what distinguishes this content of a file from another."""
    try:
        status = path.stat()
    except FileNotFoundError:
        parquet_metadata(path)
        raise
    return str(path), status.st_size, status.st_mtime_ns


def footer(path: Path, key: FileKey) -> pq.FileMetaData:
    """Return the footer of a Parquet file, parsed once a process.

    Raises
    ------
    InputError
        If the file is missing or is not Parquet.
    """
    if key in _FOOTERS:
        _FOOTERS.move_to_end(key)
        return _FOOTERS[key]
    metadata = leaf_metadata(path)
    _FOOTERS[key] = metadata
    if len(_FOOTERS) > _MAX_FOOTERS:
        _FOOTERS.popitem(last=False)
    return metadata
