"""What each bit of `quality_flags` means.

The bits are a contract with every published catalogue: a bit keeps its number and its meaning for ever, and new ones
are added at the end. A row with 0 is inside everything that the model has learnt from.
"""

from __future__ import annotations

from enum import IntFlag


class QualityFlag(IntFlag):
    """Bits of the column `quality_flags` (int32)."""

    OUTSIDE_DOMAIN = 1
    MISSING_BANDS = 2
    MISSING_GSPPHOT = 4
    WIDE_INTERVAL = 8
    LABEL_EDGE = 16
    REDDENING_BEYOND = 32
    THIN_CALIBRATION = 64
    CUT_FAILED = 128
    ALL_MISSING = 256
    OUTSIDE_JOINTLY = 512
    COLOURS_DISAGREE = 1024


DESCRIPTIONS: dict[QualityFlag, str] = {
    QualityFlag.OUTSIDE_DOMAIN: (
        "a feature lies beyond the range of the training stars (their 0.1 and 99.9 percentiles, moved out by a tenth "
        "of their distance to the median), or is missing although no training star lacked it"
    ),
    QualityFlag.MISSING_BANDS: "a feature that does not come from GSP-Phot is missing",
    QualityFlag.MISSING_GSPPHOT: "a feature computed from a *_gspphot column is missing",
    QualityFlag.WIDE_INTERVAL: "an interval is wider than three times the median width of the calibration stars",
    QualityFlag.LABEL_EDGE: (
        "a predicted label lies at or beyond the edge of the training labels (their 0.1 and 99.9 percentiles); "
        "half of their range further it is cut off"
    ),
    QualityFlag.REDDENING_BEYOND: "E(B-V) exceeds the 99.9 percentile of the training stars",
    QualityFlag.THIN_CALIBRATION: (
        "too few calibration stars are like this one to promise the interval's level: its pattern of missing features "
        "is rare among them, its cell holds few, or hardly any labelled star looks like it (as faint, for example)"
    ),
    QualityFlag.CUT_FAILED: "the star fails a selection cut; `cuts_failed` tells which",
    QualityFlag.ALL_MISSING: "every feature is missing: the labels are the training medians",
    QualityFlag.OUTSIDE_JOINTLY: (
        "all features together lie further from the training stars than those of 99.5 % of the calibration stars "
        "(Mahalanobis distance, compared with what is usual for such a star)"
    ),
    QualityFlag.COLOURS_DISAGREE: (
        "the features are not those of training stars with the labels that were predicted, further off than for 99.5 % "
        "of the calibration stars: a white dwarf, a quasar, a wrong match"
    ),
}


def names_of(value: int) -> list[str]:
    """Return the names of the bits set in one value of `quality_flags`, lowest first."""
    return [flag.name or str(int(flag)) for flag in QualityFlag if value & flag]
