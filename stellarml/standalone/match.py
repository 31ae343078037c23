"""Any two catalogues, matched in one command.

A side is raw files, which are ingested first (into ``_inputs/`` of the output folder, removed at the end), or a HATS
catalogue or collection, its own or others', which is read in place. The match itself is that of the chain.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config, Tiles
from stellarml.core.errors import ConfigError, InputError, StellarmlError, raise_gathered
from stellarml.core.names import CUTS_FAILED, HEALPIX_COLUMN, REPAIRS
from stellarml.crossmatch.match_rows import match_rows
from stellarml.crossmatch.modes import Join, Mode
from stellarml.crossmatch.output_columns import Layout, chosen_columns, layout, table_of
from stellarml.crossmatch.plan import MatchPlan, no_overlap, plan_match
from stellarml.crossmatch.sides import scopes_of, side_of
from stellarml.crossmatch.source_columns import match_settings
from stellarml.crossmatch.statistics import add_statistics, merge_statistics, tile_statistics
from stellarml.run.log import get_logger
from stellarml.run.marks import read_record
from stellarml.run.ownership import WORK
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.run.units import Unit, run_units
from stellarml.stages.ingest import ingest_survey
from stellarml.storage.export import read_parts, write_file
from stellarml.storage.formats import Format
from stellarml.storage.hats_layout import catalogue_properties, is_catalogue
from stellarml.storage.hats_reader import Catalogue, Leaf, open_catalogue
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.storage.parquet import LeafParts
from stellarml.surveys.cuts import problems_of_expressions
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.ingest_plan import declared_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_reader import SourceFile

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = "matches"
_OFFSET_MAS, _OFFSET_SIGMA, _OFFSET_PAIRS = 50.0, 5.0, 30


@dataclass(frozen=True)
class MatchOptions:
    """What a match is to give.

    mode
        ``all`` good neighbours, the ``best`` of each left source, or the ``unique`` pairs: one to one, degree 1 on
        both sides of the graph of good neighbours.
    join
        ``inner``: matched rows; ``left``: all left rows; ``anti``: left rows without a match in that mode.
    columns
        ``all``, ``ids``, or names of columns separated by commas.
    """

    mode: Mode = Mode.best
    join: Join = Join.inner
    columns: str = "all"
    format: Format = Format.hats


@dataclass(frozen=True)
class _Input:
    """One side as the user named it: raw `files`, or a HATS catalogue and the files that it is."""

    path: Path
    survey: str
    descriptor: Descriptor
    files: tuple[Path, ...]
    catalogue: Catalogue | None = None
    raw: tuple[SourceFile, ...] = ()


@dataclass(frozen=True)
class _Task:
    plan: MatchPlan
    layout: Layout
    options: MatchOptions
    leaf: Leaf
    path: Path
    tiles: Tiles


def check_match(
    config: Config, paths: tuple[Path, Path], surveys: tuple[str, str], options: MatchOptions
) -> None:
    """Refuse a match that cannot end well, before Java is started: files, columns, settings.

    Raises
    ------
    ConfigError, InputError, UserError
        If a descriptor, a file, a column or an option is wrong; all problems of both sides at once.
    """
    problems: list[str] = []
    columns: list[list[str]] = []
    inputs: list[_Input] = []
    scopes = scopes_of(config.crossmatch.scope)
    for path, survey, scope in zip(paths, surveys, scopes, strict=True):
        try:
            found = _find_input(config, path, survey)
            inputs.append(found)
            columns.append(_columns_of(found, scope, with_errors=config.crossmatch.radius_arcsec == 0))
        except StellarmlError as error:
            problems.append(str(error))
    raise_gathered(InputError, "match", problems)
    match_settings(config.crossmatch, inputs[0].descriptor, inputs[1].descriptor)
    chosen_columns(columns[0], columns[1], options.columns)


def _columns_of(given: _Input, scope: str, *, with_errors: bool) -> list[str]:
    """Return the columns that a side will have; of raw files, after their ingest."""
    descriptor = given.descriptor
    if given.catalogue is not None:
        side_of(given.catalogue, descriptor, scope, with_errors=with_errors)
        return [name for name in given.catalogue.schema.names if name != HEALPIX_COLUMN]
    raise_gathered(ConfigError, f"survey '{descriptor.name}'", list(problems_of_expressions(descriptor)))
    declared_columns(descriptor, given.raw)
    own = [descriptor.id_column, *(column.canonical for column in descriptor.wanted()), REPAIRS, CUTS_FAILED]
    return list(dict.fromkeys(own))


def match_catalogues(
    spark: SparkSession,
    config: Config,
    paths: tuple[Path, Path],
    surveys: tuple[str, str],
    out: Path,
    options: MatchOptions,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Match two catalogues into ``out/matches`` (or ``out/matches.<format>``); return the run.json of `out`.

    Parameters
    ----------
    paths
        Of left and right: a file, a folder, a pattern, or a HATS catalogue or collection.
    surveys
        Of left and right: name of a shipped descriptor, or path of one's own.

    Raises
    ------
    ConfigError, InputError, UserError
        If a descriptor, a file, a column or an option is wrong.
    """
    out = out.absolute()  # executors may have another working directory
    left, right = (_find_input(config, p, s) for p, s in zip(paths, surveys, strict=True))
    settings = match_settings(config.crossmatch, left.descriptor, right.descriptor)
    relevant = {
        "crossmatch": config.crossmatch.model_dump(),
        "sides": [given.descriptor.model_dump(mode="json") for given in (left, right)],
        "tiles": config.tiles.model_dump(),
        "options": asdict(options),
    }
    recipe = Recipe("match", __name__, relevant, raw=[*left.files, *right.files])
    with stage_run(recipe, out, config, overwrite=overwrite) as run:
        if run.complete:
            return run.record
        sides, rejected = [], {}
        scopes = scopes_of(config.crossmatch.scope)
        for given, name, scope in zip((left, right), ("left", "right"), scopes, strict=True):
            catalogue = given.catalogue or _ingested(spark, config, given, out / "_inputs" / name, overwrite)
            rejected[f"{name}_rejected"] = 0 if given.catalogue else _keep_rejects(catalogue.root, out, name)
            with_errors = settings.radius_arcsec is None
            sides.append(side_of(catalogue, given.descriptor, scope, with_errors=with_errors))
        columns = layout(
            sides[0], sides[1], options.columns, options.join, hats=options.format == Format.hats
        )
        plan = plan_match(spark, run, sides[0], sides[1], settings)
        return _match_tiles(spark, run, plan, columns, options, rejected)


