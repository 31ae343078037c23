"""How a program ends: one message for every failure, and the exit status that scripts rely on.

0; 2 a user's mistake; 75 the output is in use by a living run; 130 interrupted; 1 anything else.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from stellarml.core.errors import StellarmlError, cause_of, raised_in_worker
from stellarml.core.visible_text import message_of, visible

INTERRUPTED = 130
_KEPT = "interrupted; what was finished is kept, the same command goes on from there"
_FULL = "the disk is full; what was finished is kept, free some space and run again"


def run_to_the_end(work: Callable[[], object]) -> None:
    """Run a program; where it fails, say so in one message on standard error and exit with the status for it."""
    try:
        work()
    except StellarmlError as error:
        _end(str(error), error.exit_status)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end(_KEPT, INTERRUPTED)
        raise
    except KeyboardInterrupt:
        _end(_KEPT, INTERRUPTED)
    except OSError as error:
        _end(_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error), 1)
    except Exception as error:
        if os.environ.get("STELLARML_LOG__LEVEL") == "debug":
            sys.stderr.write(visible(traceback.format_exc(), lines=True))
        known = raised_in_worker(error)
        if known is not None:
            _end(str(known), known.exit_status)
        _end(
            f"unexpected {type(error).__name__}: {cause_of(error)}\nFinished parts are kept. With "
            "STELLARML_LOG__LEVEL=debug the same command shows the traceback; please report it.",
            1,
        )


def _end(message: str, status: int) -> None:
    sys.stderr.write(f"stellarml: {message_of(message)}\n")
    sys.exit(status)
