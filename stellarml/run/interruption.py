"""Ctrl-C, SIGTERM and a closed terminal: a run ends at once, in one line, and takes its children with it.

A signal raises `Interrupted` in the main thread, wherever that is. Such an exception can get lost (in a destructor, in
a library that catches everything) or come late (in a long call of compiled code), so a thread raises it again, and in
the end ends the process itself. Nothing depends on an orderly end: what a killed run leaves, the next one knows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from stellarml.run.memory import descendants

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S, _LONGEST_S = 3.0, 14.0


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end."""


@dataclass
class _Ending:
    """What a run heeds, and what has been asked of it.

    heeded
        Signals that were not ignored when it began: under nohup, and in the background of a script, some are.
    """

    told: Callable[[int], str] = str
    heeded: tuple[signal.Signals, ...] = ()
    number: int | None = None
    settled: bool = False
    over: bool = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Raise `Interrupted`; see to it that it is heeded."""
        if self.settled:
            return
        if self.number is None:
            self.number = number
            threading.Thread(target=_see_to_it, args=(self, number), daemon=True).start()
        raise Interrupted(signal.Signals(self.number).name)


_ending = _Ending()


@contextlib.contextmanager
def interruptible(told: Callable[[int], str]) -> Iterator[None]:
    """Raise `Interrupted` in the main thread when a signal asks the run to end.

    Parameters
    ----------
    told
        Given the exit status, what is said where the process has to be ended from outside of the main thread.
    """
    global _ending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _ending = ending = _Ending(told, tuple(n for n in SIGNALS if before[n] != signal.SIG_IGN))
    take_signals()
    try:
        yield
    finally:
        ending.over = True
        for number, handler in before.items():
            # What was asked for stays asked for: the interpreter's own end must not be interrupted.
            signal.signal(number, handler if ending.number is None else signal.SIG_IGN)


def take_signals() -> None:
    """Install the handlers anew, after a library has installed its own; what was ignored stays ignored."""
    if not _ending.heeded or _ending.over or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        signal.signal(number, _ending.handle if number in _ending.heeded else signal.SIG_IGN)


def asked() -> int | None:
    """Return the signal that has asked the run to end; None where none has."""
    return _ending.number


def settle() -> None:
    """From now on the end is under way: further signals are not heeded."""
    _ending.settled = True


def _see_to_it(ending: _Ending, number: int) -> None:
    """Raise the signal again until the main thread heeds it; end the process if nothing helps."""
    end = time.monotonic() + _LONGEST_S
    while time.monotonic() < end:
        time.sleep(_AGAIN_S)
        if not ending.settled:
            signal.pthread_kill(threading.main_thread().ident or 0, number)
    if ending.over and threading.main_thread().is_alive():
        return  # a host that goes on, a notebook for one, is not ended
    kill_children()
    with contextlib.suppress(OSError, ValueError):
        if not ending.settled:
            sys.stderr.write(f"stellarml: {ending.told(128 + number)}\n")
            sys.stderr.flush()
    os._exit(128 + number)


def kill_children() -> None:
    """Kill every process that this one has started, and those that they have started."""
    for _ in range(3):
        found = descendants(os.getpid())
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.05)
