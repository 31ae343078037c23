"""A matched catalogue of as many rows as wanted: copies of a simulated one, side by side on the sky.

Copies of a HEALPix cell of order 4 are given cells of their own, so that leaves are as large as a whole-sky
catalogue's and every row is as odd as the simulator's: gaps, failed cuts, faint stars. Only `_healpix_29` differs
between copies.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Tiles, load_config
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import choose_tiles
from stellarml.storage.hats_layout import partition_list
from stellarml.storage.parquet import write_parquet

CELL_ORDER = 4
LEAST_ORDER = 3
SHIFT = 2 * (29 - CELL_ORDER)


def make_matched(sky: Path, root: Path, rows: int, once: int = 2_000_000) -> Path:
    """Write ``lake/matched`` below `root` with about `rows` rows, copies of the first `once` of a sky's; return `root`.

    A row more or less is accepted where a leaf of the sky ends.
    """
    if (root / "lake" / "matched" / "run.json").exists():
        return root
    source, out = sky / "lake" / "matched", root / "lake" / "matched"
    tables, held = [], 0
    for tile in sorted(partition_list(source / "partition_info.csv"), key=lambda tile: tile.range):
        if held >= min(once, rows):
            break
        tables.append(pq.read_table(source / tile.path, partitioning=None))
        held += tables[-1].num_rows
    table = pa.concat_tables(tables).combine_chunks()
    index = table[HEALPIX_COLUMN].to_numpy()
    cells, rank = np.unique(index >> SHIFT, return_inverse=True)
    inside = index & ((1 << SHIFT) - 1)
    column = table.schema.get_field_index(HEALPIX_COLUMN)
    tiles: Tiles = load_config().tiles
    chosen = []
    whole = 1 << 2 * (CELL_ORDER - LEAST_ORDER)
    stride = -(-len(cells) // whole) * whole  # a copy begins where a tile of the least order does
    for copy in range(max(1, round(rows / held))):
        moved = ((rank + copy * stride).astype(np.int64) << SHIFT) | inside
        pixels, counts = np.unique(moved >> 2 * (29 - tiles.max_order), return_counts=True)
        now = table.set_column(column, HEALPIX_COLUMN, pa.array(moved))
        for tile, _ in choose_tiles(
            pixels, counts, tiles.max_order, tiles.model_copy(update={"min_order": LEAST_ORDER})
        ):
            first, last = np.searchsorted(moved, tile.range)
            while (out / tile.path).exists():
                raise RuntimeError(f"{tile}: two copies share a tile")
            write_parquet(out / tile.path, now.slice(int(first), int(last - first)), tiles)
            chosen.append(tile)
    lines = ["Norder,Npix", *(f"{tile.order},{tile.pixel}" for tile in chosen)]
    (out / "partition_info.csv").write_text("\n".join(lines) + "\n")
    record = json.loads((source / "run.json").read_text())
    rows_made = sum(pq.read_metadata(out / tile.path).num_rows for tile in chosen)
    record |= {"key": f"{record['key']}-{rows}", "rows": {**record["rows"], "out": rows_made}}
    (out / "run.json").write_text(json.dumps(record))
    return root
