"""Which random numbers belong to which part of the sky.

Every part draws from its own stream, keyed by the seed and by names, so that the bytes do not depend on the order of
work or on the number of threads, and a change in one part leaves the others as they were.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the part that `names` name.

    Parameters
    ----------
    seed : int
        The seed of the whole sky.
    *names : str or int
        What is drawn, and for which block or field.
    """
    key = zlib.crc32("/".join(str(name) for name in names).encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


def cell_normal(seed: int, name: str, cell: Ints) -> Floats:
    """Return one standard normal number a sky cell, shape ``(n,)``: equal cells get equal numbers.

    The number is a hash of (seed, name, cell), so that it does not depend on which other cells are in the sample.
    """
    return np.asarray(ndtri(cell_uniform(seed, name, cell)), dtype=np.float64)


def cell_uniform(seed: int, name: str, cell: Ints) -> Floats:
    """Return one uniform number in (0, 1) a sky cell, shape ``(n,)``, by the splitmix64 hash."""
    key = np.uint64((zlib.crc32(name.encode()) << 32) ^ (seed * 0x9E3779B1 & 0xFFFFFFFF))
    with np.errstate(over="ignore"):
        z = cell.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
