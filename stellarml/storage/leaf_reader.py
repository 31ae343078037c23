"""The rows of one leaf in ranges of the sky, row group by row group, under an index that can be relied on.

Every reader gets one column more than it asks for, ``_healpix_29``: the file's own index where that is of order 29,
else computed from the position. A coarser index still says which row groups to skip, but not which rows lie in a halo
that is narrower than its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core import sky
from stellarml.core.errors import InputError
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import INDEX_ORDER, Tile
from stellarml.storage.index_check import check_limits, check_sample, moved
from stellarml.storage.leaf_cache import COLUMNS, FileKey, Name, file_key, footer
from stellarml.storage.parquet_files import reading_parquet

_MOST_SLICES = 8
Ranges = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LeafFormat:
    """Which column of a leaf is its index, of which order, and where the position is; `healpix` None: no index."""

    healpix: str | None = HEALPIX_COLUMN
    order: int = INDEX_ORDER
    ra: str = "ra"
    dec: str = "dec"

    @property
    def is_exact(self) -> bool:
        """Whether the index need not be computed."""
        return self.healpix is not None and self.order == INDEX_ORDER


@dataclass(frozen=True)
class Leaf:
    """A tile, the files that hold its rows, and how their index is known.

    In the leaf of a margin catalogue (`outside`) are rows that lie about the tile, not in it.
    """

    tile: Tile
    paths: tuple[Path, ...]
    rows: int
    format: LeafFormat = field(default_factory=LeafFormat)
    outside: bool = False

    @property
    def path(self) -> Path:
        """The file, of a leaf that has one, as all of stellarml's own."""
        return self.paths[0]


def read_leaf(leaf: Leaf, ranges: Ranges, wanted: pa.Schema, *, cached: bool = False) -> pa.Table:
    """Read the rows of a leaf in `ranges`, sorted by ``_healpix_29``; rows of one index keep the order of the files.

    Parameters
    ----------
    ranges
        Shape (n_ranges, 2), half-open, ascending, disjoint.
    wanted
        The columns, ``_healpix_29`` first.
    cached
        Keep the decoded columns for the next call in this process.

    Raises
    ------
    InputError
        If a file is missing, damaged, lacks a column or holds one of another type, or rows of another tile.
    """
    parts = []
    for path in leaf.paths:
        key = file_key(path)
        metadata = footer(path, key)
        for group in _groups(leaf, path, metadata, ranges):
            rows = _rows_in(_block(leaf, path, key, group, wanted, cached), ranges)
            if rows.num_rows:
                parts.append(rows)
    table = pa.concat_tables([wanted.empty_table(), *parts])
    if any(a[HEALPIX_COLUMN][-1].as_py() > b[HEALPIX_COLUMN][0].as_py() for a, b in pairwise(parts)):
        return _sorted(table)
    return table


def row_groups_in(
    metadata: pq.FileMetaData, ranges: Ranges, column: str = HEALPIX_COLUMN, order: int = INDEX_ORDER
) -> list[int]:
    """Return the row groups whose statistics of the index `column`, of `order`, touch one of `ranges`."""
    return _touching(index_limits(metadata, column), ranges, 2 * (INDEX_ORDER - order))


def _touching(limits: Sequence[tuple[int, int] | None], ranges: Ranges, shift: int) -> list[int]:
    groups = []
    for group, known in enumerate(limits):
        if known is None:
            groups.append(group)
            continue
        first = np.searchsorted(ranges[:, 1], known[0] << shift, "right")
        if first < len(ranges) and ranges[first, 0] < (known[1] + 1) << shift:
            groups.append(group)
    return groups


