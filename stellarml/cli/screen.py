"""What the command line prints: lines and tables on standard output, in which names of others can do no harm."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from stellarml.core.visible_text import visible


def say(line: str) -> None:
    """Print one line."""
    typer.echo(visible(line))


class Screen(Console):
    """A console that takes text as it is: no markup, no emoji names, and what cannot be printed is escaped."""

    def render_str(self, text: str, **given: Any) -> Text:
        """Return a text, a cell or a title as it will be shown; all of them go through here."""
        return super().render_str(visible(text, lines=True), **(given | {"markup": False, "emoji": False}))
