"""What the folded networks say about a star, with NumPy matrices and nothing else.

Rows go through in tiles of exactly `TILE_ROWS`, the last one padded: BLAS chooses its kernel by the shape of a product,
so the same star in batches of other sizes would differ in its last bits. Buffers are allocated once; TensorFlow is not
needed. The first layer is float64 because it subtracts magnitudes that agree to hundredths, the rest float32.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.folding import Folded
from stellarml.imputation import Gaussian, Imputer
from stellarml.scaling import Scaler, centred

TILE_ROWS = 512
BLOCK_ROWS = 32 * TILE_ROWS  # rows that are scaled and imputed at once
COLUMN_MULTIPLE = (
    16  # narrow products are padded to so many columns: a vector's kernel depends on the row's position
)


@dataclass(frozen=True)
class Head:
    """How one folded network is read: its activation, and the column of each of its outputs among the labels.

    `scales`: after the labels come the logarithms of the half-widths down, then of those up.
    """

    activation: str
    slope: float
    columns: tuple[int, ...]
    scales: bool = False


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


@dataclass(frozen=True)
class _Layers:
    kernels: tuple[NDArray[Any], ...]
    biases: tuple[NDArray[Any], ...]
    products: tuple[NDArray[Any], ...]
    hidden: tuple[NDArray[np.float32], ...]
    scratch: tuple[NDArray[np.float32], ...]
    head: Head


class Forward:
    """Folded networks with their buffers; one object a thread.

    Parameters
    ----------
    scaler
        Of the training rows.
    gaussian
        What fills gaps; None for the median.
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
        self._networks = [_prepare(f, h) for f, h in zip(networks, heads, strict=True)]
        self._n_labels = n_labels
        self._members = np.zeros(3 * n_labels if any(head.scales for head in heads) else n_labels)
        self._columns = [_columns_of(head, n_labels) for head in heads]
        for columns in self._columns:
            self._members[columns] += 1
        kernel = np.zeros((self._inputs.shape[1], 0)) if linear is None else linear.copy()
        kernel[: len(scaler.center)] /= np.asarray(scaler.scale)[:, None]
        self._n_linear = kernel.shape[1]
        self._linear = _padded(kernel)

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
        k, masked = x.shape[1], list(self._scaler.masked)
        for start in range(0, len(x), TILE_ROWS):
            rows = slice(start, min(start + TILE_ROWS, len(x)))
            size = rows.stop - start
            self._inputs[:size, :k] = x[rows]
            self._inputs[:size, k:] = missing[rows][:, masked]
            self._inputs[size:] = 0.0
            if self._n_linear:
                linear[rows] = (self._inputs @ self._linear)[:size, : self._n_linear]
            for layers, columns in zip(self._networks, self._columns, strict=True):
                outputs[rows, columns] += _propagate(layers, self._inputs)[:size, : len(columns)]


def _columns_of(head: Head, n_labels: int) -> list[int]:
    return [part * n_labels + c for part in range(3 if head.scales else 1) for c in head.columns]


def _prepare(folded: Folded, head: Head) -> _Layers:
    kernels, biases = list(folded.kernels), list(folded.biases)
    kernels[-1], biases[-1] = _padded(kernels[-1]), _padded(biases[-1])
    products = [np.empty((TILE_ROWS, len(b)), dtype=b.dtype) for b in biases]
    return _Layers(
        kernels=tuple(kernels),
        biases=tuple(biases),
        products=tuple(products),
        hidden=tuple(p if p.dtype == np.float32 else np.empty(p.shape, np.float32) for p in products),
        scratch=tuple(np.empty(p.shape, np.float32) for p in products),
        head=head,
    )


def _padded(array: NDArray[Any]) -> NDArray[Any]:
    width = -array.shape[-1] % COLUMN_MULTIPLE
    return np.ascontiguousarray(np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width)]))


def _propagate(layers: _Layers, inputs: NDArray[np.float64]) -> NDArray[Any]:
    h: NDArray[Any] = inputs
    slope = np.float32(layers.head.slope)
    for i, (kernel, bias, product) in enumerate(
        zip(layers.kernels, layers.biases, layers.products, strict=True)
    ):
        np.matmul(h, kernel, out=product)
        product += bias
        if i == len(layers.kernels) - 1:
            break
        h, scratch = layers.hidden[i], layers.scratch[i]
        if h is not product:
            h[...] = product
        if layers.head.activation == "leaky_relu":
            np.multiply(h, slope, out=scratch)
            np.maximum(h, scratch, out=h)
        else:
            np.negative(h, out=scratch)
            np.exp(scratch, out=scratch)
            np.add(scratch, np.float32(1), out=scratch)
            np.divide(h, scratch, out=h)
    return product


def _one_thread() -> contextlib.AbstractContextManager[Any]:
    """Hold BLAS to one thread where threadpoolctl is installed; workers have OMP_NUM_THREADS=1 anyway."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(1, user_api="blas")
    return limits
