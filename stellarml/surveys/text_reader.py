"""CSV, TSV and ECSV, gzipped or not, block by block.

The text is cut into blocks at line ends, and each goes through pyarrow's CSV reader (98 MB/s a core on a 152-column
bulk file, `gzip -dc` alone 103); `text_parser` says what happens to a block in which something is wrong, `text_header`
how the columns' names are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa

from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Block, Header, Part, RawReader, SourceFile, decompressing
from stellarml.surveys.text_header import read_header
from stellarml.surveys.text_lines import skip_line, whole_lines
from stellarml.surveys.text_parser import BlockParser


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
        with decompressing(file.path), file.open() as stream:
            return (read_header(file, stream, written),)

    def parts(self, header: Header, part_bytes: int) -> list[Part | None]:
        """Return ranges of bytes of a text that is not compressed; a row belongs to the range it begins in."""
        if header.file.gzipped or header.file.size <= part_bytes:
            return [None]
        with header.file.open() as stream:
            begin = sum(skip_line(stream) for _ in range(header.lines))
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
        with decompressing(header.file.path), header.file.open() as stream:
            line = 1 if part else header.lines + 1
            for block, too_long in whole_lines(stream, header, part, block_bytes):
                if too_long:
                    yield parser.too_long(line, too_long)
                    line += 1
                    continue
                after = line + block.count(b"\n")
                yield replace(parser.parse(block, line), last_line=after - 1)
                line = after
