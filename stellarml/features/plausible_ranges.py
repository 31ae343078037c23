"""Which values of labels and features can be, and what is said of those that cannot.

The defaults are wide: no star that has been observed lies outside, what stands for "no value" (-9999, -99.99, 99,
10,013) does. A value outside is taken as missing and counted, not refused: one failed fit in a survey is no reason to
stop. All comparisons are in float32, as the network is fed, so that a bound belongs to its range in tables of any type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stellarml.core.toml_layers import Section

LARGEST_FLOAT32 = 3.4028234663852886e38
WRONG_UNIT_SHARE = 0.5

TEFF_K = (2_000.0, 250_000.0)
"""Hydrogen burns above 2,075 K (Dieterich et al. 2014); the hottest white dwarf has 250,000 K (Werner & Rauch 2015)."""
LOGG_DEX = (-2.0, 9.7)
"""MARCS models of giants begin at -1 (Gustafsson et al. 2008), Miras may be lower; the most massive white dwarf, 1.35
solar masses within 2,140 km (Caiazzo et al. 2021), has 9.6."""
FEH_DEX = (-8.0, 1.5)
"""The star with the least iron has [Fe/H] < -7.1 (Keller et al. 2014); catalogues of spectra end at 1."""
MAGNITUDE = (-30.0, 40.0)
"""The Sun has -26.7; the faintest seen by any telescope is near 31. Absolute magnitudes and errors lie inside, too."""
COLOUR = (-15.0, 30.0)
"""Colours of stars lie between -2 and 20 (dust shells in V-K). An absolute magnitude written as ``m - modulus`` looks
the same, and lies between -13 and 28."""

_LABELS = {
    "teff": ("K", TEFF_K),
    "t_eff": ("K", TEFF_K),
    "logg": ("dex", LOGG_DEX),
    "log_g": ("dex", LOGG_DEX),
    "feh": ("dex", FEH_DEX),
    "fe_h": ("dex", FEH_DEX),
}
_MAGNITUDES = frozenset({"mag", "mag(ab)", "mag(vega)", "abmag", "vegamag"})
_COLUMN = r"(?:[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)"
_DIFFERENCE = re.compile(rf"\s*\(?\s*{_COLUMN}\s*-\s*{_COLUMN}\s*\)?\s*")


def checked_range(value: Any) -> Any:
    """Return what a feature file or bundle gives as `range`, if it is one: low and high, or false for none.

    Raises
    ------
    ValueError
        If it is not two finite numbers, the lower one first.
    """
    if value is None or value is False:
        return value
    numbers = isinstance(value, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value
    )
    if not numbers or len(value) != 2:
        raise ValueError(
            "expected two numbers in the entry's unit, range = [low, high], or range = false for none"
        )
    low, high = value
    if not (abs(low) <= LARGEST_FLOAT32 and abs(high) <= LARGEST_FLOAT32):
        raise ValueError(
            "both bounds must be finite numbers that a 32-bit float can hold; range = false for none"
        )
    if low >= high:
        raise ValueError(f"the lower bound comes first and is smaller: {low:g} is not below {high:g}")
    return float(low), float(high)


Range = Annotated[
    tuple[float, float] | Literal[False] | None,
    BeforeValidator(checked_range),
    Field(default=None, exclude_if=lambda value: value is None),
]
"""Inclusive; False where there is none. None says nothing: a feature file's default, and in a bundle from before ranges
were part of a model, none; it is not written, so that the digest of such a model stays."""


def default_label_range(name: str, unit: str) -> tuple[float, float] | Literal[False]:
    """Return the range of a label with a usual name in its usual unit, or of a magnitude; False for any other.

    Examples
    --------
    >>> default_label_range("logg", "dex"), default_label_range("logg", "m/s2"), default_label_range("age", "Gyr")
    ((-2.0, 9.7), False, False)
    """
    usual, found = _LABELS.get(name.lower(), ("", MAGNITUDE))
    if usual:
        return found if _plain(unit).split("(")[0] == usual.lower() else False
    return MAGNITUDE if _plain(unit) in _MAGNITUDES else False


def default_feature_range(expression: str, unit: str) -> tuple[float, float] | Literal[False]:
    """Return the range of a magnitude, or of a colour, the difference of two columns; False for any other unit.

    Other units have none: a difference of temperatures may be negative, and an error may be as small as it likes.

    Examples
    --------
    >>> default_feature_range("g_psf", "mag"), default_feature_range("g - r", "mag"), default_feature_range("d", "pc")
    ((-30.0, 40.0), (-15.0, 30.0), False)
    """
    if _plain(unit) not in _MAGNITUDES:
        return False
    return COLOUR if _DIFFERENCE.fullmatch(expression) else MAGNITUDE


def _plain(unit: str) -> str:
    return "".join(unit.split()).lower()


def range_words(given: tuple[float, float] | Literal[False] | None) -> str:
    """Return a range as a message says it.

    Examples
    --------
    >>> range_words((2000.0, 250000.0)), range_words((-2.0, 9.7)), range_words(False)
    ('2000 to 250000', '-2 to 9.7', 'none')
    """
    return f"{given[0]:.10g} to {given[1]:.10g}" if given else "none"


class OutsideRange(Section):
    """How many values of one label or feature were outside its range.

    `kind` is label or feature, `table` names the label table of the chain; `values` are all finite ones, `median` is
    theirs, good to a hundredth of their number; `low`, `high` and `median` are in `unit`.
    """

    kind: Literal["label", "feature"]
    name: str
    unit: str
    low: float
    high: float
    outside: int
    values: int
    median: float
    table: str = ""

    def message(self) -> str:
        """Return the line that tells the count.

        Examples
        --------
        >>> OutsideRange(kind="label", name="teff", unit="K", low=2000, high=250000, outside=12, values=4321,
        ...     median=5700).message()
        'label teff: 12 of 4,321 values outside 2000 to 250000 K are taken as missing'
        """
        return (
            f"{self._where()}: {self.outside:,} of {self.values:,} values outside "
            f"{range_words((self.low, self.high))} {self.unit} are taken as missing"
        )

    def warning(self) -> str | None:
        """Return a warning if most values are outside, which one failed star in a hundred cannot cause."""
        if self.outside <= WRONG_UNIT_SHARE * self.values:
            return None
        return (
            f"{self._where()}: {100 * self.outside / self.values:.0f} % of the values are outside "
            f"{range_words((self.low, self.high))} {self.unit}, their median is {self.median:.4g}: the unit is "
            f"probably not {self.unit}. Convert the values, or set range of the {self.kind} in the feature file"
        )

    def _where(self) -> str:
        return f"{self.kind} {self.name}" + (f" of {self.table}" if self.table else "")


def told(found: Iterable[OutsideRange]) -> tuple[list[str], list[str]]:
    """Return the messages of all counts, and the warnings."""
    found = list(found)
    return [one.message() for one in found], [text for one in found if (text := one.warning())]
