"""How rows of an ingested survey become the kernel's `Sources`: columns by descriptor, in mas, mas/yr and years."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.config import Crossmatch
from stellarml.core.errors import ConfigError
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN
from stellarml.crossmatch.kernel.settings import (
    FrameSettings,
    MatchSettings,
    PositionErrors,
    Sources,
    sources,
)
from stellarml.surveys.descriptor import Descriptor, Names, Quantity
from stellarml.surveys.wanted_column import ingested_name

_MAS = {"mas": 1.0, "arcsec": 1000.0, "deg": 3.6e6}
_CORRELATIONS = ("ra_dec", "ra_pmra", "ra_pmdec", "dec_pmra", "dec_pmdec", "pmra_pmdec")


def match_columns(descriptor: Descriptor, available: Sequence[str], *, with_errors: bool = True) -> list[str]:
    """Return the slim columns that a match needs of a survey, of those that are `available`."""
    p = descriptor.position
    named: list[Names | None] = [p.ra, p.dec, p.pmra, p.pmdec, p.epoch.column if p.epoch else None]
    if with_errors:
        named += [p.parallax, p.pmra_error, p.pmdec_error]
        named += [q.column for q in (p.ra_error, p.dec_error) if q is not None]
        named += [getattr(p.correlations, name) for name in _CORRELATIONS]
    columns = [descriptor.id_column, *(ingested_name(names) for names in named if names)]
    return list(dict.fromkeys(name for name in columns if name in available))


def magnitude_columns(descriptor: Descriptor, available: Sequence[str]) -> list[str]:
    """Return the magnitudes of a survey, of those that are `available`."""
    columns = (ingested_name(band.magnitude) for band in descriptor.bands.values())
    return list(dict.fromkeys(name for name in columns if name in available))


def is_bright(table: pa.Table, magnitudes: Sequence[str], limit_mag: float) -> npt.NDArray[np.bool_]:
    """Tell which rows some band shows as `limit_mag` or brighter; all of them where there is no band.

    A magnitude of 0 or less is not believed: catalogues write it for a missing one.
    """
    if not magnitudes:
        return np.ones(table.num_rows, dtype=bool)
    bright = np.zeros(table.num_rows, dtype=bool)
    for name in magnitudes:
        magnitude = table[name].cast(pa.float64(), safe=False).to_numpy()
        bright |= (magnitude > 0.0) & (magnitude <= limit_mag)
    return bright


def position_errors(descriptor: Descriptor) -> PositionErrors:
    """Return how a survey's position errors are to be believed."""
    quantities = [q for q in (descriptor.position.ra_error, descriptor.position.dec_error) if q is not None]
    floors = [q.floor * _factor(q) for q in quantities if q.floor is not None]
    rejects = [q.reject_above * _factor(q) for q in quantities if q.reject_above is not None]
    return PositionErrors(
        floor_mas=max(floors, default=0.0),
        reject_above_mas=min(rejects, default=np.inf),
        systematic_mas=descriptor.position.systematic_error_mas,
    )


def match_settings(config: Crossmatch, left: Descriptor, right: Descriptor) -> MatchSettings:
    """Join the configuration and both descriptors; the side with proper motions is the one that moves.

    Raises
    ------
    ConfigError
        If a match by errors is asked for, and a survey has none.
    """
    for survey in (left, right):
        if config.radius_arcsec == 0 and survey.position.ra_error is None:
            raise ConfigError(
                f"survey '{survey.name}' has no position errors, so good neighbours cannot be found by them. "
                'Give position.ra_error and dec_error (a column, or { value = ..., unit = "mas" }) in its descriptor, '
                "or a fixed radius (crossmatch.radius_arcsec, --radius-arcsec)."
            )
    frame = FrameSettings(
        order=config.frame_order,
        min_pairs=config.frame_min_pairs,
        radius_arcsec=config.frame_radius_arcsec,
        bright_mag=config.frame_bright_mag,
    )
    return MatchSettings(
        radius_arcsec=config.radius_arcsec or None,
        gamma=config.gamma,
        sigma_mu_mas_yr=config.missing_pm_mas_yr,
        density_radius_arcsec=config.density_radius_arcsec,
        moving="right" if right.position.pmra and not left.position.pmra else "left",
        left_errors=position_errors(left),
        right_errors=position_errors(right),
        frame=frame if config.frame_offset == "measure" else None,
    )


