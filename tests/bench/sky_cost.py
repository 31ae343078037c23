"""What training costs at the paper's size: each preset in a process of its own, one after the other.

Run as a script it trains one preset on the rows that `cost_part` has written, and prints what that took as JSON.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.parquet as pq
from sky_data import Sky
from sky_fits import CALIBRATED, SPLIT, THREADS, VALIDATED, Found

from stellarml.core.config import load_config
from stellarml.features.feature_file import load_feature_file
from stellarml.features.split import CALIBRATION, TRAIN, VALIDATION
from stellarml.model.bundle import load_bundle
from stellarml.training.fit import Task, train
from stellarml.training.watch import Watch

PAPER_ROWS = 624_410
PRESETS = ("default", "paper")
_EPOCH = re.compile(r"epoch \d+/\d+ .* MAE (?P<mae>[\d.]+) sd")
_ROWS, _TARGET = "cost-rows.parquet", "cost-target.parquet"


def cost_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Seconds and memory of the presets for the paper's number of rows; when `default` reaches `paper`'s best."""
    held = VALIDATED + CALIBRATED
    rows = np.arange(held + round(PAPER_ROWS * 0.72))
    part = np.where(rows < VALIDATED, VALIDATION, np.where(rows < held, CALIBRATION, TRAIN))
    pq.write_table(sky.table(rows, part), folder / _ROWS)
    pq.write_table(sky.target_table(), folder / _TARGET)
    told: Found = {"threads": THREADS, **{name: _told(name, folder) for name in PRESETS}}
    level = float(np.mean(list(told["paper"]["best validation MAE (sd)"].values())))
    reached = [seconds for seconds, mae in told["default"]["curve"] if mae <= level]
    told["best validation MAE of paper, mean of the labels (sd)"] = level
    told["default reaches it after (s)"] = min(reached, default=None)
    told["of the time of paper"] = min(reached) / told["paper"]["seconds"] if reached else None
    return told


def _told(name: str, folder: Path) -> Found:
    """Train one preset in a process of its own, unless that is done."""
    kept = folder / f"cost-{name}.json"
    if not kept.exists():
        command = [sys.executable, __file__, name, str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        kept.write_bytes(done.stdout.splitlines()[-1])
    found: Found = json.loads(kept.read_text())
    return found


def trained(name: str, folder: Path) -> Found:
    """Train one preset; the time of every epoch of every network, and the largest memory."""
    table, target = pq.read_table(folder / _ROWS), pq.read_table(folder / _TARGET)
    chosen = {"preset": name, "threads": THREADS}
    settings = load_config(overrides=[f"train.{key}={value}" for key, value in chosen.items()]).train
    curve: list[tuple[float, float]] = []
    shutil.rmtree(folder / f"bundle-cost-{name}", ignore_errors=True)
    started = perf_counter()

    def tell(line: str) -> None:
        seconds = perf_counter() - started
        sys.stderr.write(f"{name} {seconds:.0f} s: {line}\n")
        if found := _EPOCH.search(line):
            curve.append((seconds, float(found["mae"])))

    bundle = train(
        table,
        Task(load_feature_file("paper"), settings, SPLIT),
        folder / f"bundle-cost-{name}",
        target=target,
        watch=Watch(tell),
    )
    seconds = perf_counter() - started
    networks = load_bundle(bundle).manifest.networks
    epochs = sum(len(n.curve.epoch) for n in networks)
    rows = int(np.sum(np.asarray(table["split"]) == TRAIN))
    return {
        "seconds": seconds,
        "training rows": rows,
        "epochs": [len(n.curve.epoch) for n in networks],
        "seconds an epoch": curve[-1][0] / epochs,
        "rows a second": rows * epochs / curve[-1][0],
        "best validation MAE (sd)": {
            f"{n.outputs} {k}": min(n.curve.val_mae) for k, n in enumerate(networks)
        },
        "peak memory (GiB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "curve": curve,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(trained(sys.argv[1], Path(sys.argv[2]))) + "\n")
