"""What is learnt once the networks are fitted, from stars that they have not seen: intervals, and who is a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.core import progress
from stellarml.features.split import TEST, TRAIN, VALIDATION
from stellarml.intervals.conformal import Calibration, LabelCalibration, widths_of
from stellarml.intervals.covariate_shift import weights_of
from stellarml.intervals.fit_conformal import Rows, cross_fitted, fit_calibration, folds_of
from stellarml.intervals.label_noise import plausible_noises
from stellarml.intervals.true_parameters import MIN_ROWS, TruthTable, fit_truth
from stellarml.model.forward import Forward
from stellarml.model.novelty import Novelty, NoveltyMaps, fit_novelty, novelty_scores, with_limits
from stellarml.training.labelled_stars import Stars


@dataclass(frozen=True)
class HeldOut:
    """Intervals for labels and for true parameters, and the distances of strangers with their limits."""

    calibration: Calibration
    truth: tuple[TruthTable, ...]
    novelty: Novelty
    maps: NoveltyMaps


def learn_from_held_out(
    forward: Forward,
    stars: Mapping[str, Stars],
    inputs: Mapping[str, NDArray[np.float64]],
    names: tuple[str, ...],
    calibrating: str,
    target: NDArray[np.float64] | None = None,
) -> HeldOut:
    """Fit the intervals to the calibrating part; the distances to the training part, their limits to the calibrating.

    Parameters
    ----------
    forward
        The fitted networks.
    stars, inputs
        By part: the stars, and their inputs from `scaling.design`.
    names
        Of the labels.
    calibrating
        Which part calibrates: a part of its own, or validation, which is then cross-fitted.
    target
        Inputs of a sample of the stars that are to be labelled, (m, n_inputs), if they are known.
    """
    progress.step("predicting the validation and calibration parts")
    rows = {}
    for part in dict.fromkeys((VALIDATION, calibrating)):
        answer = forward.run(stars[part].features)
        rows[part] = Rows(
            inputs=inputs[part],
            missing=~np.isfinite(stars[part].features),
            prediction=answer.labels.astype(np.float64),
            truth=stars[part].labels,
            log_widths=answer.log_widths,
            folds=folds_of(stars[part].ids) if part == calibrating == VALIDATION else None,
        )
    progress.step("calibrating the intervals")
    medians = np.nanmedian(stars[TRAIN].labels, axis=0)
    calibration = fit_calibration(names, medians, rows[VALIDATION], rows[calibrating], target)
    progress.step("distances of unusual stars")
    n_features = stars[TRAIN].features.shape[1]
    labels = forward.run(stars[TRAIN].features).labels.astype(np.float64)
    maps, novelty = fit_novelty(inputs[TRAIN], n_features, labels)
    scores = novelty_scores(maps, novelty, inputs[calibrating] @ maps.linear, rows[calibrating].prediction)
    progress.step("intervals of the true parameters")
    truth = _fit_truth(names, calibration, stars, rows[calibrating])
    return HeldOut(calibration, truth, with_limits(novelty, scores), maps)


def missing_truths(held_out: HeldOut, calibration: Stars, names: tuple[str, ...]) -> list[str]:
    """Return warnings of labels whose stated errors made no intervals of true parameters although there are enough."""
    fitted = {table.label for table in held_out.truth}
    stating = np.isfinite(calibration.labels) & (calibration.label_errors > 0)
    enough = stating.sum(axis=0) >= MIN_ROWS
    return [
        f"{name}: the stated errors are larger than what lies between labels and predictions, so they cannot be true: "
        "there will be no intervals of true parameters (look at the unit of the error column)"
        for name, stated in zip(names, enough, strict=True)
        if stated and name not in fitted
    ]


def _fit_truth(
    names: tuple[str, ...], calibration: Calibration, stars: Mapping[str, Stars], rows: Rows
) -> tuple[TruthTable, ...]:
    taught = [part for name, part in stars.items() if name != TEST]
    repeats = np.vstack([part.repeats for part in taught])
    stated = np.vstack([part.repeat_errors for part in taught])
    covariate_shift = calibration.shift
    weights = (
        None
        if covariate_shift is None
        else weights_of(rows.inputs @ np.asarray(covariate_shift.weights) + covariate_shift.bias)
    )
    tables = []
    for j, name in enumerate(names):
        fitted = calibration.labels[j]
        widths = _widths_of_rows(fitted, rows, j)
        errors = stars[calibration.part].label_errors[:, j]
        noises = plausible_noises(name, repeats[:, j], stated[:, j])
        tables.append(
            fit_truth(
                noises,
                rows.prediction[:, j],
                rows.truth[:, j],
                errors,
                widths,
                weights,
                quantiles=rows.log_widths is not None,
            )
        )
    return tuple(table for table in tables if table is not None)


def _widths_of_rows(fitted: LabelCalibration, rows: Rows, j: int) -> NDArray[np.float64]:
    """Return the widths of the `j`-th label that the rows were scored with, (n, 2), in its unit."""
    if rows.log_widths is not None:
        return widths_of(fitted, rows.log_widths[:, :, j], None)
    if rows.folds is not None:
        return widths_of(fitted, np.repeat(cross_fitted(rows, j)[0][:, None], 2, axis=1), None)
    return widths_of(fitted, None, rows.inputs @ np.asarray(fitted.difficulty_weights))
