"""Every column that stellarml itself makes: name, type, unit, UCD, description; every table as a list of columns.

Columns of the archives keep their names and are described by the archives; what is here is ours. Unit, UCD and
description travel in the Parquet field metadata of every table that is written with `Table.schema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

HEALPIX_COLUMN = "_healpix_29"
SOURCE_ID = "source_id"
EXTERNAL_ID = "original_ext_source_id"
RA, DEC = "ra", "dec"
REPAIRS = "repairs"
CUTS_FAILED = "cuts_failed"
MISSING_MASK = "missing_mask"
SPLIT = "split"
QUALITY_FLAGS = "quality_flags"
MODEL_ID = "model_id"
G_MAG = "phot_g_mean_mag"
EBV = "ebmv_sfd"


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
    Column(
        "xm_flag",
        pa.int16(),
        "",
        "meta.code",
        "how the match was made; bits in stellarml.crossmatch.kernel.settings",
    ),
)
LEFT_ID, RIGHT_ID = "left_id", "right_id"
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
        for end, word in (("lo", "lower"), ("hi", "upper")):
            told = f"{word} end of the interval for a new spectroscopic measurement of {name}"
            kind = f"stat.{'min' if end == 'lo' else 'max'};{ucd}"
            columns.append(Column(f"{name}_{end}", pa.float32(), unit, kind, told))
            told = f"{word} end of the interval for the true {name}, the errors of labels taken away"
            further.append(Column(f"{name}_true_{end}", pa.float32(), unit, kind, told))
    columns += [
        Column(
            QUALITY_FLAGS,
            pa.int32(),
            "",
            "meta.code.qual",
            "bit mask; stellarml.core.quality_flags names the bits",
        ),
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


MAGNITUDE = "phot_g_mean_mag"


BIN_EDGES: Mapping[str, tuple[float, ...]] = {
    "teff": (3000, 4000, 4500, 5000, 5500, 6000, 6500, 7500),
    "logg": (-1, 1, 2, 3, 3.5, 4, 4.5, 5.5),
    "feh": (-5, -2.5, -2, -1.5, -1, -0.5, 0, 1),
    MAGNITUDE: (0, 12, 13, 14, 15, 16, 17, 18),
}
"""Bins of Table 2, half-open. In K, dex, dex and mag."""
