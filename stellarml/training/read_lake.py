"""The training set of a lake, read into memory: labelled stars, and a sample of those that are to be labelled."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

TARGET = "target.parquet"


def load_target(root: Path) -> pa.Table:
    """Read the sample of stars that are to be labelled, from ``lake/training``."""
    import pyarrow.parquet as pq

    return pq.read_table(root / TARGET)


def load_training_set(root: Path) -> pa.Table:
    """Read ``lake/training`` into memory."""
    import pyarrow.parquet as pq

    return pa.concat_tables(
        pq.read_table(path, partitioning=None) for path in sorted((root / "dataset").rglob("Npix=*.parquet"))
    )
