"""Every column that stellarml itself makes: name, type, unit, UCD, description; every table as a list of columns.

Columns of the archives keep their names and are described by the archives; what is here is ours. Unit, UCD and
description travel in the Parquet field metadata of every table that is written with `Table.schema`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

import pyarrow as pa

from stellarml.core.match_flags import MatchFlag
from stellarml.core.names import (
    CUTS_FAILED,
    DEC,
    EXTERNAL_ID,
    HEALPIX_COLUMN,
    LEFT_ID,
    MODEL_ID,
    QUALITY_FLAGS,
    RA,
    RIGHT_ID,
    SOURCE_ID,
    interval_names,
)
from stellarml.core.quality_flags import QualityFlag


@dataclass(frozen=True)
class Column:
    """One column: `type` is Arrow's, `unit` in astropy's spelling, `ucd` of the IVOA's list."""

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    description: str

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with its documentation."""
        metadata = {"unit": self.unit, "ucd": self.ucd, "description": self.description}
        return pa.field(self.name, self.type, metadata={k: v for k, v in metadata.items() if v})


def _bits(flags: type[IntFlag]) -> str:
    """Return the bits of a mask in words."""
    return "bit mask: " + ", ".join(f"{int(flag)} {flag.name}" for flag in flags)


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of a table."""
    return pa.schema([column.field for column in columns])


HEALPIX = Column(HEALPIX_COLUMN, pa.int64(), "", "pos.healpix", "HEALPix NESTED pixel of order 29 of ra, dec")
IDENTITY = (
    Column(SOURCE_ID, pa.int64(), "", "meta.id;meta.main", "id of the source in the astrometric survey"),
    Column(
        RA,
        pa.float64(),
        "deg",
        "pos.eq.ra;meta.main",
        "right ascension, ICRS, at the survey's reference epoch",
    ),
    Column(
        DEC, pa.float64(), "deg", "pos.eq.dec;meta.main", "declination, ICRS, at the survey's reference epoch"
    ),
)
NEIGHBOURHOOD = (
    HEALPIX,
    IDENTITY[0],
    Column(EXTERNAL_ID, pa.int64(), "", "meta.id.cross", "id of the counterpart in the photometric survey"),
    *IDENTITY[1:],
    Column(
        "angular_distance",
        pa.float32(),
        "arcsec",
        "pos.angDistance",
        "great circle between the moved source and it",
    ),
    Column(
        "score",
        pa.float64(),
        "",
        "stat.likelihood",
        "ln of the figure of merit, or minus the distance (arcsec) within a fixed radius; higher is better",
    ),
    Column("number_of_neighbours", pa.int32(), "", "meta.number", "good neighbours of the source"),
    Column("number_of_mates", pa.int32(), "", "meta.number", "other sources with the same best neighbour"),
    Column(
        "number_of_reverse_neighbours", pa.int32(), "", "meta.number", "sources it is a good neighbour of"
    ),
    Column("xm_flag", pa.int16(), "", "meta.code", f"how the match was made, {_bits(MatchFlag)}"),
)
MATCHES = (
    Column(LEFT_ID, pa.int64(), "", "meta.id;meta.main", "id of the source in the left catalogue"),
    Column(RIGHT_ID, pa.int64(), "", "meta.id.cross", "id of its counterpart in the right catalogue"),
    *NEIGHBOURHOOD[5:],
)
_LABEL_UCD = {"teff": "phys.temperature.effective", "logg": "phys.gravity", "feh": "phys.abund.Fe"}


def label_columns(labels: Iterable[tuple[str, str]], truth: bool = False) -> tuple[Column, ...]:
    """Return the columns of a labelled catalogue; `labels` are (name, unit); with `truth`, of true parameters, too."""
    columns = list(IDENTITY)
    further = []
    for name, unit in labels:
        ucd = _LABEL_UCD.get(name, "")
        columns.append(Column(name, pa.float32(), unit, ucd, f"predicted {name}"))
        ends = zip(
            ("lower", "upper"),
            ("min", "max"),
            interval_names(name),
            interval_names(name, true=True),
            strict=True,
        )
        for word, extreme, end, true_end in ends:
            kind = f"stat.{extreme};{ucd}"
            meaning = f"{word} end of the interval for a new spectroscopic measurement of {name}"
            columns.append(Column(end, pa.float32(), unit, kind, meaning))
            meaning = f"{word} end of the interval for the true {name}, the errors of labels taken away"
            further.append(Column(true_end, pa.float32(), unit, kind, meaning))
    columns += [
        Column(QUALITY_FLAGS, pa.int32(), "", "meta.code.qual", _bits(QualityFlag)),
        *(further if truth else ()),
        Column(
            CUTS_FAILED,
            pa.int64(),
            "",
            "meta.code",
            "selection cuts the star fails: astrometric survey from bit 0, photometric from bit 32",
        ),
        Column(MODEL_ID, pa.string(), "", "meta.id", "the model that made the labels"),
        HEALPIX,
    ]
    return tuple(columns)
