"""The commands, from the Typer application."""

from __future__ import annotations

import inspect
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from pages.markdown import as_code, as_table
from stellarml.cli.main import app


def command_line_page() -> str:
    """Return a section a command: usage, what it does, an example, arguments and options."""
    root = typer.main.get_command(app)
    context = root.make_context("stellarml", [], resilient_parsing=True)
    sections = [
        _command_section(root.get_command(context, name), name) for name in root.list_commands(context)
    ]
    return "\n\n".join(sections) + "\n"


def _command_section(command: Any, name: str) -> str:
    arguments = [_argument(p) for p in command.params if p.param_type_name == "argument"]
    required = [
        f"{p.opts[0]} {_argument(p)}" for p in command.params if p.required and _argument(p) not in arguments
    ]
    usage = " ".join(["stellarml", name, *arguments, *required, "[OPTIONS]"])
    blocks = [f"## {name}", command.help or "", _console(usage)]
    example = (command.epilog or "").removeprefix("Example:").strip()
    if example:
        blocks += ["Example:", _console(example)]
    kinds = typing.get_type_hints(inspect.unwrap(command.callback))
    rows = [_parameter_row(p, kinds[p.name]) for p in command.params if p.name != "help"]
    blocks += [as_table(("", "value", "default", "meaning"), rows)] if rows else []
    return "\n\n".join(blocks)


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or str(parameter.name).upper())


def _console(line: str) -> str:
    return f"```text\n{line}\n```"


def _parameter_row(parameter: Any, kind: Any) -> tuple[str, ...]:
    if parameter.param_type_name == "argument":
        return as_code(_argument(parameter)), _option_words(kind), "required", parameter.help or ""
    names = ", ".join(as_code(name) for name in (*parameter.opts, *parameter.secondary_opts))
    words = "" if parameter.is_flag else _option_words(kind)
    if parameter.required:
        default = "required"
    elif parameter.is_flag:
        default = "off" if parameter.default is False else ""
    else:
        value = getattr(parameter.default, "value", parameter.default)
        default = "" if value is None or value == [] else as_code(value)
    return names, words, default, parameter.help or ""


def _option_words(kind: Any) -> str:
    """Name the type of an option; taken from the function's annotation, which every version of typer leaves alone."""
    kinds = [a for a in typing.get_args(kind) if a is not type(None)]
    if kinds:
        return _option_words(kinds[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(as_code(member.value) for member in kind)
    return {str: "text", int: "integer", float: "number", Path: "path", bool: ""}[kind]
