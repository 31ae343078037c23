"""What a report page is made of: sections of tables, figures and notes, ready to be shown and nothing else.

The page is generic: a table is rows of text, a figure is PNG bytes with a caption. What is shown where is decided in
`chapters`, so that the template holds no astronomy and the content can be tested without parsing HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from stellarml.core.names import G_MAG
from stellarml.report.plot_style import DPI

NOTHING = "–"
_SYMBOLS = {
    "teff": Markup("<i>T</i><sub>eff</sub>"),
    "logg": Markup("log <i>g</i>"),
    "feh": Markup("[Fe/H]"),
    G_MAG: Markup("<i>G</i>"),
}


@dataclass(frozen=True)
class Table:
    """Rows of cells below a head; `lead` columns from the left hold words, the others numbers.

    `folded` tables open on a click; columns in `quiet` are set back, for reference values beside our own.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: int = 1
    folded: bool = False
    quiet: frozenset[int] = frozenset()
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its PNG beside the page, and its bytes."""

    name: str
    png: bytes
    caption: str
    alt: str
    kind: str = "figure"

    @property
    def width_px(self) -> int:
        """Return the width on the page: 100 pixels an inch of the figure, so that its text has the size of ours."""
        pixels = int.from_bytes(self.png[16:20], "big")
        return round(pixels * 100 / DPI)


@dataclass(frozen=True)
class Note:
    """A paragraph; `warning` where something that belongs here does not exist."""

    text: str
    warning: bool = False
    kind: str = "note"


Block = Table | Picture | Note


@dataclass(frozen=True)
class Chapter:
    """A titled part of the page; its title makes its anchor."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Return the id by which the table of contents reaches it."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Card:
    """One of the few numbers at the top of the page."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class ReportContent:
    """Everything the template shows."""

    title: str
    summary: str
    cards: Sequence[Card] = ()
    chapters: Sequence[Chapter] = field(default_factory=tuple)

    @property
    def pictures(self) -> list[Picture]:
        """Return every figure of the page, in order."""
        return [b for chapter in self.chapters for b in chapter.blocks if isinstance(b, Picture)]


def symbol(name: str) -> str:
    """Return how a quantity is written on the page; safe markup for the known ones."""
    return _SYMBOLS.get(name, name)


def shown(value: Any, digits: int = 4) -> str:
    """Return one value as a reader wants it: thousands apart, `digits` significant digits, a dash for nothing."""
    match value:
        case None:
            return NOTHING
        case bool() | np.bool_():
            return "yes" if value else "no"
        case int() | np.integer():
            return f"{int(value):,}".replace("-", "−")
        case float() | np.floating():
            return _float(float(value), digits)
        case Mapping():
            return ", ".join(f"{key}: {shown(item, digits)}" for key, item in value.items()) or NOTHING
        case list() | tuple() | set() | frozenset():
            return ", ".join(shown(item, digits) for item in value) or NOTHING
        case _:
            return str(value)


def measured(value: float | None) -> str:
    """Return a measurement to three significant digits, trailing zeros kept: 0.11 as ``0.110``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:#,.3g}".rstrip(".").replace("-", "−") if abs(value) < 1000 else _float(value, 4)


def percent(fraction: float | None, decimals: int = 1) -> str:
    """Return a fraction as a percentage, a dash where there is none."""
    return NOTHING if fraction is None else f"{fraction:.{decimals}%}"


def _float(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def flattened(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(name, value)`` of a nested mapping, names joined by ``›``; short lists stay whole."""
    for key, value in values.items():
        name = f"{before} › {key}" if before else str(key)
        if isinstance(value, Mapping) and value:
            yield from flattened(value, name)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            for i, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from flattened(item, f"{name} › {i + 1}")
                else:
                    yield f"{name} › {i + 1}", item
        else:
            yield name, value


def key_value_table(caption: str, values: Mapping[str, Any], *, folded: bool = False) -> Table:
    """Return a two-column table of whatever a nested mapping holds."""
    rows = [(name, shown(value, digits=10)) for name, value in flattened(values)]
    return Table(caption, ("quantity", "value"), rows, lead=2, folded=folded)


def plain_json(value: Any) -> Any:
    """Return `value` with only what JSON knows: NaN and infinities become None, NumPy numbers Python's."""
    match value:
        case None | str() | bool():
            return value
        case np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain_json(item) for key, item in value.items()}
        case np.ndarray():
            return plain_json(value.tolist())
        case list() | tuple():
            return [plain_json(item) for item in value]
        case set() | frozenset():
            return sorted(plain_json(item) for item in value)
        case Path():
            return value.as_posix()
        case _:
            return str(value)
