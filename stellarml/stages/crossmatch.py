"""The cross-match of two HATS catalogues: one Spark task a tile of the left one, no shuffle.

What must be known of whole catalogues is gathered first, in three light passes over slim columns (`crossmatch.plan`).
Then each task reads its tile and the halos with pyarrow, row group by row group, matches, reads the wide columns of the
matched rows only, and writes its leaves. The output does not depend on the tiling, on the number of tasks or on their
order.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Config
from stellarml.core.errors import InputError
from stellarml.core.names import DEC, RA
from stellarml.crossmatch.match_rows import match_rows
from stellarml.crossmatch.output_columns import (
    BEST,
    MATCHED,
    NEIGHBOURHOOD,
    edge_table,
    output_schemas,
    wide_table,
)
from stellarml.crossmatch.plan import MatchPlan, no_overlap, plan_match
from stellarml.crossmatch.sides import scopes_of, side_of
from stellarml.crossmatch.source_columns import match_settings
from stellarml.crossmatch.statistics import add_statistics, merge_statistics, tile_statistics
from stellarml.run.marks import Record
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.run.units import Unit, run_units
from stellarml.storage.hats_reader import Leaf, open_catalogue
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.storage.parquet import LeafParts
from stellarml.surveys.descriptor import load_descriptor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Match ``lake/stars`` with the photometric survey; return the run.json of ``lake/matched``.

    Raises
    ------
    InputError
        If an input is missing, or not one star has a counterpart.
    """
    lake = config.lake_folder
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
    recipe = Recipe("crossmatch", __name__, relevant, derived=[lake / "stars", lake / right.name])
    siblings = [lake / NEIGHBOURHOOD, lake / BEST]
    with stage_run(recipe, out, config, siblings=siblings, overwrite=overwrite) as output:
        if output.complete:
            return output.record
        catalogues = open_catalogue(lake / "stars"), open_catalogue(lake / right.name)
        sides = [
            side_of(c, d, scope, with_errors=settings.radius_arcsec is None)
            for c, d, scope in zip(catalogues, (left, right), scopes_of(config.crossmatch.scope), strict=True)
        ]
        plan = plan_match(spark, output, sides[0], sides[1], settings)
        return _match_tiles(spark, output, plan, catalogues[0].rows)


def _match_tiles(
    spark: SparkSession,
    run: StageRun,
    plan: MatchPlan,
    sources: int,
) -> Record:
    """Match every tile of the left catalogue, which has `sources` rows."""

    def work(leaf: Leaf) -> dict[str, Any]:
        return _match_leaf(plan, leaf)

    units = [Unit(f"tile-{leaf.tile.name}", leaf.rows, leaf) for leaf in plan.left.leaves]
    done = run_units(spark, run, units, work, in_runs=True, step="matching tiles")
    statistics = merge_statistics([mark["statistics"] for mark in done])
    statistics |= plan.record()
    if statistics["pairs"] == 0:
        raise InputError(no_overlap(plan))
    schemas = output_schemas(plan)
    for name, folder in ((NEIGHBOURHOOD, run.siblings[0]), (BEST, run.siblings[1]), (MATCHED, run.out)):
        finish_catalogue(
            folder,
            CatalogueInfo(name, RA, DEC, plan.tiles.max_rows),
            [u.task.tile for u, mark in zip(units, done, strict=True) if mark["rows"][name]],
            sum(mark["rows"][name] for mark in done),
            schemas[name],
        )
    rows = {name: sum(mark["rows"][name] for mark in done) for name in (NEIGHBOURHOOD, BEST, MATCHED)}
    return run.finish({"in": sources, "out": rows[MATCHED], **rows}, units=len(units), match=statistics)


def _match_leaf(plan: MatchPlan, leaf: Leaf) -> dict[str, Any]:
    """Match one tile of the left catalogue and write its leaves."""
    tile = leaf.tile
    paths = {name: Path("..", name, tile.path) for name in (NEIGHBOURHOOD, BEST)} | {MATCHED: tile.path}
    parts = []
    with ExitStack() as stack:
        leaves = {
            name: stack.enter_context(LeafParts(plan.out / path, plan.tiles)) for name, path in paths.items()
        }
        for found in match_rows(plan, tile):
            edges = edge_table(plan, found, np.arange(len(found.result.left_row)))
            leaves[NEIGHBOURHOOD].write(edges)
            leaves[BEST].write(edges.filter(pa.array(found.result.best)))
            leaves[MATCHED].write(wide_table(plan, found))
            parts.append(tile_statistics(found.result, found.owned, found.offsets_mas))
    return {
        "files": {str(paths[name]): leaf.bytes for name, leaf in leaves.items() if leaf.rows},
        "rows": {name: leaf.rows for name, leaf in leaves.items()},
        "statistics": add_statistics(parts),
    }
