"""What the machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stellarml.core.config import Config, conf_dir
from stellarml.core.errors import StellarmlError
from stellarml.run.memory import available_bytes
from stellarml.run.spark_session import find_java, memory_in_bytes
from stellarml.stages.chain import STAGES
from stellarml.stages.preflight import problems_of_run

_PACKAGES = (
    "pyspark",
    "pyarrow",
    "pandas",
    "numpy",
    "tensorflow",
    "healpy",
    "astropy",
    "hats",
    "numba",
    "lsdb",
)
_OPTIONAL = ("lsdb",)


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `help` says what to do where it is not good."""

    name: str
    found: str
    good: bool
    help: str = ""


def examine(config: Config, *, named: bool = False) -> list[Finding]:
    """Look at Python, Java, memory, disk and packages; of a configuration that was `named`, at all its run needs."""
    findings = [_python(), _guarded("Java", _java), _memory(config), _disk(config)]
    findings += [_package(name) for name in _PACKAGES]
    findings.append(Finding("shipped configuration", str(conf_dir()), True))
    if named:
        findings += _run(config)
    return findings


def _run(config: Config) -> list[Finding]:
    """Say for each survey where its files are, and everything that would stop the run."""
    findings = []
    problems = problems_of_run(config, STAGES)
    for survey in config.surveys.names:
        name = survey if survey in config.raw else Path(survey).stem
        where = config.raw.get(name)
        findings.append(Finding(f"raw.{name}", str(config.path(where)) if where else "not named", True))
    wrong = [Finding("run", problem, False, "a run would end here, before it starts") for problem in problems]
    return findings + (wrong or [Finding("run", "nothing is found that would stop it", True)])


def _python() -> Finding:
    return Finding(
        "Python",
        platform.python_version(),
        sys.version_info >= (3, 11),
        "stellarml needs Python 3.11 or newer",
    )


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except StellarmlError as error:
        return Finding(name, "none", False, str(error))


def _java() -> Finding:
    java = find_java()
    return Finding("Java", f"{java.version} in {java.home} (from {java.source})", True)


def _memory(config: Config) -> Finding:
    free = available_bytes()
    if free is None:
        return Finding("memory", "unknown", True)
    wanted = memory_in_bytes(config.spark.min_free_memory)
    return Finding(
        "memory",
        f"{free / 2**30:.1f} GiB free, {os.cpu_count()} cores",
        free >= wanted,
        f"a run needs {wanted / 2**30:.1f} GiB: close other programs or lower spark.min_free_memory",
    )


def _disk(config: Config) -> Finding:
    lake = config.lake_folder
    there = next((p for p in (lake, *lake.parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    return Finding("disk", f"{free / 2**30:.1f} GiB free at {there}", free > 1 << 30, "free some space")


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name), True)
    except PackageNotFoundError:
        return Finding(name, "not installed", name in _OPTIONAL, f"pip install {name}")
