"""How Spark ends: in silence when a run was interrupted, and in words when its Java process has died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from stellarml.core.errors import ChangedInputError, SparkError, StellarmlError, StorageError, cause_of
from stellarml.run.interruption import kill_children
from stellarml.run.memory import descendants

if TYPE_CHECKING:
    from pyspark import SparkContext

_LOG_OFF_S, _JAVA_ENDS_S = 1.0, 6.0
_OF_DAEMONS = (
    "Python worker exited unexpectedly",
    "Python daemon failed to launch worker",
    "EOFException reached before Python server acknowledged",
)
_OF_INPUTS = (
    "java.io.FileNotFoundException",
    "is not a Parquet file",
    "FAILED_READ_FILE",
    "CANNOT_READ_FILE_FOOTER",
    "ParquetDecodingException",
    "org.apache.parquet.io.",
)
_NOT_REACHED = (
    "Py4JNetworkError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "BrokenPipeError",
    "EOFError",
)


def stop_spark_quietly() -> None:
    """End the Java process of this run, if it started one, and the workers; nothing of it reaches the terminal.

    Java is asked to end, which lets it remove its temporary folders, and killed if it does not.
    """
    context = _context()
    java = _java_process()
    if java is None:  # Java may just be starting
        if not submitted():
            kill_children()
        return
    workers = [pid for pid in descendants(os.getpid()) if pid != java.pid]
    if context is not None and java.poll() is None:
        # Whatever Java still has to say of its jobs, the user has asked for their end. It may hang, so not from here.
        asked = threading.Thread(target=_log_nothing, args=(context,), daemon=True)
        asked.start()
        asked.join(_LOG_OFF_S)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    java.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        java.wait(_JAVA_ENDS_S)
    kill_children()


def _log_nothing(context: SparkContext) -> None:
    with contextlib.suppress(Exception):
        context.setLogLevel("OFF")


def foreseen(error: BaseException) -> StellarmlError | None:
    """Return what an exception says of Spark's processes, in words; None if it is about something else."""
    java = _java_process()
    text = str(error)
    if java is not None and (java.poll() is not None or type(error).__name__ in _NOT_REACHED):
        status = _wait_for(java)
        if status is not None:
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            return SparkError(
                f"Spark's Java process has ended ({how}): by hand, or by the system, for want of memory. What was "
                "finished is kept; run the same command again. If it happens again, give it less to do at once "
                "(spark.master = 'local[1]'), another spark.driver_memory, or close other programs."
            )
    if any(words in text for words in _OF_DAEMONS):
        return SparkError(
            "a Python process of Spark has ended before its time: killed by hand, or by the system, for want of memory "
            f"({cause_of(error)}). What was finished is kept; run the same command again. If it happens again, give "
            "it less to do at once (spark.master = 'local[1]', smaller tiles.max_rows) or close other programs."
        )
    if "No space left on device" in text:
        return StorageError(
            f"the disk is full ({cause_of(error)}). What was finished is kept; free some space and run the same "
            "command again. Spark's temporary files lie in TMPDIR, or where spark.local.dir says."
        )
    if any(words in text for words in _OF_INPUTS):
        return ChangedInputError(
            f"an input cannot be read any more: it has vanished or was replaced while it was read, or is damaged "
            f"({cause_of(error)}). What was finished is kept; run the same command again when it stays as it is."
        )
    if "OutOfMemoryError" in text:
        return SparkError(
            f"Spark's Java process has too little memory ({cause_of(error)}). What was finished is kept. Set "
            "spark.driver_memory higher and run the same command again."
        )
    return None


def _wait_for(java: subprocess.Popen[bytes]) -> int | None:
    """Return how Java ended; its connections may break a moment before it has."""
    end = time.monotonic() + 2.0
    while java.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return java.poll()


def submitted() -> bool:
    """Tell whether Spark was there before, and has started this program: under ``spark-submit``."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _context() -> SparkContext | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    return SparkContext._active_spark_context


def _java_process() -> subprocess.Popen[bytes] | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    process: subprocess.Popen[bytes] | None = getattr(SparkContext._gateway, "proc", None)
    return process
