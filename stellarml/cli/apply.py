"""The command apply: a model made elsewhere labels one's own field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stellarml.cli.options import ConfigFile, Overrides, Overwrite, Profile, configured
from stellarml.cli.screen import say
from stellarml.core.errors import UserError


def apply(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or its id among those of paths.models.")],
    config: ConfigFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the labelled catalogue; default: paths.labels.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Per cent inside the intervals: 68, 90 or 95.")] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Label your own field with a model made elsewhere: ingest, match and label, no spectroscopic labels needed."""
    from stellarml.run.spark_session import start_session
    from stellarml.stages.chain import APPLY_STAGES, apply_model, without_labels
    from stellarml.stages.preflight import preflight

    given = [] if level is None else [f"label.level={level}"]
    settings = without_labels(configured(config, profile, [*(overrides or []), *given]))
    if out is not None:
        paths = settings.paths.model_copy(update={"labels": out.absolute()})
        settings = settings.model_copy(update={"paths": paths})
    folder = model if model.is_dir() else settings.models_folder / model
    if not folder.is_dir():
        raise UserError(f"{model}: no such model, neither a folder nor an id in {settings.models_folder}")
    preflight(settings, APPLY_STAGES, model=folder)
    record = apply_model(start_session(settings.spark), settings, folder, overwrite=overwrite)
    say("label: " + ", ".join(f"{name} {count}" for name, count in record["rows"].items()))
    say(f"labels: {settings.labels_folder / record['model_id']}")
