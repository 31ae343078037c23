"""Options that several commands share, and the words they take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stellarml.config import PROFILES

ConfigFile = Annotated[Path, typer.Option("--config", help="The run's TOML file.")]
MaybeConfigFile = Annotated[Path | None, typer.Option("--config", help="The run's TOML file.")]
Profile = Annotated[
    str | None, typer.Option(help=f"Shipped profile ({', '.join(PROFILES)}) or a path to a TOML.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, strongest of all; may be repeated.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make the output anew, whatever it was made from.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]


class Mode(StrEnum):
    """Which pairs a match gives."""

    all = "all"
    best = "best"
    unique = "unique"


class Join(StrEnum):
    """Which left rows a match gives."""

    inner = "inner"
    left = "left"
    anti = "anti"


class Format(StrEnum):
    """How a table of matches is written."""

    hats = "hats"
    parquet = "parquet"
    csv = "csv"
    fits = "fits"
    votable = "votable"
