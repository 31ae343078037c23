"""What the labelled catalogue looks like: on the sky, in the Kiel and the colour-magnitude diagram.

Every quantity is counted in Spark. The sky is grouped by HEALPix pixel (NESTED, from `_healpix_29`, a bit shift);
where that suits the catalogue badly, a second look with other pixels is taken, so that a cone of five degrees does
not end as thirty squares and a thin catalogue not as noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

from stellarml.core.histograms import Counts, FloatArray, Histogram, IntArray, integer_axis, linear_axis
from stellarml.core.names import BP_MAG, G_MAG, RP_MAG
from stellarml.core.tiles import INDEX_ORDER
from stellarml.report.accuracy import Label
from stellarml.report.spark_histograms import bin_table

FLAG_BITS = 16
MIN_PIXELS = 400
MIN_STARS_A_PIXEL = 12
MAX_EXTRA_ORDERS = 5
_RANK_ACCURACY = 1000


@dataclass(frozen=True, eq=False)
class SkyMap:
    """Occupied HEALPix pixels (NESTED) of `order`: stars in each and the median of each label."""

    order: int
    pixels: IntArray
    stars: IntArray
    medians: dict[str, FloatArray]


def sky_map(table: DataFrame, labels: Sequence[Label], order: int) -> SkyMap:
    """Count stars and take the median of each label by HEALPix pixel.

    Parameters
    ----------
    table
        With `_healpix_29` (NESTED) and a column a label.
    labels
        May be empty: counts only.
    order
        HEALPix order of the map. Finer is chosen where fewer than 400 pixels are occupied and the stars suffice,
        coarser where a pixel would hold fewer than a dozen stars.
    """
    first = _sky(table, labels, order)
    better = _better_order(first)
    return first if better == order else _sky(table, labels, better)


def _better_order(sky: SkyMap) -> int:
    """Return the order at which a map says most: finer for a patch, coarser for few stars on a wide sky."""
    stars, order, occupied = int(sky.stars.sum()), sky.order, len(sky.pixels)
    if not occupied:
        return order
    while order > 0 and occupied > MIN_PIXELS and stars < MIN_STARS_A_PIXEL * occupied:
        order -= 1
        occupied = len(np.unique(sky.pixels >> 2 * (sky.order - order)))
    finest = min(sky.order + MAX_EXTRA_ORDERS, INDEX_ORDER)
    while order < finest and occupied < MIN_PIXELS and stars >= MIN_STARS_A_PIXEL * occupied * 4:
        order, occupied = order + 1, occupied * 4
    return order


def _sky(table: DataFrame, labels: Sequence[Label], order: int) -> SkyMap:
    pixel = F.shiftright("_healpix_29", 2 * (INDEX_ORDER - order)).alias("pixel")
    wanted = [F.count(F.lit(1)).alias("stars")]
    for label in labels:
        value = F.col(label.name).cast("double")
        wanted.append(
            F.percentile_approx(F.when(~F.isnan(value), value), 0.5, _RANK_ACCURACY).alias(label.name)
        )
    found = table.groupBy(pixel).agg(*wanted).where("pixel is not null").toArrow().sort_by("pixel")
    medians = {
        label.name: found[label.name].to_numpy(zero_copy_only=False).astype(np.float64) for label in labels
    }
    return SkyMap(order, found["pixel"].to_numpy(), found["stars"].to_numpy(), medians)


def catalogue_counts(labelled: DataFrame, labels: Sequence[Label]) -> dict[str, Counts]:
    """Count the labelled catalogue: ``kiel`` (Teff, log g; value [Fe/H]), ``flags``, ``passing``.

    The Kiel diagram holds the stars that pass every selection cut, and only exists where teff and logg are labels.
    """
    known = set(labelled.columns)
    passing = _passes_cuts(labelled)
    columns: dict[str, Column] = {"passing": passing.cast("double")}
    histograms = [Histogram("passing", (integer_axis("passing", 2),))]
    if "quality_flags" in known:
        columns["quality_flags"] = F.col("quality_flags")
        histograms.append(Histogram("flags", (integer_axis("quality_flags", 2**FLAG_BITS),)))
    names = {label.name for label in labels}
    if {"teff", "logg"} <= names:
        columns["teff"] = F.when(passing, F.col("teff"))
        columns["logg"] = F.col("logg")
        axes = (linear_axis("teff", 2500, 9000, 325), linear_axis("logg", -1, 6, 280))
        histograms.append(Histogram("kiel", axes, value="feh" if "feh" in names else None))
        if "feh" in names:
            columns["feh"] = F.col("feh")
    return bin_table(labelled, histograms, columns)


def matched_counts(matched: DataFrame) -> dict[str, Counts]:
    """Count the matched pairs: ``separation`` (arcsec), ``offsets`` (mas), ``cmd`` (BP - RP, absolute G).

    Each only where the columns it needs are there. Absolute magnitudes use `r_med_geo` and are not corrected for
    extinction: SFD's column behind the star would overcorrect the near ones.
    """
    known = set(matched.columns)
    columns: dict[str, Column] = {}
    histograms: list[Histogram] = []
    if "angular_distance" in known:
        columns["angular_distance"] = F.col("angular_distance")
        histograms.append(Histogram("separation", (linear_axis("angular_distance", 0, 10, 2000),)))
    if {"d_alpha_star_mas", "d_delta_mas"} <= known:
        names = ("d_alpha_star_mas", "d_delta_mas")
        columns |= {name: F.col(name) for name in names}
        axes = [linear_axis(name, -1000, 1000, 250) for name in names]
        histograms.append(Histogram("offsets", (axes[0], axes[1])))
    if {G_MAG, BP_MAG, RP_MAG, "r_med_geo"} <= known:
        colour = F.col(BP_MAG) - F.col(RP_MAG)
        columns["bp_rp"] = F.when(_passes_cuts(matched), colour)
        columns["absolute_g"] = absolute_magnitude(F.col(G_MAG), F.col("r_med_geo"))
        axes = [linear_axis("bp_rp", -0.6, 4.0, 276), linear_axis("absolute_g", -6, 16, 330)]
        histograms.append(Histogram("cmd", (axes[0], axes[1])))
    return bin_table(matched, histograms, columns)


def flag_fractions(flags: Counts) -> dict[int, float]:
    """Return the fraction of rows that carry each bit of `quality_flags`, for the bits that occur."""
    value = np.arange(len(flags.n))
    rows = flags.rows
    carried = {bit: int(flags.n[(value >> bit) & 1 == 1].sum()) for bit in range(FLAG_BITS)}
    return {bit: n / rows for bit, n in carried.items() if n}


def _passes_cuts(table: DataFrame) -> Column:
    """Tell rows in which no column named ``*cuts_failed*`` has a bit set; without such a column every row passes."""
    passes = F.lit(True)
    for name in table.columns:
        if "cuts_failed" in name:
            passes = passes & (F.coalesce(F.col(name), F.lit(0)) == 0)
    return passes


def absolute_magnitude(magnitude: Column, distance_pc: Column) -> Column:
    """Return m - 5 log10(D / pc) + 5 in mag, reddening left in; null where D is not positive."""
    return magnitude - F.when(distance_pc > 0, 5 * F.log10(distance_pc) - 5)
