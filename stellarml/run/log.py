"""Structured logs and progress: text for a person at a terminal, JSON lines for a machine, always on standard error."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from stellarml.core.config import Log

_PERIOD_S = 5.0


def get_logger() -> Any:
    """Return the logger of the package."""
    return structlog.get_logger("stellarml")


def configure_logging(settings: Log) -> None:
    """Send logs of `settings.level` and above to standard error, as text or as JSON."""
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any
    if as_text:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_text else "iso", utc=not as_text),
            structlog.processors.dict_tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        # The standard error of the moment of the line: a stream that was replaced may be closed.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


@contextmanager
def progress(
    stage: str, what: str, total: int, done: Callable[[], int], stars: Callable[[], int] | None = None
) -> Iterator[None]:
    """Log every few seconds how many of `total` units are done and how long the rest will take.

    Parameters
    ----------
    done
        Counts finished units; called from a thread.
    stars
        Counts finished stars, where there are any.
    """
    log = get_logger()
    stop = threading.Event()
    started = time.monotonic()
    first = done()

    def tick() -> None:
        while not stop.wait(_PERIOD_S):
            finished = done()
            elapsed = time.monotonic() - started
            rate = (finished - first) / elapsed
            left = f"{(total - finished) / rate:.0f} s" if rate > 0 else "unknown"
            more = {"stars_a_second": round(stars() / elapsed)} if stars else {}
            log.info("progress", stage=stage, done=f"{finished}/{total} {what}", time_left=left, **more)

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def log_done(record: Mapping[str, Any]) -> None:
    """Log that a stage has ended, with its rows and seconds; `record` is what its run.json says."""
    rows = {name: value for name, value in record["rows"].items() if isinstance(value, int)}
    get_logger().info("done", stage=record["stage"], **rows, seconds=record["seconds"])
