"""Strangers: they are separated from ordinary stars by what one feature alone does not show."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.model_tables import TINY_SCALES, fit_bundle, matrix_of, stars, tiny_bundle

from stellarml.core.quality_flags import QualityFlag
from stellarml.model.bundle import load_bundle
from stellarml.model.novelty import LIMIT_PERCENTILE, fit_novelty, novelty_scores, with_limits
from stellarml.model.predictor import Predictor

pytestmark = pytest.mark.tensorflow


def sky(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Six features on a curved sheet over two labels, noisier where the last of them is large; then a mask."""
    labels = rng.normal(size=(n, 2))
    noise = np.exp(0.8 * rng.normal(size=n))
    a, b = labels.T
    sheet = np.stack([a, b, a + 0.3 * b**2, a * b, b - 0.2 * a, np.zeros(n)], axis=1)
    x = sheet + 0.05 * noise[:, None] * rng.normal(size=sheet.shape)
    x[:, 5] = np.log(noise)
    return np.hstack([x, rng.random((n, 1)) < 0.1]), labels


def auroc(ordinary: np.ndarray, strange: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(np.concatenate([ordinary, strange])))
    return float((ranks[len(ordinary) :].mean() - (len(strange) - 1) / 2) / len(ordinary))


@pytest.fixture(scope="module")
def fitted() -> tuple[object, object, np.random.Generator]:
    rng = np.random.default_rng(3)
    inputs, labels = sky(20_000, rng)
    maps, novelty = fit_novelty(inputs, 6, labels)
    inputs, labels = sky(20_000, rng)
    return maps, with_limits(novelty, novelty_scores(maps, novelty, inputs @ maps.linear, labels)), rng


def test_the_limits_let_most_ordinary_stars_through(fitted: tuple) -> None:
    maps, novelty, rng = fitted
    inputs, labels = sky(50_000, rng)
    beyond = novelty_scores(maps, novelty, inputs @ maps.linear, labels) > np.array(novelty.limits)
    assert beyond.mean(axis=0) == pytest.approx([1 - LIMIT_PERCENTILE / 100] * 2, abs=0.0015)
    noisy = inputs[:, 5] > 1.2
    assert beyond[noisy].mean() < 0.06, "a faint star is no stranger"


def test_colours_that_no_star_of_these_labels_has(fitted: tuple) -> None:
    """Each feature lies in its own range; the sheet is left."""
    maps, novelty, rng = fitted
    inputs, labels = sky(20_000, rng)
    ordinary = novelty_scores(maps, novelty, inputs @ maps.linear, labels)
    strange = inputs.copy()
    strange[:, 3] = rng.permutation(strange[:, 3])
    assert strange[:, 3].min() >= inputs[:, 3].min()
    found = novelty_scores(maps, novelty, strange @ maps.linear, labels)
    assert auroc(ordinary[:, 1], found[:, 1]) > 0.9, "some get nearly the value that they had"
    assert auroc(ordinary[:, 1], found[:, 1]) > auroc(ordinary[:, 0], found[:, 0]), "the labels tell more"


def test_a_point_far_from_all_stars(fitted: tuple) -> None:
    maps, novelty, _ = fitted
    far = np.zeros((1, 7))
    far[0, 4] = 8.0
    assert (
        novelty_scores(maps, novelty, far @ maps.linear, np.zeros((1, 2))) > np.array(novelty.limits)
    ).all()


def test_a_row_does_not_depend_on_those_beside_it(fitted: tuple) -> None:
    maps, novelty, rng = fitted
    inputs, labels = sky(3000, rng)
    linear = inputs @ maps.linear
    whole = novelty_scores(maps, novelty, linear, labels)
    for rows in (slice(0, 1), slice(7, 20), slice(1000, 3000)):
        assert np.array_equal(novelty_scores(maps, novelty, linear[rows], labels[rows]), whole[rows])


def test_flags_of_a_bundle() -> None:
    """A colour that belongs to another temperature: flagged; the star that it was taken from: not."""
    predictor = Predictor(load_bundle(tiny_bundle(TINY_SCALES)))
    features = matrix_of(stars(3000, seed=31, missing=False))
    ordinary = predictor.label(features)["quality_flags"]
    bits = int(QualityFlag.COLOURS_DISAGREE | QualityFlag.OUTSIDE_JOINTLY)
    assert (ordinary & bits != 0).mean() < 0.03
    order = np.argsort(features[:, 2])
    edges = np.r_[order[:300], order[-300:]]
    mixed = features[edges]
    mixed[:, 1] = mixed[::-1, 1]
    scores = [predictor.novelty(x)[:, 1] for x in (features[edges], mixed)]
    assert auroc(scores[0], scores[1]) > 0.95
    assert (predictor.label(mixed)["quality_flags"] & bits != 0).mean() > 0.5


def test_features_that_are_missing_everywhere_do_no_harm(tmp_path: object) -> None:
    columns = stars(900)
    columns["distance"][:] = np.nan
    predictor = Predictor(load_bundle(fit_bundle(tmp_path, columns, TINY_SCALES)))  # type: ignore[arg-type]
    assert np.isfinite(predictor.novelty(matrix_of(columns))).all()
