"""Files that come with the package, by name, or a user's own, by path: surveys and feature files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stellarml.core.config import conf_dir
from stellarml.core.errors import ConfigError, did_you_mean

Kind = Literal["survey", "feature file"]
_FOLDERS: dict[Kind, str] = {"survey": "surveys", "feature file": "features"}


def shipped(kind: Kind) -> dict[str, Path]:
    """Return the shipped files of one kind by their names."""
    return {path.stem: path for path in sorted((conf_dir() / _FOLDERS[kind]).glob("*.toml"))}


def named_file(kind: Kind, name_or_path: str | Path, root: Path = Path()) -> Path:
    """Return a shipped file by its name, or the path of a user's own.

    Parameters
    ----------
    root
        What a relative path is relative to.

    Raises
    ------
    ConfigError
        If nothing of that name is shipped.
    """
    text, known = str(name_or_path), shipped(kind)
    if text in known:
        return known[text]
    if text.endswith(".toml") or "/" in text:
        return root / text
    raise ConfigError(
        f"unknown {kind} '{text}'.{did_you_mean(text, known)} "
        f"{'A path has to end with .toml. ' if Path(text).suffix else ''}"
        f"Shipped: {', '.join(known)}; or give the path of a TOML file of your own."
    )
