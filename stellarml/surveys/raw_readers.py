"""The readers there are, one a format, and which of them reads a file."""

from __future__ import annotations

from stellarml.surveys.astropy_readers import FitsReader, VotableReader
from stellarml.surveys.parquet_reader import ParquetReader
from stellarml.surveys.raw_reader import RawReader, SourceFile
from stellarml.surveys.text_reader import TextReader

READERS: tuple[RawReader, ...] = (ParquetReader(), FitsReader(), VotableReader(), TextReader())
"""In the order in which they are asked; text takes what nobody else knows."""


def reader_of(file: SourceFile) -> RawReader:
    """Return the reader of a file's family."""
    return next(reader for reader in READERS if reader.family == file.family)


def reader_that_begins(head: bytes) -> RawReader | None:
    """Return the first reader whose files begin like `head`; None where nobody knows them."""
    return next((reader for reader in READERS if reader.begins(head)), None)
