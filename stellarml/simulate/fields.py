"""The parts of the sky that are simulated, and the places of the sources inside them.

Five caps put the awkward places of a sphere into every sky: RA = 0 where three HEALPix base pixels meet, the south
pole, a field of real SkyMapper rows, and two dusty ones. Their areas grow with the number of sources, so that surface
densities stay those of the real sky at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import healpy as hp
import numpy as np

from stellarml.simulate.galaxy import galactic, lon_lat_deg, unit_vectors
from stellarml.simulate.streams import Bools, Floats, Ints, stream

CELL_LEVEL = 6


@dataclass(frozen=True)
class Field:
    """A cap of the sky: name, centre (deg, ICRS) and its share of all sources."""

    name: str
    ra_deg: float
    dec_deg: float
    share: float

    @property
    def galactic_deg(self) -> tuple[float, float]:
        """Galactic longitude and latitude of the centre."""
        lon, lat = galactic(np.array([self.ra_deg]), np.array([self.dec_deg]))
        return float(lon[0]), float(lat[0])


FIELDS = (
    Field("phoenix_ra0", 0.3, -41.9, 0.32),
    Field("fornax", 41.6, -30.3, 0.20),
    Field("south_pole", 0.0, -90.0, 0.18),
    Field("hydra", 152.0, -24.0, 0.16),
    Field("puppis", 110.0, -42.0, 0.14),
)


def shares(n: int) -> list[int]:
    """Return how many of `n` sources each field of `FIELDS` gets; they add up to `n`."""
    edges = np.round(np.cumsum([0.0, *(f.share for f in FIELDS)]) * n).astype(int)
    return [int(x) for x in np.diff(edges)]


def sky_cell(ra_deg: Floats, dec_deg: Floats, level: int = CELL_LEVEL) -> Ints:
    """Return the NESTED HEALPix pixel of each position, shape (n,)."""
    pixel = hp.ang2pix(1 << level, ra_deg, dec_deg, nest=True, lonlat=True)
    return np.asarray(pixel, dtype=np.int64)


def cap_radius_deg(area_deg2: float) -> float:
    """Return the angular radius of a cap of this area (deg2)."""
    return float(np.degrees(np.arccos(max(1.0 - area_deg2 / (2 * np.pi) * np.radians(1.0) ** 2, -1.0))))


def positions(field: Field, n: int, area_deg2: float, seed: int) -> tuple[Floats, Floats]:
    """Return right ascensions and declinations (deg) of `n` sources in a field, each of shape (n,).

    The density varies inside the field by a factor of about three, smoothly, so that tiles of equal area do not hold
    equal numbers.
    """
    draw = stream(seed, "positions", field.name)
    radius = np.radians(cap_radius_deg(area_deg2))
    phase = draw.uniform(0, 2 * np.pi, 3)
    east, north = np.empty(0), np.empty(0)
    cosine = np.empty(0)
    while len(east) < n:
        more = int(1.8 * (n - len(east))) + 64
        c = 1.0 - draw.random(more) * (1.0 - np.cos(radius))
        angle = draw.uniform(0, 2 * np.pi, more)
        s = np.sqrt(1.0 - c * c)
        x, y = s * np.cos(angle), s * np.sin(angle)
        u, w = x / radius, y / radius
        wave = (
            np.sin(2.1 * u + phase[0]) + np.sin(2.9 * w + phase[1]) + 0.7 * np.sin(4.3 * (u - w) + phase[2])
        )
        keep = draw.random(more) < 0.63 + 0.137 * wave
        east, north = np.concatenate([east, x[keep]]), np.concatenate([north, y[keep]])
        cosine = np.concatenate([cosine, c[keep]])
    return _from_local(field, east[:n], north[:n], cosine[:n])


def _from_local(field: Field, east: Floats, north: Floats, cosine: Floats) -> tuple[Floats, Floats]:
    a, d = np.radians(field.ra_deg), np.radians(field.dec_deg)
    centre = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    e = np.array([-np.sin(a), np.cos(a), 0.0])
    v = cosine[:, None] * centre + east[:, None] * e + north[:, None] * np.cross(centre, e)
    return lon_lat_deg(v)


def shift(ra_deg: Floats, dec_deg: Floats, east_mas: Floats, north_mas: Floats) -> tuple[Floats, Floats]:
    """Return the positions moved on the tangent plane by true arcs (mas); correct at the poles."""
    to_star, east, north = unit_vectors(ra_deg, dec_deg)
    mas = np.radians(1.0 / 3.6e6)
    return lon_lat_deg(to_star + (east_mas * mas)[:, None] * east + (north_mas * mas)[:, None] * north)


def with_close_pairs(
    ra_deg: Floats, dec_deg: Floats, share: float, seed: int, field: str
) -> tuple[Floats, Floats, Bools]:
    """Move a `share` of the sources next to another one, 0.3 to 6 arcsec away.

    Returns
    -------
    ra_deg, dec_deg, moved : ndarray, shape (n,)
        The new positions, and which sources were moved.
    """
    draw = stream(seed, "close_pairs", field)
    n = len(ra_deg)
    order = draw.permutation(n)
    n_moved = min(round(share * n), n // 2)
    moved, hosts = order[:n_moved], order[n_moved : 2 * n_moved]
    separation_mas = 1000.0 * draw.uniform(0.3, 6.0, n_moved)
    angle = draw.uniform(0, 2 * np.pi, n_moved)
    ra, dec = ra_deg.copy(), dec_deg.copy()
    ra[moved], dec[moved] = shift(
        ra_deg[hosts], dec_deg[hosts], separation_mas * np.sin(angle), separation_mas * np.cos(angle)
    )
    flag = np.zeros(n, dtype=np.bool_)
    flag[moved] = True
    return ra, dec, flag
