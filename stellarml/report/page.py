"""The report: measures, draws, and writes `report.html`, the PNGs and `metrics.json`.

One HTML file that needs no network: figures are embedded. Whatever is missing (no test star, no match, no curve)
is said on the page instead of stopping it. Files are renamed into place, the page last, so that a folder with a page
is whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pyspark.sql import DataFrame

from stellarml.core import progress
from stellarml.core.files import storage_errors, write_atomically
from stellarml.core.histograms import Counts
from stellarml.core.visible_text import visible
from stellarml.report import chapters as sections
from stellarml.report.accuracy import Label, Metrics, evaluate, number
from stellarml.report.blocks import Picture, ReportContent, plain_json
from stellarml.report.catalogue_counts import (
    SkyMap,
    catalogue_counts,
    flag_fractions,
    matched_counts,
    sky_map,
)
from stellarml.report.figures import FIGURES, accuracy_figures, catalogue_figures, run_figures

_STEPS = 6  # four of `measure`, the figures, the page


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """What the chain hands over; everything may be missing.

    `labels` holds mappings with ``name`` and ``unit``; `level` is the nominal coverage in per cent; the tables are
    those of the design, `cut_flow`, `match`, `curves`, `bundle`, `stage_rows` and `provenance` plain data.
    """

    labels: Sequence[Mapping[str, str]]
    level: float = 68
    training: DataFrame | None = None
    labelled: DataFrame | None = None
    matched: DataFrame | None = None
    cut_flow: Sequence[Mapping[str, Any]] = ()
    match: Mapping[str, Any] = field(default_factory=dict)
    curves: Sequence[Mapping[str, Any]] = ()
    bundle: Mapping[str, Any] = field(default_factory=dict)
    stage_rows: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    title: str = "stellarml"
    sky_order: int = 6


@dataclass(frozen=True, eq=False)
class Measurements:
    """All that was counted in Spark for one report."""

    metrics: Metrics
    catalogue: dict[str, Counts]
    matched: dict[str, Counts]
    sky: SkyMap | None


def write_report(out: Path, inputs: ReportInputs) -> Path:
    """Measure, draw and write the report into the folder `out`.

    Returns
    -------
    Path
        The HTML page; ``metrics.json`` and the PNGs lie beside it.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    progress.steps(_STEPS)
    measured = measure(inputs)
    progress.step("drawing the figures")
    numbers = metrics_json(inputs, measured)
    content = compose(inputs, measured, numbers)
    progress.step("writing the page")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "metrics.json", text + "\n")
    return render_report(out, content)


def measure(inputs: ReportInputs) -> Measurements:
    """Count everything that the report shows; about twelve Spark jobs."""
    labels = [Label(str(entry["name"]), str(entry["unit"])) for entry in inputs.labels]
    training, labelled, matched = inputs.training, inputs.labelled, inputs.matched
    progress.step("comparing labels with the test part")
    if training is not None and labelled is not None:
        metrics = evaluate(training, labelled, labels, inputs.level)
    else:
        metrics = Metrics.nothing(labels, inputs.level)
    progress.step("counting the catalogue")
    catalogue = catalogue_counts(labelled, labels) if labelled is not None else {}
    progress.step("mapping the sky")
    if labelled is not None:
        sky: SkyMap | None = sky_map(labelled, labels, inputs.sky_order)
    else:
        sky = sky_map(matched, [], inputs.sky_order) if matched is not None else None
    progress.step("counting the matches")
    return Measurements(metrics, catalogue, matched_counts(matched) if matched is not None else {}, sky)


def metrics_json(inputs: ReportInputs, measured: Measurements) -> dict[str, Any]:
    """Return the content of ``metrics.json``: plain JSON types, no NaN, seven significant digits."""
    metrics, passing = measured.metrics, measured.catalogue.get("passing")
    flags = measured.catalogue.get("flags")
    fractions = flag_fractions(flags) if flags is not None and flags.rows else {}
    found: dict[str, Any] = plain_json(
        {
            "test": metrics.test,
            "by_bin": metrics.by_bin,
            "coverage": metrics.coverage,
            "cut_flow": list(inputs.cut_flow),
            "match": inputs.match,
            "regression": metrics.regression,
            "labels": list(inputs.labels),
            "model": inputs.bundle.get("id"),
            "test_stars": metrics.stars,
            "catalogue": {
                "rows": passing.rows if passing is not None else 0,
                "passing_cuts": int(passing.n[1]) if passing is not None else 0,
                "flags": {bit: number(fraction) for bit, fraction in fractions.items()},
            },
            "stages": list(inputs.stage_rows),
        }
    )
    return found


def compose(inputs: ReportInputs, measured: Measurements, numbers: Mapping[str, Any]) -> ReportContent:
    """Draw the figures and put the page together."""
    labels = measured.metrics.labels
    tested = accuracy_figures(measured.metrics, sections.published_std())
    seen = catalogue_figures(measured.catalogue, measured.matched, measured.sky, labels)
    ran = run_figures(inputs.curves, inputs.cut_flow)
    curves = [ran["training_curves"]] if "training_curves" in ran else []
    chapters = (
        sections.cut_flow(inputs.cut_flow, ran.get("cut_flow")),
        sections.cross_match(inputs.match, seen.get("separations")),
        sections.training(curves),
        sections.accuracy(numbers, labels, tested),
        sections.intervals(numbers, labels, tested.get("coverage")),
        sections.catalogue(numbers, seen),
        sections.model_chapter(inputs.bundle, labels),
        sections.provenance(inputs.stage_rows, inputs.provenance),
    )
    model = f"Model {inputs.bundle['id']}. " if inputs.bundle.get("id") else ""
    summary = (
        f"{model}Stellar parameters from photometry, with intervals; every plot is drawn from binned counts."
    )
    return ReportContent(inputs.title, summary, sections.cards(numbers, labels), chapters)


def render_report(out: Path, content: ReportContent) -> Path:
    """Write `content` as ``report.html`` with its figures beside it as PNG, and return the page's path.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("stellarml.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=lambda value: visible(value, lines=True) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    page = environment.get_template("report.html.j2").render(content=content)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    for picture in content.pictures:
        write_atomically(out / f"{picture.name}.png", picture.png)
    drawn = {picture.name for picture in content.pictures}
    with storage_errors(out):
        for name in set(FIGURES) - drawn:
            (out / f"{name}.png").unlink(missing_ok=True)
    write_atomically(out / "report.html", page)
    return out / "report.html"


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
