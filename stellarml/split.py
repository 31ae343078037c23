"""Whether a star is for training, validation, calibration or test.

By a salted hash of its id, so that the answer never depends on the order of rows, on their partitions or on which
other stars are there; another salt gives another split (the paper repeats its random 80/10/10). The calibration
part is taken out of the paper's 80 %. `split_column` and `split_of` give the same answer in Spark and in Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stellarml.config import Split
from stellarml.errors import ConfigError
from stellarml.hashing import DIGITS, hash_digits, threshold

if TYPE_CHECKING:
    from pyspark.sql import Column

TRAIN, VALIDATION, CALIBRATION, TEST = PARTS = ("train", "validation", "calibration", "test")


def split_column(id_column: str, settings: Split) -> Column:
    """Return the Spark column 'train' | 'validation' | 'calibration' | 'test'.

    Parameters
    ----------
    id_column
        An integer or string column.
    settings
        The salt and the fractions of the whole.

    Raises
    ------
    ConfigError
        If the three fractions leave nothing for training.
    """
    from pyspark.sql import functions as F  # noqa: N812

    salted = F.concat_ws(":", F.lit(settings.salt), F.col(f"`{id_column}`").cast("string"))
    digits = F.substring(F.sha2(salted, 256), 1, DIGITS)
    (first, test), (second, validation), (third, calibration) = _limits(settings)
    return (
        F.when(digits < test, first)
        .when(digits < validation, second)
        .when(digits < calibration, third)
        .otherwise(TRAIN)
    )


def split_of(ids: Iterable[object], settings: Split) -> list[str]:
    """Return the part of each id: the pure Python twin of `split_column`.

    Examples
    --------
    >>> from stellarml.config import Split
    >>> split_of([1, 2, "HD 122563"], Split(salt="0", validation=0.1, test=0.1, calibration=0.1))
    ['train', 'train', 'train']
    """
    limits = _limits(settings)
    return [
        next((part for part, limit in limits if digits < limit), TRAIN)
        for digits in hash_digits(ids, settings.salt)
    ]


def _limits(settings: Split) -> list[tuple[str, str]]:
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
