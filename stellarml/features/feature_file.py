"""What a model is fed: the feature file, read and checked, without Spark.

One TOML declares the id, the labels and the features as Spark SQL expressions over a table's columns. It is data, so
that the chain's 27 inputs and any user's table go through the same code; the whole file travels in the bundle, and a
model refuses to label with another one.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from stellarml.core.errors import ConfigError, did_you_mean, raise_gathered
from stellarml.core.expressions import Sql
from stellarml.core.names import QUALITY_FLAGS, SPLIT, error_name, value_and_interval
from stellarml.core.shipped import named_file
from stellarml.core.toml_layers import Section, problems_of, read_toml
from stellarml.features.extinction import coefficients, with_coefficients
from stellarml.features.plausible_ranges import (
    Range,
    default_feature_range,
    default_label_range,
    range_words,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class LabelSpec(Section):
    """One label: its name in the output, its column and its error's column in the table."""

    name: Name
    column: str
    unit: str
    error: str | None = None
    range: Range


class FeatureSpec(Section):
    """One input of the network."""

    name: Name
    expression: Sql
    unit: str
    range: Range


class FeatureFile(Section):
    """A feature file.

    null_when
        From a column to the condition under which its value is no value.
    extinction_from
        Surveys whose coefficients ``{A_X}`` in an expression stands for; they are numbers here already, and a bundle
        does not keep the names.
    """

    id: str
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    features: Annotated[tuple[FeatureSpec, ...], Field(min_length=1)]
    null_when: Annotated[dict[str, Sql], Field(default_factory=dict)]
    extinction_from: Annotated[tuple[str, ...] | str, Field(default=(), exclude=True)]

    @model_validator(mode="after")
    def _names_differ(self) -> FeatureFile:
        names = [self.id, *(f.name for f in self.features), QUALITY_FLAGS, SPLIT]
        for label in self.labels:
            names += [error_name(label.name), *value_and_interval(label.name)]
        times = Counter(n.lower() for n in names)
        twice = sorted({n for n in names if times[n.lower()] > 1})
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


def load_feature_file(name_or_path: str | Path) -> FeatureFile:
    """Read a shipped feature file by its name, or any other by its path.

    Extinction coefficients (``{A_u}``) become numbers here, and labels and features without a range get the default of
    their name and unit, so that a bundle tells in full what a model was trained with.

    Raises
    ------
    ConfigError
        If there is no such file, or gathering everything that is wrong in it.
    """
    path = named_file("feature file", name_or_path)
    raw = read_toml(path)
    known = coefficients(_listed(raw.get("extinction_from", []), path), path.parent)
    problems = []
    features = raw.get("features", [])
    for feature in features if isinstance(features, list) else []:
        try:
            feature["expression"] = with_coefficients(feature["expression"], known)
        except ValueError as error:
            problems.append(f"{path}: feature '{feature.get('name')}': {error}")
        except (KeyError, TypeError):
            continue  # no table, no expression, or no text: the model below says it better
    raise_gathered(ConfigError, "feature file", problems)
    try:
        return _with_default_ranges(FeatureFile(**raw))
    except ValidationError as error:
        raise_gathered(ConfigError, "feature file", problems_of(error, FeatureFile, str(path)))
        raise


def _with_default_ranges(spec: FeatureFile) -> FeatureFile:
    labels = tuple(
        label
        if label.range is not None
        else label.model_copy(update={"range": default_label_range(label.name, label.unit)})
        for label in spec.labels
    )
    features = tuple(
        feature
        if feature.range is not None
        else feature.model_copy(update={"range": default_feature_range(feature.expression, feature.unit)})
        for feature in spec.features
    )
    return spec.model_copy(update={"labels": labels, "features": features})


def _listed(value: Any, path: Path) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ConfigError(f'{path}: extinction_from is {value!r}, expected names of surveys: ["..."]')
    return listed


def feature_differences(model: FeatureFile, given: FeatureFile) -> list[str]:
    """Return in words how `given` differs from what a model was trained on; the order of features is free.

    Ranges of labels are free, too: they decide what is learnt, not what the model is fed.
    """
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
        if spec.range is not None and spec.range != theirs[name].range:
            problems.append(
                f"feature '{name}' has the range {range_words(theirs[name].range)}, the model was trained with "
                f"{range_words(spec.range)}"
            )
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
