"""Writing HATS catalogues: what makes leaves a catalogue (`hats_reader` opens them).

Leaves come from the tasks that own them (`parquet`); properties, partition list and Parquet metadata are written last,
by the hats library itself, so what it validates and LSDB opens is what it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Tiles
from stellarml.core.files import storage_errors
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import INDEX_ORDER, Tile, choose_tiles
from stellarml.storage.parquet import sort_rows, write_parquet


@dataclass(frozen=True)
class CatalogueInfo:
    """What the properties of a HATS catalogue say beside its rows.

    name
        Of the catalogue.
    ra, dec
        Names of the columns of the position.
    max_rows
        A tile with more rows would have been split.
    more
        Further properties, which win over the usual ones.
    """

    name: str
    ra: str
    dec: str
    max_rows: int
    more: Mapping[str, Any] = field(default_factory=dict)


def finish_catalogue(
    root: Path, info: CatalogueInfo, tiles: Sequence[Tile], rows: int, schema: pa.Schema
) -> None:
    """Write what makes the leaves below `root` a HATS catalogue: metadata of Parquet, partition list, properties."""
    from hats.catalog.partition_info import PartitionInfo
    from hats.pixel_math.healpix_pixel import HealpixPixel

    with storage_errors(root):
        (root / "dataset").mkdir(parents=True, exist_ok=True)
        _write_metadata(root, schema, empty=not tiles)
        PartitionInfo([HealpixPixel(t.order, t.pixel) for t in tiles]).write_to_file(catalog_path=root)
        _write_properties(root, info, rows)


def _write_metadata(root: Path, schema: pa.Schema, *, empty: bool) -> None:
    """Gather the footers of all leaves.

    An empty catalogue has no leaf; its schema is kept in ``dataset/_common_metadata`` so that later stages can read
    zero rows of the right types.
    """
    from hats.io.parquet_metadata import write_parquet_metadata

    if empty:
        pq.write_metadata(schema, root / "dataset" / "_common_metadata")
    else:
        write_parquet_metadata(root)


def _write_properties(root: Path, info: CatalogueInfo, rows: int) -> None:
    from hats.catalog.dataset.table_properties import TableProperties

    properties = {
        "catalog_name": info.name,
        "catalog_type": "object",
        "total_rows": rows,
        "ra_column": info.ra,
        "dec_column": info.dec,
        "healpix_column": HEALPIX_COLUMN,
        "healpix_order": INDEX_ORDER,
        "hats_max_rows": info.max_rows,
        "hats_builder": "stellarml",
    }
    TableProperties(**properties | dict(info.more)).to_properties_file(root)


def write_catalogue(
    root: Path, table: pa.Table, tiles: Tiles, *, name: str, ra: str, dec: str, id_column: str
) -> int:
    """Write a table that fits into memory as a HATS catalogue; return the number of tiles."""
    table = sort_rows(table, HEALPIX_COLUMN, id_column)
    keys = table[HEALPIX_COLUMN].to_numpy()
    cells, counts = np.unique(keys >> 2 * (INDEX_ORDER - tiles.max_order), return_counts=True)
    chosen = [tile for tile, _ in choose_tiles(cells, counts, tiles.max_order, tiles)]
    for tile in chosen:
        first, last = np.searchsorted(keys, tile.range)
        write_parquet(root / tile.path, table.slice(int(first), int(last - first)), tiles)
    finish_catalogue(root, CatalogueInfo(name, ra, dec, tiles.max_rows), chosen, table.num_rows, table.schema)
    return len(chosen)
