"""Spark's own account of a user's mistake, kept off the screen where stellarml reports it in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.logger import PySparkLogger


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep pyspark from printing the Java stack trace of an expression that cannot be analysed."""
    logger = PySparkLogger.getLogger("SQLQueryContextLogger")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was
