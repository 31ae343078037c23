"""What is to be done with a user's own table, settled and checked before Java is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stellarml.core.errors import InputError, UserError, nearest_names, raise_gathered
from stellarml.core.expressions import columns_of
from stellarml.core.files import LOCK, storage_errors
from stellarml.core.names import CUTS_FAILED, EBV, SPLIT
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.model.bundle import load_bundle
from stellarml.model.bundle_arrays import is_plain
from stellarml.model.manifest import Manifest
from stellarml.standalone.own_table_checks import check_units
from stellarml.standalone.own_table_reader import OwnTable, open_table
from stellarml.storage.formats import SUFFIXES, Format


@dataclass(frozen=True)
class LearningPlan:
    """A table to learn from, the columns `wanted` of it, and the folder of the new model."""

    table: OwnTable
    features: FeatureFile
    wanted: tuple[str, ...]
    out: Path


@dataclass(frozen=True)
class LabellingPlan:
    """A table to label, the columns `wanted` of it, the model, and the file to write."""

    table: OwnTable
    wanted: tuple[str, ...]
    model: Path
    manifest: Manifest
    out: Path
    kind: Format

    @property
    def features(self) -> FeatureFile:
        """What the model was trained on."""
        return self.manifest.features


def plan_learning(table: Path, features: Path, out: Path) -> LearningPlan:
    """Check a table, a feature file and the place of the new model.

    Raises
    ------
    ConfigError, InputError
        If the feature file is wrong, or the table is missing, damaged or lacks columns.
    UserError
        If `out` cannot be a model's folder.
    """
    spec = load_feature_file(features)
    refuse_place(out)
    opened = open_table(
        table.absolute(), _named(spec, labels=True)
    )  # a worker may have another working directory
    raise_gathered(InputError, str(table), list(_missing(opened, spec, labels=True)))
    check_units(opened.columns, spec, labels=True)
    return LearningPlan(opened, spec, _wanted(opened, spec, labels=True), out)


def plan_labelling(table: Path, model: Path, out: Path) -> LabellingPlan:
    """Check a table, a model and the file to write.

    Raises
    ------
    InputError, BundleError
        If the table is missing, damaged or lacks columns, or the bundle is damaged.
    UserError
        If `out` is the table itself, a folder, or of an unknown format.
    """
    kind = SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise UserError(f"{out}: unknown format '{out.suffix}'; expected one of {', '.join(SUFFIXES)}")
    if out.is_dir() or out.resolve().is_relative_to(table.resolve()):
        what = "a folder" if out.is_dir() else "the table that is to be labelled, or inside it"
        raise UserError(f"{out}: is {what}; --out names a file to write.")
    manifest = load_bundle(model).manifest
    spec = manifest.features
    opened = open_table(table.absolute(), _named(spec))
    raise_gathered(InputError, str(table), list(_missing(opened, spec)))
    check_units(opened.columns, spec)
    return LabellingPlan(opened, _wanted(opened, spec), model, manifest, out, kind)


def refuse_place(out: Path) -> None:
    """Refuse a folder for a model whose name is no model's, that cannot be written, or that holds something."""
    if not is_plain(out.name):
        raise UserError(
            f"--out {out}: its name would be the model's; it must not begin with a dot or hold a colon."
        )
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out.parent}: cannot be written to. Choose another --out.")
    if out.exists() and (out.is_file() or any(child.name != LOCK for child in out.iterdir())):
        raise UserError(f"{out}: exists and is not empty. Choose a new folder for the model.")


def _columns_by_feature(spec: FeatureFile) -> Iterator[tuple[str, str]]:
    """Yield what each feature needs: a column's name, and the feature's.

    Raises
    ------
    InputError
        If an expression is no SQL.
    """
    problems = []
    for feature in spec.features:
        try:
            for column in columns_of(feature.expression):
                yield column, feature.name
        except ValueError as error:
            problems.append(f"feature '{feature.name}': {error}")
    raise_gathered(InputError, "features", problems)


def _named(spec: FeatureFile, *, labels: bool = False) -> list[str]:
    """Return every column that a feature file names."""
    names = [spec.id, *(column for column, _ in _columns_by_feature(spec)), *spec.null_when]
    names += [column for condition in spec.null_when.values() for column in columns_of(condition)]
    if labels:
        names += [name for label in spec.labels for name in (label.column, label.error) if name]
    return list(dict.fromkeys(names))


def _wanted(table: OwnTable, spec: FeatureFile, *, labels: bool = False) -> tuple[str, ...]:
    """Return the columns to read: those the feature file names, the cuts that rows fail, and the reddening."""
    more = [n for n in table.names if n.lower().startswith(CUTS_FAILED) or n in (EBV, SPLIT)]
    return (*_named(spec, labels=labels), *more)


def _missing(table: OwnTable, spec: FeatureFile, *, labels: bool = False) -> Iterator[str]:
    """Say which columns the table lacks, what needs each, and which of its columns are nearest in name."""
    known = {name.lower() for name in table.names}
    needed: dict[str, list[str]] = {}
    for column, feature in _columns_by_feature(spec):
        needed.setdefault(column, []).append(f"feature {feature}")
    for column in spec.null_when:
        needed.setdefault(column, []).append("[null_when]")
    if labels:
        for label in spec.labels:
            for name in filter(None, (label.column, label.error)):
                needed.setdefault(name, []).append(f"label {label.name}")
    needed.setdefault(spec.id, []).append("the id")
    for column, by in needed.items():
        if column.lower() not in known:
            yield (
                f"no column '{column}' in the table, needed by {', '.join(by)}; of its {len(known)} columns the "
                f"nearest are {nearest_names(column, table.names)}."
            )
