"""What a run prints when it ends: rows of every stage, the cut-flow, accuracy, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table

from stellarml.core.config import Config
from stellarml.intervals.conformal import LEVELS
from stellarml.report.chapters import PUBLISHED
from stellarml.run.log import UNCHANGED
from stellarml.run.marks import Record

_STATISTICS = ("mean", "median", "std", "mad")


def show_summary(
    console: Console,
    metrics: Mapping[str, Any],
    config: Config,
    records: Mapping[str, Record] | None = None,
) -> None:
    """Print the tables of a finished chain, and where its catalogue, model and report are.

    Parameters
    ----------
    metrics
        Content of metrics.json.
    records
        What the stages of this run returned, by stage, if they ran: what was unchanged took no time.
    """
    console.print(stage_table(metrics["stages"], records or {}))
    console.print(cut_flow_table(metrics["cut_flow"]))
    console.print(accuracy_table(metrics))
    model = metrics["model"]
    for what, path in (
        ("Catalogue", config.labels_folder / model),
        ("Model", config.models_folder / model),
        ("Report", config.report_folder / "report.html"),
    ):
        console.print(f"{what + ':':<11}{path}", soft_wrap=True, markup=False, highlight=False)


def show_next(console: Console, metrics: Mapping[str, Any], config: Config) -> None:
    """Print a command to go on with: the model of a finished chain on a table."""
    model = config.models_folder / metrics["model"]
    command = (
        f"stellarml label --table {quote(str(config.lake_folder / 'matched'))} --model {quote(str(model))} "
        f"--out {quote(str(config.root / 'labelled.fits'))} --level 90"
    )
    console.print(
        "\nNext, label a table with this model (here the matched stars; any table with the same columns will do):",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"  {command}", soft_wrap=True, markup=False, highlight=False)


def stage_table(stages: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> Table:
    """Return rows in and out, seconds and memory of every stage, and the seconds of this run.

    A stage that this run has found unchanged has no seconds.
    """
    ran = [one for record in records.values() for one in record.get("surveys", {"": record}).values()]
    unchanged = {record["stage"] for record in ran if record.get(UNCHANGED)}
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    for name in ("rows in", "rows out", "seconds", "peak memory"):
        table.add_column(name, justify="right")
    for row in stages:
        memory = f"{row['peak_memory_bytes'] / 2**30:.1f} GiB"
        seconds = "unchanged" if row["stage"] in unchanged else f"{row['seconds']:.1f}"
        table.add_row(row["stage"], f"{row['rows_in']:,}", f"{row['rows_out']:,}", seconds, memory)
    if ran:
        total = sum(record["seconds"] for record in ran if not record.get(UNCHANGED))
        table.add_section()
        table.add_row("this run, with the report", "", "", f"{total:.1f}", "")
    return table


def cut_flow_table(flow: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows left after each cut, and what each cut alone removes."""
    table = Table(title="Cut-flow", title_justify="left")
    for name in ("survey", "cut"):
        table.add_column(name)
    for name in ("rows left", "fail it alone"):
        table.add_column(name, justify="right")
    for row in flow:
        table.add_row(row["survey"], row["cut"], f"{row['rows_left']:,}", f"{row['failed_alone']:,}")
    return table


def accuracy_table(metrics: Mapping[str, Any]) -> Table:
    """Return Table 2: predicted minus spectroscopic on the test part, beside the paper's."""
    table = Table(title="Table 2: predicted - spectroscopic, test part", title_justify="left")
    table.add_column("label")
    for name in ("n", *_STATISTICS):
        table.add_column(name, justify="right")
    units = {label["name"]: label["unit"] for label in metrics["labels"]}
    for name, found in metrics["test"].items():
        digits = 1 if units.get(name) == "K" else 3
        shown = [_number(found[s], digits) for s in _STATISTICS]
        table.add_row(f"{name} ({units.get(name, '')})", f"{found['n']:,}", *shown)
        if name in PUBLISHED:
            table.add_row(
                "  paper, on its own data", "", *(_number(PUBLISHED[name][s], digits) for s in _STATISTICS)
            )
    return table


def model_table(labels: Sequence[tuple[str, str]], metrics: Mapping[str, Any]) -> Table:
    """Return the accuracy of a model on its test part: errors, and how often the intervals hold the label.

    Parameters
    ----------
    labels
        Name and unit of each.
    metrics
        Of the bundle: ``test`` and ``coverage`` by label; empty where the test part has no star.
    """
    table = Table(title="Accuracy: predicted - label, test part", title_justify="left")
    table.add_column("label")
    for name in ("stars", "mean", "MAE", "std", *(f"in {level} %" for level in LEVELS)):
        table.add_column(name, justify="right")
    for name, unit in labels:
        found = metrics.get("test", {}).get(name)
        if found is None:
            table.add_row(f"{name} ({unit})", "0", *["-"] * (3 + len(LEVELS)))
            continue
        digits = 1 if unit == "K" else 3
        errors = [_number(found[s], digits) for s in ("mean", "mae", "std")]
        inside = [f"{100 * metrics['coverage'][name][str(level)]:.1f} %" for level in LEVELS]
        table.add_row(f"{name} ({unit})", f"{found['n']:,}", *errors, *inside)
    return table


def _number(value: float | str | None, digits: int) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{value:.{digits}f}"


def match_table(record: Mapping[str, Any]) -> Table:
    """Return what a match of two catalogues found: rows, multiplicities, separations, frame offset."""
    found = record["match"]
    table = Table(title="Match", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("number", justify="right")
    many = {
        name: sum(n for value, n in counts.items() if int(value) > (0 if "mates" in name else 1))
        for name, counts in found["multiplicity"].items()
    }
    left = found["left_taking_part"]
    rows = [
        ("left rows", f"{found['left_rows']:,}"),
        ("right rows", f"{found['right_rows']:,}"),
        *(
            (f"{side} rows rejected when read", f"{record['rows'][f'{side}_rejected']:,}")
            for side in ("left", "right")
            if record["rows"].get(f"{side}_rejected")
        ),
        ("left rows with a counterpart", _part(found["left_with_neighbours"], left)),
        ("left rows without", _part(found["left_without"], left)),
        ("good neighbours (pairs)", f"{found['pairs']:,}"),
        ("unique, one to one", _part(found["unique"], left)),
        ("left rows with several neighbours", f"{many['number_of_neighbours']:,}"),
        ("best neighbours that others chose too", f"{many['number_of_mates']:,}"),
        ("best neighbours within reach of others", f"{many['number_of_reverse_neighbours']:,}"),
        ("fast movers resolved first", f"{found['fast_movers']:,}"),
    ]
    quantiles = [found[f"separation_arcsec_p{p}"] for p in (16, 50, 84)]
    if None not in quantiles:
        shown = " / ".join(f"{q:.3f}" for q in quantiles)
        rows.append(("separation of unique pairs, 16 / 50 / 84 %, arcsec", shown))
    offset = [found.get(f"offset_{axis}_mas") for axis in ("ra", "dec")]
    if None not in offset:
        rows.append(("right minus left, medians east / north, mas", f"{offset[0]:+.0f} / {offset[1]:+.0f}"))
    if "frame" in found:
        cells = sum(cell["from_order"] is not None for cell in found["frame"]["cells"])
        rows.append(("cells whose frame offset was taken off", f"{cells:,}"))
    for name, number in [*rows, ("rows written", f"{record['rows']['out']:,}")]:
        table.add_row(name, number)
    return table


def _part(number: int, whole: int) -> str:
    return f"{number:,} ({100.0 * number / whole:.1f} %)" if whole else f"{number:,}"
