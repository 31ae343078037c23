"""Names of columns, said once; `schema` says what is in those that stellarml makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

HEALPIX_COLUMN = "_healpix_29"
SOURCE_ID = "source_id"
ROW_NUMBER = "row_number"
EXTERNAL_ID = "original_ext_source_id"
RA, DEC = "ra", "dec"
REPAIRS = "repairs"
CUTS_FAILED = "cuts_failed"
MISSING_MASK = "missing_mask"
SPLIT = "split"
QUALITY_FLAGS = "quality_flags"
MODEL_ID = "model_id"
G_MAG = "phot_g_mean_mag"
BP_MAG = "phot_bp_mean_mag"
RP_MAG = "phot_rp_mean_mag"
EBV = "ebmv_sfd"
LEFT_ID, RIGHT_ID = "left_id", "right_id"

BIN_EDGES: Mapping[str, tuple[float, ...]] = {
    "teff": (3000, 4000, 4500, 5000, 5500, 6000, 6500, 7500),
    "logg": (-1, 1, 2, 3, 3.5, 4, 4.5, 5.5),
    "feh": (-5, -2.5, -2, -1.5, -1, -0.5, 0, 1),
    G_MAG: (0, 12, 13, 14, 15, 16, 17, 18),
}
"""Bins of Table 2, half-open. In K, dex, dex and mag."""


def error_name(label: str) -> str:
    """Return the column of a label's stated error."""
    return f"e_{label}"


def interval_names(label: str, *, true: bool = False) -> tuple[str, str]:
    """Return the columns of the two ends of a label's interval; with `true`, of the one for the true parameter.

    >>> interval_names("teff"), interval_names("teff", true=True)
    (('teff_lo', 'teff_hi'), ('teff_true_lo', 'teff_true_hi'))
    """
    base = f"{label}_true" if true else label
    return f"{base}_lo", f"{base}_hi"


def value_and_interval(label: str) -> tuple[str, str, str]:
    """Return the columns of a predicted label and of the two ends of its interval."""
    return label, *interval_names(label)


def prediction_names(labels: Iterable[str], *, true: bool = False) -> tuple[str, ...]:
    """Return the columns of a prediction, in their order; with `true`, those for true parameters at the end.

    >>> prediction_names(["feh"], true=True)
    ('feh', 'feh_lo', 'feh_hi', 'quality_flags', 'feh_true_lo', 'feh_true_hi')
    """
    labels = tuple(labels)
    columns = [name for label in labels for name in value_and_interval(label)]
    further = [name for label in labels for name in interval_names(label, true=True)] if true else []
    return (*columns, QUALITY_FLAGS, *further)