def index_limits(metadata: pq.FileMetaData, column: str) -> list[tuple[int, int] | None]:
    """Return the least and the largest index of each row group; None where the file does not say."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    number = paths.index(column) if column in paths else None
    return [_limits(metadata, number, group) for group in range(metadata.num_row_groups)]


def _limits(metadata: pq.FileMetaData, number: int | None, group: int) -> tuple[int, int] | None:
    statistics = None if number is None else metadata.row_group(group).column(number).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    low, high = statistics.min, statistics.max
    return (low, high) if isinstance(low, int) and isinstance(high, int) else None


def _groups(leaf: Leaf, path: Path, metadata: pq.FileMetaData, ranges: Ranges) -> list[int]:
    layout = leaf.format
    if layout.healpix is None:
        return list(range(metadata.num_row_groups))
    low, high = leaf.tile.range
    shift = 2 * (INDEX_ORDER - layout.order)
    with reading_parquet(path):
        limits = index_limits(metadata, layout.healpix)
    for known in limits:
        if known and not 0 <= known[0] <= known[1] < 12 << 2 * layout.order:
            raise InputError(
                f"{path}: its index '{layout.healpix}' runs from {known[0]} to {known[1]} by its footer, expected 0 to "
                f"{(12 << 2 * layout.order) - 1}, pixels of order {layout.order}. Correct hats_col_healpix_order, or "
                "make the catalogue again."
            )
        if known and not leaf.outside and (known[0] + 1 << shift <= low or known[1] << shift >= high):
            raise _foreign_rows(path, leaf, f"{layout.healpix} from {known[0]} to {known[1]}")
    return _touching(limits, ranges, shift)


def _foreign_rows(path: Path, leaf: Leaf, found: str) -> InputError:
    return InputError(
        f"{path}: holds rows of another tile ({found}); expected order-29 indices from {leaf.tile.range[0]} to "
        f"{leaf.tile.range[1] - 1}, those of {leaf.tile.name}. The catalogue is damaged: make it again."
    )


def _block(leaf: Leaf, path: Path, key: FileKey, group: int, wanted: pa.Schema, cached: bool) -> pa.Table:
    """Return one whole row group, in the order of its file."""
    decoded_now = False

    def decode(names: list[Name]) -> dict[Name, pa.ChunkedArray]:
        nonlocal decoded_now
        decoded_now = True
        return _decode(leaf, path, key, group, names)

    names = [(f.name, f.type) for f in wanted]
    found = COLUMNS.fetch((key, group, leaf.format), names, decode) if cached else decode(names)
    block = pa.Table.from_arrays([found[name] for name in names], schema=wanted)
    if decoded_now and leaf.format.is_exact and {leaf.format.ra, leaf.format.dec} <= set(wanted.names):
        position = block[leaf.format.ra], block[leaf.format.dec]
        check_sample(block[HEALPIX_COLUMN], *position, f"{path}: row group {group}", str(leaf.format.healpix))
    return block


def _decode(
    leaf: Leaf, path: Path, key: FileKey, group: int, names: Sequence[Name]
) -> dict[Name, pa.ChunkedArray]:
    layout = leaf.format
    sources = {name: [name] for name, _ in names}
    if HEALPIX_COLUMN in sources:
        exact = layout.is_exact and layout.healpix is not None
        sources[HEALPIX_COLUMN] = [str(layout.healpix)] if exact else [layout.ra, layout.dec]
    physical = list(dict.fromkeys(name for found in sources.values() for name in found))
    metadata = footer(path, key)
    with reading_parquet(path), pq.ParquetFile(path, metadata=metadata, memory_map=True) as file:
        table = file.read_row_group(group, columns=physical, use_threads=False)
        stated = metadata.row_group(group).num_rows
    if physical and table.num_rows != stated:
        raise InputError(
            f"{path}: is not a readable Parquet file (its row group {group} holds {table.num_rows} rows, its footer "
            f"says {stated})."
        )
    missing = [name for name in physical if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path}: column '{missing[0]}' is missing; other leaves of its catalogue have it. Make it again."
        )
    decoded = {}
    for name, kind in names:
        computed = name == HEALPIX_COLUMN and not layout.is_exact
        column = table[sources[name][0]]
        if computed:
            index = _computed_index(leaf, path, table)
            check_limits(
                index, _group_limits(metadata, layout, group), layout.order, f"{path}: row group {group}"
            )
            column = pa.chunked_array([pa.array(index)])
        elif column.type != kind:
            column = _converted(column, kind, path, name)
        if name == HEALPIX_COLUMN:
            if column.null_count:
                raise InputError(
                    f"{path}: its index '{layout.healpix}' is missing in {column.null_count} rows."
                )
            _check_index(column, leaf, path)
        decoded[name, kind] = column
    return decoded


def _group_limits(metadata: pq.FileMetaData, layout: LeafFormat, group: int) -> tuple[int, int] | None:
    """Return the least and the largest coarse index of a row group, by which it was chosen to be read."""
    columns = (metadata.schema.column(i).path for i in range(metadata.num_columns))
    number = next((n for n, path in enumerate(columns) if path == layout.healpix), None)
    return _limits(metadata, number, group)


def _converted(
    column: pa.ChunkedArray, kind: pa.DataType, path: Path, name: str, *, safe: bool = True
) -> pa.ChunkedArray:
    try:
        return column.cast(kind, safe=safe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{path}: column '{name}' holds {column.type}, which does not fit the {kind} of its catalogue ({error})."
        ) from None


def _check_index(column: pa.ChunkedArray, leaf: Leaf, path: Path) -> None:
    if leaf.outside or not len(column):
        return
    index = column.to_numpy()
    low, high = leaf.tile.range
    if index.min() < low or index.max() >= high:
        raise _foreign_rows(path, leaf, f"indices from {index.min()} to {index.max()}")


def _computed_index(leaf: Leaf, path: Path, table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the index of each position; on the border, where rounding decides, on the leaf's own side of it."""
    ra, dec = (
        np.asarray(_converted(table[name], pa.float64(), path, name, safe=False).to_numpy(), np.float64)
        for name in (leaf.format.ra, leaf.format.dec)
    )
    try:
        index = sky.healpix_29(ra, dec)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    wrong = np.flatnonzero(_in_tile(index, leaf) == leaf.outside)
    for around in moved(ra[wrong], dec[wrong]) if len(wrong) else ():
        beside = sky.healpix_29(*around)
        index[wrong] = np.where(_in_tile(index[wrong], leaf) == leaf.outside, beside, index[wrong])
    return index


