"""Does the exactness suite notice? `python tests/mutants/run_mutants.py [NAME ...]` breaks a copy of the package.

Each mutant is a temporary copy of the package with one place changed; the working tree is never touched. The tests run
in a fork of one process that has imported the libraries, with numba as plain Python: a mutant takes seconds, not the
minute that compiling would. A copy without a change must pass first. Status 1 if a mutant survives, if the place it
changes is not found exactly once, or if the copy without a change fails.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEAVY = (
    "numba", "numpy", "pandas", "pyarrow.ipc", "pyarrow.parquet", "healpy", "pytest", "pydantic", "structlog",
    "scipy.spatial.transform", "astropy.coordinates", "astropy.io.fits", "astropy.time",
)  # fmt: skip
os.environ |= {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
sys.path.insert(0, str(HERE))

from mutants import EVERYTHING, FILES, MUTANTS, NAMED_BY_THE_ISSUE, Mutant  # noqa: E402

UNCHANGED = Mutant("unchanged", "stellarml/__init__.py", "", "", "the suite itself must pass", EVERYTHING)


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: killed, survived, passed (the unchanged copy) or stale, and how one knows."""

    mutant: Mutant
    state: str
    seconds: float
    witness: str

    @property
    def good(self) -> bool:
        """Whether that is how it should be."""
        return self.state == ("passed" if self.mutant is UNCHANGED else "killed")


def copy_with(mutant: Mutant, folder: Path) -> bool:
    """Copy the package into `folder` with the mutant's change; say whether its place was found exactly once."""
    shutil.copytree(
        ROOT / "stellarml",
        folder / "stellarml",
        ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"),
    )
    (folder / "conf").symlink_to(ROOT / "conf")
    if mutant is UNCHANGED:
        return True
    path = folder / mutant.file
    text = path.read_text() if path.is_file() else ""
    if text.count(mutant.old) != 1:
        return False
    path.write_text(text.replace(mutant.old, mutant.new))
    return True


class WithoutShrinking:
    """A plugin: a property that fails has said enough."""

    def pytest_collection(self) -> None:
        """Load the profile after the project's own, before any test is imported."""
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants",
            settings.get_profile(settings.get_current_profile_name()),
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutants")


def run_suites(folder: Path, mutant: Mutant) -> int:
    """Run the mutant's tests on the copy; called in a process of its own."""
    import pytest

    sys.path.insert(0, str(folder))
    import stellarml

    assert Path(stellarml.__file__).is_relative_to(folder), stellarml.__file__
    suites = [suite.partition("::") for suite in mutant.suites]
    files = [str(ROOT / "tests" / "unit" / FILES[name]) + colons + test for name, colons, test in suites]
    options = ["-x", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    return int(
        pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), *files], plugins=[WithoutShrinking()])
    )


def start(mutant: Mutant, folder: Path) -> int:
    """Fork a process that ends with pytest's status and leaves what it said in ``log``."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 3
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = run_suites(folder, mutant)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def verdict(mutant: Mutant, status: int, seconds: float, log: Path) -> Verdict:
    """Read pytest's status: 0 all passed, 1 a test failed, 2 interrupted by an error of collection."""
    lines = log.read_text(errors="replace").splitlines()
    witness = next((line.split("::", 1)[-1] for line in lines if line.startswith("FAILED ")), "")
    if mutant is UNCHANGED:
        return Verdict(mutant, "passed" if status == 0 else "failed", seconds, witness)
    state = {0: "survived", 1: "killed"}.get(status, "broken")
    return Verdict(mutant, state, seconds, witness or (lines[-1] if lines and state == "broken" else ""))


def run(mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    """Run every mutant, `jobs` at a time."""
    for module in HEAVY:
        importlib.import_module(module)
    verdicts: dict[str, Verdict] = {}
    running: dict[int, tuple[Mutant, Path, float]] = {}
    waiting = list(mutants)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop(0)
                folder = Path(scratch) / mutant.name
                if copy_with(mutant, folder):
                    running[start(mutant, folder)] = mutant, folder, time.monotonic()
                else:
                    verdicts[mutant.name] = Verdict(mutant, "stale", 0.0, f"not once in {mutant.file}")
            if running:
                child, status = os.wait()
                mutant, folder, since = running.pop(child)
                seconds = time.monotonic() - since
                code = os.waitstatus_to_exitcode(status)
                verdicts[mutant.name] = verdict(mutant, code, seconds, folder / "log")
                shutil.rmtree(folder)
    return [verdicts[mutant.name] for mutant in mutants]


def table(verdicts: Sequence[Verdict]) -> str:
    """One line a mutant, and the sum."""
    lines = [
        f"{v.mutant.name:<30} {v.state:<9} {v.seconds:6.1f} s  {v.mutant.why}"
        + (f"\n{'':<49}{v.witness}" if v.witness else "")
        for v in verdicts
    ]
    states = [v.state for v in verdicts]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return "\n".join([*lines, counts])


def main() -> int:
    """Run the mutants named on the command line, all by default; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Break a copy of the cross-match and see whether its tests notice."
    )
    parser.add_argument("names", nargs="*", help="mutants to run; all by default")
    parser.add_argument("--six", action="store_true", help="only the six that the suite itself runs")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    known = {mutant.name: mutant for mutant in (UNCHANGED, *MUTANTS)}
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no mutant is called {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in given.names] or list(
        NAMED_BY_THE_ISSUE if given.six else known.values()
    )
    verdicts = run(chosen, given.jobs)
    sys.stdout.write(table(verdicts) + "\n")
    return 0 if all(v.good for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
