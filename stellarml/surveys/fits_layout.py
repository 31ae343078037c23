"""Do the extensions of a FITS file lie where their headers say? Looked at before astropy reads them.

A damaged size sends astropy back into the file, for ever, or through a list of 10^12 axes; an extension whose first
word is damaged it passes over. All that is seen from a few cards of each header.
"""

from __future__ import annotations

import math
from typing import IO

from stellarml.core.errors import InputError
from stellarml.surveys.raw_reader import SourceFile, decompressing

_BLOCK, _CARD = 2880, 80
_MOST_BLOCKS = 8000
_STEP = 1 << 20
_SIZES = (8, 16, 32, 64, -32, -64)
_MOST = 999
Cards = dict[str, str]


def check_layout(file: SourceFile) -> None:
    """Walk from header to header; a gzipped file is decompressed once more for it.

    Raises
    ------
    InputError
        If a header does not end or states no size that can be, or the file ends before its data or goes on with
        something that is no extension.
    """
    with decompressing(file.path), file.open() as stream:
        number = 0
        while (cards := _cards(file, stream, number)) is not None:
            size = _data_bytes(file, cards, number)
            found = _skip(file, stream, size)
            if found < size:
                raise InputError(
                    f"{file.path}: ends within its extension {number}: it has {found} of {size} bytes of data. "
                    "Fetch it again."
                )
            _skip(file, stream, -size % _BLOCK)
            number += 1


def _cards(file: SourceFile, stream: IO[bytes], number: int) -> Cards | None:
    """Return the first value of each card of a header as text; None where the file has ended."""
    cards: Cards = {}
    for block_number in range(_MOST_BLOCKS):
        block = stream.read(_BLOCK)
        if block_number == 0 and number and not block.startswith(b"XTENSION"):
            if b"BITPIX  =" not in block:
                return None  # blanks or records of another kind, which FITS allows
            raise InputError(
                f"{file.path}: its extension {number} is damaged: it begins with {block[:8]!r}, expected XTENSION. "
                "Fetch it again."
            )
        if len(block) < _BLOCK and b"END     " not in block:
            break
        for start in range(0, len(block), _CARD):
            card = block[start : start + _CARD].decode("latin-1")
            if card[:8] == "END     ":
                return cards
            if card[8:9] == "=":
                cards.setdefault(card[:8].rstrip(), card[9:].partition("/")[0].strip())
    raise InputError(f"{file.path}: the header of its extension {number} does not end. Fetch it again.")


def _data_bytes(file: SourceFile, cards: Cards, number: int) -> int:
    """Return how many bytes of data follow a header."""

    def value(name: str, low: int, high: float, default: int | None = None) -> int:
        text = cards.get(name, "")
        if not text and default is not None:
            return default
        try:
            found = int(text)
        except ValueError:
            found = low - 1
        if not low <= found <= high:
            expected = f"{low} to {high}" if high < math.inf else f"{low} or more"
            raise InputError(
                f"{file.path}: extension {number}: {name} = {text[:40] or 'nothing'}, expected a whole number, "
                f"{expected}. The file is damaged: fetch it again."
            )
        return found

    bits = abs(value("BITPIX", min(_SIZES), max(_SIZES)))
    axes = [value(f"NAXIS{n}", 0, math.inf) for n in range(1, value("NAXIS", 0, _MOST) + 1)]
    value("TFIELDS", 0, _MOST, 0)
    if axes and axes[0] == 0 and cards.get("GROUPS") == "T":
        axes = axes[1:]
    elements = value("PCOUNT", 0, math.inf, 0) + math.prod(axes)
    return bits // 8 * value("GCOUNT", 1, math.inf, 1) * elements if axes else 0


def _skip(file: SourceFile, stream: IO[bytes], size: int) -> int:
    """Pass over `size` bytes; return how many there were."""
    if not file.gzipped:
        there = max(0, min(size, file.size - stream.tell()))
        stream.seek(there, 1)
        return there
    left = size
    while left and (piece := stream.read(min(left, _STEP))):
        left -= len(piece)
    return size - left
