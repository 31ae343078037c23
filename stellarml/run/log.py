"""Structured logs, always on standard error: text for a person, JSON lines for a machine that asks for them.

A pipe or a file is read by a person as often as a terminal is, so it gets text, without colours.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from stellarml.core.config import Log
from stellarml.core.visible_text import visible

_WRITTEN_AS_LITERAL = frozenset(" \t=\r\n\"'")
UNCHANGED = "unchanged"
"""Key of a record that a stage returns, and never writes, where it found its output as it should be."""


def get_logger() -> Any:
    """Return the logger of the package."""
    return structlog.get_logger("stellarml")


def is_debug() -> bool:
    """Tell whether everything is logged."""
    return bool(get_logger().is_enabled_for(logging.DEBUG))


def configure_logging(settings: Log) -> None:
    """Send logs of `settings.level` and above to standard error, as text or as JSON."""
    as_text = settings.format != "json"
    renderer: Any
    if as_text:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, sort_keys=False)
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_text else "iso", utc=not as_text),
            structlog.processors.dict_tracebacks,
            *([_visible] if as_text else []),  # JSON escapes by itself
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        # The standard error of the moment of the line: a stream that was replaced may be closed.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _visible(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape what a terminal would act upon; a text with a space or a line feed structlog writes as a literal."""
    return {
        visible(key): visible(value)
        if isinstance(value, str) and (key == "event" or not set(value) & _WRITTEN_AS_LITERAL)
        else value
        for key, value in event.items()
    }


def log_done(record: Mapping[str, Any]) -> None:
    """Log that a stage has ended, with its rows and seconds, or that there was nothing for it to do.

    Parameters
    ----------
    record
        What its run.json says; with the key `UNCHANGED` the seconds are those of an earlier run, and not shown.
    """
    rows = {name: value for name, value in record["rows"].items() if isinstance(value, int)}
    if record.get(UNCHANGED):
        get_logger().info("unchanged", stage=record["stage"], **rows)
    else:
        get_logger().info("done", stage=record["stage"], **rows, seconds=record["seconds"])
