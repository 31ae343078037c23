"""Parquet files, HATS leaves included: streamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError
from stellarml.run.log import get_logger
from stellarml.storage.parquet_files import reading_parquet, refuse_other_files
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import FileColumn, Header, Part, SourceFile
from stellarml.surveys.table_reader import BLOCK_ROWS, TableReader


class ParquetReader(TableReader):
    """Parquet."""

    family = "parquet"
    suffixes = (".parquet", ".pq")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins with Parquet's mark."""
        return head.startswith(b"PAR1")

    def headers(self, file: SourceFile, written: Files) -> tuple[Header, ...]:
        """Read the schema from the footer; see `RawReader.headers`."""
        with reading_parquet(file.path), pq.ParquetFile(file.path) as parquet:
            refuse_other_files(file.path, parquet.metadata)
            schema = parquet.schema_arrow
            twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
            columns = [FileColumn(f.name, _plain(f.type), _unit(f)) for f in schema if f.name not in twice]
        if twice:
            get_logger().warning(f"{file.path}: columns that stand twice cannot be read: {', '.join(twice)}")
        return (Header(file, tuple(columns)),)

    def parts(self, header: Header, part_bytes: int) -> list[Part | None]:
        """Return runs of row groups of about `part_bytes`; see `RawReader.parts`."""
        with reading_parquet(header.file.path), pq.ParquetFile(header.file.path) as parquet:
            groups = parquet.metadata.num_row_groups
        each = max(1, -(-groups * part_bytes // max(header.file.size, 1)))
        return [Part(start, min(start + each, groups)) for start in range(0, groups, each)]

    def pieces(self, header: Header, names: list[str], part: Part | None = None) -> Iterator[pa.Table]:
        """Yield the named columns, a batch at a time, checksums of pages verified."""
        path = header.file.path
        with reading_parquet(path), pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            groups = range(part.start, part.end) if part else range(parquet.metadata.num_row_groups)
            expected = sum(parquet.metadata.row_group(group).num_rows for group in groups)
            batches = parquet.iter_batches(
                BLOCK_ROWS, row_groups=list(groups), columns=names, use_threads=False
            )
            for batch in batches:
                expected -= batch.num_rows
                yield pa.table({name: _decoded(batch.column(name)) for name in names})
        if expected and names:
            raise InputError(
                f"{path}: is not a readable Parquet file (its row groups hold {abs(expected)} rows "
                f"{'fewer' if expected > 0 else 'more'} than its footer says)."
            )


def _unit(field: pa.Field) -> str | None:
    """Return the unit that a field's metadata state, as this package and others write it."""
    unit = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
    return unit or None


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type)
    return pa.float32() if pa.types.is_float16(kind) else kind


def _decoded(array: pa.Array) -> pa.Array:
    return array.cast(_plain(array.type)) if array.type != _plain(array.type) else array
