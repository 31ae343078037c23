"""How one network is built and fitted.

The whole epoch is one compiled TensorFlow graph over tensors that stay in memory: `fit` and `tf.data` cost several
times the arithmetic of networks this small. Batches are drawn from a seeded NumPy permutation, so that the order, and
with deterministic kernels every weight, depends on the seed alone. TensorFlow is imported when first needed.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.presets import Phase, Preset

FINAL_RATE = 0.01  # of a phase's learning rate, reached at its end
SMAPE_FLOOR = 1e-3


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
    """The network with the weights of its best epoch."""

    model: Any
    curve: tuple[Epoch, ...]
    best: Epoch
    stopped: str


def keras(threads: int = 0) -> Any:
    """Import Keras on TensorFlow, quiet, deterministic and with so many threads (0: all cores)."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras as module
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()
    if threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # another network of this process has already started the thread pool
            pass
    return module


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
    return k.Model(inputs, outputs)


def fit(
    preset: Preset,
    train: Part,
    validation: Part,
    physical: Physical,
    *,
    seed: int,
    max_epochs: int = 0,
    deadline: float = float("inf"),
    on_epoch: Callable[[Epoch, Epoch, int, float], None] | None = None,
) -> Fitted:
    """Fit one network and keep the weights with the lowest validation MAE over all phases.

    The SMAPE phase starts from the best weights of the MAE phase and only survives where it lowers the validation
    MAE: for [Fe/H], whose labels straddle zero, SMAPE is flat where signs differ and pulls labels away from zero.

    Parameters
    ----------
    preset
        Architecture and phases.
    train, validation
        Scaled inputs and standardised labels.
    physical
        What undoes the standardisation.
    seed
        Of weights, dropout and order.
    max_epochs
        0 for the preset's own; phases shrink in proportion.
    deadline
        `time.monotonic()` after which no further epoch starts; one is always run.
    on_epoch
        Called with the epoch, the best so far, the number of epochs planned and the seconds that are left.
    """
    import tensorflow as tf

    k = keras()
    k.utils.set_random_seed(seed)
    model = build(preset, train.x.shape[1], train.y.shape[1])
    order = np.random.default_rng(seed)
    batch = min(preset.batch_rows, len(train.x))
    n_batches = len(train.x) // batch
    x, y = tf.constant(train.x), tf.constant(train.y)
    schedule = list(_schedule(preset, n_batches, max_epochs))
    best_epoch, best_weights = None, model.get_weights()
    curve: list[Epoch] = []
    stopped = "complete"
    started = time.monotonic()
    run, evaluate, optimizer, phase_now = None, None, None, None
    for number, (phase, rates) in enumerate(schedule, start=1):
        if phase is not phase_now:
            if phase_now is not None:
                model.set_weights(best_weights)
            optimizer = _Adam(tf, model.trainable_variables)
            run, evaluate = _compile(tf, model, optimizer, phase.loss, physical, batch, n_batches)
            phase_now = phase
        assert run is not None and evaluate is not None
        rows = order.permutation(len(train.x))[: batch * n_batches].astype(np.int32)
        loss = float(run(x, y, tf.constant(rows), tf.constant(rates)))
        val_loss, val_mae = (float(v) for v in evaluate(tf.constant(validation.x), tf.constant(validation.y)))
        epoch = Epoch(number, phase.loss, loss, val_loss, val_mae)
        curve.append(epoch)
        if best_epoch is None or val_mae < best_epoch.val_mae:
            best_epoch, best_weights = epoch, model.get_weights()
        now = time.monotonic()
        left = (now - started) / number * (len(schedule) - number)
        if on_epoch:
            on_epoch(epoch, best_epoch, len(schedule), min(left, max(0.0, deadline - now)))
        if now > deadline and number < len(schedule):
            stopped = "max_seconds"
            break
    assert best_epoch is not None
    model.set_weights(best_weights)
    return Fitted(model, tuple(curve), best_epoch, stopped)


def _schedule(preset: Preset, n_batches: int, max_epochs: int) -> Iterator[tuple[Phase, NDArray[np.float32]]]:
    total = max_epochs or preset.epochs
    if preset.max_steps:
        total = min(total, max(3, preset.max_steps // n_batches))
    for phase in preset.phases:
        epochs = max(1, round(phase.epochs * total / preset.epochs))
        progress = np.arange(epochs * n_batches) / (epochs * n_batches)
        rates = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * progress))
        warm = np.minimum(1.0, (np.arange(len(rates)) + 1) / min(200, len(rates)))
        for i in range(epochs):
            part = slice(i * n_batches, (i + 1) * n_batches)
            yield phase, (phase.learning_rate * rates[part] * warm[part]).astype(np.float32)


class _Adam:
    """Adam by TensorFlow's fused kernel: one operation a variable where Keras' own takes ten."""

    def __init__(self, tf: Any, variables: list[Any]) -> None:
        self.tf = tf
        self.variables = [v.value for v in variables]
        self.first = [tf.Variable(tf.zeros_like(v)) for v in self.variables]
        self.second = [tf.Variable(tf.zeros_like(v)) for v in self.variables]
        self.power1 = tf.Variable(0.9)
        self.power2 = tf.Variable(0.999)

    def apply(self, gradients: list[Any], rate: Any) -> None:
        for v, m, s, g in zip(self.variables, self.first, self.second, gradients, strict=True):
            self.tf.raw_ops.ResourceApplyAdam(
                var=v.handle,
                m=m.handle,
                v=s.handle,
                beta1_power=self.power1,
                beta2_power=self.power2,
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-7,
                grad=g,
            )
        self.power1.assign(self.power1 * 0.9)
        self.power2.assign(self.power2 * 0.999)


def _compile(
    tf: Any, model: Any, optimizer: _Adam, loss: str, physical: Physical, batch: int, n_batches: int
) -> tuple[Any, Any]:
    mean, std = tf.constant(physical.mean, tf.float32), tf.constant(physical.std, tf.float32)

    def losses(truth: Any, prediction: Any) -> tuple[Any, Any]:
        known = tf.math.is_finite(truth)
        truth = tf.where(known, truth, 0.0)
        weight = tf.cast(known, tf.float32)
        total = tf.maximum(tf.reduce_sum(weight), 1.0)
        mae = tf.reduce_sum(tf.abs(prediction - truth) * weight) / total
        if loss == "mae":
            return mae, mae
        p, t = prediction * std + mean, truth * std + mean
        ratio = 2.0 * tf.abs(t - p) / (tf.abs(t) + tf.abs(p) + SMAPE_FLOOR)
        return tf.reduce_sum(ratio * weight) / total, mae

    variables = model.trainable_variables

    @tf.function(jit_compile=False, autograph=False)  # type: ignore[untyped-decorator]
    def run(x: Any, y: Any, rows: Any, rates: Any) -> Any:
        def step(i: Any, total: Any) -> tuple[Any, Any]:
            chosen = rows[i * batch : (i + 1) * batch]
            with tf.GradientTape() as tape:
                value, _ = losses(tf.gather(y, chosen), model(tf.gather(x, chosen), training=True))
            gradients = tape.gradient(value, [v.value for v in variables])
            optimizer.apply(gradients, rates[i])
            return i + 1, total + value

        _, total = tf.while_loop(lambda i, _: i < n_batches, step, (tf.constant(0), tf.constant(0.0)))
        return total / n_batches

    @tf.function(jit_compile=False, autograph=False)  # type: ignore[untyped-decorator]
    def evaluate(x: Any, y: Any) -> tuple[Any, Any]:
        return losses(y, model(x, training=False))

    return run, evaluate
