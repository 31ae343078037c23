"""What the report says, chapter by chapter: the tables, the words around them, and which figure goes where.

The paper's numbers (Turchi et al. 2024, its Table 2, test set) stand beside ours. They were measured on other stars
and other labels, which the page says wherever they appear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stellarml.core.names import BIN_EDGES
from stellarml.core.quality_flags import DESCRIPTIONS, QualityFlag
from stellarml.report.accuracy import Label
from stellarml.report.blocks import (
    Block,
    Card,
    Chapter,
    Note,
    Picture,
    Table,
    key_value_table,
    measured,
    percent,
    shown,
    symbol,
)

PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "teff": {"mean": "−6.8", "median": "−5.0", "std": "85.0", "mad": "70.5"},
    "logg": {"mean": "0.016", "median": "0.011", "std": "0.14", "mad": "0.086"},
    "feh": {"mean": "0.016", "median": "0.0097", "std": "0.12", "mad": "0.083"},
}
"""Residuals of the paper's test part, as printed: K, dex, dex."""
STATISTICS = (("mean", "mean"), ("median", "median"), ("std", "st. dev."), ("mad", "MAD"))
_SUMMARY_KEYS = (
    *("id", "preset", "created_utc", "warnings", "counts", "split", "calibrated_on", "seed", "seeds"),
    *("networks", "widths", "losses"),
)


def cards(metrics: Mapping[str, Any], labels: Sequence[Label]) -> list[Card]:
    """Return the numbers at the top: catalogue, test stars, MAD of each label."""
    catalogue = metrics["catalogue"]
    top = [
        Card(
            "stars labelled", shown(catalogue["rows"]), f"{shown(catalogue['passing_cuts'])} pass every cut"
        ),
        Card("test stars", shown(metrics["test_stars"]), "never seen by a network"),
    ]
    for label in labels:
        published = PUBLISHED.get(label.name, {}).get("mad")
        remark = f"paper: {published} {label.unit}" if published is not None else ""
        mad = _with_unit(metrics["test"][label.name]["mad"], label.unit)
        top.append(Card(Markup("MAD of {}").format(symbol(label.name)), mad, remark))
    return top


def published_std() -> dict[str, float]:
    """Return the paper's standard deviation of each label, in its unit."""
    return {name: float(values["std"]) for name, values in PUBLISHED.items()}


def _with_unit(value: float | None, unit: str) -> str:
    return shown(None) if value is None else f"{measured(value)} {unit}"


def cut_flow(rows: Sequence[Mapping[str, Any]], picture: Picture | None) -> Chapter:
    """Tell how many rows each cut leaves."""
    if not rows:
        return Chapter(
            "Cut-flow", [Note("No cut-flow was recorded: the stage select has not run.", warning=True)]
        )
    blocks: list[Block] = [
        Note(
            "Cuts are applied in the order shown; no row is deleted, a row that fails carries the cut's bit in "
            "cuts_failed. “Failed alone” counts the rows that a cut would remove on its own."
        )
    ]
    blocks += [picture] if picture else []
    surveys = list(dict.fromkeys(str(row["survey"]) for row in rows))
    for survey in surveys:
        steps = [row for row in rows if str(row["survey"]) == survey]
        whole = int(steps[0].get("rows_left") or 0)
        lines = []
        for step in steps:
            left = step.get("rows_left")
            fraction = percent(left / whole if whole and left is not None else None)
            kept = [str(step["cut"]), str(step.get("where") or ""), str(step.get("reason") or "")]
            lines.append([*kept, shown(left), fraction, shown(step.get("failed_alone"))])
        head = ("cut", "a row stays where", "reason", "rows left", "of all", "failed alone")
        blocks.append(Table(f"Cut-flow of {survey}", head, lines, lead=3))
    return Chapter("Cut-flow", blocks)


def cross_match(match: Mapping[str, Any], picture: Picture | None) -> Chapter:
    """Show whatever the match counted, and the separations."""
    blocks: list[Block] = []
    if match:
        blocks.append(key_value_table("Match statistics", match))
    else:
        blocks.append(Note("No match statistics were recorded.", warning=True))
    blocks.append(picture or Note("No matched pair: there is no separation to show.", warning=True))
    return Chapter("Cross-match", blocks)


