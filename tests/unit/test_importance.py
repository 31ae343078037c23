"""The sampler behind the benchmark's posteriors, against a density that is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).parents[1] / "bench" / "importance.py"
_SPEC = importlib.util.spec_from_file_location("importance", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
importance = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(importance)

NARROW, SHARE, PLACE = 0.1, 0.2, np.array([6.0, 0.0, 0.0])


def _drawn(n: int, draw: np.random.Generator) -> np.ndarray:
    """Draw from a wide mode about zero, and a narrow one that holds `SHARE`."""
    wide = draw.standard_normal((n, 3))
    return np.where((draw.random(n) < SHARE)[:, None], PLACE + NARROW * wide, wide)


def _log_density(x: np.ndarray) -> np.ndarray:
    wide = np.exp(-0.5 * (x**2).sum(axis=1))
    narrow = np.exp(-0.5 * (((x - PLACE) / NARROW) ** 2).sum(axis=1)) / NARROW**3
    return np.asarray(np.log((1 - SHARE) * wide + SHARE * narrow + 1e-300))


@pytest.mark.parametrize("seen", [0.05, 0.5])
def test_weights_give_modes_their_shares_whatever_kernels_they_get(seen: float) -> None:
    draw = np.random.default_rng(0)
    population = _drawn(4000, draw)
    narrow = population[:, 0] > 4
    chance = np.where(narrow, seen / narrow.sum(), (1 - seen) / (~narrow).sum())
    found, log_density = importance.propose(population, chance, np.full(3, 1e-3), 40_000, draw)
    weights = importance.normal(_log_density(found) - log_density)
    assert importance.effective(weights) > 4000
    assert weights[found[:, 0] > 4].sum() == pytest.approx(SHARE, abs=0.02)
    in_narrow = weights * (found[:, 0] > 4)
    spread = np.sqrt(in_narrow @ (found[:, 1] ** 2) / in_narrow.sum())
    assert spread == pytest.approx(NARROW, rel=0.05)
    assert importance.weighted_median(found, weights)[1:] == pytest.approx(np.zeros(2), abs=0.03)


def test_tempered_weights_leave_as_many_samples_as_asked() -> None:
    log_weight = np.append(np.random.default_rng(1).normal(0, 20, 5000), -np.inf)
    weights = importance.tempered(log_weight, 150.0)
    assert importance.effective(weights) >= 150
    assert weights[-1] == 0
    assert weights.sum() == pytest.approx(1)
    assert np.argmax(weights) == np.argmax(log_weight)