def _in_tile(index: npt.NDArray[np.int64], leaf: Leaf) -> npt.NDArray[np.bool_]:
    low, high = leaf.tile.range
    return (index >= low) & (index < high)


def _rows_in(block: pa.Table, ranges: Ranges) -> pa.Table:
    """Return the rows of `block` in `ranges`, sorted: views of it where they are few runs, else copies."""
    index = block[HEALPIX_COLUMN].to_numpy()
    if (index[1:] < index[:-1]).any():
        block = _sorted(block)
        index = block[HEALPIX_COLUMN].to_numpy()
    if not len(index):
        return block
    first = np.searchsorted(ranges[:, 1], index[0], "right")
    last = np.searchsorted(ranges[:, 0], index[-1], "right")
    begin = np.searchsorted(index, ranges[first:last, 0])
    end = np.searchsorted(index, ranges[first:last, 1])
    begin, end = begin[end > begin], end[end > begin]
    if not len(begin):
        return block.slice(0, 0)
    apart = np.flatnonzero(begin[1:] != end[:-1])
    begin, end = begin[np.r_[0, apart + 1]], end[np.r_[apart, len(end) - 1]]
    if len(begin) <= _MOST_SLICES:
        return pa.concat_tables(block.slice(int(a), int(b - a)) for a, b in zip(begin, end, strict=True))
    rows = np.repeat(begin - np.r_[0, np.cumsum(end - begin)[:-1]], end - begin) + np.arange(
        (end - begin).sum()
    )
    return block.take(pa.array(rows))


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.argsort(table[HEALPIX_COLUMN].to_numpy(), kind="stable")))
