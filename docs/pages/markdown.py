"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\") + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:_}"
    return str(value)


def as_code(text: Any) -> str:
    """Return text between backticks."""
    words = str(text)
    return f"`{words}`" if "`" not in words else f"`` {words} ``"


def markdown(docstring: str) -> str:
    """Turn a docstring's double backticks into Markdown's single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", docstring)


def sentence(text: str) -> str:
    """Return text with a capital at its beginning and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in line) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text on one line, its bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")
