"""What is learnt once the networks are fitted, from stars that they have not seen: intervals, and who is a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.calibration import Calibration, Rows, fit_calibration
from stellarml.forward import Forward
from stellarml.novelty import Novelty, NoveltyMaps, fit_novelty, novelty_scores, with_limits
from stellarml.parts import CALIBRATION, TRAIN, VALIDATION
from stellarml.training_table import Stars


@dataclass(frozen=True)
class HeldOut:
    """Intervals, and the distances of strangers with their limits."""

    calibration: Calibration
    novelty: Novelty
    maps: NoveltyMaps


def learn_from_held_out(
    forward: Forward,
    stars: Mapping[str, Stars],
    inputs: Mapping[str, NDArray[np.float64]],
    names: tuple[str, ...],
    target: NDArray[np.float64] | None = None,
) -> HeldOut:
    """Fit the intervals to the calibration part; the distances to the training part, their limits to the calibration's.

    Parameters
    ----------
    forward
        The fitted networks.
    stars, inputs
        By part: the stars, and their inputs from `scaling.design`.
    names
        Of the labels.
    target
        Inputs of a sample of the stars that are to be labelled, (m, n_inputs), if they are known.
    """
    rows, answers = {}, {}
    for part in (VALIDATION, CALIBRATION):
        answer = answers[part] = forward.run(stars[part].features)
        rows[part] = Rows(
            inputs=inputs[part],
            missing=~np.isfinite(stars[part].features),
            prediction=answer.labels.astype(np.float64),
            truth=stars[part].labels,
            log_widths=answer.log_widths,
        )
    medians = np.nanmedian(stars[TRAIN].labels, axis=0)
    calibration = fit_calibration(names, medians, rows[VALIDATION], rows[CALIBRATION], target)
    n_features = stars[TRAIN].features.shape[1]
    labels = forward.run(stars[TRAIN].features).labels.astype(np.float64)
    maps, novelty = fit_novelty(inputs[TRAIN], n_features, labels)
    scores = novelty_scores(maps, novelty, inputs[CALIBRATION] @ maps.linear, rows[CALIBRATION].prediction)
    return HeldOut(calibration, with_limits(novelty, scores), maps)
