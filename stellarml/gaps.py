"""What a star would look like with less: training stars with columns taken away.

A network that has only seen complete stars answers badly to one without u, whatever fills the gap. Copies of training
stars get the gaps of other stars, drawn at random, so that patterns occur as often together as they do; or lack one or
two columns of the table, with every feature that is computed from them, so that any band may be missing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stellarml.expressions import words_of
from stellarml.feature_file import FeatureFile

OF_OTHER_STARS = 0.4  # of the copies; the others lack columns
SECOND_COLUMN = 0.3  # of those that lack columns


def column_groups(features: FeatureFile) -> NDArray[np.bool_]:
    """Return the features that each column of the table takes part in, (n_groups, n_features); equal ones once.

    A column in which all features share is left out: without it nothing is left.
    """
    words = [frozenset(word.lower() for word in words_of(f.expression)) for f in features.features]
    groups = {tuple(word in mentioned for mentioned in words): None for word in sorted(set().union(*words))}
    return np.array([group for group in groups if not all(group)], dtype=bool).reshape(-1, len(words))


def with_gaps(
    features: NDArray[np.float32], groups: NDArray[np.bool_], copies: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return copies of stars with more features missing, and the rows that they are copies of.

    Parameters
    ----------
    features
        Shape (n, n_features), NaN for missing.
    groups
        From `column_groups`.
    copies
        How many copies of each star, on average.

    Returns
    -------
    Features (m, n_features) and rows (m,); copies that lack nothing more, or everything, are left out.
    """
    rng = np.random.default_rng(seed)
    n = len(features)
    rows = np.sort(rng.permutation(np.repeat(np.arange(n), int(np.ceil(copies))))[: round(copies * n)])
    missing = ~np.isfinite(features)
    like_another = rng.random(len(rows)) < OF_OTHER_STARS
    gone = missing[rng.integers(0, n, len(rows))]
    if len(groups):
        taken = groups[rng.integers(0, len(groups), len(rows))]
        second = rng.random(len(rows)) < SECOND_COLUMN
        taken[second] |= groups[rng.integers(0, len(groups), int(second.sum()))]
        gone = np.where(like_another[:, None], gone, taken)
    before = missing[rows]
    useful = (gone & ~before).any(axis=1) & ~(gone | before).all(axis=1)
    thinned = features[rows[useful]].copy()
    thinned[gone[useful]] = np.nan
    return thinned, rows[useful]
