"""The labelled catalogues on disk: one folder a model, one file that names the published one.

A reader opens ``labels/current.json``, then the folder that it names: it never sees rows of two models. Older folders
stay until they are pruned, so a catalogue can be compared with the one before, and a bad model taken back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.config import Config
from stellarml.errors import InputError, UserError, did_you_mean
from stellarml.evaluation import BIN_EDGES
from stellarml.hats_layout import partition_list
from stellarml.log import get_logger
from stellarml.manifest import held, read_record
from stellarml.ownership import LOCK, RECORD, STATE, clear, names_of_others
from stellarml.registry import plain_id
from stellarml.storage import literal, storage_errors, write_atomically

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

CURRENT = "current.json"
_RANK_ACCURACY = 10_000


@dataclass(frozen=True)
class Version:
    """One labelled catalogue: its folder, its run.json, and whether it is the published one."""

    id: str
    folder: Path
    record: dict[str, Any]
    current: bool

    @property
    def level(self) -> int:
        """Per cent inside the intervals."""
        return int(self.record["config"]["label"]["level"])


@dataclass(frozen=True)
class Moved:
    """How far one label moved from a version to another, over the stars of both, in one bin of the first's value.

    `low`, `high`: the bin, None for all stars. `quantiles`: 16, 50 and 84 % of second minus first. `beyond`: share that
    left the first's interval.
    """

    label: str
    low: float | None
    high: float | None
    stars: int
    quantiles: tuple[float, float, float]
    largest: float
    beyond: float


@dataclass(frozen=True)
class Difference:
    """Two versions: stars of both and of either alone, share whose flags differ, and how far each label moved."""

    both: int
    only_first: int
    only_second: int
    flags_differ: float
    moved: tuple[Moved, ...]


def publish(config: Config, model_id: str) -> None:
    """Name the published version: one small file, replaced in one step."""
    pointer = config.path(config.paths.labels) / CURRENT
    if current_model(config) == model_id:
        return
    content = {"model_id": model_id, "published_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(pointer, json.dumps(content) + "\n")


def current_model(config: Config) -> str | None:
    """Return the id of the published version, or None.

    Raises
    ------
    InputError
        If current.json is damaged.
    """
    pointer = config.path(config.paths.labels) / CURRENT
    try:
        return plain_id(str(json.loads(pointer.read_text())["model_id"]), str(pointer))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{pointer}: is damaged. Delete it and run  stellarml label  again.") from None


def versions_of(config: Config) -> list[Version]:
    """Return every finished version, oldest first; one whose run.json is damaged is none."""
    root = config.path(config.paths.labels)
    current = current_model(config)
    paths = [path for path in root.glob(f"*/{RECORD}") if not path.parent.is_symlink()]
    found = []
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)):
        try:
            record = read_record(path.parent)
        except InputError as error:
            get_logger().warning("damaged version", reason=str(error))
            continue
        if record.get("stage") == "label":
            found.append(Version(path.parent.name, path.parent, record, path.parent.name == current))
    return found


def version_named(config: Config, name: str) -> Version:
    """Return one finished version.

    Raises
    ------
    UserError
        If there is none of that id.
    """
    found = {version.id: version for version in versions_of(config)}
    if name not in found:
        raise UserError(
            f"{config.path(config.paths.labels)}: holds no finished version '{name}'.{did_you_mean(name, found)} "
            f"Versions there: {', '.join(found) or 'none'}."
        )
    return found[name]


def prune(config: Config, keep: int) -> list[str]:
    """Remove all but the `keep` newest versions; the published one stays, and so does a user's file among them.

    Return the ids that were removed.

    Raises
    ------
    UserError
        If `keep` is less than 1.
    OutputBusyError
        If a run is writing to one of them.
    """
    if keep < 1:
        raise UserError(f"prune: {keep} versions to keep, expected at least 1")
    versions = versions_of(config)
    gone = [version for version in versions[:-keep] if not version.current]
    removed: list[str] = []
    for version in gone:
        with held(version.folder), storage_errors(version.folder):
            if current_model(config) == version.id:  # published in the meantime
                continue
            removed.append(version.id)
            others = names_of_others(version.folder, version.record)
            (version.folder / RECORD).unlink()  # first: what is left of a killed removal is no version
            clear(version.folder, others)
            for name in (STATE, LOCK):
                (version.folder / name).unlink(missing_ok=True)
            if not others:
                version.folder.rmdir()
    return removed


def compare(spark: SparkSession, first: Version, second: Version) -> Difference:
    """Count how far stars moved from one version to another; labels that both have.

    Raises
    ------
    UserError
        If they share no label.
    """
    from pyspark.sql import functions as sf

    a, b = _rows(spark, first), _rows(spark, second)
    names = [n for n in a.columns if f"{n}_lo" in a.columns and f"{n}_lo" in b.columns]
    if not names:
        raise UserError(f"{first.id} and {second.id} share no label: there is nothing to compare.")
    ends = [f"{n}{end}" for n in names for end in ("", "_lo", "_hi")]
    left = a.select("source_id", "quality_flags", *ends)
    right = b.select(
        sf.col("source_id"),
        sf.col("quality_flags").alias("flags_after"),
        *(sf.col(n).alias(f"{n}_after") for n in names),
    )
    joined = left.join(right, "source_id").persist()
    try:
        row = joined.agg(
            sf.count(sf.lit(1)).alias("n"),
            sf.avg((sf.col("quality_flags") != sf.col("flags_after")).cast("double")).alias("flags"),
        ).first()
        both, flags = (int(row["n"]), float(row["flags"] or 0.0)) if row else (0, 0.0)
        moved = [m for name in names for m in _moved(joined, name)] if both else []
    finally:
        joined.unpersist()
    rows = first.record["rows"]["out"], second.record["rows"]["out"]
    return Difference(both, rows[0] - both, rows[1] - both, flags, tuple(moved))


def _rows(spark: SparkSession, version: Version) -> DataFrame:
    tiles = partition_list(version.folder / "partition_info.csv")
    if not tiles:
        raise UserError(f"{version.folder}: holds no star, there is nothing to compare.")
    return spark.read.parquet(*(literal(version.folder / tile.path) for tile in tiles))


def _moved(joined: DataFrame, name: str) -> list[Moved]:
    from pyspark.sql import functions as sf

    step = sf.col(f"{name}_after").cast("double") - sf.col(name)
    inside = (sf.col(f"{name}_after") >= sf.col(f"{name}_lo")) & (
        sf.col(f"{name}_after") <= sf.col(f"{name}_hi")
    )
    wanted = [
        sf.count(sf.lit(1)).alias("n"),
        sf.percentile_approx(step, [0.16, 0.5, 0.84], _RANK_ACCURACY).alias("q"),
        sf.max(sf.abs(step)).alias("largest"),
        sf.avg((~inside).cast("double")).alias("beyond"),
    ]
    edges = BIN_EDGES.get(name, ())
    told = [_told(name, None, None, row) for row in joined.agg(*wanted).collect()]
    if edges:
        rows = joined.groupBy(_bin(sf.col(name), edges).alias("bin")).agg(*wanted).collect()
        for row in sorted((row for row in rows if row["bin"] is not None), key=lambda row: row["bin"]):
            told.append(_told(name, edges[row["bin"]], edges[row["bin"] + 1], row))
    return told


def _bin(value: Column, edges: Sequence[float]) -> Column:
    from pyspark.sql import functions as sf

    found = sf.lit(None).cast("int")
    for i in range(len(edges) - 1):
        found = sf.when((value >= edges[i]) & (value < edges[i + 1]), sf.lit(i)).otherwise(found)
    return found


def _told(name: str, low: float | None, high: float | None, row: Any) -> Moved:
    quantiles = tuple(float(q) for q in row["q"])
    assert len(quantiles) == 3
    return Moved(name, low, high, int(row["n"]), quantiles, float(row["largest"]), float(row["beyond"]))
