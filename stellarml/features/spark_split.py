"""Whether a star is for training, validation, calibration or test, as a Spark column.

By SHA-256 of the salted id, which Spark and hashlib compute alike: `split_of` is the same function in plain Python, and
another salt gives another split (the paper repeats its random 80/10/10).
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812

from stellarml.core.config import Split
from stellarml.features.split import (
    CALIBRATION,
    DIGITS,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    split_limits,
    split_of,
)

__all__ = ["CALIBRATION", "SPLITS", "TEST", "TRAIN", "VALIDATION", "split_column", "split_of"]


def split_column(id_column: str, settings: Split) -> Column:
    """Return the column 'train' | 'validation' | 'calibration' | 'test'.

    Parameters
    ----------
    id_column
        An integer or string column.
    settings
        The salt and the fractions of the whole.
    """
    salted = F.concat_ws(":", F.lit(settings.salt), F.col(f"`{id_column}`").cast("string"))
    digits = F.substring(F.sha2(salted, 256), 1, DIGITS)
    (first, test), (second, validation), (third, calibration) = split_limits(settings)
    return (
        F.when(digits < test, first)
        .when(digits < validation, second)
        .when(digits < calibration, third)
        .otherwise(TRAIN)
    )
