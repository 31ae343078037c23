"""What does a match take in, and what may be chosen? The catalogues' rows and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stellarml.core import sky
from stellarml.core.errors import ConfigError, InputError, raise_gathered

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FIVE_SIGMA = 0.9999994267
"""Two-sided 5 sigma of one dimension; the Mahalanobis limit is then K2 = 28.74."""


@dataclass(frozen=True)
class PositionErrors:
    """How one catalogue's position errors are to be believed; mas, true arc on both axes.

    A row with an error above `reject_above_mas` takes no part in a match by errors. Nor does one without an error,
    unless `missing_mas` says what to assume. The floor comes first, the systematic part is added in quadrature.
    """

    floor_mas: float = 0.0
    reject_above_mas: float = np.inf
    systematic_mas: float = 0.0
    missing_mas: float = np.nan


@dataclass(frozen=True)
class FrameSettings:
    """How the offset of the right catalogue's frame is measured (`frame_offset`).

    In HEALPix cells of `order`, from pairs that are alone within `radius_arcsec` of each other among the sources of
    both sides that some band shows as `bright_mag` or brighter; a cell with fewer than `min_pairs` borrows from its
    parents.
    """

    order: int = 5
    min_pairs: int = 20
    radius_arcsec: float = 3.0
    bright_mag: float = 17.0


@dataclass(frozen=True)
class MatchSettings:
    """What a user may choose.

    radius_arcsec
        None: good neighbours by errors (``d2 <= -2 ln(1 - gamma)``), best by figure of merit. A number: every pair
        within it is a good neighbour, the nearest is best, errors play no part. Epochs are propagated in both.
    moving
        The side whose sources are moved to the other's epoch: the one with proper motions, normally the left.
    sigma_mu_mas_yr
        Assumed spread of proper motion, an axis, for a moving source that has none.
    density_radius_arcsec
        Sources of the right catalogue within this radius of the left source, at the right catalogue's mean epoch,
        make the local density of the figure of merit.
    unknown_epochs_yr
        For a fixed radius where the side that stays has no epochs at all: the span of years that its positions may be
        of. A pair is then as far apart as the moving source's path of those years and the other's position. None:
        nothing is moved.
    frame
        How to measure the offset of the right catalogue's frame, which is then taken off its positions; None: not at
        all. Only `plan.plan_match` acts on it: `match_tile` is given positions from which it is off already.
    """

    radius_arcsec: float | None = None
    gamma: float = FIVE_SIGMA
    sigma_mu_mas_yr: float = 20.0
    density_radius_arcsec: float = 15.0
    moving: Literal["left", "right"] = "left"
    left_errors: PositionErrors = field(default_factory=PositionErrors)
    right_errors: PositionErrors = field(default_factory=PositionErrors)
    frame: FrameSettings | None = None
    unknown_epochs_yr: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.gamma < 1.0:
            problems.append(f"gamma is {self.gamma}; expected a probability between 0 and 1")
        if self.radius_arcsec is not None and not 0.0 < self.radius_arcsec <= 36_000.0:
            problems.append(f"radius_arcsec is {self.radius_arcsec}; expected more than 0 and at most 36000")
        if not 0.0 < self.density_radius_arcsec <= 3600.0:
            problems.append(
                f"density_radius_arcsec is {self.density_radius_arcsec}; expected more than 0, at most 3600"
            )
        if not 0.0 <= self.sigma_mu_mas_yr < np.inf:
            problems.append(f"sigma_mu_mas_yr is {self.sigma_mu_mas_yr}; expected a number, 0 or more")
        if self.unknown_epochs_yr is not None and self.radius_arcsec is None:
            problems.append("unknown_epochs_yr goes with a fixed radius_arcsec")
        if self.moving not in ("left", "right"):
            problems.append(f"moving is {self.moving!r}; expected 'left' or 'right'")
        raise_gathered(ConfigError, "cross-match settings", problems)

    @property
    def limit(self) -> float:
        """K2, the largest squared Mahalanobis distance of a good neighbour."""
        return -2.0 * float(np.log1p(-self.gamma))

    @property
    def moving_errors(self) -> PositionErrors:
        """Errors of the side that moves."""
        return self.left_errors if self.moving == "left" else self.right_errors

    @property
    def staying_errors(self) -> PositionErrors:
        """Errors of the side that stays."""
        return self.right_errors if self.moving == "left" else self.left_errors


@dataclass(frozen=True)
class Sources:
    """Rows of one catalogue, all arrays of shape (n,); NaN is missing. Make it with `sources`."""

    id: Integers
    healpix_29: Integers
    ra_deg: Floats
    dec_deg: Floats
    epoch_yr: Floats
    ra_error_mas: Floats
    dec_error_mas: Floats
    ra_dec_corr: Floats
    parallax_mas: Floats
    pmra_mas_yr: Floats
    pmdec_mas_yr: Floats
    pmra_error_mas_yr: Floats
    pmdec_error_mas_yr: Floats
    ra_pmra_corr: Floats
    ra_pmdec_corr: Floats
    dec_pmra_corr: Floats
    dec_pmdec_corr: Floats
    pmra_pmdec_corr: Floats

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: NDArray[Any]) -> Sources:
        """Those rows only, by index or mask."""
        return Sources(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @staticmethod
    def concatenate(parts: list[Sources]) -> Sources:
        """Rows of all parts, in their order."""
        names = [column.name for column in fields(Sources)]
        return Sources(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def sources(
    id: ArrayLike,
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    *,
    healpix_29: ArrayLike | None = None,
    **astrometry: ArrayLike | None,
) -> Sources:
    """Bring one catalogue's columns into the form the kernel takes.

    Parameters
    ----------
    id : array_like of int, shape (n,)
        Unique in its catalogue.
    ra_deg, dec_deg : array_like, shape (n,)
        ICRS at the row's own epoch; rows without a finite position take no part.
    healpix_29 : array_like of int, optional
        The stored index; computed where it is not given.
    **astrometry : array_like or float or None
        Any other field of `Sources`, an array or one number for all rows. None or left out: missing in every row.

    Raises
    ------
    InputError
        For an unknown name or a column of another length.
    """
    ids = np.ascontiguousarray(id, dtype=np.int64)
    known = [column.name for column in fields(Sources)][4:]
    problems = [f"{name!r} is not a column of the match" for name in astrometry if name not in known]
    raise_gathered(InputError, f"cross-match input (it knows {', '.join(known)})", problems)
    given: dict[str, ArrayLike | None] = {"ra_deg": ra_deg, "dec_deg": dec_deg}
    known_of = {name: value for name, value in {**given, **astrometry}.items() if value is not None}
    columns = {name: _column(name, value, len(ids)) for name, value in known_of.items()}
    missing = np.full(len(ids), np.nan)
    columns.update({name: missing for name in known if name not in columns})
    if healpix_29 is None:
        index = np.full(len(ids), -1, dtype=np.int64)
        on_sky = np.isfinite(columns["ra_deg"]) & (np.abs(columns["dec_deg"]) <= 90.0)
        index[on_sky] = sky.healpix_29(columns["ra_deg"][on_sky], columns["dec_deg"][on_sky])
    else:
        index = np.ascontiguousarray(healpix_29, dtype=np.int64)
    return Sources(id=ids, healpix_29=index, **columns)


def _column(name: str, value: ArrayLike, length: int) -> Floats:
    column = np.asarray(value, dtype=np.float64)
    if column.ndim == 0:
        return np.full(length, float(column))
    if column.shape != (length,):
        raise InputError(f"cross-match input: {name} has shape {column.shape}; the ids have ({length},)")
    return np.ascontiguousarray(column)
