"""A standalone Spark cluster on loopback, from the installed wheel: a master and workers that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

from stellarml.run.memory import descendants

CHECKOUT = Path(__file__).parents[2]
# What the small chain of the tests was made with: so a job under another profile leaves all of it as it is.
SMALL_SETTINGS = """
[tiles]
max_rows = 3000
row_group_rows = 1000
[train]
preset = "small"
max_epochs = 30
"""
_REGISTERED = "Successfully registered with master"
_ENVIRONMENT = ("PYTHONPATH", "PYTHONHOME", "SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shipped_package(folder: Path) -> Path:
    """Zip the package with its conf/, as a wheel has it, for ``--py-files``."""
    path = folder / "stellarml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source, inside in ((CHECKOUT / "stellarml", "stellarml"), (CHECKOUT / "conf", "stellarml/conf")):
            for file in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
                archive.write(file, f"{inside}/{file.relative_to(source)}")
    return path


@dataclass(frozen=True)
class Shipment:
    """What goes to the executors: the package, and the Python that they run, from an archive if there is one."""

    package: Path
    python: str
    archive: Path | None = None

    @classmethod
    def of(cls, dist: Path) -> Shipment:
        """What ``make dist`` has made."""
        return cls(dist / "stellarml.zip", "./environment/bin/python", dist / "environment.tar.gz")


@dataclass
class Cluster:
    """Master and workers; `close` ends all of them."""

    folder: Path
    workers: int = 2
    memory: str = "1500m"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Cluster:
        self.port = free_port()
        self._start("master", "org.apache.spark.deploy.master.Master", "--port", str(self.port))
        self._wait("master", "I have been elected leader")
        for n in range(self.workers):
            self._start_worker(n)
        for n in range(self.workers):
            self._wait(f"worker-{n}", _REGISTERED)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    @property
    def url(self) -> str:
        """The master's address."""
        return f"spark://127.0.0.1:{self.port}"

    def start_worker(self, number: int) -> None:
        """Start a worker of one core, and wait until the master knows it."""
        self._start_worker(number)
        self._wait(f"worker-{number}", _REGISTERED)

    def _start_worker(self, number: int) -> None:
        work = self.folder / f"work-{number}"
        options = ["--cores", "1", "--memory", self.memory, "--work-dir", str(work), self.url]
        self._start(f"worker-{number}", "org.apache.spark.deploy.worker.Worker", *options)

    def kill_worker(self, number: int) -> None:
        """Kill a worker, and what it has started."""
        process = self.processes.pop(f"worker-{number}")
        for pid in (*descendants(process.pid), process.pid):
            kill(pid)
        process.wait()

    def environment(self) -> dict[str, str]:
        """Return the driver's environment: nothing that could leak to the executors."""
        from stellarml.run.spark_session import find_java

        kept = {k: v for k, v in os.environ.items() if k not in _ENVIRONMENT}
        home = Path(pyspark.__file__).parent
        own = {"JAVA_HOME": str(find_java().home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(home)}
        return kept | own

    def submit_command(self, job: str, *options: str, shipment: Shipment) -> list[str]:
        """Return the spark-submit command of a job."""
        configured = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.pyspark.driver.python": sys.executable,
            "spark.pyspark.python": shipment.python,
            "spark.executor.memory": "900m",
            "spark.executor.cores": "1",
            "spark.ui.enabled": "false",
            "spark.executorEnv.PYTHONPATH": str(self.folder / "nothing-here"),
        }
        conf = [part for key, value in configured.items() for part in ("--conf", f"{key}={value}")]
        return [
            str(Path(sys.executable).with_name("spark-submit")),
            *("--master", self.url, "--driver-memory", "1g"),
            *("--properties-file", str(CHECKOUT / "conf" / "spark-defaults.conf")),
            *("--py-files", str(shipment.package)),
            *(("--archives", f"{shipment.archive}#environment") if shipment.archive else ()),
            *conf,
            str(CHECKOUT / "jobs" / f"{job}.py"),
            *options,
        ]

    def _start(self, name: str, main: str, *options: str) -> None:
        command = [
            str(Path(sys.executable).with_name("spark-class")),
            main,
            *("--host", "127.0.0.1", "--webui-port", str(free_port())),
            *options,
        ]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment())

    def _wait(self, name: str, line: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        log = self.folder / f"{name}.log"
        while line not in log.read_text(errors="replace"):
            if time.monotonic() > end or self.processes[name].poll() is not None:
                raise RuntimeError(f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)


def command_of(pid: int) -> str:
    """Return the command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; False where the process has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def label_leaves(root: Path) -> dict[str, bytes]:
    """Return the leaves of all labelled catalogues below `root` by their path."""
    found = sorted((root / "labels").rglob("dataset/**/*.parquet"))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}
