"""The settings of a run: frozen models, filled in layers.

Shipped base < profile < the user's file < environment (``STELLARML_CROSSMATCH__SCOPE=full``) < ``--set``.
Every key is in ``conf/base.toml`` with a comment; an unknown key is refused with the nearest known one, and all
problems of all layers are reported at once. Paths are relative to the folder of the user's file, so that a folder
made by `stellarml simulate` can be moved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from stellarml.core.errors import ConfigError, did_you_mean, raise_gathered
from stellarml.core.resources import package_folder
from stellarml.core.spark_options import enough_for_java, refuse_code
from stellarml.core.toml_layers import (
    Section,
    environment_layer,
    merge,
    parse_override,
    problems_of,
    read_toml,
)

_SECRET = re.compile(r"secret|passw|token|credential|(access|account)\.?key|private", re.IGNORECASE)
PROFILES = ("laptop", "cluster", "paper", "demo")


def conf_dir() -> Path:
    """Return the folder of shipped configuration: inside the wheel, or beside the package in a checkout."""
    package = package_folder()
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "base.toml").is_file():
            return candidate
    raise ConfigError(f"shipped configuration is missing: no conf/base.toml inside or beside {package}")


class Surveys(Section):
    """Which survey descriptor plays which part."""

    astrometry: str
    photometry: str
    distances: str
    labels: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Every survey that is named, in the order of ingest."""
        return [name for name in (self.astrometry, self.distances, self.photometry, *self.labels) if name]


class Paths(Section):
    """Output folders, relative to the configuration file."""

    lake: Path
    models: Path
    labels: Path
    report: Path


class Tiles(Section):
    """HEALPix tiling and Parquet layout of every table with positions."""

    max_rows: Annotated[int, Field(ge=100)]
    row_group_rows: Annotated[int, Field(ge=100)]
    min_order: Annotated[int, Field(ge=0, le=12)]
    max_order: Annotated[int, Field(ge=0, le=16)]
    compression: Literal["zstd", "snappy", "lz4", "none"]


class Ingest(Section):
    """How raw files are read."""

    block_bytes: Annotated[int, Field(ge=4096)]
    max_rejected_fraction: Annotated[float, Field(ge=0, le=1)]


class Cuts(Section):
    """Named cuts switched on or off against their descriptor."""

    enable: tuple[str, ...]
    disable: tuple[str, ...]


class Crossmatch(Section):
    """Positional association; `reference` formulas in `stellarml.crossmatch.kernel.match_tile`."""

    scope: Literal["full", "left_selected", "selected"]
    gamma: Annotated[float, Field(gt=0, lt=1)]
    density_radius_arcsec: Annotated[float, Field(gt=0)]
    missing_pm_mas_yr: Annotated[float, Field(ge=0)]
    radius_arcsec: Annotated[float, Field(ge=0, le=3600)]
    frame_offset: Literal["none", "measure"]
    frame_order: Annotated[int, Field(ge=0, le=8)]
    frame_min_pairs: Annotated[int, Field(ge=5)]
    frame_radius_arcsec: Annotated[float, Field(gt=0, le=60)]
    frame_bright_mag: float


class Features(Section):
    """Which feature file describes the model's inputs."""

    file: str


class Labels(Section):
    """How spectroscopic labels are joined and reconciled."""

    match_radius_arcsec: Annotated[float, Field(gt=0)]
    conflict_teff_k: Annotated[float, Field(gt=0)]
    conflict_logg_dex: Annotated[float, Field(gt=0)]
    conflict_feh_dex: Annotated[float, Field(gt=0)]


