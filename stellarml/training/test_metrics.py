"""What a bundle says about its own making: ranges, curves, versions and errors on the test part."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml import __version__
from stellarml.core.names import interval_names
from stellarml.features.feature_file import FeatureFile
from stellarml.intervals.conformal import LEVELS
from stellarml.model.manifest import Curve, LabelRange, Network
from stellarml.model.predictor import Predictor
from stellarml.training.labelled_stars import Stars
from stellarml.training.network import Fitted
from stellarml.training.presets import Preset

EDGE_PERCENTILES = (0.1, 99.9)
MAD_FACTOR = 1.4826
BINS = 8


def label_ranges(features: FeatureFile, labels: NDArray[np.float64]) -> tuple[LabelRange, ...]:
    """Describe the training labels, shape (n_stars, n_labels)."""
    ranges = []
    for label, column in zip(features.labels, labels.T, strict=True):
        values = column[np.isfinite(column)]
        low, high = np.percentile(values, EDGE_PERCENTILES)
        ranges.append(
            LabelRange(
                name=label.name,
                unit=label.unit,
                mean=float(values.mean()),
                std=float(values.std()),
                median=float(np.median(values)),
                low=float(low),
                high=float(high),
                rows=len(values),
            )
        )
    return tuple(ranges)


def network_record(preset: Preset, fitted: Fitted, file: str, outputs: tuple[str, ...], seed: int) -> Network:
    """Describe one fitted network."""
    curve = fitted.curve
    return Network(
        file=file,
        outputs=outputs,
        widths=preset.widths,
        activation=preset.activation,
        slope=preset.slope,
        batch_norm=preset.batch_norm,
        dropout=preset.dropout,
        scales=preset.scales,
        losses=tuple(phase.loss for phase in preset.phases),
        seed=seed,
        best_epoch=fitted.best.epoch,
        best_phase=fitted.best.phase,
        stopped=fitted.stopped,
        curve=Curve(
            epoch=tuple(e.epoch for e in curve),
            phase=tuple(e.phase for e in curve),
            loss=tuple(e.loss for e in curve),
            val_loss=tuple(e.val_loss for e in curve),
            val_mae=tuple(e.val_mae for e in curve),
        ),
    )


def measure(predictor: Predictor, stars: Stars) -> dict[str, Any]:
    """Return the errors and the coverage of `stars`: mean, median, std, MAD (1.4826 x), MAE, n and shares by level."""
    if not len(stars.ids):
        return {}
    errors: dict[str, Any] = {}
    coverage: dict[str, Any] = {name: {} for name in predictor.label_names}
    by_level = {level: predictor.label(stars.features, level) for level in LEVELS}
    for level, labelled in by_level.items():
        for j, name in enumerate(predictor.label_names):
            truth = stars.labels[:, j]
            known = np.isfinite(truth)
            if not known.any():
                continue
            truth, value = truth[known], labelled[name][known].astype(np.float64)
            low, high = labelled[f"{name}_lo"][known], labelled[f"{name}_hi"][known]
            coverage[name][str(level)] = float(((truth >= low) & (truth <= high)).mean())
            errors[name] = summary(value - truth)
    return {
        "test": errors,
        "coverage": coverage,
        "by_bin": _by_bin(by_level[LEVELS[0]], predictor.label_names, stars),
    }


def _by_bin(labelled: Mapping[str, NDArray[Any]], names: Sequence[str], stars: Stars) -> list[dict[str, Any]]:
    """Return errors and 68 % coverage in `BINS` quantile bins of each label, by prediction and by label."""
    rows: list[dict[str, Any]] = []
    for j, name in enumerate(names):
        truth = stars.labels[:, j]
        known = np.isfinite(truth)
        truth, value = truth[known], labelled[name][known].astype(np.float64)
        lo, hi = (labelled[end][known] for end in interval_names(name))
        inside = (truth >= lo) & (truth <= hi)
        for by, axis in (("predicted", value), ("true", truth)):
            if len(axis) < BINS:
                continue
            edges = np.quantile(axis, np.linspace(0, 1, BINS + 1))
            which = np.clip(np.searchsorted(edges, axis, "right") - 1, 0, BINS - 1)
            for b in range(BINS):
                chosen = which == b
                if not chosen.any():
                    continue
                error = (value - truth)[chosen]
                median = float(np.median(error))
                rows.append(
                    {
                        "label": name,
                        "by": by,
                        "low": float(edges[b]),
                        "high": float(edges[b + 1]),
                        "n": int(chosen.sum()),
                        "median": median,
                        "mad": MAD_FACTOR * float(np.median(np.abs(error - median))),
                        "coverage_68": float(inside[chosen].mean()),
                    }
                )
    return rows


def summary(error: NDArray[np.float64]) -> dict[str, float]:
    """Return the figures of the paper's Table 2 for `error` = prediction - label, and the MAE."""
    median = float(np.median(error))
    return {
        "mean": float(error.mean()),
        "median": median,
        "std": float(error.std()),
        "mad": MAD_FACTOR * float(np.median(np.abs(error - median))),
        "mae": float(np.abs(error).mean()),
        "n": len(error),
    }


def versions() -> dict[str, str]:
    """Return the versions that the weights depend on."""
    packages = ("numpy", "tensorflow", "keras", "pyarrow")
    return {
        "stellarml": __version__,
        "python": platform.python_version(),
        **{p: importlib.metadata.version(p) for p in packages},
    }
