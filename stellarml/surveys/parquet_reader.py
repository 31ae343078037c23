"""Parquet files, HATS leaves included: streamed."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import FileColumn, Header, SourceFile
from stellarml.surveys.table_reader import BLOCK_ROWS, TableReader


class ParquetReader(TableReader):
    """Parquet."""

    family = "parquet"
    suffixes = (".parquet", ".pq")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins with Parquet's mark."""
        return head.startswith(b"PAR1")

    def header(self, file: SourceFile, written: Files) -> Header:
        """Read the schema from the footer; see `RawReader.header`."""
        try:
            schema = pq.read_schema(file.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{file.path}: is not a readable Parquet file ({error}).") from None
        return Header(file, tuple(FileColumn(f.name, _plain(f.type)) for f in schema))

    def pieces(self, file: SourceFile, names: list[str]) -> Iterator[pa.Table]:
        """Yield the named columns, a batch at a time, checksums of pages verified."""
        try:
            with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
                for batch in parquet.iter_batches(BLOCK_ROWS, columns=names, use_threads=False):
                    yield pa.table({n: _decoded(batch.column(n)) for n in names})
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{file.path}: is not a readable Parquet file ({error}).") from None


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _decoded(array: pa.Array) -> pa.Array:
    return array.cast(_plain(array.type)) if array.type != _plain(array.type) else array
