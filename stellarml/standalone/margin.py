"""Writing a margin catalogue: for each tile of a HATS catalogue the rows of other tiles within a threshold.

One Spark task a tile, which reads the neighbouring leaves by row-group pruning. Tiles of the empty sky that border on
the catalogue get leaves too: a reader that matches tile by tile finds the rows across that border nowhere else.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import healpy
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core import sky
from stellarml.core.config import Config
from stellarml.core.errors import InputError, UserError
from stellarml.core.files import write_atomically
from stellarml.core.tiles import INDEX_ORDER, Tile
from stellarml.run.ownership import claimed
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.run.units import Unit, run_units
from stellarml.storage.hats_layout import COLLECTION, find_catalogue, raw_schema
from stellarml.storage.hats_reader import Catalogue, open_catalogue, read_ranges
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.storage.margin_reader import without
from stellarml.storage.parquet import write_parquet
from stellarml.storage.pixel_border import near_border

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_margin(
    spark: SparkSession,
    config: Config,
    root: Path,
    arcsec: float,
    out: Path | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the margin catalogue of a HATS catalogue or collection and return its run.json.

    Parameters
    ----------
    root
        The catalogue, its ``dataset`` folder, or a collection.
    arcsec
        The threshold: a row within it of a tile that is not its own is in the leaf of that tile.
    out
        The folder to write; by default ``<name of the catalogue>_<arcsec>arcs`` beside the catalogue. Inside a
        collection it is entered in ``collection.properties``.

    Raises
    ------
    UserError
        If `arcsec` is not positive, or `out` is the catalogue itself.
    InputError
        If the catalogue cannot be read.
    """
    if not (math.isfinite(arcsec) and arcsec > 0):
        raise UserError(f"--arcsec {arcsec:g}: expected a positive number of arcsec.")
    root = root.absolute()  # executors may have another working directory
    folder, collection = find_catalogue(root)
    catalogue = open_catalogue(root)
    target = folder.parent / f"{folder.name}_{arcsec:g}arcs" if out is None else out.absolute()
    if target.resolve() in (folder.resolve(), root.resolve()):
        raise UserError(f"{target}: is the catalogue itself; give the margin catalogue another folder.")
    recipe = Recipe(
        "margin",
        __name__,
        {"arcsec": arcsec, "tiles": config.tiles.model_dump()},
        raw=[path for leaf in catalogue.leaves for path in leaf.paths],
    )
    with stage_run(recipe, target, config, overwrite=overwrite) as run:
        if not run.complete:
            _write_leaves(spark, run, catalogue, arcsec)
        if collection is not None and target.resolve().parent == collection.path.parent.resolve():
            with claimed(collection.path, patient=True):
                make_collection(collection.path.parent, folder.name, [target.name])
    return run.record


def _write_leaves(spark: SparkSession, run: StageRun, catalogue: Catalogue, arcsec: float) -> None:
    out, tiling = run.out, run.config.tiles
    schema = margin_schema(catalogue)
    rows_of = {leaf.tile: leaf.rows for leaf in catalogue.leaves}
    tiles = [*rows_of, *bordering_tiles(list(rows_of), arcsec)]

    def work(tile: Tile) -> dict[str, Any]:
        table = margin_rows(catalogue, tile, arcsec, schema)
        files = {}
        if table.num_rows:
            files[str(tile.path)] = write_parquet(out / tile.path, table, tiling)["bytes"]
        return {"files": files, "rows": table.num_rows}

    units = [Unit(tile.name, rows_of.get(tile, 0), tile) for tile in tiles]
    marks = run_units(spark, run, units, work, step="finding neighbours of tiles")
    written = {tile: mark["rows"] for tile, mark in zip(tiles, marks, strict=True) if mark["rows"]}
    finish_catalogue(
        out,
        CatalogueInfo(
            out.name,
            catalogue.ra,
            catalogue.dec,
            max(written.values(), default=0),
            {
                "catalog_type": "margin",
                "primary_catalog": catalogue.name,
                "margin_threshold": arcsec,
                "healpix_column": catalogue.format.healpix,
                "healpix_order": catalogue.format.order if catalogue.format.healpix else None,
            },
        ),
        sorted(written, key=lambda tile: tile.range),
        sum(written.values()),
        schema,
    )
    run.finish({"in": catalogue.rows, "out": sum(written.values())}, units=len(units), arcsec=arcsec)


