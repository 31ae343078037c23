"""What a raw file is, and what a reader of one format must be able to say of it.

One interface for every command that takes files, one implementation a format (`raw_readers.READERS`): what one command
accepts, the others accept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.surveys.descriptor import Files

Family = Literal["text", "fits", "votable", "parquet"]


@dataclass(frozen=True)
class SourceFile:
    """One raw file: where it is, its size, its family of formats, and whether it is gzipped."""

    path: Path
    size: int
    family: Family
    gzipped: bool

    def open(self) -> IO[bytes]:
        """Open for reading, decompressed."""
        if self.gzipped:
            from isal import igzip

            return cast("IO[bytes]", igzip.IGzipFile(self.path, "rb"))  # type: ignore[no-untyped-call]
        return self.path.open("rb")


@dataclass(frozen=True)
class FileColumn:
    """A column as a file declares it; type and unit are None where the format has none."""

    name: str
    type: pa.DataType | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its rows."""

    file: SourceFile
    columns: tuple[FileColumn, ...]
    delimiter: str = ","
    lines: int = 0


@dataclass(frozen=True)
class Block:
    """Rows of one block, the line each came from, and the lines rejected with their reason."""

    table: pa.Table
    lines: npt.NDArray[np.int64]
    rejects: list[tuple[int, str]]


class RawReader(ABC):
    """Reads the files of one family of formats."""

    family: ClassVar[Family]
    suffixes: ClassVar[tuple[str, ...]]
    """Usual file extensions, in lower case, without ``.gz``; the first bytes decide, not these."""

    @abstractmethod
    def begins(self, head: bytes) -> bool:
        """Return whether the first bytes of a file, decompressed, are those of this family."""

    @abstractmethod
    def header(self, file: SourceFile, written: Files) -> Header:
        """Read names, types and units of the columns, before any row.

        Parameters
        ----------
        written
            How a descriptor says that the files are written: comment mark, words for null.

        Raises
        ------
        InputError
            If the file is damaged or empty.
        """

    def guessed_types(self, header: Header, written: Files) -> dict[str, pa.DataType]:
        """Return types found in the first rows, for a format that states none."""
        return {}

    @abstractmethod
    def blocks(
        self, header: Header, names: list[str | None], schema: pa.Schema, written: Files, block_bytes: int
    ) -> Iterator[Block]:
        """Yield the rows as blocks of `schema`.

        Parameters
        ----------
        names
            For each field of `schema`, the file's own column name, or None where the file lacks it.
        block_bytes
            About so many bytes of a text file at a time.

        Raises
        ------
        InputError
            If the file is truncated or damaged.
        """
