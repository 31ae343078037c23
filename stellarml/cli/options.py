"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stellarml.cli.progress_bar import configure_output
from stellarml.core.config import PROFILES, Config, load_config
from stellarml.training.presets import preset_named

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


def configured(file: Path | None, profile: str | None, overrides: list[str] | None) -> Config:
    """Resolve and check the configuration of a command or a job, and log as it says."""
    config = load_config(file, profile=profile, overrides=overrides or ())
    preset_named(config.train.preset)
    configure_output(config.log)
    return config
