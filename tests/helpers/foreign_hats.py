"""HATS catalogues as other tools write them, made by hand: the layouts that a reader must take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.sky import healpix_29
from stellarml.core.tiles import Tile

TILES = (
    Tile(3, 300),
    Tile(4, 1204),
    Tile(4, 1205),
    Tile(5, 4824),
    Tile(5, 4825),
    Tile(5, 4827),
    Tile(4, 1207),
)


@dataclass(frozen=True)
class Layout:
    """How a catalogue is laid out; the defaults are the usual ones."""

    index: str | None = "_healpix_29"
    order: int = 29
    index_type: pa.DataType = field(default_factory=pa.int64)
    suffix: str = ".parquet"
    files: int = 1
    shuffled: bool = False
    statistics: bool = True
    hive_columns: bool = False
    partitions: str = "csv"
    properties: str = "hats.properties"
    told: dict[str, str | None] = field(default_factory=dict)


def field_of_stars(n: int, seed: int = 0, tiles: Sequence[Tile] = TILES) -> pa.Table:
    """Rows spread over `tiles`, in the order of the sky, with columns of the types that occur."""
    rng = np.random.default_rng(seed)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 400 * n)))
    ra = rng.uniform(0, 360, 400 * n)
    index = healpix_29(ra, dec)
    inside = np.zeros(len(index), bool)
    for tile in tiles:
        inside |= (index >= tile.range[0]) & (index < tile.range[1])
    rows = np.flatnonzero(inside)[:n]
    rows = rows[np.argsort(index[rows])]
    n = len(rows)
    name = pa.array([f"s{i % 7}" for i in range(n)])
    return pa.table(
        {
            "_healpix_29": index[rows],
            "objID": np.arange(n, dtype=np.int64),
            "RA": ra[rows],
            "Dec": dec[rows],
            "mag": rng.normal(18, 1, n).astype(np.float32),
            "flags": rng.integers(0, 9, n).astype(np.int32),
            "name": name.cast(pa.large_string()),
            "field": name.dictionary_encode(),
            "note": name.cast(pa.string_view()),
            "lightcurve": pa.array(
                [[{"t": float(i), "m": 1.0}] * (i % 3) for i in range(n)],
                pa.list_(pa.struct([("t", pa.float64()), ("m", pa.float32())])),
            ),
        }
    )


def write_foreign(root: Path, table: pa.Table, layout: Layout, tiles: Sequence[Tile] = TILES) -> Path:
    """Write `table` as the catalogue that `layout` tells, and return its folder."""
    index = table["_healpix_29"].to_numpy()
    rng = np.random.default_rng(1)
    written: list[pq.FileMetaData] = []
    for tile in tiles:
        first, last = np.searchsorted(index, tile.range)
        rows = _laid_out(table.slice(first, last - first), tile, layout)
        if layout.shuffled:
            kinds = rows.schema
            note = kinds.get_field_index("note")  # views cannot be taken from
            rows = rows.set_column(note, "note", rows["note"].cast(pa.string())) if note >= 0 else rows
            rows = rows.take(rng.permutation(len(rows))).cast(kinds)
        stem = (root / tile.path).with_suffix("")
        for number in range(layout.files):
            first, last = (n * len(rows) // layout.files for n in (number, number + 1))
            part = rows.slice(first, last - first)
            if layout.suffix == "/":
                path = stem / f"part-{number:05d}-{rng.integers(1 << 30)}.snappy.parquet"
            else:
                path = stem.with_name(stem.name + layout.suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            collected: list[pq.FileMetaData] = []
            pq.write_table(
                part,
                path,
                row_group_size=97,
                write_statistics=layout.statistics,
                metadata_collector=collected,
            )
            collected[0].set_file_path(str(path.relative_to(root / "dataset")))
            written += collected
            (path.parent / f".{path.name}.crc").write_bytes(b"crc")
            if layout.suffix == "/":
                (path.parent / "_SUCCESS").touch()
    schema = _laid_out(table.slice(0, 0), tiles[0], layout).schema
    if layout.partitions != "folders":
        pq.write_metadata(schema, root / "dataset" / "_common_metadata")
    if layout.partitions == "metadata":
        pq.write_metadata(schema, root / "dataset" / "_metadata", metadata_collector=written)
    if layout.partitions == "csv":
        lines = [f"{t.order},{t.pixel // 10000 * 10000},{t.pixel},1" for t in reversed(tiles)]
        (root / "partition_info.csv").write_text("\n".join(["Norder,Dir,Npix,num_rows", *lines]) + "\n")
    (root / "skymap.fits").write_bytes(b"SIMPLE  =")
    (root / "point_map.fits").write_bytes(b"SIMPLE  =")
    write_properties(root / layout.properties, layout, len(table))
    return root


def write_properties(path: Path, layout: Layout, rows: int) -> None:
    """Write a properties file; a key of `layout.told` that is None is left out."""
    values: dict[str, str | None] = {
        "obs_collection": "foreign",
        "dataproduct_type": "object",
        "hats_nrows": str(rows),
        "hats_col_ra": "RA",
        "hats_col_dec": "Dec",
        "hats_col_healpix": layout.index,
        "hats_col_healpix_order": str(layout.order) if layout.index else None,
        "hats_npix_suffix": layout.suffix if layout.suffix != ".parquet" else None,
        "hats_version": "v99 of somewhere",
        "hats_builder": "some tool v1, hats v0.6",
    }
    values |= layout.told
    lines = [f"{key}={value}" for key, value in values.items() if value is not None]
    path.write_text("\n".join(["#HATS catalog", *lines]) + "\n")


def _laid_out(rows: pa.Table, tile: Tile, layout: Layout) -> pa.Table:
    index = rows["_healpix_29"].to_numpy() >> 2 * (29 - layout.order)
    rows = rows.drop_columns("_healpix_29")
    if layout.index:
        rows = rows.append_column(layout.index, pa.array(index).cast(layout.index_type))
    if layout.hive_columns:
        for name, value in (("Norder", tile.order), ("Dir", 0), ("Npix", tile.pixel)):
            rows = rows.append_column(name, pa.array(np.full(len(rows), value, np.uint64)))
    return rows
