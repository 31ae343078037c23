"""What astropy warns of while it reads a file: said once a kind, unless it is known to change no value.

The harmless ones are deviations of form that many archives' files have; tests/unit/surveys/test_astropy_warnings.py
shows for each that the values come through.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stellarml.run.log import get_logger

HARMLESS = {
    "W03": "a field's name made into an ID",
    "W06": "a UCD that is none",
    "W10": "an element that the standard does not have",
    "W22": "DEFINITIONS, which newer versions do not have",
    "W27": "COOSYS, deprecated",
    "W41": "an unusual XML namespace",
    "W42": "no XML namespace",
    "W50": "a unit in an unusual notation, which is kept as text",
}
"""Numbers of astropy's VOTable warnings, and what they are about."""
_CODE = re.compile(r"\b([WE]\d\d)\b:?\s*(.*)", re.DOTALL)
_MOST = 5


@contextmanager
def told(path: Path | None) -> Iterator[None]:
    """Collect astropy's warnings; log those that may matter, with the file; None for a file read before."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if path is None:
        return
    words = dict.fromkeys(_words(item) for item in caught if _matters(item))
    for line in list(words)[:_MOST]:
        get_logger().warning(line if line.startswith(str(path)) else f"{path}: astropy says: {line}")


def _matters(item: warnings.WarningMessage) -> bool:
    from astropy.units import UnitsWarning

    if issubclass(item.category, UnitsWarning | DeprecationWarning | ResourceWarning):
        return False  # a unit that astropy does not know is kept as text; resources and deprecations are not the file's
    if "NULL (undefined) values which will be converted to False" in str(item.message):
        return False  # the reader takes the nulls of logical columns from the bytes themselves
    code = _CODE.search(str(item.message))
    return code is None or code[1] not in HARMLESS


def _words(item: warnings.WarningMessage) -> str:
    code = _CODE.search(str(item.message))
    text = f"{code[1]}: {code[2]}" if code else str(item.message)
    return " ".join(text.split())[:300]
