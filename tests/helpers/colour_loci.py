"""Whether the colours look like those of the real sky.

One selection for simulated and real objects alike: no flags, star-like (above 0.9), all six errors below 0.03 mag,
g < 17.2, more than 50 deg from the Galactic plane. It is applied to `dr2.master` columns as they are observed, with
each object counted by its natural weight, because a simulated sky holds too many bright, giant and metal-poor stars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stellarml.simulate.galaxy import galactic
from stellarml.simulate.skymapper_light import BANDS
from stellarml.simulate.streams import Bools, Floats

COLOURS = (("u", "v"), ("v", "g"), ("g", "r"), ("g", "i"), ("i", "z"))
PERCENTILES = (16.0, 50.0, 84.0)
MAX_ERROR_MAG = 0.03
FAINTEST_G_MAG = 17.2
MIN_CLASS_STAR = 0.9
MIN_LATITUDE_DEG = 50.0

Table: TypeAlias = Mapping[str, Any] | pd.DataFrame


def clean_high_latitude(objects: Table, max_error_mag: float = MAX_ERROR_MAG) -> Bools:
    """Return which objects the loci are measured on, shape (n,).

    Parameters
    ----------
    objects : DataFrame, or mapping of str to array_like, shape (n,)
        `dr2.master` columns: raj2000, dej2000, flags, class_star, X_psf and e_X_psf of the six bands; NaN for null.
    max_error_mag : float
        Largest error admitted in every band.
    """
    _, b_deg = galactic(_column(objects, "raj2000"), _column(objects, "dej2000"))
    keep = (_column(objects, "flags") == 0) & (_column(objects, "class_star") > MIN_CLASS_STAR)
    keep &= (_column(objects, "g_psf") < FAINTEST_G_MAG) & (np.abs(b_deg) > MIN_LATITUDE_DEG)
    for band in BANDS:
        keep &= (_column(objects, f"e_{band}_psf") < max_error_mag) & (_column(objects, f"{band}_psf") < 25.0)
    return np.asarray(keep)


def colour_loci(
    objects: Table, weight: NDArray[np.float64] | None = None, max_error_mag: float = MAX_ERROR_MAG
) -> dict[str, tuple[float, float, float]]:
    """Return the weighted 16, 50 and 84 % points of u-v, v-g, g-r, g-i and i-z (mag) of the clean objects.

    Parameters
    ----------
    objects : DataFrame, or mapping of str to array_like, shape (n,)
        See `clean_high_latitude`.
    weight : ndarray, shape (n,), optional
        Natural weights (`weight` of the Gaia truth); NaN or zero leaves an object out. Equal by default.
    max_error_mag : float
        Largest error admitted in every band.

    Raises
    ------
    ValueError
        No object passes the selection.
    """
    keep = clean_high_latitude(objects, max_error_mag)
    natural = np.ones(len(keep)) if weight is None else np.nan_to_num(weight, nan=0.0)
    keep &= natural > 0
    if not keep.any():
        raise ValueError(
            "no object passes the selection of the colour loci; it needs clean stars at |b| > 50 deg"
        )
    loci = {}
    for blue, red in COLOURS:
        colour = (_column(objects, f"{blue}_psf") - _column(objects, f"{red}_psf"))[keep]
        low, middle, high = weighted_percentiles(colour, natural[keep], PERCENTILES)
        loci[f"{blue}-{red}"] = (low, middle, high)
    return loci


def weighted_percentiles(values: Floats, weight: Floats, levels: tuple[float, ...]) -> list[float]:
    """Return the percentiles of weighted values: each value stands at the middle of its own weight."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) - 0.5 * weight[order]
    return [float(x) for x in np.interp(np.array(levels) / 100.0 * weight.sum(), share, values[order])]


def _column(objects: Table, name: str) -> Floats:
    return np.asarray(objects[name], dtype=np.float64)
