"""The job label on a real cluster of processes, and what happens when parts of it are killed.

Executors have a Python of their own, which sees the installed libraries but neither this checkout nor TensorFlow: the
package comes by ``--py-files`` or not at all. ``STELLARML_FAULTS`` sets how many faults are tried, each in a run of
its own (`make faults`: 24); without it there are two in one run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.faults import small_disk
from helpers.standalone_cluster import Cluster, Shipment, command_of, kill, label_leaves, shipped_package

from stellarml.core.config import Tiles
from stellarml.labelling.incremental import input_tiles
from stellarml.run.memory import descendants
from stellarml.stages import label
from stellarml.storage.hats_writer import write_catalogue

KINDS = ("executor", "driver", "python worker", "worker leaves", "terminated", "leaf deleted", "full disk")
SURVIVED = {"executor", "python worker", "worker leaves"}
FAULTS = [(KINDS[number % len(KINDS)],) for number in range(int(os.environ.get("STELLARML_FAULTS", "0")))]
FAULTS = FAULTS or [("python worker", "executor")]
HIT: list[bool] = []
TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000", "train.max_epochs=30")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def shipment(tmp_path_factory: pytest.TempPathFactory) -> Shipment:
    """The package, and an interpreter that finds the installed libraries and nothing else."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / version / "site-packages"
    (own / "libraries.pth").write_text(f"{Path(pa.__file__).parents[1]}\n")
    (own / "tensorflow").mkdir()
    (own / "tensorflow" / "__init__.py").write_text(
        "raise ImportError('executors must not need TensorFlow')\n"
    )
    told = subprocess.run(
        [
            folder / "bin" / "python",
            "-c",
            "import pyarrow, pyspark, onnxruntime; import stellarml.model.bundle",
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert "No module named 'stellarml" in told.stderr, told.stderr
    return Shipment(shipped_package(tmp_path_factory.mktemp("package")), str(folder / "bin" / "python"))


@pytest.fixture(scope="module")
def sky(
    small_chain: Path, spark: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, bytes]]:
    """Matched stars in many small tiles, and the leaves of their labels as made in local mode."""
    from stellarml.core.config import load_config

    root = tmp_path_factory.mktemp("many")
    shutil.copytree(small_chain / "models", root / "models")
    shutil.copy(small_chain / "config.toml", root / "config.toml")
    old, new = small_chain / "lake" / "matched", root / "lake" / "matched"
    table = pa.concat_tables(pq.read_table(found.path, partitioning=None) for found in input_tiles(old))
    tiles = Tiles(max_rows=1000, row_group_rows=1000, min_order=0, max_order=12, compression="zstd")
    write_catalogue(new, table, tiles, name="matched", ra="ra", dec="dec", id_column="source_id")
    shutil.copy(old / "run.json", new / "run.json")
    config = load_config(root / "config.toml", overrides=TILES, environment={})
    label.run(spark, config)
    expected = label_leaves(root)
    assert len(expected) > 10
    shutil.rmtree(root / "labels")
    return root, expected


class Run:
    """One spark-submit of the job label; its log is read while it runs."""

    def __init__(self, cluster: Cluster, root: Path, shipment: Shipment) -> None:
        options = [part for value in (*TILES, "log.format=json") for part in ("--set", value)]
        command = cluster.submit_command(
            "label", "--config", str(root / "config.toml"), *options, shipment=shipment
        )
        self.log = root / "submit.log"
        self._stream = self.log.open("wb")
        self.process = subprocess.Popen(
            command, stdout=self._stream, stderr=self._stream, env=cluster.environment()
        )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, line: str, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while line not in self.text():
            assert time.monotonic() < end and self.process.poll() is None, self.text()[-3000:]
            time.sleep(0.1)

    def end(self, seconds: float = 300) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self._stream.close()

    def tiles_told(self) -> dict[str, int]:
        lines = [json.loads(line) for line in self.text().splitlines() if '"event": "tiles"' in line]
        return {key: lines[-1][key] for key in ("to_do", "kept", "removed")}


def pick(cluster: Cluster, run: Run, wanted: Callable[[str], bool], draw: random.Random) -> int | None:
    """Choose one of the cluster's processes as soon as there is one; None if the run ends first."""
    while run.process.poll() is None:
        every = [pid for process in cluster.processes.values() for pid in descendants(process.pid)]
        found = [pid for pid in every if wanted(command_of(pid))]
        if found:
            return draw.choice(found)
        time.sleep(0.05)
    return None


def strike(kind: str, cluster: Cluster, run: Run, draw: random.Random) -> bool:
    """Do what the fault is, now; return whether the run was still there to be hit."""
    if run.process.poll() is not None:
        return False
    if kind in ("driver", "terminated"):
        number = signal.SIGKILL if kind == "driver" else signal.SIGTERM
        return sum(kill(pid, number) for pid in (*descendants(run.process.pid), run.process.pid)) > 0
    if kind == "worker leaves":
        cluster.kill_worker(0)
        time.sleep(draw.uniform(0, 5))
        cluster.start_worker(0)
    elif kind in ("executor", "python worker"):
        name = "CoarseGrainedExecutorBackend" if kind == "executor" else "pyspark.daemon"
        pid = pick(cluster, run, lambda command: name in command, draw)
        return pid is not None and kill(pid)
    return True


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_killed_and_run_again(
    cluster: Cluster,
    sky: tuple[Path, dict[str, bytes]],
    shipment: Shipment,
    number: int,
) -> None:
    root, expected = sky
    kinds, draw = FAULTS[number], random.Random(number)
    kind = kinds[-1]
    shutil.rmtree(root / "labels", ignore_errors=True)
    with ExitStack() as stack:
        enlarge = None
        if kind == "full disk":
            size = sum(len(content) for content in expected.values()) // 2
            enlarge = stack.enter_context(small_disk(root / "labels", size))
        run = Run(cluster, root, shipment)
        run.wait_for('"event": "tiles"')
        assert run.tiles_told() == {"to_do": len(expected), "kept": 0, "removed": 0}
        moments = sorted(draw.randrange(len(expected) * 3 // 4) for _ in kinds)
        for wanted, fault in zip(moments, kinds, strict=True):
            while marks_of(root) < wanted and run.process.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.5))
            struck = strike(fault, cluster, run, draw)
            if fault not in ("leaf deleted", "full disk"):
                HIT.append(struck)
        status = run.end()
        if kind == "leaf deleted":
            assert status == 0
            (root / draw.choice(sorted(expected))).unlink()
        if enlarge is not None:
            assert status != 0 and "the disk is full" in run.text()
            enlarge()
        before = marks_of(root)
        if status != 0 or kind == "leaf deleted":
            run = Run(cluster, root, shipment)
            assert run.end() == 0, run.text()[-3000:]
            if before < len(expected) or kind == "leaf deleted":
                told = run.tiles_told()
                assert told["kept"] + told["to_do"] == len(expected)
                # an executor may end the leaf that it is at after its driver has died
                assert 1 <= told["to_do"] <= (1 if kind == "leaf deleted" else len(expected) - before)
        whole(root, expected, kind)
    if SURVIVED.issuperset(kinds):
        assert status == 0, "Spark does again what an executor did not finish"


def marks_of(root: Path) -> int:
    """Return how many leaves are done."""
    return len(list((root / "labels").glob("*/_done/Norder=*.json")))


def whole(root: Path, expected: dict[str, bytes], kind: str) -> None:
    """Check that the catalogue is complete, the same, and published, with nothing left over."""
    assert label_leaves(root) == expected, f"after: {kind}"
    assert not list((root / "labels").rglob("*.tmp"))
    pointed = json.loads((root / "labels" / "current.json").read_text())["model_id"]
    rows = json.loads((root / "labels" / pointed / "run.json").read_text())["rows"]
    assert rows["in"] == rows["out"] == sum(pq.read_metadata(root / name).num_rows for name in expected)


def test_the_faults_hit() -> None:
    """A fault that comes when the run is over proves nothing: most of them must have met a living one."""
    assert HIT and sum(HIT) >= len(HIT) * 0.6
