"""What a match can be asked for: which pairs, and which rows of the left catalogue."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Which pairs a match gives: every good neighbour, the best of each left source, or one-to-one pairs."""

    all = "all"
    best = "best"
    unique = "unique"


class Join(StrEnum):
    """Which left rows a match gives: matched ones, all of them, or those without a match in that mode."""

    inner = "inner"
    left = "left"
    anti = "anti"
