"""How a table of labelled stars becomes a bundle: the fit, on the driver, without Spark.

The table is sorted by id first and every random choice is seeded, so the bundle depends on the rows and the seed, not
on how Spark delivered them. Scaler, rotation and weights see the training part; the epoch is chosen on the validation
part, which also fits the difficulty; intervals come from the calibration part; the test part is only measured.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stellarml.core.config import Split, Train
from stellarml.features.feature_file import FeatureFile
from stellarml.features.split import CALIBRATION, PARTS, TEST, TRAIN, VALIDATION
from stellarml.model.bundle import Bundle, save_bundle
from stellarml.model.card import CARD, model_card
from stellarml.model.folding import Folded, fold
from stellarml.model.forward import Forward
from stellarml.model.manifest import FORMAT, FORMAT_VERSION, Manifest
from stellarml.model.onnx_graph import Head
from stellarml.model.predictor import Predictor
from stellarml.model.scaling import (
    InputMaps,
    Scaler,
    design,
    fit_imputation,
    fit_rotation,
    fit_scaler,
    network_inputs,
)
from stellarml.training.calibrate import learn_from_held_out, untold_truths
from stellarml.training.checkpoint import Checkpoint
from stellarml.training.labelled_stars import Stars, read_stars, read_target, warnings_of
from stellarml.training.missing_copies import column_groups, with_gaps
from stellarml.training.network import Epoch, Fitted, OnEpoch, Part, Physical, Trainer, keras, scalars_to
from stellarml.training.presets import Preset, preset_named
from stellarml.training.test_metrics import label_ranges, measure, network_record, versions

NOTHING_LEARNT = (
    0.98  # validation MAE above this share of what the training median reaches: the user is warned
)
REDDENING_PERCENTILE = 99.9


@dataclass(frozen=True)
class Prepared:
    """Stars by part, their scaled inputs (float64, before rotation) and what made them.

    `gaps` are the inputs of training stars with columns taken away, `gap_rows` which training stars they are.
    """

    stars: dict[str, Stars]
    inputs: dict[str, NDArray[np.float64]]
    scaler: Scaler
    maps: InputMaps
    physical: Physical
    gaps: NDArray[np.float64]
    gap_rows: NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """One fitted network; `columns` are the labels that it gives."""

    columns: tuple[int, ...]
    seed: int
    fitted: Fitted
    folded: Folded


def train(
    table: pa.Table,
    features: FeatureFile,
    settings: Train,
    split: Split,
    out: Path,
    *,
    model_id: str,
    provenance: Mapping[str, Any],
    progress: Callable[[str], None],
    preset: Preset | None = None,
    checkpoints: Path | None = None,
    target: pa.Table | None = None,
    logs: Path | None = None,
) -> Path:
    """Fit, calibrate, measure, and write the bundle ``out/model_id``.

    Parameters
    ----------
    table
        `features.id`, a column for each feature (null or NaN for missing) and label by name, `split`; optionally
        `ebmv_sfd` (mag), whose training range is kept for the flag REDDENING_BEYOND.
    settings
        Preset, seed, limits and threads.
    split
        Recorded in the bundle, and its salt orders `max_rows`; `table` already carries the parts.
    out
        The folder of models.
    provenance
        What the table was made from; goes into the bundle as it is.
    progress
        Told one line an epoch, and warnings.
    preset
        Instead of the one that `settings` names.
    checkpoints
        A folder for the state of each network after each epoch, from which a killed training goes on, to the same
        bits; the caller removes it.
    target
        A sample of the stars that are to be labelled, with the features by name: the intervals are made for them, and
        what they lack is what the networks learn to do without. Without it, stars like the labelled ones.
    logs
        A folder for TensorBoard's event files, one folder a network; None for none.

    Returns
    -------
    The bundle's folder.

    Raises
    ------
    InputError, TrainingError
        Gathering what is wrong with the table.
    """
    chosen = preset or preset_named(settings.preset)
    stars = read_stars(table, features, settings.max_rows, split.salt)
    unlabelled, warnings = read_target(target, features)
    warnings += warnings_of(stars, features)
    for warning in warnings:
        progress(f"warning: {warning}")
    prepared = prepare(stars, chosen, features, settings.seed, unlabelled)
    keras(settings.threads)
    kept = _checkpoints(checkpoints, chosen, settings, features, prepared) if checkpoints else None
    trained = _fit_all(chosen, settings, features, prepared, progress, kept, logs)
    for warning in _doubts(trained, features, prepared):
        progress(f"warning: {warning}")
        warnings.append(warning)
    names = features.label_names
    folded = tuple(t.folded for t in trained)
    forward = Forward(
        prepared.scaler,
        prepared.maps.gaussian,
        folded,
        [Head(chosen.activation, chosen.slope, t.columns, chosen.scales) for t in trained],
        len(names),
    )
    wanted = None
    if unlabelled is not None:
        wanted = design(unlabelled, prepared.scaler, prepared.maps.gaussian)
    held_out = learn_from_held_out(forward, prepared.stars, prepared.inputs, names, wanted)
    for warning in untold_truths(held_out, prepared.stars[CALIBRATION], names):
        progress(f"warning: {warning}")
        warnings.append(warning)
    files = [_file_name(n, t, names) for n, t in enumerate(trained)]
    train_stars = prepared.stars[TRAIN]
    record: dict[str, Any] = {
        "id": model_id,
        "preset": chosen.name,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "features": features,
        "scaler": prepared.scaler,
        "imputation": chosen.imputation,
        "rotated": chosen.rotate != "no",
        "reddening_high_mag": _high(train_stars.reddening_mag),
        "labels": label_ranges(features, train_stars.labels),
        "networks": [
            network_record(chosen, t.fitted, file, tuple(names[c] for c in t.columns), t.seed)
            for t, file in zip(trained, files, strict=True)
        ],
        "seed": settings.seed,
        "split": split.model_dump(),
        "settings": settings.model_dump(),
        "counts": {part: len(s.ids) for part, s in prepared.stars.items()},
        "calibration": held_out.calibration,
        "truth": held_out.truth,
        "novelty": held_out.novelty,
        "metrics": {},
        "warnings": warnings,
        "versions": versions(),
        "provenance": dict(provenance),
    }
    draft = Manifest(format=FORMAT, format_version=FORMAT_VERSION, files={}, **record)
    bundle = Bundle(draft, prepared.maps, folded, held_out.maps)
    record["metrics"] = measure(Predictor(bundle), prepared.stars[TEST])
    card = model_card(draft.model_copy(update={"metrics": record["metrics"]}))
    models = {file: t.fitted.model for file, t in zip(files, trained, strict=True)}
    return save_bundle(out / model_id, record, bundle, models, {CARD: card})


def prepare(
    stars: Stars, preset: Preset, features: FeatureFile, seed: int, unlabelled: NDArray[np.float32] | None
) -> Prepared:
    """Fit the scaler, the input maps and the labels' scale to the training part, and scale every part.

    The training part gets copies with the gaps of `unlabelled` stars, (m, n_features), or of its own.
    """
    parts = {part: stars.of(part) for part in PARTS}
    own = parts[TRAIN].features
    others = own if unlabelled is None else unlabelled
    thinned, gap_rows = with_gaps(own, column_groups(features), others, preset.gaps, seed)
    scaler = fit_scaler(own, thinned)
    gaussian = fit_imputation(own, scaler) if preset.imputation == "gaussian" else None
    inputs = {part: design(s.features, scaler, gaussian) for part, s in parts.items()}
    n_features = stars.features.shape[1]
    rotation = fit_rotation(inputs[TRAIN][:, :n_features]) if preset.rotate != "no" else None
    if rotation is not None and preset.rotate == "beside":
        rotation = np.hstack([np.eye(n_features), rotation])
    labels = parts[TRAIN].labels
    physical = Physical(np.nanmean(labels, axis=0), np.nanstd(labels, axis=0))
    gaps = design(thinned, scaler, gaussian)
    return Prepared(parts, inputs, scaler, InputMaps(gaussian, rotation), physical, gaps, gap_rows)


def _fit_all(
    preset: Preset,
    settings: Train,
    features: FeatureFile,
    prepared: Prepared,
    progress: Callable[[str], None],
    checkpoint_of: Callable[[int], Checkpoint] | None,
    logs: Path | None,
) -> list[Trained]:
    n_labels = len(features.labels)
    groups = [(j,) for j in range(n_labels)] if preset.per_label else [tuple(range(n_labels))]
    plan = [group for group in groups for _ in range(preset.members)]
    n_inputs = network_inputs(prepared.inputs[TRAIN][:1], prepared.maps.rotation).shape[1]
    trainer = Trainer(preset, n_inputs, len(plan[0]))
    started = time.monotonic()
    trained = []
    for n, columns in enumerate(plan):
        chosen = list(columns)
        physical = Physical(prepared.physical.mean[chosen], prepared.physical.std[chosen])
        seed = settings.seed + 1000 * n
        deadline = float("inf")
        if settings.max_seconds:
            now = time.monotonic()
            deadline = now + max(0.0, settings.max_seconds - (now - started)) / (len(plan) - n)
        title = ", ".join(features.label_names[c] for c in columns)
        title += f" (member {n % preset.members + 1} of {preset.members})" if preset.members > 1 else ""
        fitted = trainer.fit(
            _part(prepared, TRAIN, columns, physical),
            _part(prepared, VALIDATION, columns, physical),
            physical,
            seed=seed,
            max_epochs=settings.max_epochs,
            deadline=deadline,
            on_epoch=_to_all(
                partial(_tell, progress, title, len(plan) - n - 1),
                *([scalars_to(logs / f"network{n:02d}")] if logs else []),
            ),
            checkpoint=checkpoint_of(n) if checkpoint_of else None,
        )
        mean, std = physical.mean, physical.std
        if preset.scales:
            mean = np.concatenate([mean, np.log(std), np.log(std)])
            std = np.concatenate([std, np.ones(2 * len(std))])
        folded = fold(fitted.model, prepared.scaler, prepared.maps.rotation, mean, std)
        trained.append(Trained(columns, seed, fitted, folded))
    return trained


def _to_all(*tellers: OnEpoch) -> OnEpoch:
    def tell(epoch: Epoch, best: Epoch, planned: int, seconds_left: float) -> None:
        for teller in tellers:
            teller(epoch, best, planned, seconds_left)

    return tell


def _checkpoints(
    folder: Path, preset: Preset, settings: Train, features: FeatureFile, prepared: Prepared
) -> Callable[[int], Checkpoint]:
    """Return the checkpoint of each network; they are known by all that the weights depend on."""
    chosen = settings.model_dump(exclude={"threads", "tensorboard"})
    content = hashlib.sha256(repr((preset, chosen, features, versions())).encode())
    parts = [prepared.stars[part] for part in (TRAIN, VALIDATION)]
    for array in (*(stars.features for stars in parts), *(stars.labels for stars in parts), prepared.gaps):
        content.update(np.ascontiguousarray(array).tobytes())
    key = content.hexdigest()
    return lambda n: Checkpoint(folder / f"network{n:02d}.npz", key)


def _part(prepared: Prepared, part: str, columns: tuple[int, ...], physical: Physical) -> Part:
    labels, x = prepared.stars[part].labels[:, list(columns)], prepared.inputs[part]
    if part == TRAIN and len(prepared.gaps):
        labels, x = np.vstack([labels, labels[prepared.gap_rows]]), np.vstack([x, prepared.gaps])
    known = np.isfinite(labels).any(axis=1)
    inputs = network_inputs(x[known], prepared.maps.rotation)
    return Part(inputs, ((labels[known] - physical.mean) / physical.std).astype(np.float32))


def _doubts(trained: list[Trained], features: FeatureFile, prepared: Prepared) -> list[str]:
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


def _tell(
    progress: Callable[[str], None],
    title: str,
    more: int,
    epoch: Epoch,
    best: Epoch,
    planned: int,
    seconds_left: float,
) -> None:
    minutes, seconds = divmod(round(seconds_left), 60)
    after = f" + {more} more network{'s' if more > 1 else ''}" if more else ""
    progress(
        f"{title}: epoch {epoch.epoch}/{planned} {epoch.phase} loss {epoch.loss:.4f} validation {epoch.val_loss:.4f} "
        f"MAE {epoch.val_mae:.4f} sd (best {best.val_mae:.4f} in {best.epoch}) {minutes}:{seconds:02d} left{after}"
    )


def _file_name(n: int, trained: Trained, names: tuple[str, ...]) -> str:
    return f"{n:02d}_{'_'.join(names[c] for c in trained.columns)[:80]}.keras"


def _high(reddening_mag: NDArray[np.float32] | None) -> float | None:
    if reddening_mag is None or not np.isfinite(reddening_mag).any():
        return None
    return float(np.nanpercentile(reddening_mag, REDDENING_PERCENTILE))
