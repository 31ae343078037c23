"""The command line. Exit status: 0; 2 a user's mistake; 75 the output is in use by a living run; 1 anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stellarml import __version__
from stellarml.cli.apply import apply
from stellarml.cli.exit_status import run_to_the_end
from stellarml.cli.match import margin, match
from stellarml.cli.options import (
    ConfigFile,
    MaybeConfigFile,
    Out,
    Overrides,
    Overwrite,
    Profile,
    configured,
)
from stellarml.cli.progress_bar import configure_output
from stellarml.cli.screen import Screen, say
from stellarml.cli.versions import diff, models
from stellarml.core import progress
from stellarml.core.config import Config, load_config
from stellarml.core.errors import UserError
from stellarml.run.ownership import claimed
from stellarml.storage.formats import SUFFIXES
from stellarml.training.presets import PRESETS

app = typer.Typer(
    name="stellarml",
    help="Teff, log g and [Fe/H], each with an interval, for stars that only have photometry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        say(__version__)
        raise typer.Exit


def _run_chain(config: Config, overwrite: bool, *, first: bool = False) -> None:
    """Run every stage and print the summary; to somebody's `first` run, say how to go on."""
    from stellarml.cli.summary import show_next, show_summary
    from stellarml.run.spark_session import start_session
    from stellarml.stages.chain import STAGES, run_all
    from stellarml.stages.preflight import preflight
    from stellarml.stages.report import read_metrics

    preflight(config, STAGES)
    records = run_all(start_session(config.spark), config, overwrite=overwrite)
    metrics = read_metrics(config.report_folder)
    show_summary(Screen(), metrics, config, records)
    if first:
        show_next(Screen(), metrics, config)


@app.command(epilog="Example: stellarml demo --out demo --stars 50000")
def demo(
    out: Out,
    stars: Annotated[int, typer.Option(help="Simulated Gaia sources.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Same seed, same sky.")] = 1,
    overrides: Overrides = None,
) -> None:
    """Simulate a sky, run the whole chain on it, print the summary, and where everything is."""
    simulate(out, stars, seed)
    _run_chain(configured(out / "config.toml", None, overrides), overwrite=False, first=True)


