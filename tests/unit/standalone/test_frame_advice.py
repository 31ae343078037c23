"""A frame offset that nobody asked to be removed is named, with the option that removes it."""

from __future__ import annotations

import pytest

from stellarml.standalone.match import frame_advice


def statistics(
    east: float | None, north: float | None, error: float = 1.0, pairs: int = 5000
) -> dict[str, object]:
    return {"offset_ra_mas": east, "offset_dec_mas": north, "offset_error_mas": error, "offset_pairs": pairs}


def test_an_offset_above_50_mas_suggests_the_option() -> None:
    advice = frame_advice(statistics(-100.0, 140.0), removed=False)
    assert advice is not None and "172 mas" in advice and "east -100, north +140" in advice
    assert "--remove-frame-offset" in advice


@pytest.mark.parametrize(
    ("found", "removed"),
    [
        (statistics(-100.0, 140.0), True),
        (statistics(30.0, -39.0), False),
        (statistics(60.0, 0.0, error=20.0), False),
        (statistics(100.0, 0.0, pairs=12), False),
        (statistics(None, None, pairs=0), False),
    ],
)
def test_no_advice_without_need(found: dict[str, object], removed: bool) -> None:
    assert frame_advice(found, removed=removed) is None
