"""Units that a file or a descriptor states, and how its values become the survey's own: degrees, mas, mas/yr, mag, K.

A unit that astropy does not know is taken for the expected one: archives write units in many ways.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PositionUnit = Literal["deg", "rad", "hourangle", "sexagesimal"]
_NAMES = {
    "mas/yr": "mas / yr",
    "arcsec/yr": "arcsec / yr",
    '"/yr': "arcsec / yr",
    '"': "arcsec",
    "arcsecs": "arcsec",
    "arcsecond": "arcsec",
    "arcseconds": "arcsec",
    "arcsec/century": "0.01 arcsec / yr",
    "mas/century": "0.01 mas / yr",
    "degrees": "deg",
    "degs": "deg",
    "radian": "rad",
    "radians": "rad",
    "hours": "hourangle",
    "hourangles": "hourangle",
    "millimag": "mmag",
    "magnitude": "mag",
    "magnitudes": "mag",
    "kelvin": "K",
}
"""Names of units that astropy does not know, and those it does."""
_SEXAGESIMAL = (
    r"^\s*(?P<sign>[+-]?)(?P<first>\d{1,3})\s*[:hd°\s]\s*(?P<minutes>\d{1,2})\s*[:m'′\s]\s*"
    r"(?P<seconds>\d{1,2}(?:\.\d*)?)\s*(?:s|\"|″)?\s*$"
)
_LOGARITHMIC = ("mag", "dex")


@dataclass(frozen=True)
class Conversion:
    """How values become the survey's unit: times `factor`, or from sexagesimal text in `text_unit` to degrees."""

    factor: float = 1.0
    text_unit: Literal["hourangle", "deg"] | None = None

    @property
    def from_text(self) -> bool:
        """Whether the column is read as text."""
        return self.text_unit is not None

    def __call__(self, values: pa.Array) -> pa.Array:
        """Return the converted values; text that is no angle becomes null."""
        if self.text_unit is None:
            return pc.multiply(values.cast(pa.float64()), self.factor).cast(values.type, safe=False)
        return _from_sexagesimal(values, self.text_unit)


def conversion_of(unit: str) -> Conversion | None:
    """Return how a position in a unit that a descriptor states becomes degrees; None for degrees.

    ``sexagesimal`` is text: hours, minutes and seconds; ``sexagesimal_deg`` degrees, minutes and seconds.
    """
    return {
        "deg": None,
        "rad": Conversion(float(np.degrees(1.0))),
        "hourangle": Conversion(15.0),
        "sexagesimal": Conversion(text_unit="hourangle"),
        "sexagesimal_deg": Conversion(text_unit="deg"),
    }[unit]


@lru_cache(maxsize=4096)
def unit_factor(stated: str, expected: str) -> float | None:
    """Return by what values in the `stated` unit are multiplied to be in the `expected` one.

    1 where one of them is not known (`is_known` tells), or both are logarithmic (mag beside dex is left to the user);
    None where they are of different kinds. Hours beside degrees are hours of right ascension.
    """
    from astropy import units

    found, wanted = _parsed(stated), _parsed(expected)
    if found is None or wanted is None:
        return 1.0
    if wanted == units.deg and found.physical_type == "time":
        found = units.hourangle if found == units.hour else found
    kinds = [str(unit)[-3:] for unit in (found, wanted)]  # of mmag: mag
    if all(kind in _LOGARITHMIC for kind in kinds) and kinds[0] != kinds[1]:
        return 1.0
    try:
        factor = float(found.to(wanted))
    except (ValueError, TypeError):
        return None
    return 1.0 if abs(factor - 1.0) < 1e-9 else factor


def is_known(unit: str) -> bool:
    """Whether a unit is one that `unit_factor` understands."""
    return _parsed(unit) is not None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    """Return a unit as astropy has it, also of some names that archives write; None for one that is not known."""
    from astropy import units

    plain = text.strip().strip("'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecated spelling is a spelling
        for name in (_NAMES.get(plain.lower(), plain), plain.lower()):
            try:
                unit = units.Unit(name)
            except (ValueError, TypeError):
                continue
            return getattr(unit, "function_unit", unit)
    return None


def wrapped_ra(ra_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return right ascensions within one turn of the circle in [0, 360) deg; others, and those inside, as they are."""
    with np.errstate(invalid="ignore"):
        outside = ((ra_deg < 0) & (ra_deg >= -360)) | ((ra_deg >= 360) & (ra_deg < 720))
    if not outside.any():
        return ra_deg
    wrapped = np.where(outside, np.mod(ra_deg, 360.0), ra_deg)
    return np.where(wrapped == 360.0, 0.0, wrapped)  # of -1e-15, for example


def _from_sexagesimal(values: pa.Array, unit: str) -> pa.Array:
    """Return degrees of text such as 12:34:56.7, 12h34m56.7s or -12 34 56.7; null where it is none of them."""
    parts = pc.extract_regex(values, _SEXAGESIMAL)
    first, minutes, seconds = (
        pc.struct_field(parts, name).cast(pa.float64()) for name in ("first", "minutes", "seconds")
    )
    size = pc.add(pc.add(first, pc.divide(minutes, 60.0)), pc.divide(seconds, 3600.0))
    degrees = pc.multiply(size, 15.0 if unit == "hourangle" else 1.0)
    negative = pc.equal(pc.struct_field(parts, "sign"), "-")
    most = 24.0 if unit == "hourangle" else 360.0
    good = pc.and_(pc.less(minutes, 60.0), pc.and_(pc.less_equal(seconds, 60.0), pc.less(first, most)))
    signed = pc.if_else(pc.fill_null(negative, False), pc.negate(degrees), degrees)
    return pc.if_else(pc.fill_null(good, False), signed, pa.scalar(None, pa.float64()))
