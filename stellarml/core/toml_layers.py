"""TOML layers: read, merged table by table, overridden by key=value strings, and their mistakes reported in words."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from stellarml.core.errors import ConfigError, did_you_mean, raise_gathered

ENVIRONMENT_PREFIX = "STELLARML_"
DEPLOYMENT_VARIABLES = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("AIRFLOW", "BENCH_DATA", "CONFIG", "DATA", "DIST", "FAULTS", "HOME")
)
"""Variables with the prefix that files of docker/, the Makefile and the tests read; they configure no run."""
_SHOWN = 80
MOST_NESTED = 32
"""No file of ours nests tables and lists deeper than five; Python's own functions give up at some hundreds."""


class Section(BaseModel):
    """A frozen table of a TOML file that refuses unknown keys; a bare number will do for a string (``salt=7``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file.

    Raises
    ------
    ConfigError
        If the file is missing or is not TOML, or nests tables too deeply.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # TOML's own, a number of thousands of digits, a path that no system takes
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _parsed(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises
    ------
    ValueError
        If it is none, nests too deeply, or holds an integer of more than 64 bits.
    """
    deep = f"tables and lists nest deeper than {MOST_NESTED}"
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(deep) from None
    level: list[Any] = [found]
    for _ in range(MOST_NESTED):
        inside = [v for t in level for v in (t.values() if isinstance(t, dict) else t)]
        if any(isinstance(v, int) and not -(1 << 63) <= v < 1 << 63 for v in inside):
            raise ValueError("an integer of more than 64 bits")
        level = [v for v in inside if isinstance(v, dict | list)]
        if not level:
            return found
    raise ValueError(deep)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """Turn ``"crossmatch.scope=full"`` into a nested table; key and value are TOML, or else the value is a string."""
    key, sign, value = text.partition("=")
    try:
        nested = _parsed(f"{key.strip()} = 0") if sign else {}
    except ValueError:
        nested = {}
    if len(nested) != 1 or "\n" in key:
        raise ConfigError(f"--set {text}: expected key=value, such as crossmatch.scope=full")
    table = nested
    while isinstance(inner := next(iter(table.values())), dict):
        table = inner
    try:
        table[next(iter(table))] = _parsed(f"value = {value}")["value"]
    except ValueError:
        table[next(iter(table))] = value.strip()
    return nested


def problems_of(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """Turn pydantic's errors into sentences, with the nearest known key for an unknown one."""
    sentences = []
    found = error.errors()
    for item in found:
        inside = any(e["loc"][: len(item["loc"])] == item["loc"] and e["loc"] != item["loc"] for e in found)
        if item["type"] == "too_short" and inside:
            continue  # a list whose entries are all wrong is not also too short
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, item["loc"][:-1])
            sentences.append(f"{source}: unknown key '{where}'.{did_you_mean(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            sentences.append(f"{source}: key '{where}' is missing")
        elif item["type"] == "value_error" and isinstance(item["input"], dict):
            # What is wrong with a table as a whole: our own sentence names the values, the table need not be shown.
            sentences.append(f"{source}: {f'[{where}] ' if where else ''}{item['ctx']['error']}")
        elif item["type"] == "value_error":
            sentences.append(f"{source}: key '{where}': {item['ctx']['error']}")
        else:
            sentences.append(f"{source}: key '{where}' = {_shown(item['input'])}: {item['msg']}")
    return sentences


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    in_dict = False
    for part in location:
        if in_dict or isinstance(part, int):
            in_dict = False
        elif isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _model_inside(field.annotation) if field else None
            in_dict = field is not None and get_origin(field.annotation) is dict
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [f.alias or name for name, f in current.model_fields.items()]
    return []


def _model_inside(annotation: Any) -> Any:
    if isinstance(annotation, type):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_inside(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def environment_layer(environment: Mapping[str, str], sections: Iterable[str] = ()) -> dict[str, Any]:
    """Return what variables such as ``STELLARML_CROSSMATCH__SCOPE=full`` say, as a nested table.

    Parameters
    ----------
    sections
        Names of the configuration's tables, for the message.

    Raises
    ------
    ConfigError
        If a variable has the prefix and is neither of that form nor one that the deployment files read.
    """
    layer: dict[str, Any] = {}
    problems = []
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in DEPLOYMENT_VARIABLES:
            continue
        rest = name.removeprefix(ENVIRONMENT_PREFIX)
        if "__" not in rest:
            section = next((s for s in sections if rest.lower().startswith(f"{s}_")), None)
            key = f"{section.upper()}__{rest[len(section) + 1 :]}" if section else "SECTION__KEY"
            problems.append(f"{name}: two underscores stand between table and key: {ENVIRONMENT_PREFIX}{key}")
            continue
        layer = merge(layer, parse_override(f"{rest.lower().replace('__', '.')}={value}"))
    raise_gathered(ConfigError, "environment", problems)
    return layer