def to_sources(table: pa.Table, descriptor: Descriptor) -> Sources:
    """Return the rows of `table` in the kernel's form; columns that the survey lacks are missing in every row.

    Columns are made writable: numba compiles the kernel anew for every mixture of read-only (Arrow) and writable ones.
    """
    p = descriptor.position
    astrometry: dict[str, npt.ArrayLike | None] = {
        "epoch_yr": _epoch(table, p.epoch),
        "ra_error_mas": _quantity(table, p.ra_error),
        "dec_error_mas": _quantity(table, p.dec_error),
        "parallax_mas": _floats(table, p.parallax),
        "pmra_mas_yr": _floats(table, p.pmra),
        "pmdec_mas_yr": _floats(table, p.pmdec),
        "pmra_error_mas_yr": _floats(table, p.pmra_error),
        "pmdec_error_mas_yr": _floats(table, p.pmdec_error),
    }
    for name in _CORRELATIONS:
        astrometry[f"{name}_corr"] = _floats(table, getattr(p.correlations, name))
    return sources(
        integer_ids(table[descriptor.id_column]),
        _required(table, p.ra),
        _required(table, p.dec),
        healpix_29=np.require(table[HEALPIX_COLUMN].to_numpy(), requirements="W"),
        **astrometry,
    )


def integer_ids(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return ids as int64; strings by a 63-bit hash that is the same everywhere."""
    if pa.types.is_integer(column.type):
        integers: npt.NDArray[np.int64] = np.require(column.to_numpy(), np.int64, "W")
        return integers
    from pandas.util import hash_array

    hashed: npt.NDArray[np.int64] = (hash_array(column.to_numpy()) >> np.uint64(1)).astype(np.int64)
    return hashed


def taking_part(table: pa.Table, scope: str) -> pa.Table:
    """Return the rows that take part: all, or those that fail no cut of their survey."""
    if scope == "full":
        return table
    return table.filter(pa.array(table[CUTS_FAILED].to_numpy() == 0))


def _required(table: pa.Table, names: Names | None) -> npt.NDArray[np.float64]:
    values = _floats(table, names)
    if values is None:
        raise ConfigError("a cross-match needs a table with positions: [position] ra and dec")
    return values


def _floats(table: pa.Table, names: Sequence[str] | None) -> npt.NDArray[np.float64] | None:
    if not names or ingested_name(names) not in table.column_names:
        return None
    column = table[ingested_name(names)].cast(pa.float64(), safe=False)
    values: npt.NDArray[np.float64] = np.require(column.to_numpy(), requirements="W")
    return values


def _factor(quantity: Quantity) -> float:
    if quantity.unit not in _MAS:
        raise ConfigError(f"unit '{quantity.unit}' is not an angle; expected mas, arcsec or deg")
    return _MAS[quantity.unit]


def _quantity(table: pa.Table, quantity: Quantity | None) -> npt.ArrayLike | None:
    if quantity is None:
        return None
    if quantity.value is not None:
        return quantity.value * _factor(quantity)
    values = _floats(table, quantity.column)
    return None if values is None else values * _factor(quantity)


def _epoch(table: pa.Table, quantity: Quantity | None) -> npt.ArrayLike | None:
    if quantity is None:
        return None
    values = quantity.value if quantity.value is not None else _floats(table, quantity.column)
    if values is None or quantity.unit == "jyear":
        return values
    if quantity.unit not in ("mjd", "jd"):
        raise ConfigError(f"unit '{quantity.unit}' is not an epoch; expected mjd, jd or jyear")
    return sky.mjd_to_jyear(np.asarray(values) - (2_400_000.5 if quantity.unit == "jd" else 0.0))
