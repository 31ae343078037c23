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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import TrainingError
from stellarml.run.log import get_logger
from stellarml.training.course import Course, Epoch, FitData, OnEpoch, Physical
from stellarml.training.optimiser import Adam, Batches, Plan, schedule
from stellarml.training.presets import Phase, Preset

if TYPE_CHECKING:
    from stellarml.training.checkpoint import Checkpoint

SMAPE_FLOOR = 1e-3
SCALE_LIMITS = (-7.0, 4.0)  # of the logarithm of a half-width in standard deviations
LEVEL = 0.68


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of its best epoch; `stopped` is "complete", "max_seconds" or "diverged"."""

    model: Any
    curve: tuple[Epoch, ...]
    best: Epoch
    stopped: str


def scalars_to(folder: Path) -> OnEpoch:
    """Return what writes the curve as TensorBoard's event files."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))
    # tf.summary.scalar would need the package tensorboard here; it is only needed to look at the files
    kind = tf.compat.v1.SummaryMetadata()
    kind.plugin_data.plugin_name = "scalars"

    def write(epoch: Epoch, best: Epoch, planned: int, seconds_left: float) -> None:
        with writer.as_default(step=epoch.epoch):
            for name in ("loss", "val_loss", "val_mae"):
                tf.summary.write(name, tf.constant(getattr(epoch, name), tf.float32), metadata=kind)
        writer.flush()

    return write


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
    """Return the untrained Keras model from scaled inputs to standardised labels, then their scales if there are any.

    Scales are logarithms of the half-widths, in standard deviations, that reach down and up from each label to the 16
    and 84 % quantiles of its error: first those down, then those up.
    """
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
    outputs = k.layers.Dense(n_outputs * (3 if preset.scales else 1), name="outputs")(h)
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
        self._optimizer = Adam(tf, self._model.trainable_variables, decay=preset.weight_decay > 0)
        self._smape = tf.Variable(0.0, trainable=False)
        self._mean = tf.Variable(tf.zeros(n_outputs), trainable=False)
        self._std = tf.Variable(tf.ones(n_outputs), trainable=False)
        self._run = tf.function(self._epoch, autograph=False, jit_compile=False, reduce_retracing=True)
        self._evaluate = tf.function(
            self._losses_of, autograph=False, jit_compile=False, reduce_retracing=True
        )

    def fit(
        self,
        data: FitData,
        *,
        seed: int,
        max_epochs: int = 0,
        deadline: float = float("inf"),
        on_epoch: OnEpoch | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Fitted:
        """Fit one network from scratch and keep the weights with the lowest validation MAE over all phases.

        The SMAPE phase starts from the best weights of the MAE phase and only survives where it lowers the validation
        MAE: for [Fe/H], whose labels straddle zero, SMAPE is flat where signs differ and pulls labels away from zero.

        Parameters
        ----------
        seed
            Of weights, dropout and order.
        max_epochs
            0 for the preset's own; phases shrink in proportion, the last ones may vanish.
        deadline
            `time.monotonic()` after which no further epoch starts; one is always run.
        on_epoch
            Called with the epoch, the best so far, the number of epochs planned and the seconds that are left.
        checkpoint
            Where to keep the state after each epoch, and to go on from if there is one: to the same bits.

        Raises
        ------
        TrainingError
            If the loss is not a number from the first epoch on; later it ends the fit with the best weights.
        """
        fresh = self._seeded(seed, data.physical)
        batches = Batches(len(data.train.x), self._preset.batch_rows, seed)
        plan = list(schedule(self._preset, batches.number, max_epochs))
        self._optimizer.set_decay(self._preset.weight_decay / float(sum(rates.sum() for _, rates in plan)))
        course = Course(fresh.get_weights())
        if checkpoint:
            plan = self._resumed(checkpoint, course, plan)
        self._run_epochs(data, batches, plan, course, deadline, on_epoch, checkpoint)
        if course.best is None:
            raise TrainingError(
                "the first epoch of training gave a loss that is not a number: look for features or labels with "
                "values beyond reason"
            )
        fresh.set_weights(course.weights)
        return Fitted(fresh, tuple(course.curve), course.best, course.stopped)

    def _seeded(self, seed: int, physical: Physical) -> Any:
        """Seed dropout, set the labels' scale, and return a fresh network of the seed's weights, to carry the best."""
        keras().utils.set_random_seed(seed)
        fresh = build(self._preset, *self._shape)
        for n, layer in enumerate(self._model.layers):
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign([seed, n])
        self._mean.assign(physical.mean)
        self._std.assign(physical.std)
        return fresh

    def _resumed(self, checkpoint: Checkpoint, course: Course, plan: Plan) -> Plan:
        """Go on from a checkpoint if it holds anything; return what is planned of the epochs, those done included."""
        kept = checkpoint.read()
        if kept is None:
            return plan
        course.resume(kept)
        get_logger().info(
            "goes on", stage="train", network=checkpoint.path.stem, epochs_done=len(course.curve)
        )
        course.phase = plan[len(course.curve) - 1][0]
        self._smape.assign(float(course.phase.loss == "smape"))
        self._restore(kept.arrays_of("state"))
        return plan if course.stopped == "complete" else plan[: len(course.curve)]

    def _run_epochs(
        self,
        data: FitData,
        batches: Batches,
        plan: Plan,
        course: Course,
        deadline: float,
        on_epoch: OnEpoch | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Run the epochs of `plan` that `course` has not had, and note each."""
        samples = data.train, data.validation
        tensors = [self._tf.constant(array) for sample in samples for array in (sample.x, sample.y)]
        done, started = len(course.curve), time.monotonic()
        for number, (phase, rates) in enumerate(plan, start=1):
            rows = batches.drawn()
            if number <= done:
                continue
            self._enter(phase, course)
            epoch = self._one_epoch(number, phase, rows, rates, tensors)
            if epoch is None:
                course.stopped = "diverged"
                return
            best = course.add(epoch, self._model.get_weights)
            now = time.monotonic()
            late = now > deadline and number < len(plan)
            if checkpoint:
                checkpoint.write(course.record(late=late), {"state": self._state(), "best": course.weights})
            if on_epoch:
                left = (now - started) / (number - done) * (len(plan) - number)
                on_epoch(epoch, best, len(plan), min(left, max(0.0, deadline - now)))
            if late:
                course.stopped = "max_seconds"
                return

    def _enter(self, phase: Phase, course: Course) -> None:
        """Begin a phase, where `phase` is another than that of the epoch before, from the best weights."""
        if phase is not course.phase:
            self._model.set_weights(course.weights)
            self._optimizer.reset()
            self._smape.assign(float(phase.loss == "smape"))
            course.phase = phase

    def _one_epoch(
        self,
        number: int,
        phase: Phase,
        rows: NDArray[np.int32],
        rates: NDArray[np.float32],
        tensors: list[Any],
    ) -> Epoch | None:
        """Run one epoch; None if what it gave is not a number."""
        x, y, val_x, val_y = tensors
        loss = float(self._run(x, y, self._tf.constant(rows), self._tf.constant(rates)))
        val_loss, val_mae = (float(value) for value in self._evaluate(val_x, val_y))
        finite = np.isfinite([loss, val_loss, val_mae]).all()
        return Epoch(number, phase.loss, loss, val_loss, val_mae) if finite else None

    def _state(self) -> list[NDArray[Any]]:
        """Return everything that the next epoch depends on, apart from the order of the rows."""
        return [np.asarray(v) for v in (*self._model.variables, *self._optimizer.slots)]

    def _restore(self, state: list[NDArray[Any]]) -> None:
        for variable, value in zip((*self._model.variables, *self._optimizer.slots), state, strict=True):
            variable.assign(value)

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
        scales = 0.0
        if self._preset.scales:
            prediction, down, up = tf.split(prediction, 3, axis=1)
            scales = self._pinball(truth, tf.stop_gradient(prediction), down, up)
        known = tf.math.is_finite(truth)
        truth = tf.where(known, truth, 0.0)
        weight = tf.cast(known, tf.float32)
        total = tf.maximum(tf.reduce_sum(weight), 1.0)
        mae = tf.reduce_sum(tf.abs(prediction - truth) * weight) / total
        p, t = prediction * self._std + self._mean, truth * self._std + self._mean
        ratio = 2.0 * tf.abs(t - p) / (tf.abs(t) + tf.abs(p) + SMAPE_FLOOR)
        smape = tf.reduce_sum(ratio * weight) / total
        return self._smape * smape + (1.0 - self._smape) * mae + scales, mae

    def _pinball(self, truth: Any, prediction: Any, down: Any, up: Any) -> Any:
        """Return the quantile loss of both half-widths about the prediction, which it does not move."""
        tf = self._tf
        known = tf.math.is_finite(truth)
        error = tf.where(known, truth, 0.0) - tf.where(known, prediction, 0.0)
        total = 0.0
        for side, log_width in ((-error, down), (error, up)):
            excess = side - tf.exp(tf.clip_by_value(log_width, *SCALE_LIMITS))
            tail = (1.0 + LEVEL) / 2.0
            loss = tf.maximum(tail * excess, (tail - 1.0) * excess)
            total += tf.reduce_sum(tf.where(known, loss, 0.0))
        return total / tf.maximum(tf.reduce_sum(tf.cast(known, tf.float32)), 1.0)
