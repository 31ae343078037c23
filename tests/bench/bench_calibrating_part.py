"""Intervals from the validation part beside those from a calibration part: how many test stars do they hold.

For each of many splits of one labelled table, one network is trained on 70 % of the stars. Its intervals are then
calibrated three times, and always on as many stars: on a part that nothing has seen, on the validation part with
widths fitted to the scored rows themselves, and on the validation part cross-fitted. All are measured on the test part.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stellarml.core.config import Split, load_config
from stellarml.features.feature_file import load_feature_file
from stellarml.features.missing_patterns import patterns_of
from stellarml.features.split import CALIBRATION, TEST, TRAIN, VALIDATION, split_of
from stellarml.intervals.cells import POOLED, factors
from stellarml.intervals.conformal import LEVELS, Calibration, widths_of
from stellarml.intervals.fit_conformal import Rows, fit_calibration, folds_of
from stellarml.training.fit_networks import fit_networks, forward_of
from stellarml.training.labelled_stars import read_stars
from stellarml.training.prepare import prepare
from stellarml.training.presets import preset_named
from stellarml.training.read_lake import load_training_set
from stellarml.training.watch import Watch

SIZES = (0, 2000, 1000, 500)  # calibrating stars; 0: the whole part
METHODS = ("calibration part", "validation, same rows", "validation, cross-fitted")
Floats = npt.NDArray[np.float64]


def fitted_rows(table: pa.Table, preset: str, salt: int, overrides: list[str]) -> dict[str, Any]:
    """Train on one split; return the rows of each other part, the ids of the validation part, and the medians."""
    spec, chosen = load_feature_file("paper"), preset_named(preset)
    split = Split(salt=str(salt), validation=0.1, test=0.1, calibration=0.1)
    parts = pa.array(split_of(table["source_id"].to_pylist(), split))
    table = table.set_column(table.column_names.index("split"), "split", parts)
    settings = load_config(overrides=[f"train.seed={salt}", *overrides], environment={}).train
    prepared = prepare(read_stars(table, spec, 0, split.salt), chosen, spec, salt, None)
    trained = fit_networks(chosen, settings, spec, prepared, Watch())
    forward = forward_of(trained, prepared, chosen, len(spec.labels))
    found: dict[str, Any] = {"names": spec.label_names, "ids": prepared.stars[VALIDATION].ids}
    found["medians"] = np.nanmedian(prepared.stars[TRAIN].labels, axis=0)
    for part in (VALIDATION, CALIBRATION, TEST):
        stars = prepared.stars[part]
        answer = forward.run(stars.features)
        missing, prediction = ~np.isfinite(stars.features), answer.labels.astype(np.float64)
        found[part] = Rows(prepared.inputs[part], missing, prediction, stars.labels, answer.log_widths)
    return found


def some(rows: Rows, chosen: npt.NDArray[np.intp]) -> Rows:
    """Return some rows of a part."""
    log_widths = None if rows.log_widths is None else rows.log_widths[chosen]
    return Rows(
        rows.inputs[chosen], rows.missing[chosen], rows.prediction[chosen], rows.truth[chosen], log_widths
    )


def coverage(fitted: Calibration, new: Rows) -> Floats:
    """Return the share of labels inside the intervals, (n_levels,), the mean over the labels."""
    kinds, index = patterns_of(new.missing)
    codes = np.array(kinds)[index]
    inside = np.zeros((len(fitted.labels), len(LEVELS)))
    for j, label in enumerate(fitted.labels):
        linear = new.inputs @ np.array(label.difficulty_weights) if new.log_widths is None else None
        widths = widths_of(label, None if new.log_widths is None else new.log_widths[:, :, j], linear)
        residual = new.truth[:, j] - new.prediction[:, j]
        scores = np.abs(residual) / np.where(residual < 0, widths[:, 0], widths[:, 1])
        for k, level in enumerate(LEVELS):
            factor = np.full(len(scores), np.nan)
            for cells in label.classes:
                own = np.isnan(factor) & ((codes == cells.pattern) | (cells.pattern == POOLED))
                factor[own] = factors(cells, new.prediction[own, j], widths[own].mean(axis=1), level)[0]
            inside[j, k] = (scores <= factor)[np.isfinite(residual)].mean()
    return np.asarray(inside.mean(axis=0))


def measured(found: dict[str, Any], size: int) -> Floats:
    """Return the coverage of each method, (n_methods, n_levels), from `size` stars of each part."""
    draw = np.random.default_rng(0)
    chosen = {
        part: np.sort(draw.permutation(len(found[part].truth))[: size or None])
        for part in (VALIDATION, CALIBRATION)
    }
    validation, own = (some(found[part], rows) for part, rows in chosen.items())
    crossed = replace(validation, folds=folds_of(found["ids"][chosen[VALIDATION]]))
    return np.stack(
        [
            coverage(fit_calibration(found["names"], found["medians"], validation, rows), found[TEST])
            for rows in (own, validation, crossed)
        ]
    )


def main() -> None:
    """Print, by number of calibrating stars, per cent of test stars inside, and the difference to the first method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path, required=True, help="lake/ of a demo, with lake/training in it")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--splits", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], help="train.KEY=VALUE, for example max_epochs")
    given = parser.parse_args()
    table = load_training_set(given.lake / "training")
    held = []
    for salt in range(1, given.splits + 1):
        found = fitted_rows(table, given.preset, salt, given.set)
        held.append(np.stack([measured(found, size) for size in SIZES]))
        sys.stderr.write(f"split {salt} of {given.splits}\n")
    shares = 100 * np.stack(held)  # splits, sizes, methods, levels
    root = np.sqrt(len(shares))
    for s, size in enumerate(SIZES):
        for m, method in enumerate(METHODS):
            values, change = shares[:, s, m], shares[:, s, m] - shares[:, s, 0]
            cells = [
                f"{values[:, k].mean():.2f} +- {values[:, k].std(ddof=1) / root:.2f} "
                f"({change[:, k].mean():+.2f} +- {change[:, k].std(ddof=1) / root:.2f})"
                for k in range(len(LEVELS))
            ]
            sys.stdout.write(f"| {size or 'all'} | {method} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
