"""Types, limits and defaults of the keys of a pydantic model, in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from pages.markdown import as_code, toml
from stellarml.surveys.descriptor import Quantity


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, if it is one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def type_words(field: FieldInfo) -> str:
    """Return type and limits of a key."""
    words = _alone_or_listed(_annotation_words(field.annotation), field.metadata)
    limits = list(_limits(field.metadata))
    return f"{words}, {', '.join(limits)}" if limits else words


def _alone_or_listed(words: str, metadata: Iterable[Any]) -> str:
    """Say that one text will do where a validator makes a list of it."""
    taken = words == "list of texts" and any(isinstance(item, BeforeValidator) for item in metadata)
    return "text or list of texts" if taken else words


def _annotation_words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _alone_or_listed(_annotation_words(arguments[0]), arguments[1:])
    if origin is typing.Literal:
        return ", ".join(as_code(toml(choice)) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_annotation_words(a) for a in arguments if a is not type(None))
    if origin is tuple:
        model = model_of(arguments[0])
        if model is not None:
            return "array of tables"
        return "list of texts" if arguments[0] is str else f"list: each {_annotation_words(arguments[0])}"
    if origin is dict:
        return (
            "table of tables"
            if model_of(arguments[1])
            else f"table: name = {_annotation_words(arguments[1])}"
        )
    if model_of(annotation):
        return "quantity" if annotation is Quantity else "table"
    return {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}.get(
        annotation, str(annotation)
    )


def _limits(metadata: Iterable[Any]) -> Iterator[str]:
    signs = (
        (annotated_types.Gt, "gt", "more than"),
        (annotated_types.Ge, "ge", "at least"),
        (annotated_types.Lt, "lt", "less than"),
        (annotated_types.Le, "le", "at most"),
    )
    for item in metadata:
        for kind, attribute, words in signs:
            if isinstance(item, kind):
                yield f"{words} {getattr(item, attribute)}"
        pattern = getattr(item, "pattern", None)
        if pattern:
            yield f"of the form {as_code(pattern)}"


def default_words(field: FieldInfo) -> str:
    """Return the default of a key, or that it is required."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return ""
    return as_code(toml(value))
