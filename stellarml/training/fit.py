"""How a table of labelled stars becomes a bundle: the fit, on the driver, without Spark.

The table is sorted by id first and every random choice is seeded, so the bundle depends on the rows and the seed, not
on how Spark delivered them. Scaler, rotation and weights see the training part; the epoch is chosen on the validation
part, which also fits the difficulty; intervals come from the calibration part, or where there is none from the
validation part, cross-fitted; the test part is only measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stellarml.core import progress
from stellarml.core.config import Split, Train
from stellarml.features.feature_file import FeatureFile
from stellarml.features.plausible_ranges import OutsideRange, told
from stellarml.features.split import TEST, TRAIN, VALIDATION, calibrating_part
from stellarml.model.bundle import Bundle, save_bundle
from stellarml.model.card import CARD, card_text
from stellarml.model.manifest import FORMAT, FORMAT_VERSION, Manifest
from stellarml.model.predictor import Predictor
from stellarml.model.scaling import (
    design,
)
from stellarml.training.calibrate import HeldOut, learn_from_held_out, missing_truths
from stellarml.training.fit_networks import Trained, doubts, fit_networks, forward_of
from stellarml.training.labelled_stars import read_stars, read_target, warnings_of
from stellarml.training.prepare import Prepared, prepare
from stellarml.training.presets import Preset, preset_named
from stellarml.training.test_metrics import label_ranges, measure, network_record, versions
from stellarml.training.watch import Watch

REDDENING_PERCENTILE = 99.9
STEPS_AFTER_EPOCHS = 6  # four of `calibrate.learn_from_held_out`, then the test part and the files


@dataclass(frozen=True)
class Task:
    """What is to be learnt, and how.

    split
        Recorded in the bundle, and its salt orders ``settings.max_rows``; the table already carries its parts.
    preset
        Instead of the one that `settings` names.
    """

    features: FeatureFile
    settings: Train
    split: Split
    preset: Preset | None = None

    @property
    def chosen(self) -> Preset:
        """The preset of the networks."""
        return self.preset or preset_named(self.settings.preset)

    @property
    def calibrating(self) -> str:
        """The part that intervals are calibrated on."""
        return calibrating_part(self.split)


def train(
    table: pa.Table,
    task: Task,
    folder: Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    target: pa.Table | None = None,
    watch: Watch | None = None,
    outside_range: Sequence[OutsideRange] = (),
) -> Path:
    """Fit, calibrate, measure, and write the bundle `folder`, whose name is the model's id; return it.

    Parameters
    ----------
    table
        `features.id`, a column for each feature (null or NaN for missing) and label by name, `split`; optionally
        `ebmv_sfd` (mag), whose training range is kept for the flag REDDENING_BEYOND.
    provenance
        What the table was made from; goes into the bundle as it is.
    target
        A sample of the stars that are to be labelled, with the features by name: the intervals are made for them, and
        what they lack is what the networks learn to do without. Without it, stars like the labelled ones.
    watch
        Who is shown the progress, and where it is kept.
    outside_range
        The labels and features of which values outside their range are missing in `table`; shown, and kept in the card.

    Raises
    ------
    InputError, TrainingError
        Gathering what is wrong with the table.
    """
    watch = watch or Watch()
    features, preset = task.features, task.chosen
    messages, doubtful = told(outside_range)
    for message in messages:
        watch.progress(message)
    watch.warned(doubtful)
    stars = read_stars(table, features, task.settings.max_rows, task.split.salt, task.calibrating)
    unlabelled, warnings = read_target(target, features)
    warnings += watch.warned(warnings_of(stars, features), before=warnings)
    progress.step("preparing the inputs")
    prepared = prepare(stars, preset, features, task.settings.seed, unlabelled)
    trained = fit_networks(preset, task.settings, features, prepared, watch)
    warnings += watch.warned(doubts(trained, features, prepared))
    progress.steps(STEPS_AFTER_EPOCHS)
    forward = forward_of(trained, prepared, preset, len(features.labels))
    wanted = None if unlabelled is None else design(unlabelled, prepared.scaler, prepared.maps.gaussian)
    held_out = learn_from_held_out(
        forward, prepared.stars, prepared.inputs, features.label_names, task.calibrating, wanted
    )
    watch.progress(_calibrated_on(task.calibrating, len(prepared.stars[task.calibrating].ids)))
    warnings += watch.warned(missing_truths(held_out, prepared.stars[task.calibrating], features.label_names))
    record = {
        **_record(task, folder.name, prepared, trained, held_out),
        "outside_range": tuple(outside_range),
        "warnings": [*doubtful, *warnings],
        "provenance": dict(provenance or {}),
    }
    return _save(folder, record, prepared, trained, held_out)


def _calibrated_on(part: str, stars: int) -> str:
    also = ", which has also chosen the epoch" if part == VALIDATION else ""
    return f"intervals are calibrated on the {stars:,} stars of the {part} part{also}"


def _record(
    task: Task, model_id: str, prepared: Prepared, trained: Sequence[Trained], held_out: HeldOut
) -> dict[str, Any]:
    """Return what bundle.json says, but for metrics, warnings and provenance."""
    preset, features = task.chosen, task.features
    train_stars = prepared.stars[TRAIN]
    return {
        "id": model_id,
        "preset": preset.name,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "features": features,
        "scaler": prepared.scaler,
        "imputation": preset.imputation,
        "rotated": preset.rotate != "no",
        "reddening_high_mag": _high(train_stars.reddening_mag),
        "labels": label_ranges(features, train_stars.labels),
        "networks": [
            network_record(
                preset, t.fitted, t.file, tuple(features.label_names[c] for c in t.columns), t.seed
            )
            for t in trained
        ],
        "seed": task.settings.seed,
        "split": task.split.model_dump(),
        "settings": task.settings.model_dump(),
        "counts": {part: len(stars.ids) for part, stars in prepared.stars.items()},
        "calibration": held_out.calibration,
        "truth": held_out.truth,
        "novelty": held_out.novelty,
        "metrics": {},
        "versions": versions(),
    }


def _save(
    folder: Path, record: dict[str, Any], prepared: Prepared, trained: Sequence[Trained], held_out: HeldOut
) -> Path:
    """Measure the test part with the bundle as it will be read, then write it with its card."""
    progress.step("measuring the test part")
    draft = Manifest(format=FORMAT, format_version=FORMAT_VERSION, files={}, **record)
    bundle = Bundle(draft, prepared.maps, tuple(t.folded for t in trained), held_out.maps)
    record["metrics"] = measure(Predictor(bundle), prepared.stars[TEST])
    progress.step("writing the model")
    card = card_text(draft.model_copy(update={"metrics": record["metrics"]}))
    return save_bundle(folder, record, bundle, {t.file: t.fitted.model for t in trained}, {CARD: card})


def _high(reddening_mag: NDArray[np.float32] | None) -> float | None:
    if reddening_mag is None or not np.isfinite(reddening_mag).any():
        return None
    return float(np.nanpercentile(reddening_mag, REDDENING_PERCENTILE))
