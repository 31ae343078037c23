"""Named cuts: their bits, their order, and the cut-flow that follows from counting bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stellarml.stages.select import star_cuts
from stellarml.surveys.cuts import HAS_DISTANCE, cut_flow, merge_counts, sentinels
from stellarml.surveys.descriptor import Cut, load_descriptor


def cuts(enabled: list[bool]) -> list[Cut]:
    return [
        Cut(name=f"c{i}", where="true", reason=f"because {i}", enabled=on) for i, on in enumerate(enabled)
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.data())
def test_the_flow_is_what_counting_rows_one_by_one_gives(enabled: list[bool], data: st.DataObject) -> None:
    bits = [i for i, on in enumerate(enabled) if on]
    masks = data.draw(st.lists(st.sets(st.sampled_from(bits)) if bits else st.just(set()), max_size=30))
    rows = np.array([sum(1 << b for b in mask) for mask in masks], np.int64)
    values, counts = np.unique(rows, return_counts=True)
    flow = cut_flow("s", cuts(enabled), dict(zip(values.tolist(), counts.tolist(), strict=True)))
    assert [row["cut"] for row in flow] == ["all rows", *(f"c{b}" for b in bits)]
    assert [row["step"] for row in flow] == list(range(len(flow)))
    assert flow[0]["rows_left"] == len(rows)
    left = np.ones(len(rows), bool)
    for bit, row in zip(bits, flow[1:], strict=True):
        failed = (rows >> bit & 1).astype(bool)
        left &= ~failed
        assert row["failed_alone"] == failed.sum() and row["rows_left"] == left.sum()
        assert row["reason"] == f"because {bit}" and row["survey"] == "s"


@given(st.lists(st.dictionaries(st.integers(0, 9), st.integers(1, 50), max_size=4), max_size=5))
def test_counts_of_tiles_add_up(parts: list[dict[int, int]]) -> None:
    total = merge_counts([{str(k): v for k, v in part.items()} for part in parts])
    assert list(total) == sorted(total)
    assert total == {k: sum(p.get(k, 0) for p in parts) for k in {k for p in parts for k in p}}


def test_sentinels_are_the_named_columns_and_the_epoch_in_order() -> None:
    found = sentinels(load_descriptor("skymapper_dr2"))
    assert list(found)[:6] == [f"{b}_psf" for b in "uvgriz"]
    assert list(found)[-1] == "mean_epoch" and found["mean_epoch"] == "mean_epoch = 0"
    assert len(found) <= 63


def test_the_distance_cut_has_the_bit_after_the_surveys_own() -> None:
    from stellarml.core.config import load_config

    gaia = load_descriptor("gaia_dr3")
    with_distance = star_cuts(load_config(environment={}), gaia)
    assert with_distance[-1] == HAS_DISTANCE and len(with_distance) == len(gaia.cuts) + 1
    without = star_cuts(load_config(overrides=["surveys.distances=''"], environment={}), gaia)
    assert len(without) == len(gaia.cuts)
    off = star_cuts(load_config(overrides=["cuts.disable=['has_distance', 'ruwe']"], environment={}), gaia)
    assert {c.name for c in off if not c.enabled} == {"has_distance", "ruwe"}
    assert [c.name for c in off] == [c.name for c in with_distance], "bits never move"


def test_the_papers_profile_cuts_sentinels_and_asks_for_no_bands() -> None:
    from stellarml.core.config import load_config

    settings = load_config(profile="paper", environment={}).cuts
    assert settings.enable == ("no_sentinel_magnitude",)
