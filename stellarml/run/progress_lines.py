"""Progress where there is no terminal: a line of the log now and then, for whoever reads it later or follows it."""

from __future__ import annotations

from typing import Any

from stellarml.core.progress import Status
from stellarml.run.log import get_logger


def log_status(status: Status) -> None:
    """Log one line: the task, its step, how much is done, rows a second, and the time that is left."""
    fields: dict[str, Any] = {"stage": status.task}
    if status.step:
        fields["step"] = status.step
    if status.total or status.done:
        fields["done"] = count_of(status)
    if status.rows_a_second:
        fields["rows_a_second"] = round(status.rows_a_second)
    if status.remarks:
        fields["now"] = ", ".join(status.remarks)
    fields["time"] = clock(status.seconds)
    if status.seconds_left is not None:
        fields["time_left"] = clock(status.seconds_left)
    get_logger().info("progress", **fields)


def count_of(status: Status) -> str:
    """Return how much is done, in words: rows of all rows; rows alone where the whole is known in bytes only."""
    if status.unit == "bytes":
        return f"{status.rows or 0:,} rows"
    return (
        f"{status.done:,} of {status.total:,} {status.unit}"
        if status.total
        else f"{status.done:,} {status.unit}"
    )


def clock(seconds: float) -> str:
    """Return a time span as people read it: 0:07, 12:30, 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
