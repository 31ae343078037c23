"""Leaves of a labelled catalogue and of the matched one below it, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Config
from stellarml.labelling.incremental import input_tiles
from stellarml.storage.hats_layout import partition_list

Configured = Callable[..., Config]


def out_of(config: Config) -> Path:
    labels = config.labels_folder
    return Path(labels / json.loads((labels / "current.json").read_text())["model_id"])


def leaves(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / "dataset").rglob("*.parquet"))}


def stamps(root: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (root / "dataset").rglob("*.parquet")}


def matched_leaves(config: Config) -> list[Path]:
    return [found.path for found in input_tiles(config.lake_folder / "matched")]


def waiting(out: Path) -> dict[str, bytes]:
    """Leaves that are done, of a run that is not."""
    return leaves(out / "_work")


def crossmatch_ran_again(config: Config) -> None:
    """Give matched another key and its number of rows, as a run of the stage crossmatch with other inputs would."""
    root = config.lake_folder / "matched"
    record = json.loads((root / "run.json").read_text())
    rows = sum(pq.read_metadata(root / t.path).num_rows for t in partition_list(root / "partition_info.csv"))
    record |= {"key": hashlib.sha256(b"x").hexdigest(), "rows": {**record["rows"], "out": rows}}
    (root / "run.json").write_text(json.dumps(record))


def rewrite(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def read_leaf(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
