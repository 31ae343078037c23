"""HEALPix tiles of a catalogue: names, index ranges, leaves, and how a sky is cut into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stellarml.core.config import Tiles

INDEX_ORDER = 29
"""Order of `_healpix_29`, the index that leaves are sorted by."""
SOURCE_ID_PIXEL_SHIFT = 49
"""``source_id >> 49`` is the level-5 pixel where Gaia first saw the source; files without positions are cut by it."""
PIXEL_FOLDER = "pixel_5"


def pixel_range(order: int, pixel: int) -> tuple[int, int]:
    """Half-open range ``[first, end)`` of `_healpix_29` that a tile covers.

    >>> pixel_range(29, 7), pixel_range(28, 7)
    ((7, 8), (28, 32))
    """
    shift = 2 * (INDEX_ORDER - order)
    return int(pixel) << shift, (int(pixel) + 1) << shift


@dataclass(frozen=True, order=True)
class Tile:
    """One HEALPix pixel, NESTED: `order` k and `pixel` number."""

    order: int
    pixel: int

    @property
    def range(self) -> tuple[int, int]:
        """Half-open range of `_healpix_29` inside the tile."""
        return pixel_range(self.order, self.pixel)

    @property
    def name(self) -> str:
        """Stable name of the tile as a unit of work."""
        return f"Norder={self.order}_Npix={self.pixel}"

    @property
    def path(self) -> Path:
        """Path of the leaf below the catalogue."""
        directory = self.pixel // 10_000 * 10_000
        return Path("dataset", f"Norder={self.order}", f"Dir={directory}", f"Npix={self.pixel}.parquet")


def choose_tiles(
    pixels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], order: int, tiles: Tiles
) -> list[tuple[Tile, int]]:
    """Choose the adaptive tiling of a catalogue: split any tile of more than `tiles.max_rows` rows in four.

    Parameters
    ----------
    pixels, counts
        Shape (n,): occupied pixels of `order`, ascending, and their rows.
    order
        The finest order; a pixel of that order is never split.

    Returns
    -------
    list of (Tile, rows)
        Occupied tiles in the order of the sky, which covers every row once.
    """
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    chosen: list[tuple[Tile, int]] = []

    def visit(tile: Tile) -> None:
        shift = 2 * (order - tile.order)
        low, high = np.searchsorted(pixels, [tile.pixel << shift, (tile.pixel + 1) << shift])
        rows = int(cumulative[high] - cumulative[low])
        if rows == 0:
            return
        splittable = tile.order < order
        if splittable and (rows > tiles.max_rows or tile.order < tiles.min_order):
            for child in range(4):
                visit(Tile(tile.order + 1, 4 * tile.pixel + child))
        else:
            chosen.append((tile, rows))

    for base in range(12):
        visit(Tile(0, base))
    return chosen
