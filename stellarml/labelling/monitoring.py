"""What a labelling run says of itself: flags, and how far the features have drifted from the training stars.

Counts are taken with every batch and added up from the marks of the tiles, so that a resumed or an incremental run
describes the whole catalogue. Drift of a feature is the mean of its scaled value, clipped to `CLIP`, over the labelled
stars: 0 for stars like the training stars' middle, 1 for a shift by half of their 16 to 84 % range.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.quality_flags import QualityFlag
from stellarml.core.visible_text import visible
from stellarml.model.manifest import Manifest
from stellarml.model.scaling import Scaler

CLIP = 10.0
_BITS = [int(flag) for flag in QualityFlag]


@dataclass
class Tally:
    """Counts over labelled stars: rows, rows without a flag, of each flag, and sums of each feature."""

    rows: int = 0
    without_flag: int = 0
    flags: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_BITS), np.int64))
    known: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scaled: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, features: NDArray[np.float32], flags: NDArray[np.int32], scaler: Scaler) -> None:
        """Count a batch.

        Parameters
        ----------
        features
            Shape (n, n_features).
        flags
            quality_flags, (n,).
        """
        if not self.known.size:
            self.known = np.zeros(features.shape[1], np.int64)
            self.scaled = np.zeros(features.shape[1])
        self.rows += len(flags)
        kinds, counts = np.unique(flags, return_counts=True)
        self.without_flag += int(counts[kinds == 0].sum())
        self.flags += np.array([counts[(kinds & bit) != 0].sum() for bit in _BITS])
        center, scale = np.asarray(scaler.center, np.float32), np.asarray(scaler.scale, np.float32)
        scaled = np.clip((features - center) / scale, -CLIP, CLIP)
        finite = np.isfinite(features)
        self.known += finite.sum(axis=0)
        self.scaled += np.where(finite, scaled, np.float32(0)).sum(axis=0, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers for a mark."""
        return {
            "rows": self.rows,
            "without_flag": self.without_flag,
            "flags": self.flags.tolist(),
            "known": self.known.tolist(),
            "scaled": [float(f"{value:.9g}") for value in self.scaled],
        }

    def as_record(self, manifest: Manifest) -> dict[str, Any]:
        """Return shares of flags by name, and missing share and drift of each feature, for run.json."""
        names = manifest.features.feature_names if self.known.size else ()
        drift = self.scaled / np.maximum(self.known, 1)
        return {
            "flags": {
                str(flag.name): _share(int(n), self.rows)
                for flag, n in zip(QualityFlag, self.flags, strict=True)
            },
            "features": {
                name: {
                    "missing": _share(self.rows - int(known), self.rows),
                    "drift": float(f"{value:.6g}") if known else None,
                }
                for name, known, value in zip(names, self.known, drift, strict=True)
            },
        }


def prometheus_text(record: Mapping[str, Any]) -> str:
    """Return run.json of a labelled catalogue in Prometheus' text format, for a textfile collector.

    Time is that of the call; every line carries the model.
    """
    summary = record["label"]
    own = {"model": record["model_id"]}
    gauges: list[tuple[str, str, list[tuple[dict[str, str], float | None]]]] = [
        ("rows", "Stars in the labelled catalogue.", [(own, record["rows"]["out"])]),
        ("rows_without_flag", "Stars without any quality flag.", [(own, record["rows"]["without_flag"])]),
        ("tiles", "Tiles in the labelled catalogue.", [(own, record["units"])]),
        ("tiles_labelled", "Tiles that the last run labelled.", [(own, record["units_done"])]),
        ("seconds", "Duration of the last run in seconds.", [(own, record["seconds"])]),
        ("peak_memory_bytes", "Peak memory of the last run.", [(own, record["peak_memory_bytes"])]),
        ("last_success_timestamp_seconds", "When the last run ended.", [(own, round(time.time()))]),
        (
            "flag_fraction",
            "Share of stars with a quality flag.",
            [({**own, "flag": name}, value) for name, value in summary["flags"].items()],
        ),
        (
            "feature_missing_fraction",
            "Share of stars that lack a feature.",
            [({**own, "feature": name}, f["missing"]) for name, f in summary["features"].items()],
        ),
        (
            "feature_drift",
            "Mean shift of a feature from the training stars, in half their 16 to 84 % range.",
            [({**own, "feature": name}, f["drift"]) for name, f in summary["features"].items()],
        ),
    ]
    lines = []
    for name, meaning, samples in gauges:
        lines += [f"# HELP stellarml_label_{name} {meaning}", f"# TYPE stellarml_label_{name} gauge"]
        for labels, value in samples:
            if value is not None:
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
                lines.append(f"stellarml_label_{name}{{{inside}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return visible(text, lines=True).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def total(parts: Iterable[Mapping[str, Any]]) -> Tally:
    """Add up what marks hold."""
    whole = Tally()
    for part in parts:
        whole.rows += part["rows"]
        whole.without_flag += part["without_flag"]
        whole.flags = whole.flags + np.array(part["flags"], np.int64)
        if part["known"]:
            whole.known = np.array(part["known"], np.int64) + (whole.known if whole.known.size else 0)
            whole.scaled = np.array(part["scaled"]) + (whole.scaled if whole.scaled.size else 0)
    return whole


def _share(count: int, of: int) -> float | None:
    """Return a fraction to six digits; None of nothing."""
    return round(count / of, 6) if of else None
