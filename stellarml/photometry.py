"""Extinction, absolute magnitudes and colours as Spark columns, for the report's diagrams.

The network's inputs do not come through here: they are text in a feature file. Coefficients are on the scale of SFD
E(B-V), as SkyMapper's own (`ebmv_sfd`), so Gaia's are Casagrande et al. 2021's for the Fitzpatrick law normalised as in
Schlafly & Finkbeiner 2011: mixing them with CCM coefficients (7 to 24 % larger) would tilt every colour with reddening.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812

# A_X / E(B-V)_SFD, SkyMapper
SKYMAPPER_EXTINCTION = {"u": 4.294, "v": 4.026, "g": 2.986, "r": 2.288, "i": 1.588, "z": 1.206}

# A_X / E(B-V)_SFD as a polynomial of the dereddened BP - RP, constant term first; Casagrande et al. 2021 (COLTE)
GAIA_EXTINCTION = {
    "g": (2.609, -0.475, 0.053),
    "bp": (2.998, -0.140, -0.175, 0.062),
    "rp": (1.689, -0.059),
}

# E(BP - RP) / E(B-V)_SFD with which COLTE starts
GAIA_COLOUR_EXCESS = 0.8


def distance_modulus(distance_pc: Column) -> Column:
    """Return 5 log10(D / pc) - 5 in mag; null where D is not positive."""
    return F.when(distance_pc > 0, 5 * F.log10(distance_pc) - 5)


def absolute_magnitude(
    magnitude: Column, distance_pc: Column, extinction_mag: Column | float = 0.0
) -> Column:
    """Return m - 5 log10(D / pc) + 5 - A in mag."""
    return magnitude - distance_modulus(distance_pc) - extinction_mag


def skymapper_extinction(band: str, ebv_mag: Column) -> Column:
    """Return A in mag of SkyMapper `band` (u v g r i z) for E(B-V) of the SFD map."""
    return ebv_mag * SKYMAPPER_EXTINCTION[band]


def gaia_colour_0(bp_rp_mag: Column, ebv_mag: Column) -> Column:
    """Return the dereddened BP - RP in mag, E(B-V) on the SFD scale."""
    return bp_rp_mag - GAIA_COLOUR_EXCESS * ebv_mag


def gaia_extinction(band: str, bp_rp_mag: Column, ebv_mag: Column) -> Column:
    """Return A in mag of Gaia `band` (g bp rp) for the reddened colour; polynomials hold for BP - RP of 0 to 2.5."""
    colour = F.least(F.greatest(gaia_colour_0(bp_rp_mag, ebv_mag), F.lit(0.0)), F.lit(2.5))
    value: Column = F.lit(0.0)
    for coefficient in reversed(GAIA_EXTINCTION[band]):
        value = value * colour + coefficient
    return value * ebv_mag
