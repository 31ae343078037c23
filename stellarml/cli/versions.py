"""The commands on labelled catalogues: which there are, and how two of them differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stellarml.cli.options import ConfigFile, Overrides, Profile, configured
from stellarml.cli.screen import Screen, say

if TYPE_CHECKING:
    from stellarml.labelling.compare import Difference


def models(
    config: ConfigFile,
    profile: Profile = None,
    overrides: Overrides = None,
    prune: Annotated[
        int | None, typer.Option(help="Remove all but so many newest versions; the published one stays.")
    ] = None,
) -> None:
    """List the versions labelled so far, which is current, and what each was made from."""
    from stellarml.labelling.versions import prune as prune_versions
    from stellarml.labelling.versions import versions_of

    settings = configured(config, profile, overrides)
    if prune is not None:
        for name in prune_versions(settings.labels_folder, prune):
            say(f"removed {name}")
    table = Table(title=str(settings.labels_folder), title_justify="left")
    found = versions_of(settings.labels_folder)
    table.add_column("model", no_wrap=True, min_width=max((len(version.id) for version in found), default=0))
    for name in ("current", "preset"):
        table.add_column(name)
    for name in ("rows", "without a flag", "level", "tiles"):
        table.add_column(name, justify="right")
    table.add_column("made from")
    for version in found:
        record = version.record
        rows, clean = record["rows"]["out"], record["rows"]["without_flag"]
        preset = record.get("preset", "")
        inputs = ", ".join(f"{Path(r['path']).name} {r['fingerprint'][:8]}" for r in record["inputs"])
        share = f"{100 * clean / rows:.1f} %" if rows else "-"
        level = f"{version.level} %"
        current = "yes" if version.current else ""
        table.add_row(version.id, current, preset, f"{rows:,}", share, level, str(record["units"]), inputs)
    Screen().print(table if found else "No version has been labelled yet: run  stellarml label.")


def diff(
    first: Annotated[str, typer.Argument(metavar="MODEL_A", help="A version that `stellarml models` lists.")],
    second: Annotated[str, typer.Argument(metavar="MODEL_B", help="Another one.")],
    config: ConfigFile,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the numbers to this JSON file, too.")
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
) -> None:
    """Show how many stars moved between two labelled versions, by how much, by bin."""
    from stellarml.core.files import write_atomically
    from stellarml.labelling.compare import compare
    from stellarml.labelling.versions import version_named
    from stellarml.run.ownership import claimed
    from stellarml.run.spark_session import start_session

    settings = configured(config, profile, overrides)
    versions = version_named(settings.labels_folder, first), version_named(settings.labels_folder, second)
    found = compare(start_session(settings.spark), *versions)
    console = Screen()
    console.print(
        f"{found.both:,} stars in both, {found.only_first:,} only in {first}, {found.only_second:,} only in "
        f"{second}; quality_flags differ for {100 * found.flags_differ:.2f} %",
        soft_wrap=True,
    )
    levels = {version.level for version in versions}
    if len(levels) > 1:
        stated = " and ".join(f"{version.id}: {version.level} %" for version in versions)
        console.print(f"Their intervals are of different levels, {stated}.", soft_wrap=True)
    console.print(_table(found, first, second))
    if out is not None:
        with claimed(out):
            write_atomically(
                out, json.dumps({"first": first, "second": second, **asdict(found)}, indent=1) + "\n"
            )
        say(f"{out}: written")


def _table(found: Difference, first: str, second: str) -> Table:
    table = Table(title=f"{second} minus {first}", title_justify="left")
    table.add_column("label")
    table.add_column(f"bin of {first}")
    for name in ("stars", "16 %", "median", "84 %", "largest", "left its interval"):
        table.add_column(name, justify="right")
    for row in found.moved:
        digits = 1 if row.largest > 20 or row.label == "teff" else 3
        span = "all" if row.low is None else f"{row.low:g} to {row.high:g}"
        numbers = [f"{value:.{digits}f}" for value in (*row.quantiles, row.largest)]
        table.add_row(row.label, span, f"{row.stars:,}", *numbers, f"{100 * row.beyond:.2f} %")
    return table
