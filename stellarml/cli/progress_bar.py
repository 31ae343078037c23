"""Progress on a terminal: one line at the bottom of the screen, gone when the task has ended; log lines go above it."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from stellarml.core import progress
from stellarml.core.config import Log
from stellarml.core.progress import Status
from stellarml.core.visible_text import visible
from stellarml.run.log import configure_logging
from stellarml.run.progress_lines import clock, count_of, log_status
from stellarml.run.progress_thread import Pace, Watcher

_BAR_EVERY_S = 0.5
_WIDEST_BAR, _NARROWEST_BAR = 30, 8


def configure_output(settings: Log) -> None:
    """Log as `settings` say, and show progress: a bar on a terminal, otherwise a line of the log now and then."""
    configure_logging(settings)
    quiet = settings.level in ("warning", "error")
    if quiet:
        progress.show_with(None)
    elif settings.format != "json" and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        bar = Bar()
        progress.show_with(Watcher(Pace(settings.progress_after_s, _BAR_EVERY_S), bar.show, bar.hide))
    else:
        progress.show_with(Watcher(Pace(settings.progress_after_s, settings.progress_every_s), log_status))


class Bar:
    """The line at the bottom of a terminal, on standard error; it begins with the first `show`."""

    def __init__(self) -> None:
        # A descriptor of its own, taken before the work begins: standard error is discarded while TensorFlow is loaded.
        self._screen = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding)
        self._shown: Progress | None = None
        self._bar = BarColumn(_WIDEST_BAR)
        self._task = TaskID(0)

    def show(self, status: Status) -> None:
        """Draw the line anew."""
        new = self._shown is None
        shown = self._shown = self._shown or self._line()
        name, self._bar.bar_width, text = fitted(shown.console.width, status)
        shown.update(
            self._task, description=name, completed=status.done, total=status.total or None, text=text
        )
        if new:
            shown.start()
            shown.console.show_cursor(True)  # a run that is killed must not leave a terminal without one
        else:
            shown.refresh()

    def hide(self) -> None:
        """Take the line away."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _line(self) -> Progress:
        # Standard output goes through the same console only where it is the same screen.
        line = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            self._bar,
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=Console(file=self._screen, force_terminal=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = line.add_task("", total=None, text="")
        return line


def fitted(width: int, status: Status) -> tuple[str, int, str]:
    """Return the name of what is under way, the width of the bar and the text behind it, for `width` columns.

    Where there is little room the remarks go first, from the last one, then the name is cut; count, rate and the time
    that is left stay.
    """
    name = visible(f"{status.task}: {status.step}" if status.step else status.task)
    needed, remarks = _needed(status), [visible(remark) for remark in status.remarks]
    while remarks and len(name) + len(", ".join([*needed, *remarks])) + _NARROWEST_BAR + 2 > width:
        remarks.pop()
    text = ", ".join([*needed[:1], *remarks, *needed[1:]])
    room = width - 2 - len(text)
    name = name if len(name) + _NARROWEST_BAR <= room else f"{name[: max(0, room - _NARROWEST_BAR - 1)]}…"
    return name, max(1, min(_WIDEST_BAR, room - len(name))), text


def _needed(status: Status) -> list[str]:
    """Return how much is done, the rate, and the time that is left, or that has passed."""
    found = [count_of(status)] if status.total or status.done else []
    if status.rows_a_second:
        found.append(f"{status.rows_a_second:,.0f} rows/s")
    left = status.seconds_left
    return [*found, f"{clock(status.seconds)} so far" if left is None else f"{clock(left)} left"]
