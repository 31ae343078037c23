"""Which split of the labelled stars an id belongs to, in plain Python.

Each id has a number between 0 and 1 that is its own for ever, on any machine: SHA-256 of ``salt:id``, cut to 52 bits.
Every choice that must not depend on the order of rows, on partitions or on a random generator's state (the split, the
subset of `train.max_rows`) is a comparison of these digits with thresholds, as hexadecimal text, so that Spark (`sha2`)
and hashlib need no arithmetic to agree. A calibration part is taken out of what else would be trained on; with
``split.calibration = 0`` there is none, as in the paper's 80/10/10, and the validation part calibrates the intervals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from stellarml.core.config import Split

TRAIN, VALIDATION, CALIBRATION, TEST = SPLITS = ("train", "validation", "calibration", "test")


def split_of(ids: Iterable[object], settings: Split) -> list[str]:
    """Return the split of each id: the pure Python twin of `stellarml.features.spark_split.split_column`.

    Examples
    --------
    >>> from stellarml.core.config import Split
    >>> split_of([1, 2, "HD 122563"], Split(salt="0", validation=0.1, test=0.1, calibration=0.1))
    ['train', 'train', 'train']
    """
    limits = split_limits(settings)
    return [
        next((split for split, limit in limits if digits < limit), TRAIN)
        for digits in hash_digits(ids, settings.salt)
    ]


def split_limits(settings: Split) -> list[tuple[str, str]]:
    """Return (split, hash digits below which an id belongs to it) in rising order; training is what remains."""
    shares = ((TEST, settings.test), (VALIDATION, settings.validation), (CALIBRATION, settings.calibration))
    limits, total = [], 0.0
    for split, share in shares:
        total += share
        limits.append((split, threshold(total)))
    return limits


def calibrating_part(settings: Split) -> str:
    """Return the part that intervals are calibrated on: the calibration part, or validation where there is none."""
    return CALIBRATION if settings.calibration > 0 else VALIDATION


DIGITS = 13  # hexadecimal digits kept: 52 bits


def hash_digits(ids: Iterable[object], salt: str) -> list[str]:
    """Return the first 13 hexadecimal digits of SHA-256 of ``salt:id`` for each id; a null id hashes the salt.

    Parameters
    ----------
    ids
        Integers or strings; an integer hashes as its decimal text, as Spark casts it.
    salt
        Another salt, another order.
    """
    prefix = salt.encode()
    digest = hashlib.sha256
    return [
        digest(prefix if i is None else prefix + b":" + str(i).encode()).hexdigest()[:DIGITS] for i in ids
    ]


def threshold(fraction: float) -> str:
    """Return the digits below which a share `fraction` of all ids lie; `fraction` is in [0, 1)."""
    return f"{int(fraction * 16**DIGITS):0{DIGITS}x}"
