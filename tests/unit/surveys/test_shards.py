"""Sorting and counting of rows on their way to tiles."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stellarml.surveys import shards

KEYS = st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 2), st.integers(0, 3)), max_size=40)


@given(KEYS)
def test_order_is_that_of_a_sort_by_all_keys(rows: list[tuple[int, int, int]]) -> None:
    key, tie, second = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    expected = np.lexsort((second, tie, key))
    assert shards.sorted_order(key, tie, second).tolist() == expected.tolist()


@given(st.lists(st.integers(-3, 6), max_size=40))
def test_runs_are_those_of_unique(values: list[int]) -> None:
    ascending = np.sort(np.array(values, dtype=np.int64))
    distinct, counts = np.unique(ascending, return_counts=True)
    found = shards.runs(ascending)
    assert found[0].tolist() == distinct.tolist()
    assert found[1].tolist() == counts.tolist()
