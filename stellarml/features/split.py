"""Which part of the labelled stars an id belongs to, in plain Python.

The part is a comparison of the id's salted hash with three thresholds, so it never depends on the order of rows, on
partitions or on which other stars are there. The calibration part is taken out of the paper's 80 %.
"""

from __future__ import annotations

from collections.abc import Iterable

from stellarml.core.config import Split
from stellarml.core.errors import ConfigError
from stellarml.hashing import hash_digits, threshold

TRAIN, VALIDATION, CALIBRATION, TEST = PARTS = ("train", "validation", "calibration", "test")


def split_of(ids: Iterable[object], settings: Split) -> list[str]:
    """Return the part of each id: the pure Python twin of `stellarml.features.spark_split.split_column`.

    Examples
    --------
    >>> from stellarml.core.config import Split
    >>> split_of([1, 2, "HD 122563"], Split(salt="0", validation=0.1, test=0.1, calibration=0.1))
    ['train', 'train', 'train']
    """
    limits = part_limits(settings)
    return [
        next((part for part, limit in limits if digits < limit), TRAIN)
        for digits in hash_digits(ids, settings.salt)
    ]


def part_limits(settings: Split) -> list[tuple[str, str]]:
    """Return (part, hash digits below which an id belongs to it) in rising order; training is what remains.

    Raises
    ------
    ConfigError
        If the three fractions leave nothing for training.
    """
    shares = ((TEST, settings.test), (VALIDATION, settings.validation), (CALIBRATION, settings.calibration))
    if sum(share for _, share in shares) >= 1:
        raise ConfigError(
            f"[split] validation {settings.validation} + test {settings.test} + calibration {settings.calibration} "
            "leave no star for training: their sum must be below 1"
        )
    limits, total = [], 0.0
    for part, share in shares:
        total += share
        limits.append((part, threshold(total)))
    return limits
