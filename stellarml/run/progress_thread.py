"""A thread that looks at what is under way now and then, and has it shown once it has taken a while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stellarml.core import progress
from stellarml.core.progress import Status

_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Pace:
    """When progress is shown: not in the first `after_s` seconds of a task, and then every `every_s` seconds at most.

    The second holds across tasks: a chain of short stages says no more than one long stage.
    """

    after_s: float
    every_s: float


class Watcher:
    """A display whose `show` is called from a thread of its own, and whose `hide` is called when the task has ended.

    The thread lives as long as the outermost task. It must never harm the work: what goes wrong in counting or showing
    is dropped, and shown at the next look.
    """

    def __init__(
        self, pace: Pace, show: Callable[[Status], None], hide: Callable[[], None] = lambda: None
    ) -> None:
        self._pace, self._show, self._hide = pace, show, hide
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = 0.0

    def begin(self) -> None:
        """Look from now on."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(self._stop,), name="progress", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more, and take away what is shown."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
        self._hide()

    def _look(self, stop: threading.Event) -> None:
        due = max(self._next, time.monotonic() + self._pace.after_s)
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = self._next = time.monotonic() + self._pace.every_s
            # A folder that vanished, a Spark that is being stopped, a terminal that was closed: look again later.
            with contextlib.suppress(Exception):
                found = progress.status()
                if found and not stop.is_set():
                    self._show(found)
