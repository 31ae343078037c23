"""What `train` can be given beside its table: the stars that are to be labelled, and a folder for TensorBoard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.model_tables import FEATURES, SPLIT, TINY_SCALES, matrix_of, settings, stars, table_of

from stellarml.core.errors import InputError
from stellarml.core.quality_flags import QualityFlag
from stellarml.features.plausible_ranges import OutsideRange
from stellarml.model.bundle import load_bundle
from stellarml.model.card import CARD
from stellarml.model.predictor import Predictor
from stellarml.training.fit import Task, train
from stellarml.training.labelled_stars import read_stars, read_target
from stellarml.training.prepare import prepare
from stellarml.training.presets import Preset
from stellarml.training.watch import Watch

pytestmark = pytest.mark.tensorflow


def faint(n: int) -> dict[str, np.ndarray]:
    columns = stars(n, seed=77)
    columns["g"] += np.float32(3.0)
    columns["distance"] *= np.float32(3.0)
    return columns


def fit(
    out: Path,
    target: pa.Table | None = None,
    logs: Path | None = None,
    rows: int = 1500,
    preset: Preset = TINY_SCALES,
) -> Path:
    task = Task(FEATURES, settings(), SPLIT, preset)
    return train(table_of(stars(rows)), task, out / "m", target=target, watch=Watch(logs=logs))


def test_stars_unlike_the_labelled_ones_are_told_that_nobody_speaks_for_them(tmp_path: Path) -> None:
    target = pa.table({name: faint(1500)[name] for name in FEATURES.feature_names})
    no_copies = replace(TINY_SCALES, missing_copies=0.0)
    weighted = Predictor(load_bundle(fit(tmp_path / "weighted", target, rows=12_000, preset=no_copies)))
    plain = Predictor(load_bundle(fit(tmp_path / "plain", rows=12_000, preset=no_copies)))
    assert plain.manifest.calibration.shift is None
    bright, dim = matrix_of(stars(2000, seed=9)), matrix_of(faint(2000))
    thin = [
        (weighted.label(x)["quality_flags"] & QualityFlag.THIN_CALIBRATION != 0).mean() for x in (bright, dim)
    ]
    assert thin[1] > thin[0] + 0.3
    same = [p.label(bright)["teff"] for p in (weighted, plain)]
    assert np.array_equal(*same), "the target changes intervals and flags, not labels"


def test_values_outside_their_range_are_told_kept_and_warned_of(tmp_path: Path) -> None:
    few = OutsideRange(
        kind="feature", name="g", unit="mag", low=-30, high=40, outside=3, values=1500, median=14.0
    )
    most = few.model_copy(
        update={
            "kind": "label",
            "name": "teff",
            "unit": "K",
            "outside": 900,
            "median": 5.7,
            "table": "apogee",
        }
    )
    told: list[str] = []
    task = Task(FEATURES, settings(max_epochs=1), SPLIT, TINY_SCALES)
    watch = Watch(told.append)
    folder = train(table_of(stars()), task, tmp_path / "m", watch=watch, outside_range=(few, most))
    manifest = load_bundle(folder).manifest
    card = (folder / CARD).read_text()
    assert told[:2] == [few.message(), most.message()]
    assert told[2] == f"warning: {most.warning()}"
    assert manifest.outside_range == (few, most)
    assert manifest.warnings[0] == most.warning()
    for line in (few.message(), most.message(), most.warning()):
        assert f"- {line}\n" in card


def test_stars_to_be_labelled_come_in_any_order_and_a_handful_is_ignored() -> None:
    target = pa.table({name: faint(700)[name] for name in FEATURES.feature_names})
    order = np.random.default_rng(4).permutation(700)
    first, again = read_target(target, FEATURES)[0], read_target(target.take(pa.array(order)), FEATURES)[0]
    assert first is not None and again is not None
    assert np.array_equal(first, again, equal_nan=True)
    few, warnings = read_target(target.slice(0, 10), FEATURES)
    assert few is None
    assert "10 rows without labels are too few" in warnings[0]
    assert read_target(target.slice(0, 0), FEATURES) == (None, [])


def test_networks_learn_to_do_without_what_the_stars_to_be_labelled_lack() -> None:
    labelled = read_stars(table_of(stars(3000)), FEATURES, 0, SPLIT.salt)
    unlabelled = np.ones((100, len(FEATURES.features)), np.float32)
    unlabelled[:, [1, 3]] = np.nan
    prepared = prepare(labelled, TINY_SCALES, FEATURES, 0, unlabelled)
    masks = prepared.copies[:, len(FEATURES.features) :]
    assert len(masks) == len(prepared.copied_rows) > 500
    assert (masks.sum(axis=1) >= 2).mean() > 0.9
    alone = prepare(labelled, TINY_SCALES, FEATURES, 0, None)
    assert len(alone.copies) != len(prepared.copies)


def test_a_target_without_a_feature_is_refused(tmp_path: Path) -> None:
    target = pa.table({name: faint(100)[name] for name in FEATURES.feature_names[1:]})
    with pytest.raises(InputError, match=r"stars to be labelled.*column 'g' is missing"):
        fit(tmp_path, target)


def test_an_empty_target_is_none(tmp_path: Path) -> None:
    target = pa.table({name: np.empty(0, np.float32) for name in FEATURES.feature_names})
    assert load_bundle(fit(tmp_path, target)).manifest.calibration.shift is None


def test_curves_for_tensorboard(tmp_path: Path) -> None:
    fit(tmp_path / "model", logs=tmp_path / "logs")
    written = sorted(path.parent.name for path in (tmp_path / "logs").rglob("events.out.tfevents.*"))
    assert written == ["network00", "network01"]
    (first, _) = sorted((tmp_path / "logs").rglob("events.out.tfevents.*"))
    assert first.read_bytes().count(b"val_mae") >= 8
