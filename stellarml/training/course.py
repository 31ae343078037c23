"""What a fit is given and what it leaves behind: samples, the curve, the best weights. Knows no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stellarml.training.presets import Phase

if TYPE_CHECKING:
    from stellarml.training.checkpoint import Kept


@dataclass(frozen=True)
class Sample:
    """Inputs (n, n_inputs) and standardised labels (n, n_outputs), NaN for an unknown label."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]


@dataclass(frozen=True)
class Physical:
    """Mean and standard deviation of each label, (n_outputs,): SMAPE only means something in physical units."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class FitData:
    """What one network is fitted to, what chooses its epoch, and what undoes the standardisation of its labels."""

    train: Sample
    validation: Sample
    physical: Physical


@dataclass(frozen=True)
class Epoch:
    """One point of the training curve; losses in the phase's own units, `val_mae` in standard deviations."""

    epoch: int
    phase: str
    loss: float
    val_loss: float
    val_mae: float


OnEpoch = Callable[[Epoch, Epoch, int, float], None]
"""Called with the epoch, the best so far, the epochs planned and the seconds left."""


@dataclass
class Course:
    """How a fit goes: its epochs so far, the best one with its weights, the present phase, and why it ended.

    `stopped` is "complete", "max_seconds" or "diverged".
    """

    weights: list[NDArray[Any]]
    curve: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    phase: Phase | None = None
    stopped: str = "complete"

    def add(self, epoch: Epoch, weights: Callable[[], list[NDArray[Any]]]) -> Epoch:
        """Note an epoch, and its weights if none was better; return the best so far."""
        self.curve.append(epoch)
        if self.best is None or epoch.val_mae < self.best.val_mae:
            self.best, self.weights = epoch, weights()
        return self.best

    def record(self, *, late: bool) -> dict[str, Any]:
        """Return what a checkpoint keeps beside arrays; `late`: no further epoch is to start."""
        best = None if self.best is None else asdict(self.best)
        return {"curve": [asdict(epoch) for epoch in self.curve], "best": best, "late": late}

    def resume(self, kept: Kept) -> None:
        """Go on from what a checkpoint keeps."""
        self.curve = [Epoch(**epoch) for epoch in kept.record["curve"]]
        self.best = Epoch(**kept.record["best"])
        self.weights = kept.arrays_of("best")
        if kept.record.get("late"):
            self.stopped = "max_seconds"
