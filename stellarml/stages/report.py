"""The stage report: gather what all stages wrote, count it once in Spark, and write one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config
from stellarml.core.errors import InputError
from stellarml.labelling.versions import current_model
from stellarml.model.bundle import load_bundle
from stellarml.model.manifest import Manifest
from stellarml.run.stage_run import read_record, stage_run
from stellarml.storage.hats_reader import read_leaves

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def make_report(spark: SparkSession, config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Write ``report/report.html``, its pictures and ``metrics.json``; return the run.json.

    Raises
    ------
    InputError
        If nothing has been labelled yet.
    """
    from stellarml.report.page import ReportInputs, write_report

    lake = config.path(config.paths.lake)
    model_id = current_model(config)
    if model_id is None:
        raise InputError(
            f"{config.path(config.paths.labels)}: nothing is published yet. Run  stellarml label  first."
        )
    labels, model = config.path(config.paths.labels) / model_id, config.path(config.paths.models) / model_id
    out = config.path(config.paths.report)
    relevant = {"report": config.report.model_dump(), "level": config.label.level}
    derived = [lake / "stars", lake / "matched", lake / "training", model, labels]
    with stage_run(
        "report", out, config=config, relevant=relevant, derived=derived, overwrite=overwrite
    ) as run:
        if run.complete:
            return run.record
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
                bundle=model_card(manifest),
                stage_rows=stage_rows(config, model_id),
                provenance={**manifest.provenance, "versions": matched["versions"], "code": matched["code"]},
                title=config.report.title,
                sky_order=config.report.sky_order,
            ),
        )
        pages = [path.name, "metrics.json", *(p.name for p in out.glob("*.png"))]
        run.settle(Path(name) for name in pages)
        return run.finish({"in": matched["rows"]["matched"], "out": 1}, units=0, page=path.name)


def training_curves(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the training curve of every network."""
    units = {label.name: label.unit for label in manifest.labels}
    return [
        {
            "label": ", ".join(network.outputs),
            "unit": units[network.outputs[0]] if len(network.outputs) == 1 else "",
            "epochs": list(network.curve.epoch),
            "loss": list(network.curve.loss),
            "val_loss": list(network.curve.val_loss),
            "phase": list(network.curve.phase),
        }
        for network in manifest.networks
    ]


def model_card(manifest: Manifest) -> dict[str, Any]:
    """Return what a reader should know of the model: data, counts, networks, limits."""
    return {
        "id": manifest.id,
        "preset": manifest.preset,
        "created_utc": manifest.created_utc,
        "counts": manifest.counts,
        "features": [f"{f.name} [{f.unit}]" for f in manifest.features.features],
        "networks": [
            {
                "outputs": list(n.outputs),
                "widths": list(n.widths),
                "losses": list(n.losses),
                "best_epoch": n.best_epoch,
            }
            for n in manifest.networks
        ],
        "seed": manifest.seed,
        "split": manifest.split,
        "warnings": list(manifest.warnings),
        "metrics": manifest.metrics,
    }


def stage_rows(config: Config, model_id: str) -> list[dict[str, Any]]:
    """Return rows, seconds and memory of every stage that has run, in order."""
    lake = config.path(config.paths.lake)
    folders = [lake / Path(name).stem for name in _surveys(config)]
    folders += [lake / "stars", lake / "matched", lake / "training"]
    folders += [config.path(config.paths.models) / model_id, config.path(config.paths.labels) / model_id]
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


def _surveys(config: Config) -> list[str]:
    from stellarml.surveys.descriptor import load_descriptor

    s = config.surveys
    return [
        load_descriptor(n, config.root).name
        for n in (s.astrometry, s.distances, s.photometry, *s.labels)
        if n
    ]


def read_metrics(config: Config) -> dict[str, Any]:
    """Return metrics.json of the report."""
    metrics: dict[str, Any] = json.loads((config.path(config.paths.report) / "metrics.json").read_text())
    return metrics
