"""The lines of a text file, a block of whole ones at a time, whatever lies between two line ends.

A lost line end makes a line of any length. One longer than any row is passed over in pieces, so that it costs neither
memory nor the lines beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from stellarml.surveys.raw_reader import Header, Part

MOST_LINE_BYTES = 4 << 20
"""A line that is longer is no row: a row of 3,000 columns has 60 kB, one with a spectrum some 100."""
_STEP = 1 << 20
Piece = tuple[bytes, int]
"""Whole lines, the last one ended, and 0; or nothing, and the bytes of one line that is too long."""


def skip_line(stream: IO[bytes]) -> int:
    """Read to the end of the line and keep nothing; return how many bytes that were."""
    size = 0
    while piece := stream.readline(_STEP):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def whole_lines(stream: IO[bytes], header: Header, part: Part | None, block_bytes: int) -> Iterator[Piece]:
    """Yield the lines below the header, about `block_bytes` of them at a time.

    Parameters
    ----------
    stream
        The file, decompressed, at its beginning.
    part
        A range of bytes: the lines that begin in it. None for all.
    """
    begin = sum(skip_line(stream) for _ in range(header.lines))
    if part and part.start > begin:
        stream.seek(part.start - 1)
        skip_line(stream)
    held: list[bytes] = []
    size = 0
    while chunk := stream.read(min(block_bytes, _left(stream, part, block_bytes))):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield from _apart(b"".join([*held, chunk[:cut]]))
            held, size = [], 0
        held.append(chunk[cut:])
        size += len(chunk) - cut
        if size > MOST_LINE_BYTES:
            yield b"", size + skip_line(stream)
            held, size = [], 0
    if size and part:  # the last line begins in the range and ends beyond it
        held.append(stream.readline(MOST_LINE_BYTES + 1))
        if not held[-1].endswith(b"\n") and (more := skip_line(stream)):
            yield b"", size + len(held[-1]) + more
            return
    last = b"".join(held)
    if last.strip():
        yield from _apart(last if last.endswith(b"\n") else last + b"\n")


def _left(stream: IO[bytes], part: Part | None, block_bytes: int) -> int:
    return max(part.end - stream.tell(), 0) if part else block_bytes


def _apart(block: bytes) -> Iterator[Piece]:
    """Yield the lines of `block` between those that are too long, and those."""
    if len(block) <= MOST_LINE_BYTES:
        yield block, 0
        return
    start = at = 0
    while at < len(block):
        end = block.index(b"\n", at) + 1
        if end - at > MOST_LINE_BYTES:
            if at > start:
                yield block[start:at], 0
            yield b"", end - at
            start = end
        at = end
    if start < len(block):
        yield block[start:], 0
