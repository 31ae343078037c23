"""What a labelling run says of itself: flags, and how far the features have drifted from the training stars.

Counts are taken with every batch and added up from the marks of the tiles, so that a resumed or an incremental run
tells of the whole catalogue. Drift of a feature is the mean of its scaled value, clipped to `CLIP`, over the labelled
stars: 0 for stars like the training stars' middle, 1 for a shift by half of their 16 to 84 % range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.flags import QualityFlag
from stellarml.model import Manifest
from stellarml.scaling import Scaler

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

    def told(self, manifest: Manifest) -> dict[str, Any]:
        """Return shares of flags by name, and missing share and drift of each feature, for run.json."""
        names = manifest.features.feature_names if self.known.size else ()
        drift = self.scaled / np.maximum(self.known, 1)
        return {
            "flags": {
                str(flag.name): share(int(n), self.rows)
                for flag, n in zip(QualityFlag, self.flags, strict=True)
            },
            "features": {
                name: {
                    "missing": share(self.rows - int(known), self.rows),
                    "drift": float(f"{value:.6g}") if known else None,
                }
                for name, known, value in zip(names, self.known, drift, strict=True)
            },
        }


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


def share(count: int, of: int) -> float | None:
    """Return a fraction to six digits; None of nothing."""
    return round(count / of, 6) if of else None
