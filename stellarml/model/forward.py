"""What the folded networks say about a star, by ONNX Runtime, on one thread.

Rows go through in tiles of exactly `TILE_ROWS`, the last one padded: a library chooses its kernel by the shape of a
product, so the same star in batches of other sizes would differ in its last bits. TensorFlow is not needed. The engine
was chosen by measurement (`make bench-label`): microseconds of a core a star for the three folded 18-layer networks of
the preset ``paper`` (1.6 Mflop), alone on the machine, and two processes at once on two cores:

============================  =====  ===========
engine                        alone  two at once
============================  =====  ===========
ONNX Runtime 1.32              19.0  24.0 - 28.1
NumPy 2.4 (OpenBLAS), folded   30.4  29.9 - 36.0
Keras predict, batch 8192      32.0
Keras predict, batch 32       418
============================  =====  ===========

Layers of odd widths cost OpenBLAS two to three times as much, ONNX Runtime nothing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from stellarml.model.folding import Folded
from stellarml.model.imputation import Gaussian, Imputer
from stellarml.model.onnx_graph import INPUTS, LINEAR, Head, graph_of
from stellarml.model.scaling import Scaler, centred

TILE_ROWS = 1024
BLOCK_ROWS = 16 * TILE_ROWS  # rows that are scaled and imputed at once


@dataclass(frozen=True)
class Answer:
    """What networks say of n stars.

    labels
        Shape (n, n_labels), float32, in the labels' units.
    log_widths
        Shape (n, 2, n_labels): logarithms of the half-widths of a label's error, down and up; None where no network
        gives them.
    linear
        Shape (n, m): the linear functions of the inputs.
    """

    labels: NDArray[np.float32]
    log_widths: NDArray[np.float64] | None
    linear: NDArray[np.float64]


class Forward:
    """Folded networks with their buffers; one object a thread.

    Parameters
    ----------
    scaler
        Of the training rows.
    gaussian
        What fills missing values; None for the median.
    networks, heads
        Networks that share a label are averaged.
    n_labels
        Columns of the result.
    linear
        Shape (n_inputs, m): linear functions of the scaled inputs, computed in the same pass.
    """

    def __init__(
        self,
        scaler: Scaler,
        gaussian: Gaussian | None,
        networks: Sequence[Folded],
        heads: Sequence[Head],
        n_labels: int,
        linear: NDArray[np.float64] | None = None,
    ) -> None:
        self._scaler = scaler
        self._imputer = Imputer(gaussian, np.asarray(scaler.scale))
        self._inputs = np.zeros((TILE_ROWS, len(scaler.center) + len(scaler.masked)))
        self._n_labels = n_labels
        self._members = np.zeros(3 * n_labels if any(head.scales for head in heads) else n_labels)
        for head in heads:
            self._members[_columns_of(head, n_labels)] += 1
        kernel = np.zeros((self._inputs.shape[1], 0)) if linear is None else linear.copy()
        kernel[: len(scaler.center)] /= np.asarray(scaler.scale)[:, None]
        self._n_linear = kernel.shape[1]
        model, outputs = graph_of(networks, heads, kernel, TILE_ROWS)
        self._columns = [_columns_of(head, n_labels) for _, head in outputs]
        self._names = [*(name for name, _ in outputs), *([LINEAR] if self._n_linear else [])]
        self._session = _session(model)

    def run(self, features: NDArray[np.float32]) -> Answer:
        """Return labels, half-widths and linear functions.

        Parameters
        ----------
        features
            Shape (n, n_features); NaN and infinity are missing.
        """
        n = len(features)
        outputs = np.zeros((n, len(self._members)))
        linear = np.zeros((n, self._n_linear))
        with np.errstate(over="ignore"), _one_thread():
            for start in range(0, n, BLOCK_ROWS):
                rows = slice(start, min(start + BLOCK_ROWS, n))
                self._run_block(features[rows], outputs[rows], linear[rows])
        outputs /= self._members
        k = self._n_labels
        widths = outputs[:, k:].reshape(n, 2, k) if len(self._members) > k else None
        return Answer(outputs[:, :k].astype(np.float32), widths, linear)

    def _run_block(
        self, features: NDArray[np.float32], outputs: NDArray[np.float64], linear: NDArray[np.float64]
    ) -> None:
        x, missing = centred(features, self._scaler)
        self._imputer.fill(x, missing)
        k, masks = x.shape[1], missing[:, list(self._scaler.masked)]
        for start in range(0, len(x), TILE_ROWS):
            rows = slice(start, min(start + TILE_ROWS, len(x)))
            size = rows.stop - start
            self._inputs[:size, :k] = x[rows]
            self._inputs[:size, k:] = masks[rows]
            self._inputs[size:] = 0.0
            results = self._session.run(self._names, {INPUTS: self._inputs})
            for columns, sums in zip(self._columns, results, strict=False):
                outputs[rows, columns] += sums[:size]
            if self._n_linear:
                linear[rows] = results[-1][:size]


def _columns_of(head: Head, n_labels: int) -> list[int]:
    return [part * n_labels + c for part in range(3 if head.scales else 1) for c in head.columns]


def _session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a graph for one thread of its own; executors run as many as they have cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Hold BLAS to one thread where threadpoolctl is installed; workers have OMP_NUM_THREADS=1 anyway."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(1, user_api="blas")
    return limits
