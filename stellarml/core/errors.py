"""What can go wrong, in words a user can act on.

One family, so that the command line can turn every foreseen failure into one message and one exit status
(2 a user's mistake, 75 the output is in use, 1 anything else). A message says what was found, where, what was
expected and what to do; several problems of one kind are gathered and reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile


class StellarmlError(Exception):
    """Anything stellarml foresees; `exit_status` is what the command line ends with."""

    exit_status = 1


class UserError(StellarmlError):
    """A mistake that the user can correct: input, configuration, command line."""

    exit_status = 2


class ConfigError(UserError):
    """A configuration, descriptor or feature file does not say what it must."""


class InputError(UserError):
    """A data file is missing, damaged, or does not hold what its descriptor names."""


class BundleError(UserError):
    """A model bundle is damaged, foreign, or was made for other features."""


class NotFiniteError(UserError):
    """A model gives no finite number for stars that it should label: it was damaged, or made by something else."""


class TrainingError(UserError):
    """The training table cannot teach anything: too few stars, constant labels, no finite feature."""


class StaleOutputError(UserError):
    """An output folder was made from other inputs than those now named."""


class PlatformError(UserError):
    """The machine lacks what the run needs: Java, memory."""


class OutputBusyError(StellarmlError):
    """A living run is writing to the same output."""

    exit_status = 75


class SparkError(StellarmlError):
    """A process of Spark has died, or cannot go on."""


class ChangedInputError(StellarmlError):
    """An input was replaced or vanished while a run read it."""


class StorageError(StellarmlError):
    """The file system refused: a full disk, a lost mount."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to `name`, or an empty string."""
    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return the known names most like `name`, quoted, nearest first, in words."""
    wanted = name.lower()

    def likeness(other: str) -> float:
        part = other.lower() in wanted or wanted in other.lower()
        return SequenceMatcher(None, wanted, other.lower()).ratio() + (0.5 if part else 0.0)

    near = sorted(known, key=likeness, reverse=True)[:count]
    return ", ".join(f"'{k}'" for k in near)


def cause_of(error: BaseException) -> str:
    """Return the line of an exception's text that says most: of Java's, the innermost cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    messages = [
        line.removeprefix(": ") for line in lines if not line.startswith("An error occurred while calling")
    ]
    return (causes[-1:] or messages[:1] or [type(error).__name__])[0]


def raised_in_worker(error: BaseException) -> StellarmlError | None:
    """Return the error of this family that a Python worker has raised, from the traceback in Spark's exception."""
    lines = [line.strip() for line in str(error).splitlines()]
    title = f"{__name__}."
    for n in reversed(range(len(lines))):
        name, colon, message = lines[n].removeprefix(title).partition(": ")
        kind = globals().get(name) if lines[n].startswith(title) and colon else None
        if isinstance(kind, type) and issubclass(kind, StellarmlError):
            listed = takewhile(lambda line: line.startswith("- "), lines[n + 1 :])
            return kind("\n  ".join([message, *listed]))
    return None


def raise_gathered(kind: type[StellarmlError], title: str, problems: Sequence[str]) -> None:
    """Raise one `kind` that names all `problems`; do nothing when there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise kind(f"{title}: {problems[0]}")
    shown = "\n".join(f"  - {p}" for p in problems)
    raise kind(f"{title}, {len(problems)} problems:\n{shown}")
