"""The split: by hash of the id, and by nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellarml.core.config import Split
from stellarml.features.split import SPLITS, calibrating_part, hash_digits, split_of, threshold

SETTINGS = Split(salt="0", validation=0.1, test=0.1, calibration=0.1)


def by_hand(star: object, settings: Split) -> str:
    digest = hashlib.sha256(f"{settings.salt}:{star}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < settings.test:
        return "test"
    if fraction < settings.test + settings.validation:
        return "validation"
    if fraction < settings.test + settings.validation + settings.calibration:
        return "calibration"
    return "train"


def test_it_is_what_hashlib_says() -> None:
    ids = [*range(2000), 5853498713190525696, -3, "HD 122563", "α Cen"]
    assert split_of(ids, SETTINGS) == [by_hand(i, SETTINGS) for i in ids]


def test_shares_are_the_settings() -> None:
    settings = Split(salt="x", validation=0.05, test=0.2, calibration=0.15)
    parts = split_of(range(60_000), settings)
    shares = {part: parts.count(part) / len(parts) for part in SPLITS}
    assert shares == pytest.approx(
        {"train": 0.6, "validation": 0.05, "calibration": 0.15, "test": 0.2}, abs=0.006
    )


@given(st.lists(st.integers(0, 2**63 - 1), max_size=50), st.randoms())
def test_it_depends_on_the_id_alone(ids: list[int], random: object) -> None:
    whole = dict(zip(ids, split_of(ids, SETTINGS), strict=True))
    random.shuffle(ids)  # type: ignore[attr-defined]
    half = ids[: len(ids) // 2]
    assert split_of(half, SETTINGS) == [whole[i] for i in half]


def test_another_salt_is_another_split() -> None:
    first = np.array(split_of(range(5000), SETTINGS))
    second = np.array(split_of(range(5000), SETTINGS.model_copy(update={"salt": "1"})))
    both = ((first == "test") & (second == "test")).mean()
    assert both == pytest.approx(0.01, abs=0.005)


def test_numpy_integers_hash_like_pythons() -> None:
    ids = np.arange(50, dtype=np.int64)
    assert split_of(ids, SETTINGS) == split_of(ids.tolist(), SETTINGS)


def test_without_a_calibration_part_its_stars_are_trained_on() -> None:
    """80/10/10: test and validation keep their stars, so that models with and without it are compared on the same."""
    whole = SETTINGS.model_copy(update={"calibration": 0.0})
    before, after = split_of(range(20_000), SETTINGS), split_of(range(20_000), whole)
    assert after == ["train" if part == "calibration" else part for part in before]
    assert [after.count(part) / 20_000 for part in SPLITS] == pytest.approx([0.8, 0.1, 0.0, 0.1], abs=0.01)
    assert after == [by_hand(star, whole) for star in range(20_000)]
    assert (calibrating_part(SETTINGS), calibrating_part(whole)) == ("calibration", "validation")


def test_thresholds_order_as_numbers_do() -> None:
    assert threshold(0.0) == "0" * 13
    assert threshold(0.5) == "8" + "0" * 12
    digits = hash_digits(range(1000), "s")
    assert sorted(digits) == sorted(digits, key=lambda d: int(d, 16))
