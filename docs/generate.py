"""Reference pages as Markdown, made from the code, so that they cannot say something else than the code does.

One pure function a page; `write_pages` puts what they return below ``_generated``. All that is taken from stellarml is
imported here, at the top, and the modules that are only named are listed right below. What a key of a survey or feature
file means is in ``reference/key_meanings.toml``: a key without a meaning, or a meaning without a key, ends the build.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, IntFlag
from itertools import pairwise
from pathlib import Path
from typing import Any

import annotated_types
import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

import stellarml
from stellarml.core import schema
from stellarml.cli.main import app
from stellarml.core.config import PROFILES, Config, conf_dir
from stellarml.crossmatch.kernel import settings as match_settings
from stellarml.features.feature_file import FeatureFile, FeatureSpec, LabelSpec
from stellarml.core.quality_flags import DESCRIPTIONS, QualityFlag
from stellarml.surveys.cuts import HAS_DISTANCE, sentinels
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
    shipped_descriptors,
)

VERSION = stellarml.__version__
STAGE_MODULES = {
    "ingest": "stellarml.stages.ingest",
    "select": "stellarml.stages.select",
    "crossmatch": "stellarml.stages.crossmatch",
    "features": "stellarml.stages.features",
    "train": "stellarml.stages.train",
    "label": "stellarml.stages.label",
    "report": "stellarml.stages.report",
}
# From the top; a package that does not exist is left out, one that is not named here comes last.
LAYERS = (
    "cli",
    "standalone",
    "stages",
    "report",
    "labelling",
    "training",
    "crossmatch",
    "model",
    "surveys",
    "intervals",
    "storage",
    "features",
    "simulate",
    "run",
    "core",
)
# Importing it is its work: it compiles and allocates for the workers that are forked from it.
NOT_IMPORTED = ("stellarml.worker_daemon", "stellarml.cli.worker_daemon")
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
ARROW_WORDS = {"float": "float32", "double": "float64"}
MEANINGS = Path(__file__).parent / "reference" / "key_meanings.toml"


def write_pages(docs: Path) -> None:
    """Write every generated page below `docs`; a page that would not change is not touched."""
    pages = {docs / "reference" / "_generated" / f"{name}_page.md": make() for name, make in PAGES.items()}
    api = docs / "api" / "_generated"
    pages |= {api / f"{name}.md": text for name, text in api_pages().items()}
    pages[api / "packages_page.md"] = api_index_page()
    for stale in (*api.glob("*.md"), *(docs / "reference" / "_generated").glob("*.md")):
        if stale not in pages:
            stale.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


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
    blocks += [_table(("", "value", "default", "meaning"), rows)] if rows else []
    return "\n\n".join(blocks)


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or str(parameter.name).upper())


def _console(line: str) -> str:
    return f"```text\n{line}\n```"


def _parameter_row(parameter: Any, kind: Any) -> tuple[str, ...]:
    if parameter.param_type_name == "argument":
        return _code(_argument(parameter)), _option_words(kind), "required", parameter.help or ""
    names = ", ".join(_code(name) for name in (*parameter.opts, *parameter.secondary_opts))
    words = "" if parameter.is_flag else _option_words(kind)
    if parameter.required:
        default = "required"
    elif parameter.is_flag:
        default = "off" if parameter.default is False else ""
    else:
        value = getattr(parameter.default, "value", parameter.default)
        default = "" if value is None or value == [] else _code(value)
    return names, words, default, parameter.help or ""


def _option_words(kind: Any) -> str:
    """Name the type of an option; taken from the function's annotation, which every version of typer leaves alone."""
    kinds = [a for a in typing.get_args(kind) if a is not type(None)]
    if kinds:
        return _option_words(kinds[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(_code(member.value) for member in kind)
    return {str: "text", int: "integer", float: "number", Path: "path", bool: ""}[kind]


def configuration_page() -> str:
    """Return a section a table of conf/base.toml: every key, its type, its shipped value, its comment."""
    text = (conf_dir() / "base.toml").read_text(encoding="utf-8")
    values, comments = tomllib.loads(text), base_comments(text)
    sections = []
    for table, field in Config.model_fields.items():
        if table not in values:
            continue
        lines = [f"## [{table}]"]
        model = _model_of(field.annotation)
        if model is not None:
            lines.append(_markdown(inspect.getdoc(model) or ""))
            rows = [
                (
                    _code(key),
                    _type_words(inner),
                    _code(_toml(values[table][key])),
                    comments.get(f"{table}.{key}", ""),
                )
                for key, inner in model.model_fields.items()
                if not isinstance(values[table].get(key), dict)
            ]
            lines.append(_table(("key", "type", "shipped value", "meaning"), rows))
            tables = [key for key in model.model_fields if isinstance(values[table].get(key), dict)]
            lines += [f"`[{table}.{key}]`: {comments.get(f'{table}.{key}', '')}" for key in tables]
        else:
            lines.append(_sentence(comments.get(table, "")))
        sections.append("\n\n".join(lines))
    profiles = ["## Profiles", "Each is laid over the shipped values when it is named."]
    for name in PROFILES:
        content = (conf_dir() / f"{name}.toml").read_text(encoding="utf-8").strip()
        profiles += [f"### {name}", f"```toml\n{content}\n```"]
    return "\n\n".join([*sections, *profiles]) + "\n"


def base_comments(text: str) -> dict[str, str]:
    """Return what stands behind each key (``table.key``) and each table's name in a TOML text."""
    comments: dict[str, str] = {}
    table = ""
    for line in text.splitlines():
        code, _, comment = _split_comment(line)
        if code.startswith("["):
            table = code.strip("[]")
            comments[table] = comment
        elif "=" in code:
            comments[f"{table}.{code.partition('=')[0].strip()}"] = comment
    return comments


def _split_comment(line: str) -> tuple[str, str, str]:
    quoted = False
    for place, letter in enumerate(line):
        quoted ^= letter == '"'
        if letter == "#" and not quoted:
            return line[:place].strip(), "#", line[place + 1 :].strip()
    return line.strip(), "", ""


def columns_page() -> str:
    """Return every table that stellarml writes, column by column, from the schema."""
    paper = (("teff", "K"), ("logg", "dex"), ("feh", "dex"))
    tables = (
        ("lake/neighbourhood, lake/best_neighbour", "Pairs found by the cross-match.", schema.NEIGHBOURHOOD),
        (
            "matches",
            "What `stellarml match` writes; the columns of both catalogues follow.",
            schema.MATCHES,
        ),
        (
            "labels/<model id>",
            "A labelled catalogue, here with the three labels of the paper. The `_true_` columns are written with "
            "`label.truth_intervals`.",
            schema.label_columns(paper, truth=True),
        ),
    )
    sections = []
    for title, text, columns in tables:
        rows = [
            (
                _code(c.name),
                _code(ARROW_WORDS.get(str(c.type), c.type)),
                c.unit,
                _code(c.ucd) if c.ucd else "",
                _markdown(c.description),
            )
            for c in columns
        ]
        sections.append(
            f"## {title}\n\n{text}\n\n" + _table(("column", "type", "unit", "UCD", "description"), rows)
        )
    return "\n\n".join(sections) + "\n"


def flags_page() -> str:
    """Return the bits of quality_flags and xm_flag, and those of repairs and cuts_failed for each shipped survey."""
    quality = [(str(int(f)), _code(f.name), DESCRIPTIONS[f]) for f in QualityFlag]
    pairs = [(str(bit), _code(name), text) for bit, name, text in match_flags()]
    sections = [
        "## quality_flags\n\n" + _table(("bit", "name", "meaning"), quality),
        "## xm_flag\n\n" + _table(("bit", "name", "meaning"), pairs),
        "## cuts_failed\n\nOne bit a cut, in the order of the survey's descriptor; a cut that is off never sets its "
        "bit. In `lake/stars` the bit after the last cut of the astrometric survey is that of "
        f"`{HAS_DISTANCE.name}` ({HAS_DISTANCE.reason}). In matched and labelled tables the cuts of the photometric "
        "survey begin at bit 32.",
    ]
    for name in shipped_descriptors():
        cuts = load_descriptor(name).cuts
        rows = [
            (str(1 << i), _code(c.name), _code(c.where), c.on_null, "on" if c.enabled else "off", c.reason)
            for i, c in enumerate(cuts)
        ]
        if rows:
            sections.append(
                f"### {name}\n\n"
                + _table(("bit", "cut", "a row stays where", "null", "shipped", "reason"), rows)
            )
    sections.append(
        "## repairs\n\nOne bit a column whose value was taken for missing (`null_when`), in the order of the file."
    )
    for name in shipped_descriptors():
        rows = [
            (str(1 << i), _code(column), _code(where))
            for i, (column, where) in enumerate(sentinels(load_descriptor(name)).items())
        ]
        if rows:
            sections.append(
                f"### Repairs of {name}\n\n" + _table(("bit", "column", "taken for missing where"), rows)
            )
    return "\n\n".join(sections) + "\n"


def match_flags() -> list[tuple[int, str, str]]:
    """Return (bit, name, meaning) of xm_flag: of an enumeration where there is one, else of documented integers."""
    flags = getattr(match_settings, "MatchFlag", None)
    if isinstance(flags, type) and issubclass(flags, IntFlag):
        return [(int(flag), str(flag.name), match_settings.DESCRIPTIONS[flag]) for flag in flags]
    found = []
    body = ast.parse(inspect.getsource(match_settings)).body
    for node, after in pairwise(body):
        match node, after:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(bit))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found.append((bit, name, text))
    return found


def survey_files_page() -> str:
    """Return the keys of a survey descriptor, table by table, and the shipped descriptors."""
    shipped = [
        (_code(name), d.kind, ", ".join(d.bands) or ", ".join(d.labels), str(len(d.cuts)), d.citation)
        for name, d in ((name, load_descriptor(name)) for name in shipped_descriptors())
    ]
    return (
        _key_tables(DESCRIPTOR_TABLES)
        + "\n## Shipped descriptors\n\n"
        + _table(("name", "kind", "bands or labels", "cuts", "citation"), shipped)
        + "\n"
    )


def feature_files_page() -> str:
    """Return the keys of a feature file, table by table."""
    return _key_tables(FEATURE_TABLES)


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
            (_code(key), _type_words(field), _default(field), described[key] or "")
            for key, field in model.model_fields.items()
        ]
        lead = _markdown(inspect.getdoc(model) or "")
        sections.append(f"## {title}\n\n{lead}\n\n" + _table(("key", "type", "default", "meaning"), rows))
    return "\n\n".join(sections) + "\n"