def _find_input(config: Config, path: Path, survey: str) -> _Input:
    """Find what is at `path`; a HATS catalogue is opened, its properties and leaves are what the match depends on."""
    path = path.absolute()
    descriptor = load_descriptor(survey, config.root)
    if not descriptor.has_positions:
        raise ConfigError(
            f"survey '{descriptor.name}' has no positions, so nothing can be matched with it. "
            "Give [position] ra and dec in its descriptor."
        )
    if not is_catalogue(path):
        raw = tuple(find_files(descriptor, path))
        return _Input(path, survey, descriptor, tuple(file.path for file in raw), raw=raw)
    catalogue = open_catalogue(path)
    files = (catalogue_properties(catalogue.root).path, *(p for leaf in catalogue.leaves for p in leaf.paths))
    return _Input(path, survey, descriptor, files, catalogue)


def _ingested(spark: SparkSession, config: Config, given: _Input, lake: Path, overwrite: bool) -> Catalogue:
    """Ingest the raw files of a side."""
    paths = config.paths.model_copy(update={"lake": lake.absolute()})
    chosen = config.model_copy(update={"paths": paths, "raw": {given.descriptor.name: str(given.path)}})
    ingest_survey(spark, chosen, given.survey, overwrite=overwrite)
    return open_catalogue(lake / given.descriptor.name)


