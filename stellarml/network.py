"""How one network is built and fitted.

The whole epoch is one compiled TensorFlow graph over tensors that stay in memory: `fit` and `tf.data` cost several
times the arithmetic of networks this small. Batches are drawn from a seeded NumPy permutation, so that the order, and
with deterministic kernels every weight, depends on the seed alone. TensorFlow is imported when first needed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.errors import TrainingError
from stellarml.presets import Phase, Preset

FINAL_RATE = 0.01  # of a phase's learning rate, reached at its end
SMAPE_FLOOR = 1e-3
WARM_UP_STEPS = 200
BETA_1, BETA_2 = 0.9, 0.999


@dataclass(frozen=True)
class Part:
    """Inputs (n, n_inputs) and standardised labels (n, n_outputs), NaN for an unknown label."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]


@dataclass(frozen=True)
class Physical:
    """Mean and standard deviation of each label, (n_outputs,): SMAPE only means something in physical units."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class Epoch:
    """One point of the training curve; losses in the phase's own units, `val_mae` in standard deviations."""

    epoch: int
    phase: str
    loss: float
    val_loss: float
    val_mae: float


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of its best epoch; `stopped` is "complete", "max_seconds" or "diverged"."""

    model: Any
    curve: tuple[Epoch, ...]
    best: Epoch
    stopped: str


def keras(threads: int = 0) -> Any:
    """Import Keras on TensorFlow, quiet, deterministic, on the CPU, with so many threads (0: all cores).

    The number of threads is that of the first call in a process: TensorFlow cannot change it later.
    """
    # Keras 3.15 converts its variables in a way that NumPy 2 announces to give up
    warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
    if "tensorflow" in sys.modules:
        import keras as module

        return module
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with _standard_error_closed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras as module
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        tf.config.experimental.enable_op_determinism()
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.constant(0)  # starts the runtime, whose notes on the processor nobody asked for
    return module


@contextlib.contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Discard what native code writes to file descriptor 2: TensorFlow logs before its log level is read."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def build(preset: Preset, n_inputs: int, n_outputs: int) -> Any:
    """Return the untrained Keras model from scaled inputs to standardised labels."""
    k = keras()
    h = inputs = k.Input((n_inputs,), name="inputs")
    for i, width in enumerate(preset.widths):
        h = k.layers.Dense(width, kernel_initializer="he_normal", name=f"dense_{i:02d}")(h)
        if preset.activation == "leaky_relu":
            h = k.layers.LeakyReLU(negative_slope=preset.slope, name=f"activation_{i:02d}")(h)
        else:
            h = k.layers.Activation("silu", name=f"activation_{i:02d}")(h)
        if preset.batch_norm:
            h = k.layers.BatchNormalization(momentum=0.98, name=f"norm_{i:02d}")(h)
        if preset.dropout:
            h = k.layers.Dropout(preset.dropout, name=f"dropout_{i:02d}")(h)
    outputs = k.layers.Dense(n_outputs, name="outputs")(h)
    return k.Model(
        inputs, outputs, name="network"
    )  # Keras would count its models, and a bundle's bytes with them


class Trainer:
    """One compiled architecture, to fit any number of networks: an 18-layer graph takes seconds to trace.

    Parameters
    ----------
    preset
        Architecture and phases.
    n_inputs, n_outputs
        Widths of the first and the last layer.
    """

    def __init__(self, preset: Preset, n_inputs: int, n_outputs: int) -> None:
        import tensorflow as tf

        self._tf = tf
        self._preset = preset
        self._shape = (n_inputs, n_outputs)
        self._model = build(preset, n_inputs, n_outputs)
        self._optimizer = _Adam(tf, self._model.trainable_variables)
        self._smape = tf.Variable(0.0, trainable=False)
        self._mean = tf.Variable(tf.zeros(n_outputs), trainable=False)
        self._std = tf.Variable(tf.ones(n_outputs), trainable=False)
        self._run = tf.function(self._epoch, autograph=False, jit_compile=False, reduce_retracing=True)
        self._evaluate = tf.function(
            self._losses_of, autograph=False, jit_compile=False, reduce_retracing=True
        )

    def fit(
        self,
        train: Part,
        validation: Part,
        physical: Physical,
        *,
        seed: int,
        max_epochs: int = 0,
        deadline: float = float("inf"),
        on_epoch: Callable[[Epoch, Epoch, int, float], None] | None = None,
    ) -> Fitted:
        """Fit one network from scratch and keep the weights with the lowest validation MAE over all phases.

        The SMAPE phase starts from the best weights of the MAE phase and only survives where it lowers the validation
        MAE: for [Fe/H], whose labels straddle zero, SMAPE is flat where signs differ and pulls labels away from zero.

        Parameters
        ----------
        train, validation
            Scaled inputs and standardised labels.
        physical
            What undoes the standardisation.
        seed
            Of weights, dropout and order.
        max_epochs
            0 for the preset's own; phases shrink in proportion, the last ones may vanish.
        deadline
            `time.monotonic()` after which no further epoch starts; one is always run.
        on_epoch
            Called with the epoch, the best so far, the number of epochs planned and the seconds that are left.

        Raises
        ------
        TrainingError
            If the loss is not a number from the first epoch on; later it ends the fit with the best weights.
        """
        tf = self._tf
        keras().utils.set_random_seed(seed)
        fresh = build(self._preset, *self._shape)  # the seed decides its weights; it will carry the best ones
        weights = fresh.get_weights()
        for n, layer in enumerate(self._model.layers):
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([seed, n])
        self._mean.assign(physical.mean)
        self._std.assign(physical.std)
        order = np.random.default_rng(seed)
        batch = min(self._preset.batch_rows, len(train.x))
        n_batches = len(train.x) // batch
        x, y, val_x, val_y = (tf.constant(a) for a in (train.x, train.y, validation.x, validation.y))
        schedule = list(_schedule(self._preset, n_batches, max_epochs))
        curve: list[Epoch] = []
        best: Epoch | None = None
        stopped, phase_now, started = "complete", None, time.monotonic()
        for number, (phase, rates) in enumerate(schedule, start=1):
            if phase is not phase_now:
                self._model.set_weights(weights)
                self._optimizer.reset()
                self._smape.assign(float(phase.loss == "smape"))
                phase_now = phase
            rows = order.permutation(len(train.x))[: batch * n_batches].reshape(n_batches, batch)
            loss = float(self._run(x, y, tf.constant(rows.astype(np.int32)), tf.constant(rates)))
            val_loss, val_mae = (float(v) for v in self._evaluate(val_x, val_y))
            if not np.isfinite([loss, val_loss, val_mae]).all():
                stopped = "diverged"
                break
            epoch = Epoch(number, phase.loss, loss, val_loss, val_mae)
            curve.append(epoch)
            if best is None or val_mae < best.val_mae:
                best, weights = epoch, self._model.get_weights()
            now = time.monotonic()
            left = (now - started) / number * (len(schedule) - number)
            if on_epoch:
                on_epoch(epoch, best, len(schedule), min(left, max(0.0, deadline - now)))
            if now > deadline and number < len(schedule):
                stopped = "max_seconds"
                break
        if best is None:
            raise TrainingError(
                "the first epoch of training gave a loss that is not a number: look for features or labels with "
                "values beyond reason"
            )
        fresh.set_weights(weights)
        return Fitted(fresh, tuple(curve), best, stopped)

    def _epoch(self, x: Any, y: Any, rows: Any, rates: Any) -> Any:
        tf = self._tf
        n_batches = tf.shape(rows)[0]

        def step(i: Any, total: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                prediction = self._model(tf.gather(x, rows[i]), training=True)
                value, _ = self._losses(tf.gather(y, rows[i]), prediction)
            self._optimizer.apply(tape.gradient(value, self._optimizer.variables), rates[i])
            return i + 1, total + value

        _, total = tf.while_loop(lambda i, _: i < n_batches, step, (tf.constant(0), tf.constant(0.0)))
        return total / tf.cast(n_batches, tf.float32)

    def _losses_of(self, x: Any, y: Any) -> tuple[Any, Any]:
        return self._losses(y, self._model(x, training=False))

    def _losses(self, truth: Any, prediction: Any) -> tuple[Any, Any]:
        """Return the phase's loss and the MAE in standard deviations, over the known labels."""
        tf = self._tf
        known = tf.math.is_finite(truth)
        truth = tf.where(known, truth, 0.0)
        weight = tf.cast(known, tf.float32)
        total = tf.maximum(tf.reduce_sum(weight), 1.0)
        mae = tf.reduce_sum(tf.abs(prediction - truth) * weight) / total
        p, t = prediction * self._std + self._mean, truth * self._std + self._mean
        ratio = 2.0 * tf.abs(t - p) / (tf.abs(t) + tf.abs(p) + SMAPE_FLOOR)
        smape = tf.reduce_sum(ratio * weight) / total
        return self._smape * smape + (1.0 - self._smape) * mae, mae


def _schedule(preset: Preset, n_batches: int, max_epochs: int) -> Iterator[tuple[Phase, NDArray[np.float32]]]:
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


class _Adam:
    """Adam by TensorFlow's fused kernel: one operation a variable where Keras' own takes ten."""

    def __init__(self, tf: Any, variables: list[Any]) -> None:
        self._tf = tf
        self.variables = [v.value for v in variables]
        self._first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]
        self._second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]
        self._powers = (tf.Variable(BETA_1, trainable=False), tf.Variable(BETA_2, trainable=False))
        self.reset()

    def reset(self) -> None:
        for slot in (*self._first, *self._second):
            slot.assign(self._tf.zeros_like(slot))
        for power, beta in zip(self._powers, (BETA_1, BETA_2), strict=True):
            power.assign(beta)

    def apply(self, gradients: list[Any], rate: Any) -> None:
        power1, power2 = self._powers
        for v, m, s, g in zip(self.variables, self._first, self._second, gradients, strict=True):
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