def stages_page() -> str:
    """Return what each stage's module says of itself."""
    sections = []
    for stage, name in STAGE_MODULES.items():
        text = _markdown(inspect.getdoc(importlib.import_module(name)) or "")
        sections.append(f"## {stage}\n\nModule `{name}`.\n\n{text}")
    return "\n\n".join(sections) + "\n"


def api_pages() -> dict[str, str]:
    """Return a page a package: its own docstring, then each of its modules."""
    return {package: _package_page(package, modules) for package, modules in packages().items()}


def api_index_page() -> str:
    """Return the packages in the order of their layers, from the top, with the first line of each."""
    rows = []
    for package in packages():
        doc = inspect.getdoc(importlib.import_module(package)) or ""
        rows.append((f"[{package}](_generated/{package}.md)", _markdown(doc.partition("\n")[0])))
    return _table(("package", "what it answers"), rows) + "\n"


def packages() -> dict[str, list[str]]:
    """Return every package with the modules that lie directly in it, in the order of the layers."""
    found: dict[str, list[str]] = {stellarml.__name__: []}
    for module in pkgutil.walk_packages(stellarml.__path__, f"{stellarml.__name__}."):
        if module.ispkg:
            found.setdefault(module.name, [])
        elif module.name not in NOT_IMPORTED and not module.name.endswith("__main__"):
            found.setdefault(module.name.rpartition(".")[0], []).append(module.name)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(package: str) -> tuple[int, str]:
    below = package.split(".")[1:]
    if not below:
        return -1, package
    return (LAYERS.index(below[0]) if below[0] in LAYERS else len(LAYERS)), package


