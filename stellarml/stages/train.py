"""The stage train: ``lake/training`` in, one model bundle out.

A bundle's id follows from everything that made it (training set, preset, seed, features, split, code), so that the same
run finds the same model again, and another one never overwrites it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config
from stellarml.features.feature_file import load_feature_file
from stellarml.features.plausible_ranges import OutsideRange
from stellarml.model.bundle import load_bundle
from stellarml.model.manifest import MANIFEST
from stellarml.run.code import code_identity
from stellarml.run.fingerprint import digest
from stellarml.run.log import get_logger
from stellarml.run.marks import Record, read_record
from stellarml.run.ownership import WORK
from stellarml.run.stage_run import Recipe, StageRun, stage_run
from stellarml.training.read_lake import load_target, load_training_set

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DIGITS = 10


def run(spark: SparkSession, config: Config, *, overwrite: bool = False) -> Record:
    """Fit the model that the configuration describes; write ``models/<id>/`` and return its run.json.

    The session is not used: networks are fitted on the driver.

    Raises
    ------
    TrainingError
        If the training set cannot teach anything.
    """
    from stellarml.training.fit import Task, train
    from stellarml.training.watch import Watch

    lake, models = config.lake_folder, config.models_folder
    features = load_feature_file(config.feature_file)
    training = read_record(lake / "training")
    relevant = {
        "train": config.train.model_dump(exclude={"threads", "tensorboard"}),
        "features": features.model_dump(mode="json"),
        "split": config.split.model_dump(),
    }
    model_id = _model_id(config.train.preset, relevant, training["key"])
    out = models / model_id
    recipe = Recipe("train", __name__, relevant, derived=[lake / "training"])
    with stage_run(recipe, out, config, overwrite=overwrite) as output:
        if output.complete:
            return output.record
        work, checkpoints = out / WORK, out / "_checkpoints"
        shutil.rmtree(work, ignore_errors=True)
        table = load_training_set(lake / "training")
        fresh = train(
            table,
            Task(features, config.train, config.split),
            work / model_id,
            provenance=_provenance(training, output),
            target=load_target(lake / "training"),
            outside_range=[OutsideRange(**one) for one in training.get("outside_range", ())],
            watch=Watch(
                warn=lambda warning: get_logger().warning(warning, stage="train"),
                checkpoints=checkpoints,
                logs=out / "logs" if config.train.tensorboard else None,
            ),
        )
        for path in sorted(fresh.iterdir(), key=lambda p: p.name == MANIFEST):
            path.replace(out / path.name)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
        bundle = load_bundle(out, features)
        output.settle(Path(name) for name in (MANIFEST, *bundle.manifest.files))
        return output.finish(
            {"in": table.num_rows, "out": table.num_rows, **bundle.manifest.counts},
            units=0,
            model_id=model_id,
            calibrated_on=bundle.manifest.calibration.part,
            metrics=bundle.manifest.metrics,
            outside_range=training.get("outside_range", []),
        )


def _provenance(training: Record, output: StageRun) -> dict[str, Any]:
    return {
        "training_set": training["key"],
        "rows": training["rows"],
        "code": output.code["version"],
    }


def _model_id(preset: str, relevant: dict[str, Any], training_key: str) -> str:
    settings = json.dumps(relevant, sort_keys=True)
    return f"{preset}-{digest([settings, training_key, code_identity(__name__)['digest']])[:_DIGITS]}"
