"""What a star would look like with less: training stars with columns taken away.

A network that has only seen complete stars answers badly to one without u, whatever fills the gap. Copies of training
stars get the missing-value patterns of stars that are to be labelled, drawn at random but more often than they are met,
so that rare patterns are learnt, too; or lack any columns of the table, with every feature that is computed from them,
so that any band may be missing. A column takes its error along: the error of a magnitude reveals the magnitude, and a
network that kept it would rely on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stellarml.core.expressions import columns_of
from stellarml.features.feature_file import FeatureFile

OF_OTHER_STARS = 0.9  # of the copies; the others lack columns
MORE_OFTEN = 4.0  # copies like others lack something than others themselves
MOST_COLUMNS = 0.6  # the share of the columns that a copy lacks is drawn between 0 and this
OF_MANY = 0.25  # a column that others' features depend on, such as the distance, is lacked so much less often
ERRORS = ("e_{}", "err_{}", "sigma_{}", "{}_err", "{}_error")  # how catalogues name the error of a column


def column_groups(features: FeatureFile) -> NDArray[np.bool_]:
    """Return the features that each column and its error take part in, (n_groups, n_features); equal ones once.

    A column in which all features share is left out: without it nothing is left.
    """
    words = [frozenset(column.lower() for column in columns_of(f.expression)) for f in features.features]
    every = frozenset().union(*words)
    with_errors = {word: {word, *(error.format(word) for error in ERRORS)} & every for word in every}
    errors = frozenset().union(*(both - {word} for word, both in with_errors.items()))
    groups = {
        tuple(bool(with_errors[word] & mentioned) for mentioned in words): None
        for word in sorted(every - errors)
    }
    return np.array([group for group in groups if not all(group)], dtype=bool).reshape(-1, len(words))


def with_missing_copies(
    features: NDArray[np.float32],
    groups: NDArray[np.bool_],
    others: NDArray[np.float32],
    copies: float,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return copies of stars with more features missing, and the rows that they are copies of.

    Parameters
    ----------
    features
        Shape (n, n_features), NaN for missing.
    groups
        From `column_groups`.
    others
        Stars whose missing-value patterns are copied, (m, n_features); their order does not matter.
    copies
        How many copies of each star, on average, at most.

    Returns
    -------
    Features (k, n_features) and rows (k,); copies that lack nothing more, or everything, are left out.
    """
    rng = np.random.default_rng(seed)
    n = len(features)
    rows = np.sort(rng.permutation(np.repeat(np.arange(n), int(np.ceil(copies))))[: round(copies * n)])
    gone = _without_columns(groups, len(rows), features.shape[1], rng)
    like_another = rng.random(len(rows)) < OF_OTHER_STARS
    gone[like_another] = _of_others(others, int(like_another.sum()), rng)
    missing = ~np.isfinite(features[rows])
    useful = (gone & ~missing).any(axis=1) & ~(gone | missing).all(axis=1)
    thinned = features[rows[useful]].copy()
    thinned[gone[useful]] = np.nan
    return thinned, rows[useful]


def _of_others(others: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return what `n` stars lack, drawn from `others`, but `MORE_OFTEN` something; (n, n_features)."""
    if not n:
        return np.zeros((0, others.shape[1]), dtype=bool)
    patterns, counts = np.unique(~np.isfinite(others), axis=0, return_counts=True)
    lacking = patterns.any(axis=1)
    share = counts / counts.sum()
    share[lacking] *= min(MORE_OFTEN, 1.0 / max(share[lacking].sum(), 1e-300))
    share[~lacking] = max(0.0, 1.0 - share[lacking].sum())
    drawn: NDArray[np.bool_] = patterns[rng.choice(len(patterns), n, p=share / share.sum())]
    return drawn


def _without_columns(
    groups: NDArray[np.bool_], n: int, n_features: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which features are gone where columns are taken away, (n, n_features)."""
    if not len(groups):
        return np.zeros((n, n_features), dtype=bool)
    holds_another = [sum(bool((other <= group).all()) for other in groups) > 1 for group in groups]
    chance = rng.uniform(0.0, MOST_COLUMNS, (n, 1)) * np.where(holds_another, OF_MANY, 1.0)
    taken = rng.random((n, len(groups))) < chance
    gone: NDArray[np.bool_] = (taken.astype(np.float32) @ groups.astype(np.float32)) > 0
    return gone