def training(pictures: Sequence[Picture]) -> Chapter:
    """Show the training curves."""
    return Chapter("Training", pictures or [Note("No training curve was recorded.", warning=True)])


def accuracy(metrics: Mapping[str, Any], labels: Sequence[Label], pictures: Mapping[str, Picture]) -> Chapter:
    """Show Table 2 beside the paper's, Figures 1 and 2, residual trends and the tables by bins."""
    blocks: list[Block] = [
        Note(
            "Residuals are predicted minus spectroscopic, on the test part: stars held out by a hash of source_id, "
            "which no network, scaler or calibration has seen. MAD is 1.4826 times the median absolute deviation "
            "from the median. They hold the errors of the spectroscopic labels too."
        ),
        _table_2(metrics, labels),
    ]
    if not any(metrics["test"][label.name]["n"] for label in labels):
        text = "No star of the test part has both a spectroscopic label and a prediction: nothing can be measured."
        return Chapter("Test set", [*blocks, Note(text, warning=True)])
    blocks += [pictures[name] for name in ("one_to_one", "errors", "residuals") if name in pictures]
    return Chapter("Test set", [*blocks, *_regression_tables(metrics, labels), *_bin_tables(metrics, labels)])


def _table_2(metrics: Mapping[str, Any], labels: Sequence[Label]) -> Table:
    lines = []
    for label in labels:
        mine, paper = metrics["test"][label.name], PUBLISHED.get(label.name, {})
        line = [symbol(label.name), label.unit]
        for key, _ in STATISTICS:
            line += [measured(mine[key]), paper.get(key, shown(None))]
        lines.append([*line, shown(mine["n"])])
    head = ["label", "unit"]
    for _, name in STATISTICS:
        head += [name, "paper"]
    caption = (
        "Table 2. Residuals of the test part. “Paper”: Turchi et al. 2024, its test part, a tenth (about 62,441) of "
        "624,410 stars with labels of the Survey of Surveys; other stars and other labels than here, so a guide and "
        "not a contest."
    )
    return Table(caption, [*head, "stars"], lines, lead=2, quiet=frozenset(range(3, len(head), 2)))


def _regression_tables(metrics: Mapping[str, Any], labels: Sequence[Label]) -> list[Block]:
    """Show the bias in bins of the label and of the prediction side by side; [Fe/H] unfolded."""
    tables: list[Block] = []
    for label in labels:
        lines = []
        for row in metrics["regression"]:
            if row["label"] != label.name or not row["n"]:
                continue
            whole = row["lo"] is None
            span = "all bins" if whole else f"{shown(row['lo'])} to {shown(row['hi'])}"
            numbers = [measured(row[key]) for key in ("median", "mad", "slope")]
            lines.append([str(row["by"]), span, *numbers, shown(row["n"])])
        name = Markup("{} [{}]").format(symbol(label.name), label.unit)
        caption = Markup(
            "Regression to the mean: {}, residuals in bins of the spectroscopic label and of the prediction. A label's "
            "own noise puts part of the bias and slope into bins of the label; bins of the prediction are free of it"
        ).format(name)
        head = ("bins of", "bin", "median", "MAD", "slope", "stars")
        if lines:
            tables.append(Table(caption, head, lines, lead=2, folded=label.name != "feh"))
    return tables


def _bin_tables(metrics: Mapping[str, Any], labels: Sequence[Label]) -> list[Block]:
    units = {label.name: label.unit for label in labels}
    tables: list[Block] = []
    for by in dict.fromkeys(row["by"] for row in metrics["by_bin"]):
        lines = []
        for row in metrics["by_bin"]:
            if row["by"] != by or not row["n"]:
                continue
            span = f"{shown(row['lo'])} to {shown(row['hi'])}"
            numbers = [measured(row[key]) for key, _ in STATISTICS]
            name = Markup("{} [{}]").format(symbol(row["label"]), units[row["label"]])
            lines.append([name, span, *numbers, percent(row["coverage"]), shown(row["n"])])
        unit = units.get(by, "mag" if by in BIN_EDGES else "")
        of = "spectroscopic " if by in units else ""
        caption = Markup("Residuals by {}{} [{}], bins half-open").format(of, symbol(by), unit)
        head = ("residual of", "bin", *(name for _, name in STATISTICS), "inside interval", "stars")
        tables.append(Table(caption, head, lines, lead=2, folded=True))
    return tables


