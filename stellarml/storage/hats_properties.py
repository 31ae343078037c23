"""What the properties file of a HATS table says, and whether it can be: its values name files, folders and counts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from stellarml.core.errors import InputError

FOLDER_SUFFIX = "/"
_MOST_SUFFIX, _MOST_NAME = 100, 1000
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Properties:
    """What the properties file of a table says, by the names of the HATS note or of the hats library."""

    path: Path
    values: dict[str, str]

    def get(self, *names: str) -> str | None:
        """Return the first of `names` that is given and not empty."""
        return next((self.values[n] for n in names if self.values.get(n, "") not in ("", "None")), None)

    @property
    def name(self) -> str:
        """Name of the catalogue; of its folder where it has none."""
        return self.get("obs_collection", "catalog_name") or self.path.parent.name

    @property
    def kind(self) -> str:
        """``object``, ``source``, ``margin``, ``association``, ``index`` or ``map``."""
        return (self.get("dataproduct_type", "catalog_type") or "object").lower()

    @property
    def suffix(self) -> str:
        """How the name of a leaf ends; ``/`` where a leaf is a folder.

        Raises
        ------
        InputError
            If it would lead elsewhere.
        """
        suffix = self.get("hats_npix_suffix", "npix_suffix") or ".parquet"
        if suffix != FOLDER_SUFFIX and (
            set(suffix) & set("/\\\0*?[") or ".." in suffix or len(suffix) > _MOST_SUFFIX
        ):
            raise InputError(
                f"{self.path}: hats_npix_suffix = {suffix[:80]!r}, expected how a file's name ends, such as .parquet, "
                "or '/' where each leaf is a folder."
            )
        return suffix

    def number(self, *names: str, whole: bool = False) -> float | None:
        """Return a number that is finite and not negative; `whole`, a count.

        Raises
        ------
        InputError
            If it is none.
        """
        name = next((n for n in names if self.get(n) is not None), None)
        if name is None:
            return None
        text = self.values[name]
        expected = "a whole number, 0 or more" if whole else "a finite number, 0 or more"
        try:
            number = float(text)
        except ValueError:
            raise InputError(
                f"{self.path}: {name} = '{text[:80]}' is not a number, expected {expected}; correct it in that file."
            ) from None
        if not (math.isfinite(number) and number >= 0 and (number.is_integer() or not whole)):
            raise InputError(
                f"{self.path}: {name} = '{text[:80]}', expected {expected}; correct it in that file."
            )
        return number

    def folder(self, key: str, name: str) -> Path:
        """Return the folder beside the properties that a value of `key` names.

        Raises
        ------
        InputError
            If it is an address, or leads out of the folder of the properties.
        """
        parts = re.split(r"[/\\\\]", name)
        if (
            "://" in name
            or name.startswith("file:")
            or Path(name).is_absolute()
            or ".." in parts
            or "\0" in name
        ):
            raise InputError(
                f"{self.path}: {key} = {name[:80]!r} leads out of {self.path.parent}; expected a folder inside it. "
                "Catalogues elsewhere are not followed: name that folder itself, or put a symbolic link to it here."
            )
        if len(name) > _MOST_NAME:
            raise InputError(f"{self.path}: {key} = {name[:80]!r}... is no name of a folder.")
        return self.path.parent / name


def read_properties(path: Path) -> Properties:
    """Read a Java properties file."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected lines of 'key = value'.") from None
    values = {}
    for line in re.sub(r"\\\r?\n[ \t]*", "", text).splitlines():
        found = re.match(r"\s*(?![#!])((?:\\.|[^\s:=\\])+)\s*[:=]?\s*(.*)", line)
        if found:
            values[_unescape(found[1])] = _unescape(found[2].strip())
    return Properties(path, values)


def _unescape(text: str) -> str:
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), plain)
