"""A peer that stays up: a process in its own environment that answers one request a line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from peers.environments import HERE, python_of


class Peer:
    """A runner script of this folder; ready once it is made.

    Parameters
    ----------
    name
        Environment and requirement file.
    script
        File of this folder that speaks the protocol of `run_lsdb`.
    scratch
        Folder for its log and its temporary files.
    """

    def __init__(self, name: str, script: str, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._log = scratch / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python_of(name)), str(HERE / script), str(scratch / f"{name}-dask")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        told = self._answer()
        self.version: str = told["version"]
        self.workers: list[int] = told["workers"]

    @property
    def pid(self) -> int:
        """Process id of the runner."""
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the runner and its client."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text().splitlines()[-15:])
            raise RuntimeError(f"{self._log.stem} ended without an answer; its log ends\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer
