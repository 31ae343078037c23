"""Bits are said once: in the enumerations; schema, report and documents take them from there."""

from __future__ import annotations

from enum import IntFlag

import pytest

from stellarml.core import match_flags, quality_flags
from stellarml.core.match_flags import MatchFlag
from stellarml.core.quality_flags import QualityFlag, names_of
from stellarml.core.schema import MATCHES, NEIGHBOURHOOD, label_columns

# A published bit keeps its number for ever: these lists only grow.
QUALITY = [
    "OUTSIDE_DOMAIN",
    "MISSING_BANDS",
    "MISSING_GSPPHOT",
    "WIDE_INTERVAL",
    "LABEL_EDGE",
    "REDDENING_BEYOND",
    "THIN_CALIBRATION",
    "CUT_FAILED",
    "ALL_MISSING",
    "OUTSIDE_JOINTLY",
    "COLOURS_DISAGREE",
]
MATCH = [
    "HAS_MULTIPLES",
    "EPOCH_REPLACED",
    "NO_PROPER_MOTION",
    "PARALLAX_LEADS",
    "MOVED_FAR",
    "ERROR_AT_FLOOR",
    "ERROR_REPLACED",
    "COVARIANCE_PARTIAL",
]


@pytest.mark.parametrize(
    ("flags", "names", "descriptions"),
    [(QualityFlag, QUALITY, quality_flags.DESCRIPTIONS), (MatchFlag, MATCH, match_flags.DESCRIPTIONS)],
)
def test_bits_keep_their_numbers_and_are_all_described(
    flags: type[IntFlag], names: list[str], descriptions: dict[IntFlag, str]
) -> None:
    assert [(flag.name, int(flag)) for flag in flags] == [(name, 1 << bit) for bit, name in enumerate(names)]
    assert set(descriptions) == set(flags) and all(len(text) > 20 for text in descriptions.values())


def test_names_of_a_mask() -> None:
    assert names_of(0) == []
    assert names_of(129) == ["OUTSIDE_DOMAIN", "CUT_FAILED"]


def test_every_table_with_a_mask_names_its_bits() -> None:
    for columns in (NEIGHBOURHOOD, MATCHES):
        (text,) = (column.description for column in columns if column.name == "xm_flag")
        assert all(f"{int(flag)} {flag.name}" in text for flag in MatchFlag)
    (text,) = (c.description for c in label_columns([("teff", "K")]) if c.name == "quality_flags")
    assert all(f"{int(flag)} {flag.name}" in text for flag in QualityFlag)
