"""Which labels, intervals and flags a star gets, in NumPy alone, for the workers.

No row is dropped and no NaN comes out: a star without any feature gets the training medians and an interval as wide as
the labels themselves, flagged. Everything needed comes from a verified bundle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.calibration import POOLED, LabelCalibration, half_widths
from stellarml.errors import InputError
from stellarml.flags import QualityFlag
from stellarml.forward import Forward, Head
from stellarml.model import Bundle, LabelRange, Manifest, unpack_bundle
from stellarml.patterns import patterns_of


class Predictor:
    """A bundle, ready to label rows; one object a thread (it owns its buffers)."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self.manifest: Manifest = manifest
        self.feature_names = manifest.features.feature_names
        self.label_names = tuple(label.name for label in manifest.labels)
        tables = manifest.calibration.labels
        heads = [
            Head(n.activation, n.slope, tuple(self.label_names.index(o) for o in n.outputs))
            for n in manifest.networks
        ]
        weights = np.array([t.difficulty_weights for t in tables], dtype=np.float64).T
        self._forward = Forward(
            manifest.scaler, bundle.inputs.gaussian, bundle.networks, heads, len(self.label_names), weights
        )
        self._bias = np.array([t.difficulty_bias for t in tables])
        self._limits = np.array([(t.difficulty_low, t.difficulty_high) for t in tables]).T
        self._gspphot = np.array(["gspphot" in f.expression.lower() for f in manifest.features.features])

    @classmethod
    def from_bytes(cls, blob: bytes, sha256: str) -> Predictor:
        """Rebuild from `stellarml.model.pack_bundle`'s bytes; BundleError if they changed."""
        return cls(unpack_bundle(blob, sha256))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the columns that `label` returns, in order."""
        labels = [f"{name}{end}" for name in self.label_names for end in ("", "_lo", "_hi")]
        return (*labels, "quality_flags")

    def label(
        self,
        features: NDArray[np.float32],
        level: int = 68,
        reddening_mag: NDArray[np.floating[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return NAME, NAME_lo, NAME_hi (float32) of every label and quality_flags (int32), each (n,).

        Parameters
        ----------
        features
            Shape (n, n_features) in the order of `feature_names`; NaN and infinity are missing.
        level
            68, 90 or 95: per cent of new spectroscopic measurements inside the interval.
        reddening_mag
            E(B-V) on the scale of the training table's `ebmv_sfd`, (n,); None where unknown.

        Raises
        ------
        InputError
            If the number of features or the level is not the model's.
        """
        calibration = self.manifest.calibration
        if level not in calibration.levels:
            raise InputError(f"level {level} is not calibrated; this model has {calibration.levels}")
        x = np.asarray(features, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.feature_names):
            raise InputError(
                f"features have shape {x.shape}, this model needs (n, {len(self.feature_names)}): "
                f"{', '.join(self.feature_names)}"
            )
        labels, difficulty = self._forward.run(x)
        difficulty = np.exp(np.clip(difficulty + self._bias, *self._limits))
        missing: NDArray[np.bool_] = ~np.isfinite(x)
        nothing: NDArray[np.bool_] = np.atleast_1d(missing.all(axis=1))
        kinds, index = patterns_of(missing)
        flags = self._feature_flags(x, missing, nothing, reddening_mag)
        unseen = np.array([kind not in calibration.seen for kind in kinds], dtype=bool)
        flags[unseen[index]] |= QualityFlag.THIN_CALIBRATION
        out: dict[str, NDArray[Any]] = {}
        for j, name in enumerate(self.label_names):
            known, table = self.manifest.labels[j], calibration.labels[j]
            value = np.where(nothing, np.float32(known.median), labels[:, j])
            classes = {cells.pattern: c for c, cells in enumerate(table.classes)}
            own = np.array([classes.get(kind, classes[POOLED]) for kind in kinds], dtype=np.intp)
            half, rows = _intervals(table, own[index], value.astype(np.float64), difficulty[:, j], level)
            half[nothing] = table.without_features[str(level)]
            if table.pooled_borrows:
                flags[own[index] == classes[POOLED]] |= QualityFlag.THIN_CALIBRATION
            flags |= _label_flags(value, half, rows, known, table.wide[str(level)], calibration.min_rows)
            out[name] = value
            out[f"{name}_lo"] = (value - half).astype(np.float32)
            out[f"{name}_hi"] = (value + half).astype(np.float32)
        out["quality_flags"] = flags
        return out

    def _feature_flags(
        self,
        x: NDArray[np.float32],
        missing: NDArray[np.bool_],
        nothing: NDArray[np.bool_],
        reddening_mag: NDArray[np.floating[Any]] | None,
    ) -> NDArray[np.int32]:
        scaler = self.manifest.scaler
        flags = np.zeros(len(x), dtype=np.int32)
        outside = (x < np.asarray(scaler.domain_low)) | (x > np.asarray(scaler.domain_high))
        outside |= missing & np.asarray(scaler.never_missing)
        flags[outside.any(axis=1)] |= QualityFlag.OUTSIDE_DOMAIN
        flags[(missing & ~self._gspphot).any(axis=1)] |= QualityFlag.MISSING_BANDS
        flags[(missing & self._gspphot).any(axis=1)] |= QualityFlag.MISSING_GSPPHOT
        flags[nothing] |= QualityFlag.ALL_MISSING | QualityFlag.WIDE_INTERVAL
        limit = self.manifest.reddening_high_mag
        if reddening_mag is not None and limit is not None:
            flags[np.asarray(reddening_mag) > limit] |= QualityFlag.REDDENING_BEYOND
        return flags


def _intervals(
    table: LabelCalibration,
    class_of: NDArray[np.intp],
    value: NDArray[np.float64],
    difficulty: NDArray[np.float64],
    level: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    half, rows = np.zeros(len(value)), np.zeros(len(value), np.int64)
    for c, cells in enumerate(table.classes):
        chosen = class_of == c
        if chosen.any():
            half[chosen], rows[chosen] = half_widths(cells, value[chosen], difficulty[chosen], level)
    return half, rows


def _label_flags(
    value: NDArray[np.float32],
    half: NDArray[np.float64],
    rows: NDArray[np.int64],
    known: LabelRange,
    wide: float,
    min_rows: int,
) -> NDArray[np.int32]:
    flags = np.zeros(len(value), dtype=np.int32)
    flags[rows < min_rows] |= QualityFlag.THIN_CALIBRATION
    flags[half > wide] |= QualityFlag.WIDE_INTERVAL
    flags[(value <= known.low) | (value >= known.high)] |= QualityFlag.LABEL_EDGE
    return flags
