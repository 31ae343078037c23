"""HATS catalogues on disk: what makes leaves a catalogue, and reading parts of one.

Leaves come from the tasks that own them (`storage`); properties, partition list and Parquet metadata are written last,
by the hats library itself, so what it validates and LSDB opens is what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.config import Tiles
from stellarml.errors import InputError
from stellarml.schema import HEALPIX_COLUMN
from stellarml.storage import HEALPIX_ORDER, Tile, choose_tiles, sort_rows, storage_errors, write_parquet


@dataclass(frozen=True)
class Leaf:
    """A tile and where its rows are."""

    tile: Tile
    path: Path
    rows: int


def finish_catalogue(
    root: Path,
    *,
    name: str,
    tiles: Sequence[Tile],
    rows: int,
    ra: str,
    dec: str,
    schema: pa.Schema,
    max_rows: int,
) -> None:
    """Write what makes the leaves below `root` a HATS catalogue.

    An empty catalogue has no leaf; its schema is kept in ``dataset/_common_metadata`` so that later stages can read
    zero rows of the right types.
    """
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel

    with storage_errors(root):
        (root / "dataset").mkdir(parents=True, exist_ok=True)
        if tiles:
            write_parquet_metadata(root)
        else:
            pq.write_metadata(schema, root / "dataset" / "_common_metadata")
        PartitionInfo([HealpixPixel(t.order, t.pixel) for t in tiles]).write_to_file(catalog_path=root)
        TableProperties(
            catalog_name=name,
            catalog_type="object",
            total_rows=rows,
            ra_column=ra,
            dec_column=dec,
            healpix_column=HEALPIX_COLUMN,
            healpix_order=HEALPIX_ORDER,
            hats_max_rows=max_rows,
            hats_builder="stellarml",
        ).to_properties_file(root)


def write_catalogue(
    root: Path, table: pa.Table, tiles: Tiles, *, name: str, ra: str, dec: str, id_column: str
) -> int:
    """Write a table that fits into memory as a HATS catalogue; return the number of tiles."""
    table = sort_rows(table, HEALPIX_COLUMN, id_column)
    keys = table[HEALPIX_COLUMN].to_numpy()
    cells, counts = np.unique(keys >> 2 * (HEALPIX_ORDER - tiles.max_order), return_counts=True)
    chosen = [tile for tile, _ in choose_tiles(cells, counts, tiles.max_order, tiles)]
    for tile in chosen:
        first, last = np.searchsorted(keys, tile.range)
        write_parquet(root / tile.path, table.slice(int(first), int(last - first)), tiles)
    finish_catalogue(
        root,
        name=name,
        tiles=chosen,
        rows=table.num_rows,
        ra=ra,
        dec=dec,
        schema=table.schema,
        max_rows=tiles.max_rows,
    )
    return len(chosen)


@dataclass(frozen=True)
class Catalogue:
    """A HATS catalogue on disk: its leaves in the order of the sky and its schema."""

    root: Path
    leaves: tuple[Leaf, ...]
    schema: pa.Schema
    ra: str
    dec: str

    @property
    def rows(self) -> int:
        """Rows of all leaves."""
        return sum(leaf.rows for leaf in self.leaves)


def open_catalogue(root: Path) -> Catalogue:
    """Open a HATS catalogue that stellarml wrote.

    Raises
    ------
    InputError
        If the folder is not a finished HATS catalogue, or a leaf that it lists is missing or damaged.
    """
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo

    try:
        properties = TableProperties.read_from_dir(root)
        pixels = PartitionInfo.read_from_csv(root / "partition_info.csv").get_healpix_pixels()
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"{root}: is not a finished HATS catalogue ({error}). Run the stage that makes it."
        ) from None
    leaves = []
    for pixel in pixels:
        tile = Tile(int(pixel.order), int(pixel.pixel))
        leaves.append(Leaf(tile, root / tile.path, parquet_metadata(root / tile.path).num_rows))
    leaves.sort(key=lambda leaf: leaf.tile.range)
    schema = pq.read_schema(root / "dataset" / "_common_metadata").remove_metadata()
    return Catalogue(root, tuple(leaves), schema, str(properties.ra_column), str(properties.dec_column))


def parquet_metadata(path: Path) -> pq.FileMetaData:
    """Read a Parquet footer.

    Raises
    ------
    InputError
        If the file is missing or is not Parquet.
    """
    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing; it was there when its table was made.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: is not a readable Parquet file ({error}).") from None


def read_ranges(
    leaves: Sequence[Leaf], ranges: npt.NDArray[np.int64], columns: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Read the rows whose `_healpix_29` lies in any of `ranges`, in the order of the sky.

    Only row groups that touch a range are read.

    Parameters
    ----------
    ranges
        Shape (n_ranges, 2), half-open, ascending, disjoint.
    columns
        Names to read; `_healpix_29` is added.
    """
    names = [HEALPIX_COLUMN, *(c for c in columns if c != HEALPIX_COLUMN)]
    parts = [pa.schema([schema.field(n) for n in names]).empty_table()]
    for leaf in leaves:
        low, high = leaf.tile.range
        first, last = np.searchsorted(ranges[:, 1], low, "right"), np.searchsorted(ranges[:, 0], high, "left")
        if first >= last:
            continue
        parts.append(_read_leaf(leaf.path, ranges[first:last], names))
    return pa.concat_tables(parts)


def _read_leaf(path: Path, ranges: npt.NDArray[np.int64], names: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            groups = row_groups_in(file.metadata, ranges)
            table = file.read_row_groups(groups, columns=list(names), use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: is not a readable Parquet file ({error}).") from None
    position = np.searchsorted(ranges[:, 0], table[HEALPIX_COLUMN].to_numpy(), "right") - 1
    inside = (position >= 0) & (table[HEALPIX_COLUMN].to_numpy() < ranges[np.maximum(position, 0), 1])
    return table.select(names) if inside.all() else table.filter(pa.array(inside)).select(names)


def row_groups_in(metadata: pq.FileMetaData, ranges: npt.NDArray[np.int64]) -> list[int]:
    """Return the row groups whose `_healpix_29` statistics touch one of `ranges`."""
    column = metadata.schema.names.index(HEALPIX_COLUMN)
    groups = []
    for index in range(metadata.num_row_groups):
        statistics = metadata.row_group(index).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            groups.append(index)
            continue
        first = np.searchsorted(ranges[:, 1], statistics.min, "right")
        if first < len(ranges) and ranges[first, 0] <= statistics.max:
            groups.append(index)
    return groups