class Split(Section):
    """Shares of the labelled stars, between 0 and 1; what remains is the training part.

    Without a calibration part, intervals are calibrated on the validation part.
    """

    salt: str
    validation: Annotated[float, Field(ge=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    calibration: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _leaves_stars_for_everything(self) -> Self:
        if self.validation == 0:
            also = "" if self.calibration else ", nor an interval calibrated, as calibration is 0, too"
            raise ValueError(
                f"validation is 0: without validation stars no epoch can be chosen{also}. "
                "Give it a share, for example 0.10"
            )
        # A sum of 1 in decimals may come out a little below 1: such a sliver is no training part.
        if (taken := self.validation + self.test + self.calibration) > 1 - 1e-9:
            raise ValueError(
                f"validation {self.validation} + test {self.test} + calibration {self.calibration} = {taken:g} "
                "leave no star for training: their sum must be below 1"
            )
        return self


class Train(Section):
    """Which network is fitted, and how long."""

    preset: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    max_epochs: Annotated[int, Field(ge=0)]
    max_rows: Annotated[int, Field(ge=0)]
    threads: Annotated[int, Field(ge=0)]
    max_seconds: Annotated[float, Field(ge=0)]
    tensorboard: bool


class Label(Section):
    """How matched stars are labelled."""

    level: Literal[68, 90, 95]
    truth_intervals: bool
    model: str
    keep_going: bool
    batch_rows: Annotated[int, Field(ge=1)]


class Report(Section):
    """What the report shows."""

    title: str
    sky_order: Annotated[int, Field(ge=0, le=9)]


class Spark(Section):
    """The Spark session; under spark-submit its own options win."""

    master: str
    driver_memory: Annotated[str, Field(pattern=r"^\d+[mg]$"), AfterValidator(enough_for_java)]
    min_free_memory: Annotated[str, Field(pattern=r"^\d+[mg]$")]
    app_name: str
    event_log: str
    options: dict[str, str]


class Log(Section):
    """Verbosity and shape of the log, and when progress is shown."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "text", "json"]
    progress_after_s: Annotated[float, Field(ge=0)]
    progress_every_s: Annotated[float, Field(gt=0)]


class Config(Section):
    """The resolved configuration of one run."""

    surveys: Surveys
    raw: dict[str, str]
    paths: Paths
    tiles: Tiles
    ingest: Ingest
    cuts: Cuts
    crossmatch: Crossmatch
    features: Features
    labels: Labels
    split: Split
    train: Train
    label: Label
    report: Report
    spark: Spark
    log: Log
    root: Path = Path()

    def as_record(self) -> dict[str, Any]:
        """Return the configuration for a record: values of Spark options that look like secrets are left out."""
        found: dict[str, Any] = self.model_dump(mode="json", exclude={"root"})
        options = found["spark"]["options"]
        found["spark"]["options"] = {
            k: "***" if _SECRET.search(f"{k}={v}") else v for k, v in options.items()
        }
        return found

    def path(self, relative: Path | str) -> Path:
        """Return `relative` below the folder of the configuration file (an absolute path stays)."""
        return (self.root / relative).expanduser()

    @property
    def lake_folder(self) -> Path:
        """Folder of the tables: a folder below it for each survey and stage."""
        return self.path(self.paths.lake)

    @property
    def models_folder(self) -> Path:
        """Folder of the models, one folder each."""
        return self.path(self.paths.models)

    @property
    def labels_folder(self) -> Path:
        """Folder of the labelled catalogues, one folder a model."""
        return self.path(self.paths.labels)

    @property
    def report_folder(self) -> Path:
        """Folder of the report."""
        return self.path(self.paths.report)

    @property
    def feature_file(self) -> str | Path:
        """Name of a shipped feature file, or path of the user's own."""
        return self.path(self.features.file) if self.features.file.endswith(".toml") else self.features.file

    def raw_path(self, survey: str) -> Path:
        """Return where the raw files of `survey` lie.

        Raises
        ------
        ConfigError
            If the table ``[raw]`` does not name the survey.
        """
        if survey not in self.raw:
            raise ConfigError(
                f"[raw] does not say where the files of survey '{survey}' lie; it names "
                f'{sorted(self.raw) or "none"}. Add a line  {survey} = "path/to/files"  under [raw].'
            )
        return self.path(self.raw[survey])


def load_config(
    file: Path | None = None,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Resolve the layers into one frozen configuration.

    Parameters
    ----------
    file
        The user's TOML; may name its own ``profile``. None for the shipped values alone.
    profile
        A shipped profile or a path to a TOML; wins over the one named in `file`.
    overrides
        ``key=value`` strings, strongest of all.
    environment
        For tests; the process environment by default.

    Raises
    ------
    ConfigError
        Gathering every unknown key and every value out of range; or if a file that is not the
        user's own names a Spark option that runs code.
    """
    conf = conf_dir()
    user = read_toml(file) if file else {}
    named = user.pop("profile", None)
    if not isinstance(named, str | None):
        raise ConfigError(f"{file}: key 'profile' is no text, expected {', '.join(PROFILES)} or a path.")
    chosen = profile or named
    layers = [read_toml(conf / "base.toml")]
    if chosen:
        path = _profile_path(chosen, conf)
        layers.append(read_toml(path))
        refuse_code(layers[-1], path)
    if file:
        refuse_code(user, file)
    layers += [
        user,
        environment_layer(os.environ if environment is None else environment, Config.model_fields),
    ]
    layers += [parse_override(text) for text in overrides]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    merged["root"] = file.resolve().parent if file else Path.cwd()
    try:
        return _with_event_log(Config(**merged))
    except ValidationError as error:
        raise_gathered(ConfigError, "configuration", problems_of(error, Config, str(file or "settings")))
        raise


def _with_event_log(config: Config) -> Config:
    """Resolve the folder of Spark's event log like every other path; an address of another file system stays."""
    folder = config.spark.event_log
    if not folder or "://" in folder:
        return config
    spark = config.spark.model_copy(update={"event_log": str(config.path(folder))})
    return config.model_copy(update={"spark": spark})


def _profile_path(profile: str, conf: Path) -> Path:
    if profile.endswith(".toml"):
        return Path(profile)
    if profile not in PROFILES:
        raise ConfigError(
            f"unknown profile '{profile}'.{did_you_mean(profile, PROFILES)} "
            f"Shipped: {', '.join(PROFILES)}; or give a path to a TOML file."
        )
    return conf / f"{profile}.toml"