def margin_schema(catalogue: Catalogue) -> pa.Schema:
    """Return the columns of the catalogue's files, types and metadata as they are there, without the folder names.

    Readers compare the schemas of a catalogue and its margin to the type.
    """
    found = raw_schema(catalogue.root, (path for leaf in catalogue.leaves for path in leaf.paths))
    return pa.schema([f for f in found if f.name in catalogue.schema.names], found.metadata)


def margin_rows(catalogue: Catalogue, tile: Tile, arcsec: float, schema: pa.Schema) -> pa.Table:
    """Return the rows of other tiles within `arcsec` of `tile`, in the order of the sky, with the columns `schema`."""
    halo = without(sky.halo_ranges(tile.order, tile.pixel, arcsec), np.array([tile.range], np.int64))
    names = list(dict.fromkeys([*schema.names, catalogue.ra, catalogue.dec]))
    table = read_ranges(catalogue.leaves, halo, names, catalogue.schema)
    ra, dec = (
        table[name].cast(pa.float64(), safe=False).to_numpy() for name in (catalogue.ra, catalogue.dec)
    )
    near = near_border(tile.order, tile.pixel, ra, dec, arcsec)
    return table.filter(pa.array(near)).select(schema.names).cast(schema)


def bordering_tiles(tiles: Sequence[Tile], arcsec: float) -> list[Tile]:
    """Return the largest tiles that hold none of `tiles`, overlap none, and come within about `arcsec` of one."""
    taken = sky.merge_ranges(np.array([tile.range for tile in tiles], np.int64).reshape(-1, 2))
    near = sky.merge_ranges(np.concatenate([np.empty((0, 2), np.int64), *(_about(t, arcsec) for t in tiles)]))
    found: list[Tile] = []

    def visit(tile: Tile) -> None:
        whole = np.array([tile.range], np.int64)
        if not sky.tiles_in_ranges([tile.order], [tile.pixel], near)[0]:
            return
        if not sky.tiles_in_ranges([tile.order], [tile.pixel], taken)[0]:
            found.append(tile)
        elif len(without(whole, taken)):
            for child in range(4):
                visit(Tile(tile.order + 1, 4 * tile.pixel + child))

    for base in range(12):
        visit(Tile(0, base))
    return found


def _about(tile: Tile, arcsec: float) -> npt.NDArray[np.int64]:
    """Return a tile with its neighbours; beyond them if the margin is wide against the tile."""
    if arcsec > sky.SIDE_ARCSEC / (1 << tile.order) / 4.0:
        return sky.halo_ranges(tile.order, tile.pixel, arcsec)
    around = healpy.get_all_neighbours(1 << tile.order, tile.pixel, nest=True).astype(np.int64)
    shift = 2 * (INDEX_ORDER - tile.order)
    first = np.append(around[around >= 0], tile.pixel) << shift
    return np.column_stack([first, first + (np.int64(1) << shift)])


def make_collection(root: Path, catalogue: str, margins: Sequence[str]) -> None:
    """Write ``collection.properties`` in `root` for a catalogue and margin catalogues that are folders in it.

    An existing one keeps what it says and gets the `margins` that it does not name; the first is the default where
    there is none.

    Raises
    ------
    InputError
        If one of the folders is missing, or the existing file is damaged or belongs to another catalogue.
    """
    from hats.catalog.dataset.collection_properties import CollectionProperties

    for name in (catalogue, *margins):
        if not (root / name).is_dir():
            raise InputError(
                f"{root / name}: no such folder; expected the parts of the collection in {root}."
            )
    values: dict[str, Any] = {"obs_collection": root.name, "hats_primary_table_url": catalogue}
    if (root / COLLECTION).is_file():
        try:
            values = CollectionProperties.read_from_dir(root).model_dump(by_alias=True, exclude_none=True)
        except ValueError as error:
            raise InputError(
                f"{root / COLLECTION}: is not understood ({error}). Correct that file."
            ) from None
        if values["hats_primary_table_url"].rstrip("/") != catalogue:
            raise InputError(
                f"{root / COLLECTION}: its main catalogue is {values['hats_primary_table_url']}, not {catalogue}."
            )
    known = [name for name in str(values.get("all_margins", "")).split() if name]
    names = list(dict.fromkeys([*known, *margins]))
    if names:
        values |= {"all_margins": names, "default_margin": values.get("default_margin") or names[0]}
    with tempfile.TemporaryDirectory() as scratch:
        CollectionProperties(**values).to_properties_file(scratch)
        write_atomically(root / COLLECTION, (Path(scratch) / COLLECTION).read_text("utf-8"))
