"""Which columns does a SQL expression name? Told without Spark, by its words."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*")|`(?P<quoted>(?:[^`]|``)+)`"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)(?P<call>\s*\()?|(?P<number>\d[\w.]*)"""
)


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
