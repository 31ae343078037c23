"""The cross-match of two HATS catalogues: one Spark task a tile of the left one, no shuffle.

What must be known of whole catalogues is gathered first, in three light passes over slim columns (`limits`, `movers`).
Then each task reads its tile and the halos with pyarrow, row group by row group, matches, reads the wide columns of the
matched rows only, and writes its leaves. The output does not depend on the tiling, on the number of tasks or on their
order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.config import Config
from stellarml.crossmatch.plan import MatchPlan, plan_match
from stellarml.crossmatch.rows import match_settings
from stellarml.crossmatch.sides import Side, side_of
from stellarml.crossmatch.statistics import merge_statistics, tile_statistics
from stellarml.crossmatch.tiles import MatchedTile, match_rows
from stellarml.engine import Unit, run_units
from stellarml.errors import InputError
from stellarml.hats_catalogue import finish_catalogue
from stellarml.hats_reading import Catalogue, Leaf, open_catalogue
from stellarml.manifest import StageRun, stage_run
from stellarml.schema import (
    CUTS_FAILED,
    DEC,
    EXTERNAL_ID,
    HEALPIX_COLUMN,
    RA,
    REPAIRS,
    SOURCE_ID,
    arrow_schema,
)
from stellarml.schema import NEIGHBOURHOOD as NEIGHBOURHOOD_COLUMNS
from stellarml.sources.descriptor import load_descriptor
from stellarml.sources.shards import position_columns
from stellarml.storage import Tile, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEIGHBOURHOOD, BEST, MATCHED = "neighbourhood", "best_neighbour", "matched"


def crossmatch(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Match ``lake/stars`` with the photometric survey; return the run.json of ``lake/matched``.

    Raises
    ------
    InputError
        If an input is missing, or not one star has a counterpart.
    """
    lake = config.path(config.paths.lake)
    left = load_descriptor(config.surveys.astrometry, config.root)
    right = load_descriptor(config.surveys.photometry, config.root)
    settings = match_settings(config.crossmatch, left, right)
    out = lake / MATCHED
    relevant = {
        "crossmatch": config.crossmatch.model_dump(),
        "left": left.position.model_dump(mode="json"),
        "right": right.position.model_dump(mode="json"),
        "bands": [[band.magnitude for band in d.bands.values()] for d in (left, right)],
        "tiles": config.tiles.model_dump(),
    }
    with stage_run(
        "crossmatch",
        out,
        config=config,
        relevant=relevant,
        derived=[lake / "stars", lake / right.name],
        siblings=[lake / NEIGHBOURHOOD, lake / BEST],
        overwrite=overwrite,
    ) as run:
        if run.complete:
            return run.record
        catalogues = open_catalogue(lake / "stars"), open_catalogue(lake / right.name)
        sides = [
            side_of(c, d, config.crossmatch.scope, with_errors=settings.radius_arcsec is None)
            for c, d in zip(catalogues, (left, right), strict=True)
        ]
        plan = plan_match(spark, run, sides[0], sides[1], settings)
        return _match_tiles(spark, run, plan, catalogues, config)


def _match_tiles(
    spark: SparkSession,
    run: StageRun,
    plan: MatchPlan,
    catalogues: tuple[Catalogue, Catalogue],
    config: Config,
) -> dict[str, Any]:
    def work(leaf: Leaf) -> dict[str, Any]:
        return _match_leaf(plan, leaf)

    units = [Unit(f"tile-{leaf.tile.name}", leaf.rows, leaf) for leaf in plan.left.leaves]
    done = run_units(spark, run, units, work, in_runs=True)
    statistics = merge_statistics([mark["statistics"] for mark in done])
    statistics |= plan.record()
    if statistics["pairs"] == 0:
        raise InputError(no_overlap(plan))
    schemas = output_schemas(plan)
    for name, folder in ((NEIGHBOURHOOD, run.siblings[0]), (BEST, run.siblings[1]), (MATCHED, run.out)):
        finish_catalogue(
            folder,
            name=name,
            tiles=[u.task.tile for u, mark in zip(units, done, strict=True) if mark["rows"][name]],
            rows=sum(mark["rows"][name] for mark in done),
            ra=RA,
            dec=DEC,
            schema=schemas[name],
            max_rows=config.tiles.max_rows,
        )
    rows = {name: sum(mark["rows"][name] for mark in done) for name in (NEIGHBOURHOOD, BEST, MATCHED)}
    return run.finish(
        {"in": catalogues[0].rows, "out": rows[MATCHED], **rows}, units=len(units), match=statistics
    )


def no_overlap(plan: MatchPlan) -> str:
    """Say why two catalogues without a single pair may have none."""

    def area(side: Side) -> str:
        order = 3
        pixels = {pixel for leaf in side.leaves for pixel in _pixels_at(leaf.tile, order)}
        return (
            f"{sum(leaf.rows for leaf in side.leaves)} rows in {len(pixels)} of 768 HEALPix pixels of order 3"
        )

    return (
        f"no source of {plan.left.descriptor.name} has a counterpart in {plan.right.descriptor.name}: "
        f"{area(plan.left)} against {area(plan.right)}. Check that both cover the same part of the sky, that positions "
        "are in degrees, and with crossmatch.scope = 'selected' that rows pass their cuts."
    )