def _package_page(package: str, modules: Sequence[str]) -> str:
    lines = [f"# {package}", "```{eval-rst}", f".. automodule:: {package}", "```"]
    for name in modules:
        lines += [f"## {name.removeprefix(package + '.')}", "```{eval-rst}", f".. automodule:: {name}"]
        lines += ["   :members:", "```"]
    text = "\n".join(f"\n{line}\n" if line.startswith("#") else line for line in lines)
    return text.lstrip() + "\n"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type_words(field: FieldInfo) -> str:
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
        return ", ".join(_code(_toml(choice)) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_annotation_words(a) for a in arguments if a is not type(None))
    if origin is tuple:
        model = _model_of(arguments[0])
        if model is not None:
            return "array of tables"
        return "list of texts" if arguments[0] is str else f"list: each {_annotation_words(arguments[0])}"
    if origin is dict:
        return (
            "table of tables"
            if _model_of(arguments[1])
            else f"table: name = {_annotation_words(arguments[1])}"
        )
    if _model_of(annotation):
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
            yield f"of the form {_code(pattern)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return ""
    return _code(_toml(value))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\") + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:_}"
    return str(value)


def _code(text: Any) -> str:
    words = str(text)
    return f"`{words}`" if "`" not in words else f"`` {words} ``"


def _markdown(docstring: str) -> str:
    """Turn a docstring's double backticks into Markdown's single ones."""
    return re.sub(r"``(.+?)``", r"`\1`", docstring)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "command-line": command_line_page,
    "configuration": configuration_page,
    "columns": columns_page,
    "flags": flags_page,
    "survey-files": survey_files_page,
    "feature-files": feature_files_page,
    "stages": stages_page,
}
