"""The commands of docker/compose.yaml, run natively on loopback: master, two workers, history server, the job.

Long: it runs where ``STELLARML_DIST`` is set (`make cluster`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from helpers.standalone_cluster import CHECKOUT, SMALL_SETTINGS, Cluster, free_port, kill, label_leaves

from stellarml.run.memory import descendants

SERVICES = yaml.safe_load((CHECKOUT / "docker" / "compose.yaml").read_text())["services"]


class Natively:
    """What the containers would give: names, ports and folders of the compose file, here."""

    def __init__(self, data: Path) -> None:
        self.ports = {"7077": str(free_port()), "8080": str(free_port()), "18080": str(free_port())}
        self.data = data

    def here(self, text: str) -> str:
        """Return a word of a command as it is on this machine."""
        changes = {
            **{f"master:{port}": f"127.0.0.1:{ours}" for port, ours in self.ports.items()},
            **{f"port={port}": f"port={ours}" for port, ours in self.ports.items()},
            "/opt/stellarml": str(CHECKOUT),
            "/var/cache/stellarml": str(self.data / "cache"),
            "/data": str(self.data),
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return {"master": "127.0.0.1", **self.ports}.get(text, text)

    def command(self, service: str) -> list[str]:
        """Return the command of a service."""
        first, *rest = SERVICES[service]["command"]
        return [str(Path(sys.executable).with_name(first)), *(self.here(word) for word in rest)]

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service."""
        own = {name: self.here(value) for name, value in SERVICES[service].get("environment", {}).items()}
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        return Cluster(self.data).environment() | python | own

    @contextmanager
    def running(self, service: str, name: str = "") -> Iterator[Path]:
        """Run a service until the end of the block; gives its log."""
        log = self.data / f"{name or service}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.command(service), stdout=stream, stderr=stream, env=self.environment(service)
            )
        try:
            yield log
        finally:
            for pid in (*descendants(process.pid), process.pid):
                kill(pid, signal.SIGTERM)
            process.wait(30)


def until(met: Callable[[], object], what: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, what.read_text(errors="replace")[-2000:]
        time.sleep(0.2)


@pytest.mark.skipif("STELLARML_DIST" not in os.environ, reason="a minute and a half: `make cluster` runs it")
def test_every_service_runs(small_chain: Path, tmp_path: Path) -> None:
    for name in ("raw", "lake", "models"):
        shutil.copytree(small_chain / name, tmp_path / name)
    (tmp_path / "config.toml").write_text((small_chain / "config.toml").read_text() + SMALL_SETTINGS)
    (tmp_path / "spark-events").mkdir()
    services = Natively(tmp_path)
    with services.running("master") as master:
        until(lambda: "elected leader" in master.read_text(), master)
        health = [
            services.here(word).replace("'master'", "'127.0.0.1'").replace("7077", services.ports["7077"])
            for word in SERVICES["master"]["healthcheck"]["test"][1:]
        ]
        assert subprocess.run([sys.executable, *health[1:]], check=False).returncode == 0
        with (
            services.running("worker", "worker-0") as first,
            services.running("worker", "worker-1") as second,
            services.running("history") as history,
        ):
            for log in (first, second):
                until(lambda log=log: "registered with master" in log.read_text(), log)  # type: ignore[misc]
            done = subprocess.run(
                services.command("job"),
                capture_output=True,
                text=True,
                env=services.environment("job"),
                timeout=400,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            until(lambda: ended(services) == ["stellarml"], history)
    assert len(label_leaves(tmp_path)) > 3
    assert label_leaves(tmp_path) == label_leaves(small_chain)


def ended(services: Natively) -> list[str]:
    """Return the names of the applications that the history server knows to have ended."""
    address = f"http://127.0.0.1:{services.ports['18080']}/api/v1/applications?status=completed"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return [application["name"] for application in json.loads(answer.read())]
    except OSError:
        return []
