"""Ways to damage a file; every one is a function of its random numbers alone."""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

TOKENS = (
    b"", b" ", b"nan", b"inf", b"-inf", b"1e999", b"9" * 400, b"9223372036854775808", b"-1", b"0x10", b"1.0",
    b"\xff\xfe", b"\xef\xbb\xbf", b"caf\xe9", "é".encode(), b"\x00", b"\x1a", b"\x0c", b"\xc2\x85", b'"', b'""', b"'",
    b'a"b', b"#", b"%", b"\r", b"\t", b"|", b",", b";", b"&x;", b"&#0;", b"<", b"]]>", b"null", b"None", b"true",
    b"[" * 3000, b"{" * 3000, b"a." * 3000, b"[]", b"{}", b"- " * 2000, b"&a [*a]", b"<<: *a",
    b"!!python/name:os.system", b"!!binary x", b"!!int x", b"!!timestamp x", b"!include x", b"2026-13-45",
    b"2026-01-01", b"12:30:45", b"0o9", b"1_000", b"http://127.0.0.1:9/x", b"ftp://127.0.0.1/x", b"../../x",
    b"/etc/passwd", b"~", b"*", b"=", b"T", b"\\u12", b"\\", b"-9999", b"18446744073709551616", b"int64", b"string",
    b"float64[3]", b"bool", b"object", b"%ECSV 1.0",
)  # fmt: skip


@dataclass(frozen=True)
class Lines:
    """How the lines of a sample are made up: how many are no rows, and what stands between two fields."""

    header: int
    delimiter: bytes
    comment: bytes = b"#"

    def rows(self, data: bytes) -> int:
        """Count the lines that are to be a row or a reject, without any of the readers' own code."""
        below = [line.removeprefix(b"\xef\xbb\xbf") for line in data.split(b"\n")[self.header :]]
        return sum(bool(line.strip()) and not line.startswith(self.comment) for line in below)


def damaged(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return `data` after one to four of the ways to damage it; `others` lend their headers and their pieces."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        data = random.choice(_WAYS)(random, data, others)
    return data


def damaged_fields(random: Random, data: bytes, lines: Lines) -> bytes:
    """Return `data` with some fields of some rows replaced, emptied, doubled or taken out; no line is added or lost."""
    found = data.split(b"\n")
    below = [n for n in range(lines.header, len(found)) if found[n]]
    for _ in range(random.randint(1, 4) if below else 0):
        row = random.choice(below)
        fields = found[row].split(lines.delimiter)
        place = random.randrange(len(fields))
        what = random.randrange(4)
        if what == 0:
            fields[place] = random.choice(TOKENS)
        elif what == 1:
            fields[place] = b""
        elif what == 2:
            fields.insert(place, fields[place])
        else:
            del fields[place]
        found[row] = lines.delimiter.join(fields)
    return b"\n".join(found)


def damaged_cards(random: Random, data: bytes) -> bytes:
    """Return a FITS file with other values in some cards of its headers, each still 80 bytes long."""
    found = bytearray(data)
    cards = [n for n in range(0, len(data), 80) if data[n + 8 : n + 10] == b"= "]
    for _ in range(random.randint(1, 3) if cards else 0):
        at = random.choice(cards)
        values = (
            str(random.choice((-1, 0, 1, 7, 2880, 1 << 40))).encode(),
            random.choice(TOKENS),
            b"'PE(3)'",
            b"'9A'",
            b"'K'",
        )
        found[at + 10 : at + 80] = random.choice(values)[:70].rjust(20).ljust(70)
    return bytes(found)


def damaged_xml(random: Random, data: bytes) -> bytes:
    """Return a VOTable with other values in some attributes and cells, and with other bytes in its stream."""
    for _ in range(random.randint(1, 3)):
        if (stream := re.search(rb"(<STREAM[^>]*>)([^<]+)", data)) and random.random() < 0.5:
            rows = damaged(random, base64.b64decode(stream[2]), [b"\x00" * 40])
            data = data[: stream.start(2)] + base64.b64encode(rows) + data[stream.end(2) :]
            continue
        places = [m.span(1) for m in re.finditer(rb'(?:="|<TD>)([^"<]*)', data)]
        if not places:
            return data
        begin, end = random.choice(places)
        word = random.choice(TOKENS)[:200].decode("ascii", "ignore")
        word = "".join(c for c in word if c >= " ")
        data = data[:begin] + html.escape(word).encode() + data[end:]
    return data


def zipped(random: Random, data: bytes) -> bytes:
    """Return `data` as one gzip member or two."""
    if random.random() < 0.2:
        cut = random.randrange(len(data) + 1)
        return gzip.compress(data[:cut], 1, mtime=0) + gzip.compress(data[cut:], 9, mtime=0)
    return gzip.compress(data, random.choice((0, 1, 6)), mtime=0)


def _flip_bits(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    found = bytearray(data)
    for _ in range(random.randint(1, 8) if found else 0):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def _flip_at_ends(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change bytes near the beginning or the end, where headers and footers are."""
    found = bytearray(data)
    for _ in range(random.randint(1, 6) if found else 0):
        place = min(random.randrange(1 << random.randint(1, 11)), len(found) - 1)
        found[random.choice((place, -1 - place))] = random.randrange(256)
    return bytes(found)


def _truncate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    place = random.choice((random.randrange(len(data) + 1), min(random.randrange(64), len(data))))
    return data[:place] if random.random() < 0.8 else data[place:]


def _span(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randint(1, 1 << random.randint(0, 11)))


def _remove(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def _double(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, data)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 40)) + data[end:]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    start, end = _span(random, other)
    place = random.randrange(len(data) + 1)
    return (
        data[:place] + other[start:end] + data[random.choice((place, min(place + end - start, len(data)))) :]
    )


def _exchange_header(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    if random.random() < 0.5:
        lines = random.randint(1, 12)
        return b"\n".join(other.split(b"\n")[:lines] + data.split(b"\n")[random.choice((lines, 1)) :])
    size = random.choice((4, 16, 80, 512, 2880))
    return other[:size] + data[size:]


def _swap_lines(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    a, b = random.randrange(len(lines)), random.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _token(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, data)
    return data[:start] + random.choice(TOKENS) + data[random.choice((start, min(end, start + 8))) :]


def _word(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Put a token in place of one word: a value behind ``=``, ``:`` or ``,``, a name, a number."""
    words = [n for n, byte in enumerate(data[:20_000]) if byte in b" ,:=\"'<>\n\t|;[]{}"]
    if len(words) < 2:
        return data
    at = random.randrange(len(words) - 1)
    return data[: words[at] + 1] + random.choice(TOKENS) + data[words[at + 1] :]


_WAYS = (
    _flip_bits, _flip_at_ends, _truncate, _remove, _double, _splice, _exchange_header, _swap_lines, _token, _word,
    _word,
)  # fmt: skip
