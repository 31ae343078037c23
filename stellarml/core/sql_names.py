"""What a SQL expression names, told without Spark, by its words: columns, and what no shared file may ask for.

Descriptors and feature files are data that people send each other. Spark's SQL can call any static method of Java and
read any file by a subquery; neither belongs into an expression over a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*")|`(?P<quoted>(?:[^`]|``)+)`"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)(?P<call>\s*\()?|(?P<number>\d[\w.]*)"""
)


_COMMENT = re.compile(r"/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)
_QUERY = re.compile(r"\(\s*(?:select|from|table|with|values|map|reduce)\b(?!\s*\()", re.IGNORECASE)
_PATH = re.compile(r"\.\s*`[^`]*[/\\]")
_CALLS = frozenset({"reflect", "java_method", "try_reflect"})


def check_expression(expression: str) -> str:
    """Return `expression` if all it can do is compute with a row's columns.

    Raises
    ------
    ValueError
        If it calls Java or holds a query.
    """
    bare = _COMMENT.sub(" ", _TOKEN.sub(lambda m: "''" if m["text"] else m[0], expression))
    words = [m["quoted"] or m["word"] or "" for m in _TOKEN.finditer(bare)]
    calls = [word for word in words if word.lower() in _CALLS]
    if calls:
        raise ValueError(f"'{expression}' calls Java ({calls[0]}), which no expression may")
    if _QUERY.search(bare) or _PATH.search(bare) or "|>" in bare:
        raise ValueError(f"'{expression}' holds a query; expected an expression over the columns of a row")
    return expression


Sql = Annotated[str, AfterValidator(check_expression)]
"""A Spark SQL expression over the columns of a row, as surveys and feature files hold it."""


def substitute(expression: str, replacements: dict[str, str]) -> str:
    """Replace column names in a SQL expression; text in quotes, functions and struct fields are left alone.

    Parameters
    ----------
    expression
        Spark SQL.
    replacements
        From lower-case column name to SQL.

    Examples
    --------
    >>> substitute("log10(u) + U - `u` - t.u - 'u'", {"u": "(x)"})
    "log10((x)) + (x) - (x) - t.u - 'u'"
    """
    pieces, end = [], 0
    for match in _TOKEN.finditer(expression):
        name = match["quoted"] or (match["word"] if not match["call"] else None)
        field = expression[: match.start()].rstrip().endswith(".")
        if name is not None and not field and name.lower() in replacements:
            pieces += [expression[end : match.start()], replacements[name.lower()]]
            end = match.end()
    return "".join([*pieces, expression[end:]])


def words_of(expression: str) -> Iterator[str]:
    """Yield what may be column names: words outside quotes that are no function."""
    for match in _TOKEN.finditer(expression):
        if match["quoted"] or (match["word"] and not match["call"]):
            yield match["quoted"] or match["word"]


def columns_of(expression: str) -> list[str]:
    """Return the columns that a SQL expression names, in their order; of a field of a column, the column.

    Raises
    ------
    ValueError
        If it is no Spark SQL.

    Examples
    --------
    >>> columns_of("if(u > 0, log10(`B-V`), transform(xp, x -> x + 1)[0])")
    ['u', 'B-V', 'xp']
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(expression, read="spark")
    except SqlglotError as error:
        raise ValueError(f"'{expression}' is not Spark SQL: {str(error).splitlines()[0]}") from None
    found = [column.parts[0].name for column in tree.find_all(exp.Column, bfs=False)]
    return list(dict.fromkeys(found))
