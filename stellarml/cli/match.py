"""The commands on any catalogues: match two of them, write the margin of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stellarml.cli.options import Out, Overrides, Overwrite, Profile, configured
from stellarml.cli.screen import Screen, say
from stellarml.core.errors import UserError
from stellarml.crossmatch.modes import Join, Mode
from stellarml.storage.formats import Format


def match(
    left: Annotated[Path, typer.Argument(help="A file, a folder, or a HATS catalogue or collection.")],
    right: Annotated[Path, typer.Argument(help="The same, for the other catalogue.")],
    out: Out,
    left_survey: Annotated[str, typer.Option(help="Shipped survey or path to a TOML, for LEFT.")],
    right_survey: Annotated[str, typer.Option(help="Shipped survey or path to a TOML, for RIGHT.")],
    mode: Annotated[
        Mode,
        typer.Option(help="all good neighbours, the best of each left source, or unique one-to-one pairs."),
    ] = Mode.best,
    join: Annotated[
        Join, typer.Option(help="inner: matched rows; left: all left rows; anti: left rows without a match.")
    ] = Join.inner,
    radius_arcsec: Annotated[
        float | None,
        typer.Option(help="Fixed radius in arcsec, nearest is best; default: the surveys' errors."),
    ] = None,
    remove_frame_offset: Annotated[
        bool,
        typer.Option(
            "--remove-frame-offset",
            help="Measure RIGHT's offset from LEFT in cells of the sky, and take it off first.",
        ),
    ] = False,
    columns: Annotated[
        str,
        typer.Option(
            help="all, ids, or names separated by commas (left.NAME, right.NAME where both have it)."
        ),
    ] = "all",
    format: Annotated[Format, typer.Option(help="Format of the table of matches.")] = Format.hats,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Match any two catalogues by position, errors, epochs and proper motions; write them and the statistics."""
    from stellarml.cli.summary import match_table
    from stellarml.run.spark_session import start_session
    from stellarml.standalone.match import MatchOptions, check_match, match_catalogues

    if radius_arcsec is not None and radius_arcsec <= 0:
        raise UserError(f"--radius-arcsec is {radius_arcsec}; expected more than 0")
    given = [f"crossmatch.radius_arcsec={radius_arcsec}"] if radius_arcsec is not None else []
    given += ["crossmatch.frame_offset=measure"] if remove_frame_offset else []
    settings = configured(None, profile, [*(overrides or []), *given])
    options = MatchOptions(mode, join, columns, format)
    surveys = (left_survey, right_survey)
    check_match(settings, (left, right), surveys, options)
    record = match_catalogues(
        start_session(settings.spark), settings, (left, right), surveys, out, options, overwrite=overwrite
    )
    Screen().print(match_table(record))
    say(f"{out}: {record['rows']['out']} rows")


def margin(
    catalogue: Annotated[Path, typer.Argument(help="A HATS catalogue or collection.")],
    arcsec: Annotated[float, typer.Option(help="How far beyond each tile its margin reaches.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the margin catalogue; beside the catalogue by default.")
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the margin catalogue that other tools (LSDB) need to match across tile borders."""
    from stellarml.run.spark_session import start_session
    from stellarml.standalone.margin import write_margin

    settings = configured(None, profile, overrides)
    record = write_margin(
        start_session(settings.spark), settings, catalogue, arcsec, out, overwrite=overwrite
    )
    say(f"margin of {arcsec:g} arcsec: {record['rows']['out']} rows")
