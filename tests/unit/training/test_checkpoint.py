"""A killed training goes on from its last epoch, to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.model_tables import FEATURES, SPLIT, TINY, TINY_SCALES, settings, stars, table_of

from stellarml.model.bundle import load_bundle
from stellarml.model.manifest import WEIGHTS
from stellarml.training.checkpoint import Checkpoint
from stellarml.training.fit import Task, train
from stellarml.training.presets import Preset
from stellarml.training.watch import Watch

pytestmark = pytest.mark.tensorflow


class KilledError(Exception):
    """Stands for a signal that ends the process."""


def fit(
    out: Path,
    preset: Preset,
    checkpoints: Path | None,
    lines: list[str],
    most: int = 10**9,
    seed: int = 5,
    **limits: float,
) -> Path:
    def progress(line: str) -> None:
        lines.append(line)
        if len(lines) >= most:
            raise KilledError

    task = Task(FEATURES, settings(seed=seed, **limits), SPLIT, preset)
    return train(table_of(stars(700)), task, out / "m", watch=Watch(progress, checkpoints))


def networks_of(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir() if path.suffix in (".keras", ".npz")}


@pytest.mark.parametrize(
    ("preset", "killed_after"),
    [(TINY, 1), (TINY, 5), (TINY, 9), (TINY_SCALES, 3), (TINY_SCALES, 9)],
    ids=lambda given: getattr(given, "name", str(given)),
)
def test_killed_and_resumed_gives_the_same_weights(tmp_path: Path, preset: Preset, killed_after: int) -> None:
    """Dropout, moving means, Adam's moments, the order of rows, both phases, and the second network after the first."""
    whole: list[str] = []
    expected = networks_of(fit(tmp_path / "whole", preset, None, whole))
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", preset, tmp_path / "kept", [], killed_after)
    rest: list[str] = []
    assert networks_of(fit(tmp_path / "killed", preset, tmp_path / "kept", rest)) == expected
    assert len(rest) == len(whole) - killed_after
    assert [line.split(" loss")[0] for line in rest] == [
        line.split(" loss")[0] for line in whole[killed_after:]
    ]


def test_a_network_whose_time_was_up_is_not_trained_further(tmp_path: Path) -> None:
    limits = {"max_seconds": 1e-6}
    expected = (fit(tmp_path / "whole", TINY, None, [], **limits) / WEIGHTS).read_bytes()
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", TINY, tmp_path / "kept", [], 2, **limits)
    rest: list[str] = []
    resumed = fit(tmp_path / "killed", TINY, tmp_path / "kept", rest, **limits)
    assert (resumed / WEIGHTS).read_bytes() == expected
    assert not [line for line in rest if ": epoch" in line]
    networks = load_bundle(resumed).manifest.networks
    assert [(n.stopped, len(n.curve.epoch)) for n in networks] == [("max_seconds", 1)] * 2


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        fit(tmp_path / "out", TINY_SCALES, tmp_path / "kept", [], 3, seed=1)
    lines: list[str] = []
    expected = (fit(tmp_path / "fresh", TINY_SCALES, None, []) / WEIGHTS).read_bytes()
    assert (fit(tmp_path / "out", TINY_SCALES, tmp_path / "kept", lines) / WEIGHTS).read_bytes() == expected
    other = dataclasses.replace(TINY_SCALES, weight_decay=0.01)
    assert (fit(tmp_path / "other", other, tmp_path / "kept", []) / WEIGHTS).read_bytes() != expected


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_checkpoint_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    kept = Checkpoint(tmp_path / "one.npz", "key")
    assert kept.read() is None
    kept.write({"epoch": 3}, {"state": [np.arange(3.0), np.ones((2, 2))]})
    found = kept.read()
    assert found is not None
    assert found.record == {"epoch": 3}
    assert [a.shape for a in found.arrays_of("state")] == [(3,), (2, 2)]
    assert Checkpoint(kept.path, "another key").read() is None
    whole = kept.path.read_bytes()
    kept.path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"nothing of the kind"}[damage]
    )
    assert kept.read() is None
