"""How fast weights move, and by what rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.training.presets import Phase, Preset

FINAL_RATE = 0.01  # of a phase's learning rate, reached at its end
WARM_UP_STEPS = 200
BETA_1, BETA_2 = 0.9, 0.999


def schedule(preset: Preset, n_batches: int, max_epochs: int) -> Iterator[tuple[Phase, NDArray[np.float32]]]:
    """Yield the phase and the learning rate of every step, epoch by epoch: warm-up, then a cosine to a hundredth."""
    total = max_epochs or preset.epochs
    if preset.max_steps:
        total = min(total, max(3, preset.max_steps // n_batches))
    left = total
    for phase in preset.phases:
        epochs = min(left, max(1, round(phase.epochs * total / preset.epochs)))
        if not epochs:
            return
        left -= epochs
        steps = np.arange(epochs * n_batches)
        rates = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * steps / len(steps)))
        rates *= phase.learning_rate * np.minimum(1.0, (steps + 1) / min(WARM_UP_STEPS, len(steps)))
        for epoch_rates in np.split(rates.astype(np.float32), epochs):
            yield phase, epoch_rates


class Adam:
    """Adam by TensorFlow's fused kernel: one operation a variable where Keras' own takes ten.

    Parameters
    ----------
    decay
        Whether kernels shrink apart from their gradients (AdamW, Loshchilov & Hutter 2019), as `set_decay` says.
    """

    def __init__(self, tf: Any, variables: list[Any], *, decay: bool) -> None:
        self._tf = tf
        self._decay = tf.Variable(0.0, trainable=False) if decay else None
        self.variables = [v.value for v in variables]
        self._first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]
        self._second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]
        self._powers = (tf.Variable(BETA_1, trainable=False), tf.Variable(BETA_2, trainable=False))
        self.reset()

    @property
    def slots(self) -> list[Any]:
        """Everything that the rule remembers, for a checkpoint."""
        return [*self._first, *self._second, *self._powers]

    def reset(self) -> None:
        """Forget all gradients."""
        for slot in (*self._first, *self._second):
            slot.assign(self._tf.zeros_like(slot))
        for power, beta in zip(self._powers, (BETA_1, BETA_2), strict=True):
            power.assign(beta)

    def set_decay(self, decay: float) -> None:
        """Set by what share kernels shrink, a step and unit of rate."""
        if self._decay is not None:
            self._decay.assign(decay)

    def apply(self, gradients: list[Any], rate: Any) -> None:
        """Take one step."""
        power1, power2 = self._powers
        for v, m, s, g in zip(self.variables, self._first, self._second, gradients, strict=True):
            if self._decay is not None and len(v.shape) > 1:
                v.assign_sub(rate * self._decay * v)
            self._tf.raw_ops.ResourceApplyAdam(
                var=v.handle,
                m=m.handle,
                v=s.handle,
                beta1_power=power1,
                beta2_power=power2,
                lr=rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=1e-7,
                grad=g,
            )
        power1.assign(power1 * BETA_1)
        power2.assign(power2 * BETA_2)


class Batches:
    """Rows of each batch, epoch after epoch, drawn from a seeded permutation; the rest of an epoch is left out."""

    def __init__(self, rows: int, batch_rows: int, seed: int) -> None:
        self._rows, self._batch = rows, min(batch_rows, rows)
        self._random = np.random.default_rng(seed)
        self.number = rows // self._batch

    def drawn(self) -> NDArray[np.int32]:
        """Return the rows of one epoch, (number, batch_rows)."""
        order = self._random.permutation(self._rows)[: self._batch * self.number]
        return order.reshape(self.number, self._batch).astype(np.int32)


Plan = list[tuple[Phase, NDArray[np.float32]]]
"""Phase and learning rate of every step, epoch by epoch."""
