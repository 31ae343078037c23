"""Without a calibration part (80/10/10, as in the paper) the validation part calibrates, and everything says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.model_tables import (
    FEATURES,
    SPLIT,
    TINY,
    TINY_SCALES,
    fit_bundle,
    matrix_of,
    settings,
    stars,
    table_of,
)

from stellarml.core.errors import TrainingError
from stellarml.features.split import split_of
from stellarml.intervals.fit_conformal import FOLDS, Rows, cross_fitted, fit_calibration
from stellarml.model.bundle import load_bundle
from stellarml.model.card import CARD
from stellarml.model.manifest import MANIFEST, WEIGHTS, signed
from stellarml.model.predictor import Predictor
from stellarml.report.model_facts import card_facts
from stellarml.training.calibrate import _widths_of_rows
from stellarml.training.fit import Task, train
from stellarml.training.presets import Preset
from stellarml.training.watch import Watch

pytestmark = pytest.mark.tensorflow

WHOLE = SPLIT.model_copy(update={"calibration": 0.0})


def split_anew(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    columns = stars(rows, seed)
    return columns | {"split": np.array(split_of(columns["star_id"].tolist(), WHOLE))}


def fit(
    folder: Path, columns: dict[str, np.ndarray], lines: list[str] | None = None, preset: Preset = TINY
) -> Path:
    watch = Watch((lines if lines is not None else []).append)
    return train(table_of(columns), Task(FEATURES, settings(), WHOLE, preset), folder / "m", watch=watch)


def test_message_card_and_bundle_say_that_the_validation_part_calibrates(tmp_path: Path) -> None:
    lines: list[str] = []
    columns = split_anew(3000)
    bundle = fit(tmp_path, columns, lines)
    manifest = load_bundle(bundle).manifest
    counted = int((columns["split"] == "validation").sum())
    assert manifest.counts["calibration"] == 0 and manifest.counts["validation"] == counted
    assert manifest.counts["train"] == (columns["split"] == "train").sum() > 0.65 * 3000
    assert manifest.calibration.part == "validation" and "cross-fitted" in manifest.calibration.method
    told = f"intervals are calibrated on the {counted} stars of the validation part, which has also chosen the epoch"
    assert told in lines
    assert "calibrated on the validation part, which has also chosen the epoch" in (bundle / CARD).read_text()
    assert card_facts(manifest)["calibrated_on"] == "validation"


def test_message_and_card_name_the_calibration_part_where_there_is_one(tmp_path: Path) -> None:
    lines: list[str] = []
    task = Task(FEATURES, settings(max_epochs=1), SPLIT, TINY)
    bundle = train(table_of(stars(600)), task, tmp_path / "m", watch=Watch(lines.append))
    manifest = load_bundle(bundle).manifest
    assert manifest.calibration.part == "calibration" and "cross-fitted" not in manifest.calibration.method
    assert (
        f"intervals are calibrated on the {manifest.counts['calibration']} stars of the calibration part"
        in lines
    )
    assert "- intervals: calibrated on the calibration part (" in (bundle / CARD).read_text()


@pytest.mark.parametrize("preset", [TINY, TINY_SCALES], ids=lambda p: p.name)
def test_new_stars_are_inside_the_intervals(tmp_path: Path, preset: Preset) -> None:
    """With the network's own widths, and with fitted ones: on 20,000 stars that the training has never seen."""
    predictor = Predictor(load_bundle(fit(tmp_path, split_anew(9000), preset=preset)))
    new = stars(20_000, seed=8)
    for level in (68, 90, 95):
        labelled = predictor.label(matrix_of(new), level)
        for name in ("teff", "feh"):
            inside = (new[name] >= labelled[f"{name}_lo"]) & (new[name] <= labelled[f"{name}_hi"])
            assert inside.mean() == pytest.approx(level / 100, abs=0.03), (name, level)


def test_test_rows_are_only_measured(tmp_path: Path) -> None:
    columns = split_anew(1500)
    spoilt = {name: values.copy() for name, values in columns.items()}
    test = columns["split"] == "test"
    for name in ("g", "teff_gspphot", "teff", "feh"):
        spoilt[name][test] *= np.float32(3)
    first, again = fit(tmp_path / "first", columns), fit(tmp_path / "again", spoilt)
    assert (first / WEIGHTS).read_bytes() == (again / WEIGHTS).read_bytes()
    one, other = (load_bundle(path).manifest for path in (first, again))
    assert one.calibration == other.calibration and one.novelty == other.novelty
    assert one.metrics != other.metrics


def test_the_widths_for_true_parameters_are_those_of_other_folds_too() -> None:
    """Intervals of true parameters divide the same residuals by the same widths as those of labels do."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(600, 1))
    rows = Rows(
        rng.normal(size=(600, 50)), np.zeros((600, 2), bool), 0 * truth, truth, folds=np.arange(600) % FOLDS
    )
    (fitted,) = fit_calibration(("teff",), np.zeros(1), rows, rows).labels
    found = np.log(_widths_of_rows(fitted, rows, 0))
    wanted = np.clip(cross_fitted(rows, 0)[0], fitted.difficulty_low, fitted.difficulty_high)
    assert np.allclose(found, wanted[:, None])
    own = rows.inputs @ np.array(fitted.difficulty_weights) + fitted.difficulty_bias
    size = np.log(np.abs(truth[:, 0]))
    assert np.corrcoef(own, size)[0, 1] > 0.2 > abs(np.corrcoef(found[:, 0], size)[0, 1])


def test_calibration_rows_that_nobody_would_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the calibration part has \d+ stars although split.calibration is 0"
    ):
        fit(tmp_path, stars(600))
    assert list(tmp_path.iterdir()) == []


def test_a_validation_part_too_small_to_calibrate_is_refused(tmp_path: Path) -> None:
    columns = split_anew(600)
    many = np.flatnonzero(columns["split"] == "validation")[15:]
    columns["split"][many] = "train"
    with pytest.raises(TrainingError, match="the validation part has 15 stars, at least 20 are needed"):
        fit(tmp_path, columns)


def test_a_bundle_from_before_names_the_calibration_part(tmp_path: Path) -> None:
    bundle = fit_bundle(tmp_path, stars(600), TINY, max_epochs=1)
    data = json.loads((bundle / MANIFEST).read_text())
    del data["calibration"]["part"]
    (bundle / MANIFEST).write_text(json.dumps(signed(data)))
    assert load_bundle(bundle).manifest.calibration.part == "calibration"
