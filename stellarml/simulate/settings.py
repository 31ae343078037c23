"""What a simulated sky is made of: its size, its seed, and a switch for every realism term.

Every term is on by default, because a sky without them flatters any learner (Teff MAD 42 against 57 K, [Fe/H]
0.116 against 0.139 dex). The switches exist so that the effect of one term can be measured by itself.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MIN_STARS = 1000


class Realism(BaseModel):
    """One switch a realism term; all on by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    binaries: bool = Field(True, description="40 % unresolved binaries: flux added in every band")
    alpha: bool = Field(True, description="alpha enhancement by component moves the isochrone metallicity")
    dust: bool = Field(True, description="a dust sheet 125 pc high; without it every extinction is zero")
    sfd_error: bool = Field(True, description="16 % error of the published E(B-V)")
    rv_error: bool = Field(True, description="5 % scatter of R_V by sky cell")
    zero_points: bool = Field(
        True, description="zero-point errors by sky cell: 20 mmag in u, v, 10 in g, r, i, z"
    )
    photometric_noise: bool = Field(True, description="magnitude errors of both surveys")
    astrometric_noise: bool = Field(True, description="parallax, proper motion and position errors")
    frame_offsets: bool = Field(
        True, description="SkyMapper positions off by 100 to 180 mas, whole fields at once"
    )
    fast_movers: bool = Field(True, description="a handful of stars that move by 1 to 10 arcsec a year")
    close_pairs: bool = Field(True, description="Gaia sources within a few arcsec of each other")
    blends: bool = Field(True, description="close pairs that SkyMapper sees as one object")
    skymapper_only: bool = Field(True, description="SkyMapper objects without a Gaia source")
    extragalactic: bool = Field(True, description="quasars and galaxies among the Gaia sources")
    missing_bands: bool = Field(
        True, description="bands lost to depth, saturation and chance; sentinels for nulls"
    )
    correlated_gspphot: bool = Field(True, description="GSP-Phot errors that share A0, Teff and distance")
    label_noise: bool = Field(True, description="Student-t label errors of 45 K, 0.05 dex, 0.04 dex")
    contaminants: bool = Field(True, description="labels of a wrong star, tied to poor astrometry")
    duplicate_labels: bool = Field(True, description="stars labelled twice, some of them in conflict")


class SimulateSettings(BaseModel):
    """How large a sky, from which seed, with which terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stars: int = Field(200_000, description=f"Gaia rows to write, at least {MIN_STARS}")
    seed: int = Field(1, ge=0, description="same seed and size, same bytes")
    workers: int = Field(2, ge=1, description="threads; the bytes do not depend on it")
    realism: Realism = Field(default_factory=Realism)


class SimulateSummary(BaseModel):
    """What was written and what was drawn."""

    model_config = ConfigDict(frozen=True)

    stars: int
    seed: int
    rows: dict[str, int] = Field(description="rows a table")
    files: dict[str, tuple[str, ...]] = Field(description="files a table, relative to the output folder")
    drawn: dict[str, int] = Field(description="Gaia sources by component and kind, pairs, labels")
    seconds: float
