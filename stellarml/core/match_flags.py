"""What each bit of `xm_flag` means: how a pair was matched.

The bits are a contract with every table of matches: a bit keeps its number and its meaning for ever.
"""

from __future__ import annotations

from enum import IntFlag


class MatchFlag(IntFlag):
    """Bits of the column `xm_flag` (int16)."""

    HAS_MULTIPLES = 1
    EPOCH_REPLACED = 2
    NO_PROPER_MOTION = 4
    PARALLAX_LEADS = 8
    MOVED_FAR = 16
    ERROR_AT_FLOOR = 32
    ERROR_REPLACED = 64
    COVARIANCE_PARTIAL = 128


DESCRIPTIONS: dict[MatchFlag, str] = {
    MatchFlag.HAS_MULTIPLES: "the right source is a good neighbour of several left sources",
    MatchFlag.EPOCH_REPLACED: "the source that stays has no epoch; the mean epoch of its catalogue stood in",
    MatchFlag.NO_PROPER_MOTION: (
        "the source that moves has no proper motion; it stayed, and an assumed one (crossmatch.missing_pm_mas_yr) "
        "times the interval widened its error"
    ),
    MatchFlag.PARALLAX_LEADS: (
        "parallax^2 / 2 is the larger part of the combined variance on the narrower axis"
    ),
    MatchFlag.MOVED_FAR: (
        "the source was moved by more than 1 arcsec: without proper motion this pair is not found, or not believed"
    ),
    MatchFlag.ERROR_AT_FLOOR: (
        "an error of the source that stays was below its catalogue's floor and was raised to it"
    ),
    MatchFlag.ERROR_REPLACED: "a position error was missing on either side and the descriptor's substitute was used",
    MatchFlag.COVARIANCE_PARTIAL: (
        "the source that moves has a proper motion with an error or a correlation missing; it counted as zero"
    ),
}
