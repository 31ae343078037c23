"""What would stop a run, found before Java is started and before the first hour of work: all of it at once.

Looked at are the files that a run names (descriptors, feature file, raw files and their headers, the model), the
columns that cuts and features mention, and the places it writes to. Rows are not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from stellarml.core.config import Config
from stellarml.core.errors import ConfigError, StellarmlError, nearest_names, raise_gathered
from stellarml.core.expressions import columns_of
from stellarml.core.names import CUTS_FAILED, DEC, EXTERNAL_ID, RA, REPAIRS, SOURCE_ID
from stellarml.core.schema import MATCHES
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.labelling.model_registry import chosen_model
from stellarml.model.bundle import load_bundle
from stellarml.run.ownership import RECORD
from stellarml.surveys.cuts import chosen_cuts, problems_of_expressions
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.ingest_plan import declared_columns
from stellarml.surveys.raw_files import find_files

T = TypeVar("T")
_LAKE_OVER_RAW = 2.0
"""Bytes that ingest writes at most for a byte of raw files: shards and the table."""
_SMALL_BYTES = 100 << 20
"""Raw files below this are not worth a guess; a disk that fills is told when it does."""


def preflight(
    config: Config,
    stages: Iterable[str],
    surveys: Sequence[str] | None = None,
    model: Path | None = None,
) -> None:
    """Refuse a run that cannot end well.

    Parameters
    ----------
    stages
        Names of the stages that are to run.
    surveys
        The surveys to ingest; all of the configuration by default.
    model
        Folder of a model made elsewhere that is to label the field.

    Raises
    ------
    ConfigError
        Naming every problem that was found.
    """
    raise_gathered(ConfigError, "before the start", problems_of_run(config, stages, surveys, model))


def problems_of_run(
    config: Config,
    stages: Iterable[str],
    surveys: Sequence[str] | None = None,
    model: Path | None = None,
) -> list[str]:
    """Return in words what would stop a run; see `preflight`."""
    wanted = set(stages)
    problems: list[str] = []
    if "features" in wanted and not config.surveys.labels:
        problems.append(
            "surveys.labels is empty: there is nothing to learn from. To label a field with a model made elsewhere: "
            "stellarml apply MODEL --config FILE"
        )
    names = list(surveys or config.surveys.names)
    found = {name: _tried(partial(load_descriptor, name, config.root), problems) for name in names}
    known = {name: descriptor for name, descriptor in found.items() if descriptor is not None}
    features = None
    if model is not None:
        bundle = _tried(partial(load_bundle, model), problems)
        features = bundle.manifest.features if bundle else None
    elif wanted & {"features", "train", "label"}:
        features = _tried(lambda: load_feature_file(config.feature_file), problems)
    if known:
        _tried(lambda: chosen_cuts(config, next(iter(known.values()))), problems)
    if "ingest" in wanted:
        sizes = [_size_to_ingest(config, survey, problems) for survey in known.values()]
        problems += _lack_of_disk(config, sum(sizes))
    computed = model is not None or "features" in wanted
    if features is not None and computed and len(known) == len(names):
        problems += _problems_of_features(config, features, known)
    if "label" in wanted and ("train" not in wanted or config.label.model):
        _tried(lambda: chosen_model(config.models_folder, config.label.model, features), problems)
    problems += _unwritable(config)
    return list(dict.fromkeys(problems))


def _tried(work: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return work()
    except StellarmlError as error:
        problems.append(str(error))
        return None


def _size_to_ingest(config: Config, survey: Descriptor, problems: list[str]) -> int:
    """Say what is wrong with a survey's raw files and expressions; return their bytes, 0 if the lake has them."""
    problems += problems_of_expressions(survey)
    files = _tried(lambda: find_files(survey, config.raw_path(survey.name)), problems)
    if files is None:
        return 0
    _tried(partial(declared_columns, survey, files), problems)
    there = (config.lake_folder / survey.name / RECORD).is_file()
    return 0 if there else sum(file.size for file in files)


def _problems_of_features(
    config: Config, features: FeatureFile, known: dict[str, Descriptor]
) -> Iterator[str]:
    """Say which columns of features no survey gives, and which labels no label table."""
    catalogues = [config.surveys.astrometry, config.surveys.distances, config.surveys.photometry]
    columns = {SOURCE_ID, EXTERNAL_ID, RA, DEC, *(column.name for column in MATCHES)}
    for name in filter(None, catalogues):
        columns |= {column.canonical for column in known[name].wanted()}
    suffix = f"_{known[config.surveys.photometry].name}".lower()
    needed: dict[str, list[str]] = {}
    for feature in features.features:
        try:
            named = [column.lower() for column in columns_of(feature.expression)]
        except ValueError as error:
            yield f"feature '{feature.name}': {error}"
            continue
        for name in named:
            if name.removesuffix(suffix) not in columns and not name.startswith((CUTS_FAILED, REPAIRS)):
                needed.setdefault(name, []).append(feature.name)
    for name, by in needed.items():
        yield (
            f"no survey of the run carries the column '{name}', needed by feature{'s' if len(by) > 1 else ''} "
            f"{', '.join(by)}; the nearest are {nearest_names(name, sorted(columns))}."
        )
    for name in config.surveys.labels:
        missing = [label for label in features.label_names if label not in known[name].labels]
        if missing:
            yield (
                f"label table '{known[name].name}' has no label {', '.join(missing)}, which the feature file names; it "
                f"has {', '.join(known[name].labels)}. Add [labels.{missing[0]}] to its descriptor."
            )


def _lack_of_disk(config: Config, size: int) -> list[str]:
    """Say that the raw files of `size` bytes may not fit into the lake's disk."""
    there = _existing(config.lake_folder)
    free = shutil.disk_usage(there).free
    if size < _SMALL_BYTES or free >= _LAKE_OVER_RAW * size:
        return []
    return [
        f"{there}: {free / 2**30:.1f} GiB are free, the raw files of {size / 2**30:.1f} GiB may take "
        f"{_LAKE_OVER_RAW * size / 2**30:.1f} GiB when ingested. Free some space or choose another paths.lake."
    ]


def _unwritable(config: Config) -> Iterator[str]:
    for key, folder in (
        ("lake", config.lake_folder),
        ("models", config.models_folder),
        ("labels", config.labels_folder),
        ("report", config.report_folder),
    ):
        there = _existing(folder)
        if not there.is_dir():
            yield f"paths.{key}: {there} is a file, expected a folder"
        elif not os.access(there, os.W_OK):
            yield f"paths.{key}: {there} cannot be written to"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
