"""HATS-tiled Parquet in and out.

A table with positions is a HATS catalogue (IVOA note "HATS"): adaptive HEALPix tiles, NESTED, leaves sorted by
``_healpix_29``. Leaves are written by the task that owns the tile, first under a hidden name, then renamed, so that a
reader sees a whole leaf or none; what belongs to the whole catalogue (properties, partition list, Parquet metadata) is
written last, by the hats library itself. The file system must be one that driver and executors share.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.config import Tiles
from stellarml.errors import InputError, StorageError, UserError

HEALPIX_COLUMN = "_healpix_29"
HEALPIX_ORDER = 29


@dataclass(frozen=True, order=True)
class Tile:
    """One HEALPix pixel, NESTED: `order` k and `pixel` number."""

    order: int
    pixel: int

    @property
    def range(self) -> tuple[int, int]:
        """Half-open range of `_healpix_29` inside the tile."""
        shift = 2 * (HEALPIX_ORDER - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift

    @property
    def name(self) -> str:
        """Stable name of the tile as a unit of work."""
        return f"Norder={self.order}_Npix={self.pixel}"

    @property
    def path(self) -> Path:
        """Path of the leaf below the catalogue."""
        directory = self.pixel // 10_000 * 10_000
        return Path("dataset", f"Norder={self.order}", f"Dir={directory}", f"Npix={self.pixel}.parquet")


@dataclass(frozen=True)
class Leaf:
    """A tile and where its rows are."""

    tile: Tile
    path: Path
    rows: int


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full. What was finished is kept; free some space and run the same command again."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(f"{path}: cannot write here ({error.strerror}).") from error
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            hidden.write_bytes(content.encode() if isinstance(content, str) else content)
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)


def write_parquet(path: Path, table: pa.Table, tiles: Tiles) -> dict[str, Any]:
    """Write one Parquet file atomically; return its rows and bytes.

    The bytes depend on the table and on `tiles` alone.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        strings = [
            f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
        ]
        try:
            pq.write_table(
                table.combine_chunks(),
                hidden,
                row_group_size=tiles.row_group_rows,
                compression=tiles.compression,
                use_dictionary=strings,
                write_statistics=[HEALPIX_COLUMN] if HEALPIX_COLUMN in table.column_names else True,
                store_schema=True,
            )
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
    return {"rows": table.num_rows, "bytes": path.stat().st_size}


def sort_rows(table: pa.Table, *keys: str) -> pa.Table:
    """Return `table` sorted by `keys`; ties keep no memory of the input's order only if the keys are unique."""
    return table.take(pa.compute.sort_indices(table, [(key, "ascending") for key in keys]))


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
        pixels = PartitionInfo.read_from_dir(root).get_healpix_pixels()
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


def refuse_foreign_folder(root: Path) -> None:
    """Refuse to write into a folder that holds something stellarml did not make.

    Raises
    ------
    UserError
        If `root` is a file, or is not empty and has no trace of a stellarml run.
    """
    if root.is_file():
        raise UserError(f"{root}: is a file, expected a folder to write to.")
    if root.is_dir():
        names = {p.name for p in root.iterdir()}
        ours = {"run.json", "_state.json", ".lock"}
        if names and not names & ours:
            raise UserError(
                f"{root}: holds files that stellarml did not make ({', '.join(sorted(names)[:3])}, ...). "
                "Choose an empty or a new folder."
            )
