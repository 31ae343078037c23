"""The networks of a preset, fitted one after the other, and what there is to doubt about them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stellarml.core import progress
from stellarml.core.config import Train
from stellarml.features.feature_file import FeatureFile
from stellarml.features.split import TRAIN, VALIDATION
from stellarml.model.folding import Folded, fold
from stellarml.model.forward import Forward
from stellarml.model.onnx_graph import Head
from stellarml.model.scaling import network_inputs
from stellarml.run.log import get_logger
from stellarml.training.checkpoint import Checkpoint
from stellarml.training.course import FitData, Physical, Sample
from stellarml.training.network import Fitted, Trainer, keras
from stellarml.training.prepare import Prepared
from stellarml.training.presets import Preset
from stellarml.training.test_metrics import versions
from stellarml.training.watch import Watch

NOTHING_LEARNT = (
    0.98  # validation MAE above this share of what the training median reaches: the user is warned
)


@dataclass(frozen=True)
class Trained:
    """One fitted network; `columns` are the labels that it gives."""

    columns: tuple[int, ...]
    seed: int
    file: str
    fitted: Fitted
    folded: Folded


def fit_networks(
    preset: Preset, settings: Train, features: FeatureFile, prepared: Prepared, watch: Watch
) -> list[Trained]:
    """Fit every network of a preset: one a label or one for all, each with its members."""
    progress.step("starting TensorFlow")
    keras(settings.threads)
    checkpoint_of = _checkpoints(watch.checkpoints, preset, settings, features, prepared)
    n_labels = len(features.labels)
    groups = [(j,) for j in range(n_labels)] if preset.per_label else [tuple(range(n_labels))]
    plan = [group for group in groups for _ in range(preset.members)]
    n_inputs = network_inputs(prepared.inputs[TRAIN][:1], prepared.maps.rotation).shape[1]
    trainer = Trainer(preset, n_inputs, len(plan[0]))
    started = time.monotonic()
    trained = []
    for n, columns in enumerate(plan):
        names = [features.label_names[c] for c in columns]
        title = ", ".join(names)
        title += f" (member {n % preset.members + 1} of {preset.members})" if preset.members > 1 else ""
        data = _data_of(prepared, columns)
        seed = settings.seed + 1000 * n
        fitted = trainer.fit(
            data,
            seed=seed,
            max_epochs=settings.max_epochs,
            deadline=_deadline(settings.max_seconds, started, len(plan) - n),
            on_epoch=watch.on_epoch(title, n, len(plan)),
            checkpoint=checkpoint_of(n),
        )
        _log_fitted(title, fitted)
        folded = _folded(fitted, prepared, data.physical, scales=preset.scales)
        trained.append(Trained(columns, seed, f"{n:02d}_{'_'.join(names)[:80]}.keras", fitted, folded))
    return trained


def _log_fitted(title: str, fitted: Fitted) -> None:
    best = fitted.best
    get_logger().info(
        "network fitted",
        stage="train",
        labels=title,
        epochs=len(fitted.curve),
        best_epoch=best.epoch,
        loss=round(best.loss, 4),
        validation=round(best.val_loss, 4),
        mae_sd=round(best.val_mae, 4),
    )


def _deadline(max_seconds: float, started: float, networks_left: int) -> float:
    """Return when the next network must end: what is left of the time, shared among the networks that are left."""
    if not max_seconds:
        return float("inf")
    now = time.monotonic()
    return now + max(0.0, max_seconds - (now - started)) / networks_left


def _data_of(prepared: Prepared, columns: tuple[int, ...]) -> FitData:
    chosen = list(columns)
    physical = Physical(prepared.physical.mean[chosen], prepared.physical.std[chosen])
    train, validation = (_sample(prepared, part, columns, physical) for part in (TRAIN, VALIDATION))
    return FitData(train, validation, physical)


def _folded(fitted: Fitted, prepared: Prepared, physical: Physical, *, scales: bool) -> Folded:
    mean, std = physical.mean, physical.std
    if scales:
        mean = np.concatenate([mean, np.log(std), np.log(std)])
        std = np.concatenate([std, np.ones(2 * len(std))])
    return fold(fitted.model, prepared.scaler, prepared.maps.rotation, mean, std)


def forward_of(trained: Sequence[Trained], prepared: Prepared, preset: Preset, n_labels: int) -> Forward:
    """Return the folded networks as one function of the features."""
    heads = [Head(preset.activation, preset.slope, t.columns, preset.scales) for t in trained]
    folded = tuple(t.folded for t in trained)
    return Forward(prepared.scaler, prepared.maps.gaussian, folded, heads, n_labels)


def _checkpoints(
    folder: Path | None, preset: Preset, settings: Train, features: FeatureFile, prepared: Prepared
) -> Callable[[int], Checkpoint | None]:
    """Return the checkpoint of each network; they are known by all that the weights depend on."""
    if folder is None:
        return lambda n: None
    chosen = settings.model_dump(exclude={"threads", "tensorboard"})
    content = hashlib.sha256(repr((preset, chosen, features, versions())).encode())
    parts = [prepared.stars[part] for part in (TRAIN, VALIDATION)]
    for array in (*(stars.features for stars in parts), *(stars.labels for stars in parts), prepared.copies):
        content.update(np.ascontiguousarray(array).tobytes())
    key = content.hexdigest()
    return lambda n: Checkpoint(folder / f"network{n:02d}.npz", key)


def _sample(prepared: Prepared, part: str, columns: tuple[int, ...], physical: Physical) -> Sample:
    labels, x = prepared.stars[part].labels[:, list(columns)], prepared.inputs[part]
    if part == TRAIN and len(prepared.copies):
        labels, x = np.vstack([labels, labels[prepared.copied_rows]]), np.vstack([x, prepared.copies])
    known = np.isfinite(labels).any(axis=1)
    inputs = network_inputs(x[known], prepared.maps.rotation)
    return Sample(inputs, ((labels[known] - physical.mean) / physical.std).astype(np.float32))


def doubts(trained: Sequence[Trained], features: FeatureFile, prepared: Prepared) -> list[str]:
    """Return warnings of networks that diverged, or learnt nothing."""
    warnings = [
        f"{', '.join(features.label_names[c] for c in t.columns)}: training diverged after epoch "
        f"{t.fitted.curve[-1].epoch}; the weights of epoch {t.fitted.best.epoch} are kept"
        for t in trained
        if t.fitted.stopped == "diverged"
    ]
    mean, std = prepared.physical.mean, prepared.physical.std
    validation = (prepared.stars[VALIDATION].labels - mean) / std
    medians = np.nanmedian((prepared.stars[TRAIN].labels - mean) / std, axis=0)
    for t in trained:
        columns = list(t.columns)
        reference = float(np.nanmean(np.abs(validation[:, columns] - medians[columns])))
        if t.fitted.best.val_mae > NOTHING_LEARNT * reference:
            names = ", ".join(features.label_names[c] for c in columns)
            warnings.append(
                f"{names}: nothing learnt: the validation MAE is {t.fitted.best.val_mae:.3f} standard deviations, "
                f"the training median alone reaches {reference:.3f}"
            )
    return warnings