def _pixels_at(tile: Tile, order: int) -> range:
    if tile.order >= order:
        pixel = tile.pixel >> 2 * (tile.order - order)
        return range(pixel, pixel + 1)
    width = 4 ** (order - tile.order)
    return range(tile.pixel * width, (tile.pixel + 1) * width)


def _match_leaf(plan: MatchPlan, leaf: Leaf) -> dict[str, Any]:
    """Match one tile of the left catalogue and write its leaves."""
    tile = leaf.tile
    found = match_rows(plan, tile)
    result = found.result
    tables = {NEIGHBOURHOOD: _edges(plan, found, np.arange(len(result.left_row)))}
    tables[BEST] = tables[NEIGHBOURHOOD].filter(pa.array(result.best))
    tables[MATCHED] = _wide(plan, found)
    files = {}
    for name, table in tables.items():
        if table.num_rows:
            path = Path("..", name, tile.path) if name != MATCHED else tile.path
            files[str(path)] = write_parquet(plan.out / path, table, plan.tiles)["bytes"]
    return {
        "files": files,
        "rows": {name: table.num_rows for name, table in tables.items()},
        "statistics": tile_statistics(result, found.owned, found.offsets_mas),
    }


def _edges(plan: MatchPlan, found: MatchedTile, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Return the edges `rows` as a table in the columns of the Gaia archive."""
    ra, dec = position_columns(plan.left.descriptor)
    result, left = found.result, found.left.rows
    a = pa.array(result.left_row[rows])
    columns = {
        HEALPIX_COLUMN: left[HEALPIX_COLUMN].take(a),
        SOURCE_ID: found.left.ids(result.left_row[rows]),
        EXTERNAL_ID: found.right.ids(result.right_row[rows]),
        RA: left[ra].take(a),
        DEC: left[dec].take(a),
        "angular_distance": result.distance_arcsec[rows],
        "score": result.score[rows],
        "number_of_neighbours": result.number_of_neighbours[rows],
        "number_of_mates": result.number_of_mates[rows],
        "number_of_reverse_neighbours": result.number_of_reverse_neighbours[rows],
        "xm_flag": result.xm_flag[rows],
    }
    schema = edge_schema(plan)
    arrays = [
        c.cast(f.type) if isinstance(c, pa.ChunkedArray) else pa.array(c.astype(f.type.to_pandas_dtype()))
        for f, c in zip(schema, (columns[f.name] for f in schema), strict=True)
    ]
    return pa.table(arrays, schema=schema)


def edge_schema(plan: MatchPlan) -> pa.Schema:
    """Return the columns of `neighbourhood`, with the ids' own types."""
    ids = {
        SOURCE_ID: plan.left.schema.field(plan.left.descriptor.id_column).type,
        EXTERNAL_ID: plan.right.schema.field(plan.right.descriptor.id_column).type,
    }
    return pa.schema([f.with_type(ids.get(f.name, f.type)) for f in arrow_schema(NEIGHBOURHOOD_COLUMNS)])


def _wide(plan: MatchPlan, found: MatchedTile) -> pa.Table:
    """Return the unique pairs with the columns of both sides."""
    unique = np.flatnonzero(found.result.unique)
    edges = _edges(plan, found, unique)
    columns = {name: edges[name] for name in edges.column_names}
    left_names, right_names = wide_names(plan)
    for side, rows, names in (
        (found.left, found.result.left_row[unique], left_names),
        (found.right, found.result.right_row[unique], right_names),
    ):
        new = {old: name for old, name in names.items() if name not in columns}
        columns |= {new[old]: column for old, column in side.gather(rows, list(new)).items()}
    return pa.table(columns)


def wide_names(plan: MatchPlan) -> tuple[dict[str, str], dict[str, str]]:
    """Return, for each side, the columns that `matched` carries and their names there.

    ``cuts_failed`` and ``repairs`` of both sides carry the survey's name; so does any other right column whose name the
    left side has.
    """
    sides = plan.left, plan.right
    left, right = (
        {n: f"{n}_{side.descriptor.name}" if n in (CUTS_FAILED, REPAIRS) else n for n in side.schema.names}
        for side in sides
    )
    left.pop(HEALPIX_COLUMN, None)
    right.pop(HEALPIX_COLUMN, None)
    left[plan.left.descriptor.id_column] = SOURCE_ID
    ra, dec = position_columns(plan.left.descriptor)
    left[ra], left[dec] = RA, DEC
    right[plan.right.descriptor.id_column] = EXTERNAL_ID
    taken = set(left.values())
    return left, {
        n: f"{new}_{plan.right.descriptor.name}" if new in taken else new for n, new in right.items()
    }


def output_schemas(plan: MatchPlan) -> dict[str, pa.Schema]:
    """Return the schemas of the three tables, for a catalogue without a single row."""
    edges = edge_schema(plan)
    left, right = wide_names(plan)
    fields = {f.name: f for f in edges}
    for schema, names in ((plan.left.schema, left), (plan.right.schema, right)):
        for old, new in names.items():
            fields.setdefault(new, pa.field(new, schema.field(old).type))
    return {NEIGHBOURHOOD: edges, BEST: edges, MATCHED: pa.schema(list(fields.values()))}
