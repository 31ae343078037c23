"""Extinction coefficients in a feature's expression: ``{A_u}`` is A_u / E(B-V), as the survey's descriptor states it.

A coefficient is said once, in ``[bands.u] extinction`` of the descriptor; the feature file names the descriptors in
``extinction_from``. What a model keeps is the expression with the number in it: a bundle does not depend on a file that
may change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stellarml.core.errors import ConfigError, did_you_mean
from stellarml.core.shipped import named_file
from stellarml.core.toml_layers import read_toml

_PLACE = re.compile(r"\{\s*(\w+)\s*\}")


def coefficients(surveys: Sequence[str], root: Path) -> dict[str, float]:
    """Return A_X / E(B-V) by the name ``A_X`` for every band X of the surveys that states one.

    Parameters
    ----------
    surveys
        Shipped names, or paths of descriptors relative to `root`.

    Raises
    ------
    ConfigError
        If there is no such survey, a coefficient is no number, or two surveys give one name different values.
    """
    found: dict[str, tuple[float, str]] = {}
    for survey in surveys:
        bands = read_toml(named_file("survey", survey, root)).get("bands", {})
        if not isinstance(bands, dict) or not all(isinstance(stated, dict) for stated in bands.values()):
            raise ConfigError(f"survey '{survey}': [bands] is no table of tables, expected [bands.NAME]")
        for band, stated in bands.items():
            if "extinction" not in stated:
                continue
            value, name = stated["extinction"], f"A_{band}"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value)):
                raise ConfigError(
                    f"survey '{survey}': bands.{band}.extinction is {value!r}, expected a number"
                )
            before = found.setdefault(name, (float(value), survey))
            if before[0] != value:
                raise ConfigError(
                    f"extinction_from: {name} is {before[0]} in '{before[1]}' and {value} in '{survey}'. "
                    "Name only one of them, or write the number into the expression."
                )
    return {name: value for name, (value, _) in found.items()}


def with_coefficients(expression: str, known: Mapping[str, float]) -> str:
    """Return `expression` with a number for each ``{A_X}``.

    Raises
    ------
    ValueError
        If a name is not among `known`, or a brace holds no name.

    Examples
    --------
    >>> with_coefficients("u_psf - {A_u} * ebmv_sfd", {"A_u": 4.294})
    'u_psf - 4.294 * ebmv_sfd'
    """

    def number(place: re.Match[str]) -> str:
        name = place[1]
        if name not in known:
            what = f"Known: {', '.join(known)}." if known else 'Name the surveys: extinction_from = ["..."].'
            raise ValueError(f"{{{name}}} is no extinction coefficient.{did_you_mean(name, known)} {what}")
        return repr(known[name])

    found = _PLACE.sub(number, expression)
    if "{" in found or "}" in found:
        raise ValueError(f"'{expression}' holds a brace that is no {{A_X}}; SQL has no use for it")
    return found
