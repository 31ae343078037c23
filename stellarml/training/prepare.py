"""The stars by split, and their inputs as the networks take them: scaled, imputed, decorrelated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stellarml.features.feature_file import FeatureFile
from stellarml.features.split import SPLITS, TRAIN
from stellarml.model.scaling import InputMaps, Scaler, design, fit_imputation, fit_rotation, fit_scaler
from stellarml.training.course import Physical
from stellarml.training.labelled_stars import Stars
from stellarml.training.missing_copies import column_groups, with_missing_copies
from stellarml.training.presets import Preset


@dataclass(frozen=True)
class Prepared:
    """Stars by split, their scaled inputs (float64, before rotation) and what made them.

    `copies` are the inputs of training stars with columns taken away, `copied_rows` which training stars they are.
    """

    stars: dict[str, Stars]
    inputs: dict[str, NDArray[np.float64]]
    scaler: Scaler
    maps: InputMaps
    physical: Physical
    copies: NDArray[np.float64]
    copied_rows: NDArray[np.int64]


def prepare(
    stars: Stars, preset: Preset, features: FeatureFile, seed: int, unlabelled: NDArray[np.float32] | None
) -> Prepared:
    """Fit the scaler, the input maps and the labels' scale to the training part, and scale every part.

    The training part gets copies with the missing-value patterns of `unlabelled` stars, (m, n_features), or of its own.
    """
    by_split = {split: stars.of(split) for split in SPLITS}
    own = by_split[TRAIN].features
    others = own if unlabelled is None else unlabelled
    thinned, copied_rows = with_missing_copies(
        own, column_groups(features), others, preset.missing_copies, seed
    )
    scaler = fit_scaler(own, thinned)
    gaussian = fit_imputation(own, scaler) if preset.imputation == "gaussian" else None
    inputs = {split: design(s.features, scaler, gaussian) for split, s in by_split.items()}
    n_features = stars.features.shape[1]
    rotation = fit_rotation(inputs[TRAIN][:, :n_features]) if preset.rotate != "no" else None
    if rotation is not None and preset.rotate == "beside":
        rotation = np.hstack([np.eye(n_features), rotation])
    labels = by_split[TRAIN].labels
    physical = Physical(np.nanmean(labels, axis=0), np.nanstd(labels, axis=0))
    copies = design(thinned, scaler, gaussian)
    return Prepared(by_split, inputs, scaler, InputMaps(gaussian, rotation), physical, copies, copied_rows)
