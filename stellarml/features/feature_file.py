"""What a model is fed: the feature file, read and checked, without Spark.

One TOML declares the id, the labels and the features as Spark SQL expressions over a table's columns. It is data, so
that the chain's 27 inputs and any user's table go through the same code; the whole file travels in the bundle, and a
model refuses to label with another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, model_validator

from stellarml.core.config import conf_dir
from stellarml.core.errors import ConfigError, did_you_mean, raise_gathered
from stellarml.core.names import QUALITY_FLAGS, SPLIT, error_name, value_and_interval
from stellarml.core.sql_names import check_expression
from stellarml.core.toml_layers import Section, problems_of, read_toml

Sql = Annotated[str, AfterValidator(check_expression)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class LabelSpec(Section):
    """One label: its name in the output, its column and its error's column in the table."""

    name: Name
    column: str
    unit: str
    error: str | None = None


class FeatureSpec(Section):
    """One input of the network."""

    name: Name
    expression: Sql
    unit: str


class FeatureFile(Section):
    """A feature file; `null_when` maps a column to the condition under which its value is no value."""

    id: str
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    features: Annotated[tuple[FeatureSpec, ...], Field(min_length=1)]
    null_when: Annotated[dict[str, Sql], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _names_differ(self) -> FeatureFile:
        names = [self.id, *(f.name for f in self.features), QUALITY_FLAGS, SPLIT]
        for label in self.labels:
            names += [error_name(label.name), *value_and_interval(label.name)]
        lowered = [n.lower() for n in names]
        twice = sorted({n for n in names if lowered.count(n.lower()) > 1})
        if twice:
            raise ValueError(f"these names are used twice (the output needs them apart): {', '.join(twice)}")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the network."""
        return tuple(f.name for f in self.features)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(label.name for label in self.labels)


def shipped_feature_files() -> tuple[str, ...]:
    """Return the names of the feature files in conf/features."""
    return tuple(sorted(p.stem for p in (conf_dir() / "features").glob("*.toml")))


def load_feature_file(name_or_path: str | Path) -> FeatureFile:
    """Read a shipped feature file by its name, or any other by its path.

    Raises
    ------
    ConfigError
        If there is no such file, or gathering everything that is wrong in it.
    """
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text:
        path = Path(name_or_path)
    else:
        known = shipped_feature_files()
        if text not in known:
            raise ConfigError(
                f"unknown feature file '{text}'.{did_you_mean(text, known)} Shipped: {', '.join(known)}; "
                "or give a path to a TOML file."
            )
        path = conf_dir() / "features" / f"{text}.toml"
    raw = read_toml(path)
    try:
        return FeatureFile(**raw)
    except ValidationError as error:
        raise_gathered(ConfigError, "feature file", problems_of(error, FeatureFile, str(path)))
        raise


def feature_differences(model: FeatureFile, given: FeatureFile) -> list[str]:
    """Return in words how `given` differs from what a model was trained on; the order of features is free."""
    problems = []
    theirs = {f.name: f for f in given.features}
    ours = {f.name: f for f in model.features}
    for name, spec in ours.items():
        if name not in theirs:
            extra = [n for n in theirs if n not in ours]
            renamed = next((n for n in extra if theirs[n].expression == spec.expression), None)
            hint = f" Was it renamed to '{renamed}'?" if renamed else did_you_mean(name, extra)
            problems.append(f"feature '{name}' is missing.{hint}")
            continue
        for key in ("unit", "expression"):
            was, now = getattr(spec, key), getattr(theirs[name], key)
            if "".join(was.split()) != "".join(now.split()):
                problems.append(f"feature '{name}' has {key} '{now}', the model was trained with '{was}'")
    problems += [f"feature '{name}' is unknown to the model" for name in theirs if name not in ours]
    their_labels = {label.name: label.unit for label in given.labels}
    for label in model.labels:
        unit = their_labels.get(label.name)
        if unit is not None and unit != label.unit:
            problems.append(
                f"label '{label.name}' has unit '{unit}', the model was trained with '{label.unit}'"
            )
    if dict(model.null_when) != dict(given.null_when):
        changed = sorted(
            k
            for k in {*model.null_when, *given.null_when}
            if model.null_when.get(k) != given.null_when.get(k)
        )
        problems.append(f"[null_when] differs for {', '.join(changed)}")
    return problems
