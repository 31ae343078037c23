"""The stage report: gather what all stages wrote, count it once in Spark, and write one page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config
from stellarml.core.errors import InputError
from stellarml.labelling.versions import current_model
from stellarml.model.bundle import load_bundle
from stellarml.report.model_facts import card_facts, training_curves
from stellarml.run.marks import Record, read_record
from stellarml.run.stage_run import Recipe, stage_run
from stellarml.storage.hats_reader import read_leaves
from stellarml.surveys.descriptor import load_descriptor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Write ``report/report.html``, its pictures and ``metrics.json``; return the run.json.

    Raises
    ------
    InputError
        If nothing has been labelled yet.
    """
    from stellarml.report.page import ReportInputs, write_report

    lake = config.lake_folder
    model_id = current_model(config.labels_folder)
    if model_id is None:
        raise InputError(f"{config.labels_folder}: nothing is published yet. Run  stellarml label  first.")
    labels, model = config.labels_folder / model_id, config.models_folder / model_id
    out = config.report_folder
    relevant = {"report": config.report.model_dump(), "level": config.label.level}
    derived = [lake / "stars", lake / "matched", lake / "training", model, labels]
    with stage_run(
        Recipe("report", __name__, relevant, derived=derived), out, config, overwrite=overwrite
    ) as output:
        if output.complete:
            return output.record
        surveys = [lake / load_descriptor(name, config.root).name for name in config.surveys.names]
        manifest = load_bundle(model).manifest
        matched = read_record(lake / "matched")
        path = write_report(
            out,
            ReportInputs(
                labels=[{"name": label.name, "unit": label.unit} for label in manifest.labels],
                level=config.label.level,
                training=read_leaves(spark, lake / "training"),
                labelled=read_leaves(spark, labels),
                matched=read_leaves(spark, lake / "matched"),
                cut_flow=read_record(lake / "stars")["cut_flow"],
                match=matched["match"],
                curves=training_curves(manifest),
                bundle=card_facts(manifest),
                stage_rows=stage_rows(
                    [*surveys, lake / "stars", lake / "matched", lake / "training", model, labels]
                ),
                provenance={**manifest.provenance, "versions": matched["versions"], "code": matched["code"]},
                title=config.report.title,
                sky_order=config.report.sky_order,
            ),
        )
        pages = [path.name, "metrics.json", *(p.name for p in out.glob("*.png"))]
        output.settle(Path(name) for name in pages)
        return output.finish({"in": matched["rows"]["matched"], "out": 1}, units=0, page=path.name)


def stage_rows(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Return rows, seconds and memory of the stages that wrote `folders`, in order."""
    rows = []
    for folder in folders:
        record = read_record(folder)
        rows.append(
            {
                "stage": record["stage"],
                "rows_in": record["rows"]["in"],
                "rows_out": record["rows"]["out"],
                "seconds": record["seconds"],
                "peak_memory_bytes": record["peak_memory_bytes"],
            }
        )
    return rows


def read_metrics(report: Path) -> dict[str, Any]:
    """Return metrics.json of the report."""
    metrics: dict[str, Any] = json.loads((report / "metrics.json").read_text())
    return metrics
