"""The stage select: every source of the astrometric survey with its distance, and which cuts it fails.

One task a tile. Distances lie in files by level-5 pixel of source_id, so a tile finds its own without a shuffle; the
pixel is taken from each source_id, not from the tile, because a source keeps the id of the pixel it was first seen in.
No row is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Config, Tiles
from stellarml.core.names import CUTS_FAILED, REPAIRS
from stellarml.core.tiles import PIXEL_FOLDER, SOURCE_ID_PIXEL_SHIFT, Tile
from stellarml.run.marks import Record, read_record
from stellarml.run.stage_run import Recipe, stage_run
from stellarml.run.units import Unit, run_units
from stellarml.storage.hats_reader import Leaf, open_catalogue
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.storage.parquet import write_parquet
from stellarml.surveys.cuts import HAS_DISTANCE, chosen_cuts, cut_flow, merge_counts
from stellarml.surveys.descriptor import Cut, Descriptor, load_descriptor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class _Joined:
    """The table of distances, if there is one: its folder, its id, and the columns that are joined."""

    folder: Path | None
    id: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _StarsTask:
    out: Path
    leaf: Leaf
    id: str
    distances: _Joined
    bit: int
    tiles: Tiles


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Write ``lake/stars/`` and return its run.json with the cut-flow of both surveys.

    Raises
    ------
    InputError
        If a survey has not been ingested.
    """
    lake = config.lake_folder
    astrometry = load_descriptor(config.surveys.astrometry, config.root)
    photometry = load_descriptor(config.surveys.photometry, config.root)
    distances = load_descriptor(config.surveys.distances, config.root) if config.surveys.distances else None
    cuts = star_cuts(config, astrometry)
    surveys = [s for s in (astrometry, distances, photometry) if s is not None]
    out = lake / "stars"
    relevant = {"cuts": [cut.model_dump() for cut in cuts], "tiles": config.tiles.model_dump()}
    derived = [lake / survey.name for survey in surveys]
    with stage_run(
        Recipe("select", __name__, relevant, derived=derived), out, config, overwrite=overwrite
    ) as output:
        if output.complete:
            return output.record
        catalogue = open_catalogue(lake / astrometry.name)
        columns = _distance_columns(lake, distances, catalogue.schema)
        joined = _Joined(
            lake / distances.name if distances else None,
            distances.id_column if distances else "",
            tuple(column.name for column in columns),
        )
        bit = len(astrometry.cuts) if HAS_DISTANCE in cuts else -1
        units = [
            Unit(
                leaf.tile.name,
                leaf.rows,
                _StarsTask(out, leaf, astrometry.id_column, joined, bit, config.tiles),
            )
            for leaf in catalogue.leaves
        ]
        done = run_units(spark, output, units, _write_stars, step="joining distances")
        rows = sum(mark["rows"] for mark in done)
        info = CatalogueInfo("stars", catalogue.ra, catalogue.dec, config.tiles.max_rows)
        tiles = [leaf.tile for leaf in catalogue.leaves]
        finish_catalogue(out, info, tiles, rows, pa.schema([*catalogue.schema, *columns]))
        flow = cut_flow(astrometry.name, cuts, merge_counts([mark["cuts"] for mark in done]))
        flow += read_record(lake / photometry.name)["cut_flow"]
        with_distance = sum(mark["with_distance"] for mark in done)
        return output.finish(
            {
                "in": catalogue.rows,
                "out": rows,
                "with_distance": with_distance,
                "pass_all_cuts": _passing(flow),
            },
            units=len(units),
            cut_flow=flow,
            cuts=[cut.name for cut in cuts],
        )


def star_cuts(config: Config, astrometry: Descriptor) -> list[Cut]:
    """Return the astrometric survey's cuts, and the distance cut where distances are joined."""
    cuts = list(chosen_cuts(config, astrometry))
    if config.surveys.distances:
        off = HAS_DISTANCE.name in config.cuts.disable
        cuts.append(HAS_DISTANCE.model_copy(update={"enabled": False}) if off else HAS_DISTANCE)
    return cuts


def _passing(flow: Sequence[dict[str, Any]]) -> int:
    first = flow[0]["survey"]
    return int([row for row in flow if row["survey"] == first][-1]["rows_left"])


def _distance_columns(lake: Path, distances: Descriptor | None, taken: pa.Schema) -> list[pa.Field]:
    if distances is None:
        return []
    files = sorted((lake / distances.name / "dataset").rglob("part.parquet"))
    schema = pq.read_schema(files[0])
    skip = {distances.id_column, REPAIRS, CUTS_FAILED, *taken.names}
    return [pa.field(f.name, f.type) for f in schema if f.name not in skip]


def _write_stars(task: _StarsTask) -> dict[str, Any]:
    table = pq.read_table(task.leaf.path, use_threads=False, partitioning=None)
    failed = table[CUTS_FAILED].to_numpy().copy()
    found = np.zeros(table.num_rows, dtype=bool)
    if task.distances.folder is not None:
        joined = _distances_of(task, table[task.id].to_numpy())
        for name in task.distances.columns:
            table = table.append_column(name, joined[name])
        found = table["r_med_geo"].is_valid().to_numpy() if "r_med_geo" in task.distances.columns else found
    if task.bit >= 0:
        failed |= np.where(found, 0, 1 << task.bit)
        table = table.set_column(table.column_names.index(CUTS_FAILED), CUTS_FAILED, pa.array(failed))
    tile: Tile = task.leaf.tile
    written = write_parquet(task.out / tile.path, table, task.tiles)
    masks, counts = np.unique(failed, return_counts=True)
    return {
        "files": {str(tile.path): written["bytes"]},
        "rows": table.num_rows,
        "with_distance": int(found.sum()),
        "cuts": {str(m): int(n) for m, n in zip(masks.tolist(), counts.tolist(), strict=True)},
    }


def _distances_of(task: _StarsTask, ids: np.ndarray) -> pa.Table:
    """Return the distance columns row by row of `ids`, null where a source has none."""
    folder = task.distances.folder / "dataset" if task.distances.folder else Path()
    paths = [
        folder / f"{PIXEL_FOLDER}={p}" / "part.parquet"
        for p in np.unique(ids >> SOURCE_ID_PIXEL_SHIFT).tolist()
    ]
    columns = [task.distances.id, *task.distances.columns]
    parts = [
        pq.read_table(p, columns=columns, use_threads=False, partitioning=None) for p in paths if p.exists()
    ]
    if not parts:
        schema = pq.read_schema(next(folder.rglob("part.parquet")))
        return pa.table(
            {name: pa.nulls(len(ids), schema.field(name).type) for name in task.distances.columns}
        )
    table = pa.concat_tables(parts)
    known = table[task.distances.id].to_numpy()
    position = np.searchsorted(known, ids)
    inside = position < len(known)
    inside[inside] = known[position[inside]] == ids[inside]
    return table.take(pa.array(position, mask=~inside)).select(list(task.distances.columns))
