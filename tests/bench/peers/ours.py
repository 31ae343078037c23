"""stellarml's side of the match benchmark: its session, and the three matches that are asked of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

from match_data import LEAF_ROWS, LEFT_SLIM, RIGHT_SLIM, MatchData

from stellarml.core.config import load_config
from stellarml.crossmatch.modes import Mode
from stellarml.run.log import configure_logging
from stellarml.run.spark_session import start_session
from stellarml.standalone.match import MatchOptions, match_catalogues

RADIUS_ARCSEC = 1.0
OURS = {
    "ours ids": ("plain", MatchOptions(Mode.best, columns=",".join([*LEFT_SLIM[1:], *RIGHT_SLIM[1:]]))),
    "ours all": ("plain", MatchOptions(Mode.best)),
    "ours full": ("full", MatchOptions(Mode.unique)),
}
"""Descriptors and options. LSDB is asked for ids and positions of both sides, so `ids` carries those too."""


class Ours:
    """stellarml with its session up."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.events = scratch / "events"
        self.events.mkdir(parents=True)
        plain_log = '{"spark.eventLog.compress"="false", "spark.eventLog.rolling.enabled"="false"}'
        self._overrides = [
            "spark.master='local[2]'",
            f"spark.event_log='{self.events}'",
            f"spark.options={plain_log}",
            f"tiles.max_rows={LEAF_ROWS}",
            "log.level=warning",
        ]
        config = load_config(overrides=self._overrides)
        configure_logging(config.log)
        self.spark = start_session(config.spark)

    def out(self, case: str) -> Path:
        """Folder of one case's output."""
        return self.scratch / case.replace(" ", "-")

    def match(self, case: str, data: MatchData) -> dict[str, Any]:
        """Run one case of OURS from the inputs to the finished catalogue."""
        kind, options = OURS[case]
        radius = RADIUS_ARCSEC if kind == "plain" else 0.0
        config = load_config(overrides=[*self._overrides, f"crossmatch.radius_arcsec={radius}"])
        surveys = str(data.descriptor("left", kind)), str(data.descriptor("right", kind))
        shutil.rmtree(self.out(case), ignore_errors=True)
        started = perf_counter()
        paths = data.hats("left"), data.hats("right")
        record = match_catalogues(self.spark, config, paths, surveys, self.out(case), options)
        return {"seconds": perf_counter() - started, "rows": record["rows"]["out"]}

    def stop(self) -> dict[str, int]:
        """Stop the session; return the bytes it shuffled in all runs and the tasks it ran, from its event log."""
        self.spark.stop()
        told = {"shuffle_bytes_written": 0, "shuffle_bytes_read": 0, "spilled_bytes": 0, "tasks": 0}
        for log in self.events.iterdir():
            for line in log.read_text().splitlines():
                event = json.loads(line)
                metrics = event.get("Task Metrics")
                if event["Event"] != "SparkListenerTaskEnd" or not metrics:
                    continue
                read = metrics["Shuffle Read Metrics"]
                told["tasks"] += 1
                told["shuffle_bytes_written"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
                told["shuffle_bytes_read"] += read["Remote Bytes Read"] + read["Local Bytes Read"]
                told["spilled_bytes"] += metrics["Disk Bytes Spilled"]
        return told
