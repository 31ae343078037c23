"""The whole chain in one session: the order of the stages, and the summary of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config
from stellarml.run.log import get_logger
from stellarml.stages.crossmatch import crossmatch
from stellarml.stages.features import make_training_set
from stellarml.stages.ingest import ingest
from stellarml.stages.label import label_catalogue
from stellarml.stages.report import make_report
from stellarml.stages.select import select_stars
from stellarml.stages.train import train_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Stage = Callable[..., dict[str, Any]]


def surveys_of(config: Config) -> list[str]:
    """Return every survey that the configuration names, in the order of ingest."""
    s = config.surveys
    return [name for name in (s.astrometry, s.distances, s.photometry, *s.labels) if name]


def ingest_all(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Ingest every survey of the configuration; return the run.json of each by name."""
    done = {}
    for name in surveys_of(config):
        done[name] = _told(f"ingest {name}", ingest(spark, config, name, overwrite=overwrite))
    return done


def run_stage(stage: str, spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Run one stage by name and return its run.json."""
    if stage == "ingest":
        return ingest_all(spark, config, overwrite=overwrite)
    if stage == "train":
        return _told(stage, train_model(config, overwrite=overwrite))
    stages: dict[str, Stage] = {
        "select": select_stars,
        "crossmatch": crossmatch,
        "features": make_training_set,
        "label": label_catalogue,
        "report": make_report,
    }
    return _told(stage, stages[stage](spark, config, overwrite=overwrite))


STAGES = ("ingest", "select", "crossmatch", "features", "train", "label", "report")


def run_all(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, dict[str, Any]]:
    """Run every stage in order, in one session; what is unchanged is skipped. Return the records by stage."""
    records: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        chosen = config
        if stage in ("label", "report") and not config.label.model:
            label = config.label.model_copy(update={"model": records["train"]["model_id"]})
            chosen = config.model_copy(update={"label": label}) if stage == "label" else config
        records[stage] = run_stage(stage, spark, chosen, overwrite=overwrite)
    return records


def _told(stage: str, record: dict[str, Any]) -> dict[str, Any]:
    rows = {name: value for name, value in record["rows"].items() if isinstance(value, int)}
    get_logger().info("done", stage=stage, **rows, seconds=record["seconds"])
    return record
