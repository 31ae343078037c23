"""The whole chain in one session: the order of the stages. The only module that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stellarml.core.config import Config
from stellarml.model.bundle import load_bundle
from stellarml.run.log import log_done
from stellarml.run.marks import Record
from stellarml.stages import crossmatch, features, ingest, label, report, select, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Stage(Protocol):
    """The one form of a stage: read, call what knows no path, write, and return what its run.json says."""

    def __call__(self, spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
        """Run the stage, unless its output is there already, made from the same."""


STAGES: dict[str, Stage] = {
    "ingest": ingest.run,
    "select": select.run,
    "crossmatch": crossmatch.run,
    "features": features.run,
    "train": train.run,
    "label": label.run,
    "report": report.run,
}


APPLY_STAGES = ("ingest", "select", "crossmatch")
"""What comes before the labels of a field of one's own."""


def run_stage(stage: str, spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Run one stage by name and return its record."""
    record = STAGES[stage](spark, config, overwrite=overwrite)
    log_done(record)
    return record


def run_all(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Record]:
    """Run every stage in order, in one session; what is unchanged is skipped. Return the records by stage.

    Where the configuration names no model, the one that was just trained labels, not the newest on disk.
    """
    records: dict[str, Record] = {}
    for stage in STAGES:
        chosen = config
        if stage == "label" and not config.label.model:
            named = config.label.model_copy(update={"model": records["train"]["model_id"]})
            chosen = config.model_copy(update={"label": named})
        records[stage] = run_stage(stage, spark, chosen, overwrite=overwrite)
    return records


def without_labels(config: Config) -> Config:
    """Return the configuration of a field that has no spectroscopic labels, or whose labels are not to be read."""
    return config.model_copy(update={"surveys": config.surveys.model_copy(update={"labels": ()})})


def apply_model(spark: SparkSession, config: Config, model: Path, *, overwrite: bool = False) -> Record:
    """Label one's own field with a model made elsewhere; return what the labels' run.json says.

    The stars and the photometry of the configuration are ingested, matched, and labelled by the features that the model
    was trained on; no label table is read.

    Raises
    ------
    BundleError
        If the model is damaged.
    InputError
        If the field lacks a column that the model needs.
    """
    field = without_labels(config)
    manifest = load_bundle(model).manifest
    for stage in APPLY_STAGES:
        run_stage(stage, spark, field, overwrite=overwrite)
    record = label.label_with(spark, field, model, manifest, overwrite=overwrite)
    log_done(record)
    return record
