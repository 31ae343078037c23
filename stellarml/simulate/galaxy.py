"""The stars of each component: how many are where, how old, how metal-rich, how fast.

Densities, [Fe/H] and ages follow Bland-Hawthorn & Gerhard (2016, ARA&A 54, 529) as used by brutus; velocities Bensby
et al. (2003) and Schoenrich et al. (2010). The thin disc's height grows with age: with one height for all ages, young
hot stars reach latitudes where the real sky has none (g-i 0.05 mag too blue at |b| > 50 deg). The thick disc is 10 Gyr
old, not the 8.3 Gyr of brutus' formula, for the same reason. One normalisation, the local number of stars formed,
makes the counts absolute: it gives the 890 stars a square degree to G = 18 of the real Gaia cone at b = -49.
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.streams import Floats

COMPONENTS = ("thin_disc", "thick_disc", "halo")
LOCAL_FRACTION = np.array([1.0, 0.04, 0.005])
FEH_MEAN = np.array([-0.2, -0.7, -1.6])
FEH_SIGMA = np.array([0.3, 0.4, 0.5])
AGE_MEAN_GYR = np.array([4.9, 10.0, 12.4])
AGE_SIGMA_GYR = np.array([4.0, 2.0, 1.0])
ALPHA_MEAN = np.array([0.04, 0.22, 0.28])
ALPHA_SIGMA = np.array([0.03, 0.05, 0.07])
STARS_FORMED_PER_PC3 = 0.114

SUN_R_KPC = 8.2
SUN_Z_KPC = 0.025
KM_S_PER_MAS_YR_KPC = 4.74047

_DISPERSION_KM_S = np.array([[35.0, 20.0, 16.0], [67.0, 38.0, 35.0], [160.0, 90.0, 90.0]])
_DRIFT_KM_S = np.array([-15.0, -46.0, -220.0])
_SUN_KM_S = np.array([11.1, 12.24, 7.25])
# Rows: the Galactic x (centre), y (rotation) and z (pole) axes in ICRS; Hipparcos catalogue, volume 1, 1.5.3.
GALACTIC_AXES = np.array(
    [
        [-0.0548755604162154, -0.8734370902348850, -0.4838350155487132],
        [0.4941094278755837, -0.4448296299600112, 0.7469822444972189],
        [-0.8676661490190047, -0.1980763734312015, 0.4559837761750669],
    ]
)


def thin_disc_height_kpc(age_gyr: float) -> float:
    """Return the scale height (kpc) of thin-disc stars of an age: 0.11 at 1 Gyr, 0.30 at 5 Gyr, 0.45 at 10 Gyr."""
    return float(0.30 * (age_gyr / 5.0) ** 0.6)


def density(component: int, age_gyr: float, l_deg: float, b_deg: float, distance_kpc: Floats) -> Floats:
    """Return the density of a component's stars of an age along one line of sight, shape (n,); 1 at the Sun."""
    height = (thin_disc_height_kpc(age_gyr), 0.9, 0.0)[component]
    at = _density_xyz(component, height, *_galactocentric(l_deg, b_deg, distance_kpc))
    here = _density_xyz(component, height, *_galactocentric(0.0, 90.0, np.zeros(1)))
    return np.asarray(at / here, dtype=np.float64)


def _galactocentric(l_deg: float, b_deg: float, distance_kpc: Floats) -> tuple[Floats, Floats]:
    lon, lat = np.radians(l_deg), np.radians(b_deg)
    x = SUN_R_KPC - distance_kpc * np.cos(lat) * np.cos(lon)
    y = distance_kpc * np.cos(lat) * np.sin(lon)
    return np.hypot(x, y), distance_kpc * np.sin(lat) + SUN_Z_KPC


def _density_xyz(component: int, height: float, radius: Floats, z: Floats) -> Floats:
    if component == 2:
        spherical = np.hypot(radius, z)
        q = 0.8 - (0.8 - 0.2) * np.exp(1.0 - np.sqrt(spherical**2 + 6.0**2) / 6.0)
        return np.asarray((radius**2 + (z / q) ** 2 + 2.0**2) ** (-4.2 / 2))
    length = (2.6, 2.0)[component]
    smooth = np.sqrt(radius**2 + 2.0**2)
    return np.asarray(np.exp(-(smooth - SUN_R_KPC) / length - np.abs(z) / height))


def feh_age_weights(component: int, feh: Floats, log_age: Floats) -> Floats:
    """Return the probability of each (feh, log age) bin centre in a component, shape (n_feh, n_age)."""
    feh_part = np.exp(-0.5 * ((feh - FEH_MEAN[component]) / FEH_SIGMA[component]) ** 2)
    gyr = 10.0 ** (log_age - 9.0)
    age_part = (
        gyr
        * np.gradient(log_age)
        * np.exp(-0.5 * ((gyr - AGE_MEAN_GYR[component]) / AGE_SIGMA_GYR[component]) ** 2)
    )
    return np.asarray(np.outer(feh_part / feh_part.sum(), age_part / age_part.sum()))


def unit_vectors(ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the unit vectors to the stars, to the east and to the north, each of shape (n, 3)."""
    a, d = np.radians(ra_deg), np.radians(dec_deg)
    sa, ca, sd, cd = np.sin(a), np.cos(a), np.sin(d), np.cos(d)
    zero = np.zeros_like(a)
    return (
        np.stack([cd * ca, cd * sa, sd], axis=1),
        np.stack([-sa, ca, zero], axis=1),
        np.stack([-sd * ca, -sd * sa, cd], axis=1),
    )


def lon_lat_deg(vectors: Floats) -> tuple[Floats, Floats]:
    """Return longitude in [0, 360) and latitude (deg) of vectors of shape (n, 3); exact near the poles."""
    x, y, z = vectors.T
    lon = np.degrees(np.arctan2(y, x)) % 360.0
    return np.where(lon >= 360.0, 0.0, lon), np.degrees(np.arctan2(z, np.hypot(x, y)))


def galactic(ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
    """Return Galactic longitude (0 to 360) and latitude in degrees, each of shape (n,)."""
    return lon_lat_deg(unit_vectors(ra_deg, dec_deg)[0] @ GALACTIC_AXES.T)


def motions(
    component: np.ndarray, ra_deg: Floats, dec_deg: Floats, distance_pc: Floats, draw: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return proper motions in right ascension (with cos dec) and declination (mas/yr) and radial velocities (km/s).

    Velocities are Gaussian about each component's drift, minus the Sun's; differential rotation is left out.
    """
    uvw = draw.standard_normal((len(ra_deg), 3)) * _DISPERSION_KM_S[component]
    uvw[:, 1] += _DRIFT_KM_S[component]
    uvw -= _SUN_KM_S
    icrs = uvw @ GALACTIC_AXES
    to_star, east, north = unit_vectors(ra_deg, dec_deg)
    scale = 1.0 / (KM_S_PER_MAS_YR_KPC * distance_pc / 1000.0)
    return (
        np.einsum("ij,ij->i", icrs, east) * scale,
        np.einsum("ij,ij->i", icrs, north) * scale,
        np.einsum("ij,ij->i", icrs, to_star),
    )
