"""Keys of survey and feature files, from their models.

What a key means is in ``reference/key_meanings.toml``: a key without a meaning, or a meaning without a key, ends the
build.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from pages.markdown import as_code, as_table, markdown
from pages.models import default_words, type_words
from stellarml.core.expressions import FUNCTIONS
from stellarml.core.shipped import shipped
from stellarml.features.feature_file import FeatureFile, FeatureSpec, LabelSpec
from stellarml.surveys.descriptor import (
    Band,
    Columns,
    Correlations,
    Cut,
    Descriptor,
    Files,
    LabelColumn,
    Position,
    Quantity,
    load_descriptor,
)

DESCRIPTOR_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Top level", Descriptor),
    ("[files]", Files),
    ("[position]", Position),
    ("A quantity: { column = ..., unit = ... } or { value = ..., unit = ... }", Quantity),
    ("[position.correlations]", Correlations),
    ("[bands.NAME]", Band),
    ("[labels.NAME]", LabelColumn),
    ("[columns]", Columns),
    ("[[cuts]]", Cut),
)


FEATURE_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Top level", FeatureFile),
    ("[[labels]]", LabelSpec),
    ("[[features]]", FeatureSpec),
)


MEANINGS = Path(__file__).parents[1] / "reference" / "key_meanings.toml"


def survey_files_page() -> str:
    """Return the keys of a survey descriptor, table by table, and the shipped descriptors."""
    rows = [
        (as_code(name), d.kind, ", ".join(d.bands) or ", ".join(d.labels), str(len(d.cuts)), d.citation)
        for name, d in ((name, load_descriptor(name)) for name in shipped("survey"))
    ]
    return (
        _key_tables(DESCRIPTOR_TABLES)
        + "\n## Shipped descriptors\n\n"
        + as_table(("name", "kind", "bands or labels", "cuts", "citation"), rows)
        + "\n"
    )


def feature_files_page() -> str:
    """Return the keys of a feature file, table by table."""
    return _key_tables(FEATURE_TABLES)


def functions_page() -> str:
    """Return what an expression may call."""
    return ", ".join(as_code(name) for name in sorted(FUNCTIONS)) + ".\n"


def _key_tables(tables: Iterable[tuple[str, type[BaseModel]]]) -> str:
    meanings = tomllib.loads(MEANINGS.read_text(encoding="utf-8"))
    sections = []
    for title, model in tables:
        given = meanings.get(model.__name__, {})
        described = {key: field.description or given.get(key) for key, field in model.model_fields.items()}
        unknown = sorted(set(given) - set(described))
        without = sorted(key for key, text in described.items() if not text)
        if unknown or without:
            raise ValueError(
                f"{MEANINGS.name}, [{model.__name__}]: no such key: {unknown}; without a meaning: {without}. Bring the "
                "file up to date with the model."
            )
        rows = [
            (as_code(key), type_words(field), default_words(field), described[key] or "")
            for key, field in model.model_fields.items()
        ]
        lead = markdown(inspect.getdoc(model) or "")
        sections.append(f"## {title}\n\n{lead}\n\n" + as_table(("key", "type", "default", "meaning"), rows))
    return "\n\n".join(sections) + "\n"