def intervals(metrics: Mapping[str, Any], labels: Sequence[Label], picture: Picture | None) -> Chapter:
    """Show how often the spectroscopic value lies inside the interval."""
    coverage = metrics["coverage"]
    nominal = percent(coverage.get("level"), decimals=0)
    lines = []
    for label in labels:
        row = coverage.get(label.name, {})
        covered, width = percent(row.get("fraction")), _with_unit(row.get("median_half_width"), label.unit)
        lines.append([symbol(label.name), nominal, covered, width, shown(row.get("n", 0))])
    head = ("label", "nominal", "spectroscopic values inside", "median half-width", "stars")
    blocks: list[Block] = [
        Note("An interval is for a new spectroscopic measurement of the star, not for its true parameter."),
        Table("Coverage of the intervals on the test set", head, lines),
    ]
    return Chapter("Intervals", [*blocks, *([picture] if picture else [])])


def catalogue(metrics: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Chapter:
    """Show the labelled catalogue: Kiel and colour-magnitude diagrams, sky, flags."""
    numbers = metrics["catalogue"]
    if not numbers["rows"]:
        return Chapter("Catalogue", [Note("No star has been labelled.", warning=True)])
    blocks: list[Block] = [pictures[name] for name in ("kiel", "colour_magnitude", "sky") if name in pictures]
    if numbers["flags"]:
        lines = []
        known = {int(flag): flag for flag in QualityFlag}
        for bit, fraction in numbers["flags"].items():
            flag = known.get(1 << int(bit))
            name = str(flag.name) if flag is not None else f"bit {bit}"
            meaning = DESCRIPTIONS.get(flag, "").replace("`", "") if flag is not None else ""
            lines.append([name, str(1 << int(bit)), meaning, percent(fraction, decimals=2)])
        head = ("flag", "value", "meaning", "stars")
        blocks.append(Table("Bits of quality_flags over all labelled stars", head, lines, lead=3))
    return Chapter("Catalogue", blocks)


def model_chapter(bundle: Mapping[str, Any], labels: Sequence[Label]) -> Chapter:
    """Tell what the model is, what it was made from and what it is for."""
    if not bundle:
        return Chapter("Model card", [Note("No model was given.", warning=True)])
    names = ", ".join(f"{label.name} [{label.unit}]" for label in labels)
    first = {key: bundle[key] for key in _SUMMARY_KEYS if key in bundle}
    rest = {key: value for key, value in bundle.items() if key not in _SUMMARY_KEYS}
    blocks: list[Block] = [
        Note(
            f"Made for: {names} of single stars that have Gaia DR3 and multi-band photometry, inside the range of the "
            "training labels. Not for: white dwarfs, unresolved binaries of similar brightness, galaxies and "
            "quasars, stars hotter than the training set; quality_flags marks what lies outside. Selection effects "
            "of the spectroscopic surveys (bright stars, mostly) are in the training set, and so in the model."
        ),
        key_value_table("Model", first),
    ]
    if rest:
        blocks.append(key_value_table("Everything else in the bundle's summary", rest, folded=True))
    return Chapter("Model card", blocks)


def provenance(stages: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Chapter:
    """Tell what each stage did, and with what the page was made."""
    blocks: list[Block] = []
    if stages:
        lines = [
            [
                str(row.get("stage", "")),
                shown(row.get("rows_in")),
                shown(row.get("rows_out")),
                f"{row['seconds']:,.1f}" if row.get("seconds") is not None else shown(None),
                f"{row['peak_memory_bytes'] / 1e9:.2f}"
                if row.get("peak_memory_bytes") is not None
                else shown(None),
            ]
            for row in stages
        ]
        head = ("stage", "rows in", "rows out", "seconds", "peak memory [GB]")
        blocks.append(Table("Stages", head, lines))
    if record:
        blocks.append(key_value_table("Run", record, folded=True))
    return Chapter("Provenance", blocks or [Note("No record of the run was given.", warning=True)])