def _keep_rejects(ingested: Path, out: Path, name: str) -> int:
    """Keep the rows that ingest has rejected, with file, line and reason, in ``_rejected/<side>``; return how many."""
    rejected = int(read_record(ingested)["rows"]["rejected"])
    kept = out / "_rejected" / name
    shutil.rmtree(kept, ignore_errors=True)
    if rejected:
        shutil.copytree(ingested / "_rejected", kept)
        get_logger().warning(f"{rejected} {name} rows rejected, see {kept}", stage="match")
    return rejected


def _match_tiles(
    spark: SparkSession,
    run: StageRun,
    plan: MatchPlan,
    columns: Layout,
    options: MatchOptions,
    rejected: dict[str, int],
) -> dict[str, Any]:
    units = [
        Unit(
            f"tile-{leaf.tile.name}",
            leaf.rows,
            _Task(plan, columns, options, leaf, _part(leaf, options), plan.tiles),
        )
        for leaf in plan.left.leaves
    ]
    done = run_units(spark, run, units, _match_leaf, in_runs=True, step="matching tiles")
    statistics = merge_statistics([mark["statistics"] for mark in done])
    statistics |= plan.record()
    if statistics["pairs"] == 0:
        get_logger().warning(no_overlap(plan), stage="match")
    elif (advice := frame_advice(statistics, removed=plan.settings.frame is not None)) is not None:
        get_logger().warning(advice, stage="match")
    rows = sum(mark["rows"] for mark in done)
    written = [u.task for u, mark in zip(units, done, strict=True) if mark["rows"]]
    _finish_table(run, columns, options, written, rows)
    shutil.rmtree(run.out / "_inputs", ignore_errors=True)
    return run.finish(
        {"in": plan.left.rows, "right": plan.right.rows, "out": rows, **rejected},
        units=len(units),
        options=asdict(options),
        match=statistics,
    )


def frame_advice(statistics: Mapping[str, Any], *, removed: bool) -> str | None:
    """Return what to do about an offset of the frames above 50 mas that the unique pairs show; None without one.

    Parameters
    ----------
    statistics
        Of the match: medians of right minus left (mas), their error and the number of pairs.
    removed
        Whether an offset was measured and taken off already.
    """
    east, north = statistics["offset_ra_mas"], statistics["offset_dec_mas"]
    if removed or east is None or statistics["offset_pairs"] < _OFFSET_PAIRS:
        return None
    offset = math.hypot(east, north)
    if offset <= max(_OFFSET_MAS, _OFFSET_SIGMA * statistics["offset_error_mas"]):
        return None
    return (
        f"the right positions lie {offset:.0f} mas from the left ones on the whole (east {east:+.0f}, north "
        f"{north:+.0f}): their frames, or their epochs, differ. --remove-frame-offset measures it in cells of the sky "
        "and takes it off."
    )


def _part(leaf: Leaf, options: MatchOptions) -> Path:
    if options.format == Format.hats:
        return Path(TABLE) / leaf.tile.path
    return Path(WORK, f"{leaf.tile.name}.parquet")


def _match_leaf(task: _Task) -> dict[str, Any]:
    parts, path = [], task.plan.out / task.path
    with LeafParts(path, task.tiles) as leaf:
        for found in match_rows(task.plan, task.leaf.tile, only_best=task.options.mode != Mode.all):
            leaf.write(table_of(found, task.layout, task.options.mode, task.options.join))
            parts.append(tile_statistics(found.result, found.owned, found.offsets_mas))
    return {
        "files": {str(task.path): leaf.bytes} if leaf.rows else {},
        "rows": leaf.rows,
        "statistics": add_statistics(parts),
    }


def _finish_table(
    run: StageRun, columns: Layout, options: MatchOptions, written: Sequence[_Task], rows: int
) -> None:
    if options.format == Format.hats:
        finish_catalogue(
            run.out / TABLE,
            CatalogueInfo(TABLE, columns.ra, columns.dec, run.config.tiles.max_rows),
            [task.leaf.tile for task in written],
            rows,
            columns.schema,
        )
        return
    target = Path(f"{TABLE}.{options.format}")
    parts = read_parts((run.out / task.path for task in written), columns.schema)
    write_file(parts, columns.schema, run.out / target, options.format, run.config.tiles)
    run.settle([target])