@app.command(epilog="Example: stellarml simulate --out sky --stars 1000000 --seed 7")
def simulate(
    out: Out,
    stars: Annotated[int, typer.Option(help="Simulated Gaia sources.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
) -> None:
    """Write a simulated sky as the archives' own files, the truth, and the config.toml that runs on them."""
    from pydantic import ValidationError

    from stellarml.simulate import SimulateSettings
    from stellarml.simulate.demo_folder import make_sky

    configure_output(load_config().log)
    try:
        settings = SimulateSettings(stars=stars, seed=seed)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"simulate: {problems}") from None
    with claimed(out), progress.task("simulate"):
        summary = make_sky(out, settings)
    rows = ", ".join(f"{name} {count:,}" for name, count in summary.rows.items())
    say(f"{out}: {rows}")


@app.command(epilog="Example: stellarml run --config demo/config.toml --set train.preset=paper")
def run(
    config: ConfigFile, profile: Profile = None, overrides: Overrides = None, overwrite: Overwrite = False
) -> None:
    """Run the whole chain; what is unchanged is skipped, what was killed goes on."""
    _run_chain(configured(config, profile, overrides), overwrite)


def _stage(name: str, config: Config, overwrite: bool) -> dict[str, Any]:
    from stellarml.run.spark_session import start_session
    from stellarml.stages.chain import run_stage
    from stellarml.stages.preflight import preflight

    preflight(config, [name])
    return run_stage(name, start_session(config.spark), config, overwrite=overwrite)


def _show_rows(record: dict[str, Any]) -> None:
    say(f"{record['stage']}: " + ", ".join(f"{k} {v}" for k, v in record["rows"].items()))


@app.command(epilog="Example: stellarml ingest --config config.toml --survey gaia_dr3")
def ingest(
    config: ConfigFile,
    survey: Annotated[
        str | None, typer.Option(help="One survey; all that the file names by default.")
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Read raw survey files, set cut bits, and write them as HATS tables."""
    from stellarml.run.spark_session import start_session
    from stellarml.stages.ingest import ingest_survey
    from stellarml.stages.preflight import preflight

    settings = configured(config, profile, overrides)
    if survey is None:
        for record in _stage("ingest", settings, overwrite)["surveys"].values():
            _show_rows(record)
    else:
        preflight(settings, ["ingest"], [survey])
        _show_rows(ingest_survey(start_session(settings.spark), settings, survey, overwrite=overwrite))


@app.command(epilog="Example: stellarml select --config config.toml")
def select(
    config: ConfigFile, profile: Profile = None, overrides: Overrides = None, overwrite: Overwrite = False
) -> None:
    """Join the distances and count the cut-flow of both surveys."""
    from stellarml.cli.summary import cut_flow_table

    record = _stage("select", configured(config, profile, overrides), overwrite)
    _show_rows(record)
    Screen().print(cut_flow_table(record["cut_flow"]))


@app.command(epilog="Example: stellarml crossmatch --config config.toml --set crossmatch.scope=selected")
def crossmatch(
    config: ConfigFile, profile: Profile = None, overrides: Overrides = None, overwrite: Overwrite = False
) -> None:
    """Match stars and photometry one to one, tile by tile."""
    _show_rows(_stage("crossmatch", configured(config, profile, overrides), overwrite))


@app.command(epilog="Example: stellarml features --config config.toml")
def features(
    config: ConfigFile, profile: Profile = None, overrides: Overrides = None, overwrite: Overwrite = False
) -> None:
    """Join matched stars with labels and compute the model's inputs."""
    _show_rows(_stage("features", configured(config, profile, overrides), overwrite))


@app.command(epilog="Example: stellarml train --table stars.parquet --features my_features.toml --out model")
def train(
    config: MaybeConfigFile = None,
    table: Annotated[
        Path | None, typer.Option(help="Any table with labels, instead of the chain's own.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Feature file (TOML) for --table.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new model, for --table.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights.")] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Fit the networks, calibrate the intervals, write the model bundle."""
    given = [f"train.preset={preset}"] if preset else []
    given += [f"train.seed={seed}"] if seed is not None else []
    settings = configured(config, profile, [*(overrides or []), *given])
    if table is None:
        if config is None:
            raise UserError("train: give --config FILE, or --table FILE with --features TOML and --out DIR")
        if features is not None or out is not None:
            raise UserError(
                "train: --features and --out go with --table; the chain's are features.file and paths.models of its "
                "--config"
            )
        record = _stage("train", settings, overwrite)
        _show_rows(record)
        _show_model(settings.models_folder / record["model_id"])
        return
    if features is None or out is None:
        raise UserError("train: --table needs --features TOML and --out DIR")
    from stellarml.run.spark_session import start_session
    from stellarml.standalone.own_table import learn_planned
    from stellarml.standalone.own_table_plan import plan_learning

    plan = plan_learning(table, features, out)
    with claimed(out):
        spark = start_session(settings.spark)
        with progress.task("train"):
            path = learn_planned(spark, settings, plan)
    _show_model(path)


def _show_model(path: Path) -> None:
    from stellarml.cli.summary import model_table
    from stellarml.model.bundle import load_bundle

    manifest = load_bundle(path).manifest
    labels = [(label.name, label.unit) for label in manifest.labels]
    Screen().print(model_table(labels, manifest.metrics))
    say(f"model: {path}")


@app.command(
    epilog="Example: stellarml label --table new.parquet --model model --out labels.parquet --level 90"
)
def label(
    config: MaybeConfigFile = None,
    table: Annotated[Path | None, typer.Option(help="Any table with the features' columns.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder, for --table.")] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"File to write ({', '.join(SUFFIXES)}), for --table.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Per cent inside the intervals: 68, 90 or 95.")] = None,
    truth_intervals: Annotated[
        bool,
        typer.Option("--truth-intervals", help="Intervals of the true parameters, too (NAME_true_lo, _hi)."),
    ] = False,
    keep_going: Annotated[
        bool | None,
        typer.Option(
            "--keep-going/--strict",
            help="After a tile that failed: do all others (label.keep_going, the default), or stop.",
            show_default=False,
        ),
    ] = None,
    profile: Profile = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> None:
    """Label every matched star, or every row of a table, with intervals and flags."""
    given = [] if level is None else [f"label.level={level}"]
    given += ["label.truth_intervals=true"] if truth_intervals else []
    given += [] if keep_going is None else [f"label.keep_going={str(keep_going).lower()}"]
    settings = configured(config, profile, [*(overrides or []), *given])
    if table is None:
        if config is None:
            raise UserError("label: give --config FILE, or --table FILE with --model DIR and --out FILE")
        if model is not None or out is not None:
            raise UserError(
                "label: --model and --out go with --table; a chain's model is label.model of its --config"
            )
        _show_rows(_stage("label", settings, overwrite))
        return
    if model is None or out is None:
        raise UserError("label: --table needs --model DIR and --out FILE")
    if keep_going is not None:
        raise UserError(
            "label: --keep-going and --strict are about the chain's tiles; a --table is labelled whole"
        )
    from stellarml.run.spark_session import start_session
    from stellarml.standalone.own_table import label_planned
    from stellarml.standalone.own_table_plan import plan_labelling

    plan = plan_labelling(table, model, out)
    with claimed(out):
        spark = start_session(settings.spark)
        with progress.task("label"):
            rows = label_planned(spark, settings, plan)
    say(f"{out}: {rows} rows")


app.command(epilog="Example: stellarml apply default-1a2b3c --config field.toml --out field_labels")(apply)


@app.command(epilog="Example: stellarml report --config config.toml")
def report(
    config: ConfigFile, profile: Profile = None, overrides: Overrides = None, overwrite: Overwrite = False
) -> None:
    """Write report.html, its pictures and metrics.json, and print the summary."""
    from stellarml.cli.summary import show_summary
    from stellarml.stages.report import read_metrics

    settings = configured(config, profile, overrides)
    _stage("report", settings, overwrite)
    show_summary(Screen(), read_metrics(settings.report_folder), settings)


app.command(
    epilog="Example: stellarml match gaia/ skymapper/ --left-survey gaia_dr3 --right-survey skymapper_dr2 --out xm"
)(match)
app.command(epilog="Example: stellarml margin xm/matches --arcsec 10")(margin)


app.command(epilog="Example: stellarml models --config config.toml --prune 3")(models)
app.command(epilog="Example: stellarml diff default-1 default-2 --config config.toml")(diff)


@app.command(epilog="Example: stellarml doctor --config config.toml")
def doctor(config: MaybeConfigFile = None, profile: Profile = None, overrides: Overrides = None) -> None:
    """Say what the machine has, what is missing, and how to get it."""
    from stellarml.cli.doctor import examine

    findings = examine(configured(config, profile, overrides), named=config is not None)
    for finding in findings:
        say(f"{'ok ' if finding.good else 'NO '} {finding.name:<22} {finding.found}")
        if not finding.good:
            say(f"    {finding.help}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(2)


def main() -> None:
    """Run the command line and end with the contract's exit status."""
    run_to_the_end(lambda: app(prog_name="stellarml"))


if __name__ == "__main__":
    main()
