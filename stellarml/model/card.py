"""What a model is, for whoever finds its folder: from what it was made, how good it is and where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stellarml.core.visible_text import code_in_markdown, in_markdown
from stellarml.features.feature_file import FeatureFile
from stellarml.features.plausible_ranges import OutsideRange, range_words
from stellarml.features.split import VALIDATION
from stellarml.model.manifest import LabelRange, Manifest

CARD = "MODEL_CARD.md"


class _Code(str):
    """A cell that is Markdown already."""


def card_text(manifest: Manifest) -> str:
    """Return the card as Markdown; all numbers are those of bundle.json."""
    errors: Mapping[str, Any] = manifest.metrics.get("test", {})
    coverage: Mapping[str, Any] = manifest.metrics.get("coverage", {})
    return "\n".join(
        [
            f"# Model {in_markdown(manifest.id)}",
            "",
            f"Preset {code_in_markdown(manifest.preset)}, seed {manifest.seed}, stellarml "
            f"{in_markdown(manifest.versions.get('stellarml', '?'))}, "
            f"TensorFlow {in_markdown(manifest.versions.get('tensorflow', '?'))}.",
            f"{_number_of_networks(manifest)} Labels are those of the spectra it was trained on, errors included.",
            "",
            "## Data",
            "",
            *_table(("part", "stars"), [(part, f"{n:,}") for part, n in manifest.counts.items()]),
            "",
            *_calibrated(manifest),
            *_provenance(manifest.provenance),
            "",
            "Training range (0.1 to 99.9 percentile of the labels); predictions at its edge carry LABEL_EDGE:",
            "",
            *_table(
                ("label", "unit", "from", "to", "median", "stars"),
                [
                    (r.name, r.unit, f"{r.low:.4g}", f"{r.high:.4g}", f"{r.median:.4g}", f"{r.rows:,}")
                    for r in manifest.labels
                ],
            ),
            "",
            "## Inputs",
            "",
            *_features(manifest.features),
            "",
            "Any of them may be missing; then MISSING_BANDS or MISSING_GSPPHOT is set.",
            "A value outside its range is missing.",
            "",
            *_outside_range(manifest.outside_range),
            "",
            "## Errors on stars that took no part (prediction minus label)",
            "",
            *_errors(errors, coverage),
            "",
            "By predicted label:",
            "",
            *_by_bin(manifest.metrics.get("by_bin", []), manifest.labels),
            "",
            "## Limits",
            "",
            "- Intervals hold for stars drawn like the labelled ones; for fainter or more reddened stars they promise",
            "  less, and flags mark where the labelled stars are too few to promise anything.",
            "- Intervals are for a new spectroscopic measurement, not for the true parameter.",
            *_label_errors(manifest),
            "- Errors by true label differ from those by predicted label: rare stars are drawn towards common ones.",
            *[f"- {in_markdown(warning)}" for warning in manifest.warnings],
            "",
        ]
    )


def _number_of_networks(manifest: Manifest) -> str:
    network = manifest.networks[0]
    layers = f"{len(network.widths)} hidden layers, {min(network.widths)} to {max(network.widths)} wide"
    n = len(manifest.networks)
    return f"{n} network{'s' if n > 1 else ''} of {layers}."


def _calibrated(manifest: Manifest) -> list[str]:
    part = manifest.calibration.part
    also = ", which has also chosen the epoch of the networks" if part == VALIDATION else ""
    return [f"- intervals: calibrated on the {part} part{also} ({in_markdown(manifest.calibration.method)})"]


def _provenance(provenance: Mapping[str, Any]) -> list[str]:
    return [
        f"- {in_markdown(name.replace('_', ' '))}: {in_markdown(value)}" for name, value in provenance.items()
    ]


def _features(features: FeatureFile) -> list[str]:
    return _table(
        ("input", "unit", "range", "expression"),
        [
            (f.name, f.unit, range_words(f.range), _Code(code_in_markdown(f.expression)))
            for f in features.features
        ],
    )


def _outside_range(found: Sequence[OutsideRange]) -> list[str]:
    if not found:
        return ["No value of the training table was outside the range of its label or feature."]
    return ["In the training table:", "", *(f"- {in_markdown(one.message())}" for one in found)]


def _errors(errors: Mapping[str, Any], coverage: Mapping[str, Any]) -> list[str]:
    if not errors:
        return ["There was no test part: the errors are not known."]
    rows = [
        (
            name,
            *(f"{found[key]:.4g}" for key in ("mean", "median", "std", "mad", "mae")),
            *(f"{100 * share:.1f} %" for share in coverage.get(name, {}).values()),
            f"{found['n']:,}",
        )
        for name, found in errors.items()
    ]
    levels: Mapping[str, float] = next(iter(coverage.values()), {})
    heads = (
        "label",
        "mean",
        "median",
        "st. dev.",
        "MAD",
        "MAE",
        *(f"in the {level} % interval" for level in levels),
    )
    return _table((*heads, "stars"), rows)


def _label_errors(manifest: Manifest) -> list[str]:
    units = {label.name: label.unit for label in manifest.labels}
    lines = []
    for table in manifest.truth:
        pairs = table.noise.pairs
        source = (
            f"learnt from {pairs:,} stars with two labels and the {manifest.calibration.part} part's residuals"
            if pairs
            else "as stated, for want of stars with two labels"
        )
        lines.append(
            f"- Intervals for the true {table.label} (on request) take the errors of labels for "
            f"{table.usual_error:.3g} {in_markdown(units[table.label])} (half of what holds 68 %), {source}."
        )
    return lines or [
        "- There are none for true parameters: too few calibration stars state the errors of their labels."
    ]


def _by_bin(bins: Sequence[Mapping[str, Any]], labels: Sequence[LabelRange]) -> list[str]:
    units = {label.name: label.unit for label in labels}
    rows = [
        (
            f"{b['label']} [{units[b['label']]}]",
            f"{b['low']:.4g} to {b['high']:.4g}",
            f"{b['median']:.3g}",
            f"{b['mad']:.3g}",
            f"{100 * b['coverage_68']:.1f} %",
            f"{b['n']:,}",
        )
        for b in bins
        if b["by"] == "predicted"
    ]
    return _table(("label", "bin", "median error", "MAD", "in the 68 % interval", "stars"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
        *(
            "| " + " | ".join(cell if isinstance(cell, _Code) else in_markdown(cell) for cell in row) + " |"
            for row in rows
        ),
    ]
