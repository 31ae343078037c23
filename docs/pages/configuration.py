"""The configuration, from conf/base.toml and the model that reads it."""

from __future__ import annotations

import inspect
import tomllib

from pages.markdown import as_code, as_table, markdown, sentence, toml
from pages.models import model_of, type_words
from stellarml.core.config import PROFILES, Config, conf_dir


def configuration_page() -> str:
    """Return a section a table of conf/base.toml: every key, its type, its shipped value, its comment."""
    text = (conf_dir() / "base.toml").read_text(encoding="utf-8")
    values, comments = tomllib.loads(text), base_comments(text)
    sections = []
    for table, field in Config.model_fields.items():
        if table not in values:
            continue
        lines = [f"## [{table}]"]
        model = model_of(field.annotation)
        if model is not None:
            lines.append(markdown(inspect.getdoc(model) or ""))
            rows = [
                (
                    as_code(key),
                    type_words(inner),
                    as_code(toml(values[table][key])),
                    comments.get(f"{table}.{key}", ""),
                )
                for key, inner in model.model_fields.items()
                if not isinstance(values[table].get(key), dict)
            ]
            lines.append(as_table(("key", "type", "shipped value", "meaning"), rows))
            tables = [key for key in model.model_fields if isinstance(values[table].get(key), dict)]
            lines += [f"`[{table}.{key}]`: {comments.get(f'{table}.{key}', '')}" for key in tables]
        else:
            lines.append(sentence(comments.get(table, "")))
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
