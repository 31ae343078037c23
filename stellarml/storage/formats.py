"""The formats that a table can be written in."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How a table is written: a HATS catalogue is a folder, the others are one file."""

    hats = "hats"
    parquet = "parquet"
    csv = "csv"
    fits = "fits"
    votable = "votable"


SUFFIXES: dict[str, Format] = {
    ".parquet": Format.parquet,
    ".csv": Format.csv,
    ".fits": Format.fits,
    ".vot": Format.votable,
}
"""Which file extension stands for which format."""
