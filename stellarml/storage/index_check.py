"""Does the index of a catalogue belong to its positions? Rows are found by the one and matched by the other.

An index of another catalogue, of another order, or of rows that were sorted anew, loses pairs without a word: a halo is
read by the index. So a few rows of every row group that is read are compared, which costs less than a millisecond, and
a coarser index by the limits of its row groups, which chose them to be read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.errors import InputError
from stellarml.core.tiles import INDEX_ORDER

SAMPLED_ROWS = 5
MOST_APART_ARCSEC = 0.1
"""An index may have been computed before its position was rounded: to a float32, by up to 0.06 arcsec."""
_NUDGE_ARCSEC = 1e-3
_REMEDY = (
    "Rows are found by the index: make the catalogue again, or leave that column out, and it is computed."
)
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def check_sample(
    index: pa.ChunkedArray, ra: pa.ChunkedArray, dec: pa.ChunkedArray, place: str, column: str
) -> None:
    """Compare the index of order 29 of a few rows of a row group with their positions.

    Parameters
    ----------
    ra, dec
        Degrees; a row without a finite one is passed over.
    place, column
        File and row group, and the name of the index, for the message.

    Raises
    ------
    InputError
        If the pixel of a row is more than 0.1 arcsec from its position.
    """
    if not len(index):
        return
    rows = np.unique(np.linspace(0, len(index) - 1, SAMPLED_ROWS).astype(np.int64))
    found, lon, lat = (values.take(pa.array(rows)) for values in (index, ra, dec))
    keys = found.to_numpy()
    degrees = [np.asarray(v.cast(pa.float64(), safe=False).to_numpy(), np.float64) for v in (lon, lat)]
    with np.errstate(invalid="ignore"):
        placed = np.isfinite(degrees[0]) & (np.abs(degrees[1]) <= 90)
    if not placed.any():
        return
    rows, keys, degrees = rows[placed], keys[placed], [axis[placed] for axis in degrees]
    expected = sky.healpix_29(*degrees)
    for row in np.flatnonzero(keys != expected):  # none, mostly: what follows is not for every row group
        lon_deg, lat_deg = (float(axis[row]) for axis in degrees)
        apart = _arcsec_from(int(keys[row]), lon_deg, lat_deg)
        if apart > MOST_APART_ARCSEC:
            raise InputError(
                f"{place}, row {rows[row]}: {column} = {keys[row]}, expected {expected[row]} at ra = {lon_deg}, dec = "
                f"{lat_deg}: the index does not belong to the position, it is {apart:.3g} arcsec from it. {_REMEDY}"
            )


def _arcsec_from(index: int, ra_deg: float, dec_deg: float) -> float:
    """Return how far a position is from the pixel of order 29; half the sky where there is no such pixel."""
    if not 0 <= index < 12 << 2 * INDEX_ORDER:
        return 180.0 * 3600.0
    centre = sky.from_unit_vectors(sky.pixel_centres(INDEX_ORDER, [index]))
    return float(sky.separation_arcsec(ra_deg, dec_deg, *centre)[0])


def check_limits(index: Integers, limits: tuple[int, int] | None, order: int, place: str) -> None:
    """Compare the positions of a row group with the limits of its coarse index, by which it is chosen to be read.

    Parameters
    ----------
    index
        Of order 29, computed from the positions.
    limits
        Least and largest pixel of `order` in the footer; None where it has none.

    Raises
    ------
    InputError
        If a row lies in another pixel, and not within 0.1 arcsec of the border of one of these.
    """
    if limits is None or not len(index):
        return
    shift = 2 * (INDEX_ORDER - order)
    outside = np.flatnonzero((index >> shift < limits[0]) | (index >> shift > limits[1]))
    if not len(outside):
        return
    pixels = index[outside] >> shift
    ra, dec = sky.from_unit_vectors(sky.pixel_centres(INDEX_ORDER, index[outside]))
    far = np.ones(len(outside), np.bool_)
    for around in moved(ra, dec, MOST_APART_ARCSEC):
        beside = sky.healpix_29(*around) >> shift
        far &= (beside < limits[0]) | (beside > limits[1])
    if far.any():
        first = int(np.flatnonzero(far)[0])
        raise InputError(
            f"{place}: its index of order {order} runs from {limits[0]} to {limits[1]}, expected {pixels[first]} among "
            f"them, the pixel of its row {outside[first]}: the index does not belong to the positions. {_REMEDY}"
        )


def moved(ra_deg: Floats, dec_deg: Floats, arcsec: float = _NUDGE_ARCSEC) -> Iterator[tuple[Floats, Floats]]:
    """Yield the positions moved by so much, 1 mas by default, in eight directions."""
    start = sky.unit_vectors(ra_deg, dec_deg)
    aside = np.cross(start, np.where(np.abs(start[:, 2:]) < 0.9, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]))
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    upward = np.cross(start, aside)
    step = arcsec / sky.ARCSEC_PER_RAD
    for angle in np.arange(8) * np.pi / 4:
        yield sky.from_unit_vectors(start + step * (np.cos(angle) * aside + np.sin(angle) * upward))
