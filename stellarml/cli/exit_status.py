"""How a program ends: one message for every failure, and the exit status that scripts rely on.

0; 2 a user's mistake; 75 the output is in use by a living run; 129, 130, 143 ended by SIGHUP, Ctrl-C or SIGTERM; 1
anything else.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable

from stellarml.core.errors import StellarmlError, cause_of, raised_in_worker
from stellarml.core.visible_text import message_of, visible
from stellarml.run.interruption import asked, interruptible, settle
from stellarml.run.spark_end import foreseen, stop_spark_quietly

INTERRUPTED = 130
_WORDS = {129: "the terminal was closed", 130: "interrupted", 143: "ended by SIGTERM"}
_FULL = "the disk is full; what was finished is kept, free some space and run again"


def run_to_the_end(work: Callable[[], object]) -> None:
    """Run a program; where it fails, say so in one message on standard error and exit with the status for it."""
    with interruptible(_interrupted):
        try:
            work()
        except BaseException as error:
            # A library may have made something else of the exception that a signal raised.
            interrupted = asked() is not None or isinstance(error, KeyboardInterrupt)
            settle()
            if interrupted or (isinstance(error, SystemExit) and error.code == INTERRUPTED):
                status = 128 + (asked() or signal.SIGINT)
                sys.stderr.write(f"stellarml: {_interrupted(status)}\n")
                stop_spark_quietly()
                sys.exit(status)
            _say(error)
            raise


def _say(error: BaseException) -> None:
    """End with the message and the status for an error; return where it speaks for itself."""
    if isinstance(error, StellarmlError):
        _end(str(error), error.exit_status)
    if not isinstance(error, Exception):
        return
    told = raised_in_worker(error) or foreseen(error)
    if told is not None:
        _end(str(told), told.exit_status)
    if isinstance(error, OSError):
        _end(_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error), 1)
    if os.environ.get("STELLARML_LOG__LEVEL") == "debug":
        sys.stderr.write(visible("".join(traceback.format_exception(error)), lines=True))
    _end(
        f"unexpected {type(error).__name__}: {cause_of(error)}\nFinished parts are kept. With "
        "STELLARML_LOG__LEVEL=debug the same command shows the traceback; please report it.",
        1,
    )


def _interrupted(status: int) -> str:
    return f"{_WORDS[status]}; what was finished is kept, the same command goes on from there"


def _end(message: str, status: int) -> None:
    sys.stderr.write(f"stellarml: {message_of(message)}\n")
    sys.exit(status)
