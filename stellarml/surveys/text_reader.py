"""CSV, TSV and ECSV, gzipped or not, block by block.

The text is cut into blocks at line ends, and each goes through pyarrow's CSV reader (98 MB/s a core on a 152-column
bulk file, `gzip -dc` alone 103); `text_parser` says what happens to a block in which something is wrong, `text_header`
how the columns' names are found.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import IO

import pyarrow as pa
from isal import isal_zlib

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Block, Header, Part, RawReader, SourceFile
from stellarml.surveys.text_header import read_header
from stellarml.surveys.text_parser import BlockParser


@contextmanager
def _reading(file: SourceFile) -> Iterator[None]:
    """Turn what a damaged or truncated file raises into an InputError that names it."""
    try:
        yield
    except EOFError:
        raise InputError(
            f"{file.path}: the gzip file is truncated: it ends before its end-of-stream mark. Fetch it again."
        ) from None
    except (zlib.error, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]
        raise InputError(f"{file.path}: the gzip file is damaged ({error}). Fetch it again.") from None


class TextReader(RawReader):
    """CSV, TSV and ECSV; what is nothing else is text."""

    family = "text"
    suffixes = (".csv", ".tsv", ".ecsv", ".txt", ".dat")

    def begins(self, head: bytes) -> bool:
        """Return whether the head has no zero byte."""
        return b"\0" not in head

    def headers(self, file: SourceFile, written: Files) -> tuple[Header, ...]:
        """Read the comment lines and the line of column names.

        Raises
        ------
        InputError
            If the file is empty or its ECSV header is damaged.
        """
        with _reading(file), file.open() as stream:
            return (read_header(file, stream, written),)

    def parts(self, header: Header, part_bytes: int) -> list[Part | None]:
        """Return ranges of bytes of a text that is not compressed; a row belongs to the range it begins in."""
        if header.file.gzipped or header.file.size <= part_bytes:
            return [None]
        with header.file.open() as stream:
            begin = sum(len(stream.readline()) for _ in range(header.lines))
        starts = [*range(begin, header.file.size, part_bytes), header.file.size]
        return [Part(start, end) for start, end in pairwise(starts)]

    def blocks(
        self,
        header: Header,
        names: list[str | None],
        schema: pa.Schema,
        written: Files,
        block_bytes: int,
        part: Part | None = None,
    ) -> Iterator[Block]:
        """Yield the rows, cut at line ends; see `RawReader.blocks`."""
        parser = BlockParser(header, names, schema, written)
        with _reading(header.file), header.file.open() as stream:
            line = 1 if part else header.lines + 1
            for block in _whole_lines(stream, header, part, block_bytes):
                after = line + block.count(b"\n")
                yield replace(parser.parse(block, line), last_line=after - 1)
                line = after


def _whole_lines(stream: IO[bytes], header: Header, part: Part | None, block_bytes: int) -> Iterator[bytes]:
    """Yield whole lines, about `block_bytes` of them at a time, the last one ended."""
    begin = sum(len(stream.readline()) for _ in range(header.lines))
    if part and part.start > begin:
        stream.seek(part.start - 1)
        stream.readline()
    left = part.end - stream.tell() if part else None
    rest = b""
    while left is None or left > 0:
        chunk = stream.read(block_bytes if left is None else min(block_bytes, left))
        if not chunk:
            break
        if left is not None:
            left -= len(chunk)
            if left <= 0 and not chunk.endswith(b"\n"):
                chunk += stream.readline()
        cut = chunk.rfind(b"\n") + 1
        block, rest = (rest + chunk[:cut], chunk[cut:]) if cut else (b"", rest + chunk)
        if block:
            yield block
    if rest.strip():
        yield rest + b"\n"
