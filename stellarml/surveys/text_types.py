"""The types of a text file's columns, from all its rows: a value that does not fit widens the type.

Types guessed from the first rows are wrong where a late row holds a word, a fraction or a longer number, and a wrong
type loses values. So columns whose type nobody states cost one more pass over the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stellarml.surveys.column_mapping import EXACT_IN_FLOAT64
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import Header, Part
from stellarml.surveys.text_reader import TextReader

_PART_BYTES = 64 << 20
_BLOCK_BYTES = 8 << 20
_KEPT_REJECTS = 20
_TRUTH = ("true", "false", "t", "f")
_LONG_INTEGER = r"^[+-]?\d{17,}$"  # beyond what a float64 holds to the last digit
_NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)$"


@dataclass(frozen=True)
class Guess:
    """What all values of a column, seen so far, could be; `odd` is the first that is no number, with its line."""

    empty: bool = True
    whole: bool = True
    unsigned: bool = True
    number: bool = True
    truth: bool = True
    plain: bool = True
    long: bool = False
    odd: tuple[int, str] | None = None

    def type(self, *, exact: bool = False) -> pa.DataType:
        """Return the narrowest type that loses nothing; `exact` keeps text that a number would not give back: 0007."""
        if self.empty:
            return pa.null()
        if self.whole and (self.plain or not exact):
            return pa.int64()
        if self.unsigned and (self.plain or not exact):
            return pa.uint64()
        if self.number and not self.long and not exact:
            return pa.float64()
        return pa.bool_() if self.truth else pa.string()

    def merged(self, other: Guess, lines: int = 0) -> Guess:
        """Return what the values of both could be; `lines` come before those of `other`."""
        if self.empty or other.empty:
            found = other if self.empty else self
            return found.shifted(lines) if found is other else found
        odd = self.odd or other.shifted(lines).odd
        both = {
            n: getattr(self, n) and getattr(other, n)
            for n in ("whole", "unsigned", "number", "truth", "plain")
        }
        return Guess(False, **both, long=self.long or other.long, odd=odd)

    def shifted(self, lines: int) -> Guess:
        """Return the same with `lines` more before it."""
        if self.odd is None or lines == 0:
            return self
        return Guess(**{**self.__dict__, "odd": (self.odd[0] + lines, self.odd[1])})


@dataclass
class TextScan:
    """What one pass over a text has found: lines, rows, what each column could hold, the first lines that are no rows.

    `rejects` are (line, reason), at most 20 of the `rejected`.
    """

    lines: int = 0
    rows: int = 0
    guesses: dict[str, Guess] = field(default_factory=dict)
    rejects: list[tuple[int, str]] = field(default_factory=list)
    rejected: int = 0

    def followed_by(self, other: TextScan) -> TextScan:
        """Return the scan of this text with another one after it."""
        merged = {name: guess.merged(other.guesses[name], self.lines) for name, guess in self.guesses.items()}
        rejects = [*self.rejects, *((line + self.lines, reason) for line, reason in other.rejects)]
        return TextScan(
            self.lines + other.lines,
            self.rows + other.rows,
            merged,
            rejects[:_KEPT_REJECTS],
            self.rejected + other.rejected,
        )


def scan_texts(headers: Sequence[Header], names: Sequence[Sequence[str]], written: Files) -> list[TextScan]:
    """Read `names` of each file once, on all cores, and say what their values could be.

    Raises
    ------
    InputError
        If a file is truncated or damaged.
    """
    reader = TextReader()
    tasks = [
        (number, header, part)
        for number, header in enumerate(headers)
        for part in reader.parts(header, _PART_BYTES)
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda t: _scan(t[1], list(names[t[0]]), written, t[2]), tasks))
    scans = []
    for number, group in groupby(zip(tasks, found, strict=True), key=lambda pair: pair[0][0]):
        parts = [scan for _, scan in group]
        if len(parts) > 1:  # their lines are counted from where each begins
            empty = {name: Guess() for name in names[number]}
            parts.insert(0, TextScan(lines=headers[number].lines, guesses=empty))
        scans.append(reduce(TextScan.followed_by, parts))
    return scans


def _scan(header: Header, names: list[str], written: Files, part: Part | None) -> TextScan:
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    scan = TextScan(guesses={name: Guess() for name in names})
    for block in TextReader().blocks(header, list(names), schema, written, _BLOCK_BYTES, part):
        scan.lines = block.last_line
        scan.rows += block.table.num_rows
        scan.rejected += len(block.rejects)
        scan.rejects = [*scan.rejects, *block.rejects][:_KEPT_REJECTS]
        for name in names:
            values = block.table[name].combine_chunks()  # without blanks, and null where a word says so
            scan.guesses[name] = _widened(scan.guesses[name], values, block.lines)
    return scan


def _widened(guess: Guess, values: pa.Array, lines: npt.NDArray[np.int64]) -> Guess:
    """Return what the column could be after `values`; a test that has failed once is not made again."""
    there = pc.is_valid(values)
    if not pc.any(there).as_py():
        return guess
    found = values.filter(there)
    whole = _cast(found, pa.int64()) if guess.whole else None
    unsigned = whole if whole is not None else (_cast(found, pa.uint64()) if guess.unsigned else None)
    unsigned_fits = unsigned is not None and (unsigned is not whole or pc.min(whole).as_py() >= 0)
    plain = (
        guess.plain
        and unsigned is not None
        and bool(pc.all(pc.equal(unsigned.cast(pa.string()), found)).as_py())
    )
    number, odd = guess.number, guess.odd
    if whole is None and unsigned is None and number and _cast(found, pa.float64()) is None:
        wrong = pc.index(pc.match_substring_regex(found, _NUMBER), False).as_py()
        number = wrong < 0
        if not number:
            odd = odd or (int(lines[there.to_numpy(zero_copy_only=False)][wrong]), found[wrong].as_py())
    return Guess(
        empty=False,
        whole=whole is not None,
        unsigned=guess.unsigned and unsigned_fits,
        number=number,
        truth=guess.truth and bool(pc.all(pc.is_in(pc.utf8_lower(found), pa.array(_TRUTH))).as_py()),
        plain=plain,
        long=guess.long or _has_long(found, whole),
        odd=odd,
    )


def _has_long(found: pa.Array, whole: pa.Array | None) -> bool:
    """Tell whether some value is a whole number that a float64 may not hold to the last digit."""
    if whole is None:
        return bool(pc.any(pc.match_substring_regex(found, _LONG_INTEGER)).as_py())
    extremes = pc.min_max(whole)
    return bool(max(-extremes["min"].as_py(), extremes["max"].as_py()) > EXACT_IN_FLOAT64)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None
