"""Tables of a lake, read whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.storage.hats_reader import open_catalogue


def whole(root: Path) -> pa.Table:
    """Return all rows of a HATS catalogue, in the order of the sky."""
    return pa.concat_tables(
        pq.read_table(leaf.path, partitioning=None) for leaf in open_catalogue(root).leaves
    )
