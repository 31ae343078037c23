"""Text of others made harmless where people read it: names of files, columns and labels, messages of libraries.

A terminal acts upon control characters, and a reader is deceived by what he cannot see: escape sequences, carriage
returns, marks that turn the direction of writing, characters without width. They are shown as Python writes them.
"""

from __future__ import annotations

import html


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with the characters that cannot be printed as backslash escapes.

    Parameters
    ----------
    lines
        Keep line feeds.

    Examples
    --------
    >>> visible("gaia\x1b[2J\r\n"), visible("two\nlines", lines=True), visible("Δ [Fe/H] \u202e")
    ('gaia\\x1b[2J\\r\\n', 'two\nlines', 'Δ [Fe/H] \\u202e')
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode() for c in text
    )


def message_of(text: str) -> str:
    r"""Return the text of one message: lines after the first are indented, so that none can pass for another message.

    Examples
    --------
    >>> message_of("a file\nstellarml: done"), message_of("two problems:\n  - a\n  - b")
    ('a file\n  stellarml: done', 'two problems:\n  - a\n  - b')
    """
    first, *others = visible(text, lines=True).split("\n")
    return "\n".join([first, *(line if not line or line.startswith(" ") else f"  {line}" for line in others)])


def in_markdown(text: object) -> str:
    r"""Return a text as one line, or one cell of a table, of Markdown; tags of HTML are shown, not followed.

    Examples
    --------
    >>> in_markdown("a|b <script>\n# c")
    'a\\|b &lt;script&gt;\\n# c'
    """
    return html.escape(visible(str(text)), quote=False).replace("|", "\\|")


def code_in_markdown(text: str) -> str:
    r"""Return a text as code in a cell of a table of Markdown, between more backticks than it has in a row.

    Examples
    --------
    >>> code_in_markdown("a - b"), code_in_markdown("`a` - b")
    ('`a - b`', '`` `a` - b ``')
    """
    fence, pad = "`", ""
    while fence in text:
        fence, pad = fence + "`", " "
    return f"{fence}{pad}{visible(text)}{pad}{fence}".replace("|", "\\|")
