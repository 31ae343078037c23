"""Training stars with columns taken away."""

from __future__ import annotations

import numpy as np
from helpers.model_tables import FEATURES

from stellarml.features.feature_file import load_feature_file
from stellarml.training.missing_copies import MORE_OFTEN, OF_OTHER_STARS, column_groups, with_missing_copies


def test_features_of_one_column_go_together() -> None:
    groups = {tuple(np.flatnonzero(g)) for g in column_groups(FEATURES)}
    assert groups == {(0, 1, 2), (1,), (2,), (3,), (4,)}  # g_psf, u_psf, r_psf, teff_gspphot, r_med_geo


def test_the_papers_bands() -> None:
    paper = load_feature_file("paper")
    names = np.array(paper.feature_names)
    groups = [set(names[g]) for g in column_groups(paper)]
    assert {"uabs", "uabs_nored", "e_u_psf"} in groups
    assert {"e_u_psf"} not in groups, "an error alone tells the magnitude"
    assert {"teff_gspphot"} in groups or {"teff_gspphot", "teff_gspphot_err"} in groups
    reddened = {n for n in names if n.endswith("abs")}
    assert any(g >= reddened and "uabs_nored" not in g for g in groups), "ebmv_sfd"


def test_copies_lack_more_and_keep_the_rest() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 5)).astype(np.float32)
    features[rng.random(4000) < 0.1, 3] = np.nan
    groups = column_groups(FEATURES)
    thinned, rows = with_missing_copies(features, groups, features, 1.5, 1)
    assert 0.4 * 4000 < len(rows) <= 1.5 * 4000
    there, here = np.isfinite(features[rows]), np.isfinite(thinned)
    assert not (here & ~there).any(), "nothing is made up"
    assert (here.sum(axis=1) < there.sum(axis=1)).all(), "a copy lacks more"
    assert here.any(axis=1).all(), "and has something left"
    assert np.array_equal(thinned[here], features[rows][here])
    lacks = {tuple(np.flatnonzero(~h)) for h in here}
    assert {(0, 1, 2), (1,), (2,), (3,), (4,), (1, 4), (1, 2, 4)} <= lacks


def test_copies_lack_what_the_stars_to_be_labelled_lack() -> None:
    features = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    others = np.ones((1000, 5), np.float32)
    others[:300, [0, 3]] = np.nan
    others[300:400, 2] = np.nan
    thinned, _ = with_missing_copies(features, column_groups(FEATURES), others, 1.0, 1)
    lacks = [tuple(np.flatnonzero(~h)) for h in np.isfinite(thinned)]
    of_all = OF_OTHER_STARS * 20_000
    assert abs(lacks.count((0, 3)) / of_all - 0.75) < 0.02, (
        "no column is in both features: only a star lacks them"
    )
    shuffled = with_missing_copies(features, column_groups(FEATURES), others[::-1], 1.0, 1)[0]
    assert np.array_equal(thinned, shuffled, equal_nan=True), "whatever their order"


def test_where_few_stars_lack_anything_few_copies_do() -> None:
    features = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    others = np.ones((1000, 5), np.float32)
    for incomplete in (0, 50):
        others[:incomplete, [0, 3]] = np.nan
        thinned, _ = with_missing_copies(features, column_groups(FEATURES), others, 1.0, 1)
        lacks = [tuple(np.flatnonzero(~h)) for h in np.isfinite(thinned)]
        expected = MORE_OFTEN * incomplete / 1000 * OF_OTHER_STARS * 20_000
        assert abs(lacks.count((0, 3)) - expected) < 4 * np.sqrt(expected + 1)
        assert len(lacks) - lacks.count((0, 3)) <= 1.02 * (1 - OF_OTHER_STARS) * 20_000


def test_the_same_seed_gives_the_same_copies() -> None:
    features = np.random.default_rng(2).normal(size=(300, 5)).astype(np.float32)
    groups = column_groups(FEATURES)
    one, two, three = (with_missing_copies(features, groups, features, 0.5, seed) for seed in (3, 3, 4))
    assert np.array_equal(one[0], two[0], equal_nan=True)
    assert np.array_equal(one[1], two[1])
    assert not np.array_equal(one[1], three[1])


def test_no_copies() -> None:
    features = np.ones((10, 5), np.float32)
    for groups, copies in ((column_groups(FEATURES), 0.0), (np.zeros((0, 5), bool), 2.0)):
        thinned, rows = with_missing_copies(features, groups, features, copies, 0)
        assert thinned.shape == (0, 5)
        assert rows.shape == (0,)
