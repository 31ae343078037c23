"""What a raw file is, and what a reader of one format must be able to say of it.

One interface for every command that takes files, one implementation a format (`raw_readers.READERS`): what one command
accepts, the others accept.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files

Family = Literal["text", "fits", "votable", "parquet"]


@dataclass(frozen=True)
class SourceFile:
    """One raw file: where it is, its size, its family of formats, whether it is gzipped, which table was asked for."""

    path: Path
    size: int
    family: Family
    gzipped: bool
    table: str | None = None

    def open(self) -> IO[bytes]:
        """Open for reading, decompressed."""
        if self.gzipped:
            from isal import igzip

            return cast("IO[bytes]", igzip.IGzipFile(self.path, "rb"))  # type: ignore[no-untyped-call]
        return self.path.open("rb")


@contextmanager
def decompressing(path: Path) -> Iterator[None]:
    """Turn what a damaged or truncated gzip file raises, at its first byte or its last, into our own error.

    Raises
    ------
    InputError
        Naming the file.
    """
    from isal import isal_zlib

    try:
        yield
    except EOFError:
        raise InputError(
            f"{path}: the gzip file is truncated: it ends before its end-of-stream mark. Fetch it again."
        ) from None
    except (zlib.error, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]
        raise InputError(f"{path}: the gzip file is damaged ({error}). Fetch it again.") from None


@dataclass(frozen=True)
class FileColumn:
    """A column as a file declares it; type and unit are None where the format has none.

    `alias` is a second name of the column: the ID of a VOTable's field, the last part of an ECSV mixin's name.
    """

    name: str
    type: pa.DataType | None = None
    unit: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its rows.

    `tables` are the numbers of the file's tables that have these columns, `titles` their names; both are empty for a
    format whose files are one table.
    """

    file: SourceFile
    columns: tuple[FileColumn, ...]
    delimiter: str = ","
    lines: int = 0
    tables: tuple[int, ...] = ()
    titles: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The file, and which of its tables where it names them."""
        return f"{self.file.path}[{', '.join(self.titles)}]" if self.titles else str(self.file.path)


@dataclass(frozen=True)
class Part:
    """A piece of a file that one task reads: a range of bytes of a text, of row groups of a Parquet file."""

    start: int
    end: int


@dataclass(frozen=True)
class Block:
    """Rows of one block, the line each came from, the lines rejected with their reason, and the block's last line."""

    table: pa.Table
    lines: npt.NDArray[np.int64]
    rejects: list[tuple[int, str]]
    last_line: int = 0


class RawReader(ABC):
    """Reads the files of one family of formats."""

    family: ClassVar[Family]
    suffixes: ClassVar[tuple[str, ...]]
    """Usual file extensions, in lower case, without ``.gz``; the first bytes decide, not these."""

    @abstractmethod
    def begins(self, head: bytes) -> bool:
        """Return whether the first bytes of a file, decompressed, are those of this family."""

    @abstractmethod
    def headers(self, file: SourceFile, written: Files) -> tuple[Header, ...]:
        """Read names, types and units of the columns, before any row.

        A file with several tables has a header for each set of columns; tables of the same columns share one, and are
        read one after the other.

        Parameters
        ----------
        written
            How a descriptor says that the files are written: comment mark, words for null.

        Raises
        ------
        InputError
            If the file is damaged or empty.
        """

    def parts(self, header: Header, part_bytes: int) -> list[Part | None]:
        """Return pieces of about `part_bytes` that can be read on their own; None is the whole file."""
        return [None]

    @abstractmethod
    def blocks(
        self,
        header: Header,
        names: list[str | None],
        schema: pa.Schema,
        written: Files,
        block_bytes: int,
        part: Part | None = None,
    ) -> Iterator[Block]:
        """Yield the rows as blocks of `schema`.

        Parameters
        ----------
        names
            For each field of `schema`, the file's own column name, or None where the file lacks it.
        block_bytes
            About so many bytes of a text file at a time.
        part
            One of `parts`, whose lines are counted from its own beginning; None for the whole file.

        Raises
        ------
        InputError
            If the file is truncated or damaged.
        """
