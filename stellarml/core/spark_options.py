"""Spark options that run code, and who may set them.

A configuration file may be somebody else's: a colleague's run, a folder that many can write to. What it says about
paths, cuts and memory is read as it is; an option with which Spark loads or starts code is taken only from the user's
own files (theirs or the administrator's, and not writable by everybody), `--set`, the environment, and spark-submit.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stellarml.core.errors import ConfigError, raise_gathered

RUNS_CODE = (
    r"javaoptions",  # arguments of the JVM: agents, class paths
    r"classpath|librarypath|classloader|userclasspathfirst",
    r"^spark\.jars|\bjars?$|packages|repositories|ivy",
    r"^spark\.(files|archives|submit\.|yarn\.(dist|archive|am\.))",  # shipped to the workers, and unpacked there
    r"^spark\.pyspark\.|^spark\.python\.(daemon|worker)\.module",  # which interpreter, which module is started
    r"env\.(python|ld_|dyld_|java|jdk|spark|hadoop|pyspark|classpath|path$|bash_env|env$)",  # of executors and drivers
    r"plugin|listener|extension|filters$|registrator|serializer|commitprotocol|outputcommitter",
    r"^spark\.sql\.(catalog\.|catalogimplementation|hive\.)|^spark\.kryo|^spark\.shuffle\.manager",
    r"^spark\.(metrics\.conf|deploy\.|redaction\.)|class(es|name)?$|factory",
    r"script|command|executable|launcher",
    r"^spark\.kubernetes\..*(template|image|volumes|uploadpath|featuresteps)|^spark\.r\.|^spark\.resources?\.",
)
"""Regular expressions, searched in the option's name in lower case."""
_RUNS_CODE = re.compile("|".join(RUNS_CODE))


LEAST_DRIVER_MEMORY_MB = 512
"""1.5 times the 300 MB that Spark reserves, and a little."""


def enough_for_java(memory: str) -> str:
    """Return a memory such as ``3g`` or ``512m``, with which Spark starts.

    Raises
    ------
    ValueError
        If it is too little.
    """
    if int(memory[:-1]) * (1 if memory[-1] == "m" else 1024) < LEAST_DRIVER_MEMORY_MB:
        raise ValueError(f"is {memory}, and Spark does not start with less than {LEAST_DRIVER_MEMORY_MB}m")
    return memory


def runs_code(option: str) -> bool:
    """Whether Spark loads or starts code that an option names.

    Examples
    --------
    >>> runs_code("spark.jars.packages"), runs_code("spark.executor.memory"), runs_code("spark.hadoop.fs.s3a.endpoint")
    (True, False, False)
    """
    return _RUNS_CODE.search(option.lower()) is not None


def refuse_code(layer: Mapping[str, Any], file: Path) -> None:
    """Refuse a configuration file that names such an option and is not the user's own.

    Raises
    ------
    ConfigError
        Naming each, and how to set it.
    """
    spark = layer.get("spark")
    options = spark.get("options") if isinstance(spark, Mapping) else None
    found = [str(name) for name in options if runs_code(str(name))] if isinstance(options, Mapping) else []
    if not found or (why := _not_own(file)) is None:
        return
    problems = [
        f"spark.options: '{name}' loads or runs code, which is taken only from a configuration of your own, and this "
        f"file {why}. If you want it, give it on the command line, --set 'spark.options.\"{name}\"=...', or to "
        "spark-submit"
        for name in found
    ]
    raise_gathered(ConfigError, str(file), problems)


def _not_own(file: Path) -> str | None:
    """Return why a file is not the user's own; None if it is."""
    status = file.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to the user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    return None
