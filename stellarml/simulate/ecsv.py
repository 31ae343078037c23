"""The head of a Gaia bulk file, and the column lists of both archives.

About a thousand `#` lines of YAML (ECSV) with name, type, unit, UCD and meaning of each of the 152 columns, then one
line of names. Types come from the release's schema, units and meanings from the archive's own metadata.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class ArchiveColumn:
    """A column of `gaia_source`: name, NumPy type, unit, UCD, utype and meaning."""

    name: str
    dtype: str
    unit: str
    ucd: str
    utype: str
    description: str


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("stellarml.simulate").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def gaia_columns() -> tuple[ArchiveColumn, ...]:
    """Return the 152 columns of `gaiadr3.gaia_source`, in the archive's order."""
    meaning = {row["name"]: row for row in _rows("gaia_dr3_gaia_source_units.csv")}
    return tuple(
        ArchiveColumn(
            name=row["name"],
            dtype=row["numpy_type"],
            unit=meaning[row["name"]]["unit"],
            ucd=meaning[row["name"]]["ucd"],
            utype=meaning[row["name"]]["utype"],
            description=meaning[row["name"]]["description"],
        )
        for row in _rows("gaia_dr3_gaia_source_columns.csv")
    )


@cache
def skymapper_columns() -> tuple[tuple[str, str], ...]:
    """Return name and SQL type of the 100 columns of `dr2.master`, in the archive's order."""
    return tuple((row["name"], row["sql_type"]) for row in _rows("skymapper_dr2_master_columns.csv"))


def gaia_header() -> bytes:
    """Return the head of a bulk file: the `#` lines and the line of names."""
    lines = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    for column in gaia_columns():
        lines += ["# -", f"#   name: {column.name}", f"#   datatype: {column.dtype}"]
        if column.unit:
            lines.append(f"#   unit: {_quote(column.unit)}")
        lines += [f"#   description: {_quote(column.description)}", "#   meta:", f"#     ucd: {column.ucd}"]
        if column.utype:
            lines.append(f"#     utype: {column.utype}")
    names = ",".join(column.name for column in gaia_columns())
    return ("\n".join([*lines, names]) + "\n").encode()


def _quote(text: str) -> str:
    """Return `text` as a single-quoted YAML scalar."""
    return "'" + text.replace("'", "''") + "'"
