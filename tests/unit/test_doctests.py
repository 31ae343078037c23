"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
from helpers.places import CHECKOUT

PACKAGE = CHECKOUT / "stellarml"
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 5


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_of_a_module(path: object) -> None:
    name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)  # type: ignore[attr-defined]
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed
