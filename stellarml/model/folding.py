"""How a trained Keras network becomes a few matrices.

Batch normalisation comes after the activation, so it cannot be folded backwards: its scale and shift go forward into
the next dense layer. Scaling and rotation of the inputs go into the first kernel, the labels' units into the last. What
remains is dense, activation, dense, ...: all that a worker needs, without TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.model.scaling import Scaler


@dataclass(frozen=True)
class Folded:
    """Dense layers of one network: kernels (n_in, n_out) and biases (n_out,).

    The first layer is float64 (raw magnitudes and kelvins meet in it), the others float32. Its inputs are the clipped
    features minus their medians, 0 where missing, then the masks; its last layer gives labels in their units.
    """

    kernels: tuple[NDArray[np.floating[Any]], ...]
    biases: tuple[NDArray[np.floating[Any]], ...]


def fold(
    model: Any,
    scaler: Scaler,
    rotation: NDArray[np.float64] | None,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> Folded:
    """Fold `model` (from `stellarml.training.network.build`) with its scaler, rotation and label units.

    Parameters
    ----------
    rotation
        Shape (n_features, n_axes); None where the preset does not rotate.
    mean, std
        Of each output's label, shape (n_outputs,).
    """
    layers = _dense_and_norms(model)
    kernels, biases = [], []
    shift = np.zeros(layers[0][0].shape[0])
    gain = np.ones(layers[0][0].shape[0])
    for kernel, bias, norm in layers:
        kernels.append(gain[:, None] * kernel)
        biases.append(bias + shift @ kernel)
        gain, shift = norm if norm else (np.ones(kernel.shape[1]), np.zeros(kernel.shape[1]))
    kernels[0] = _unscaled(kernels[0], scaler, rotation)
    kernels[-1] = kernels[-1] * std
    biases[-1] = biases[-1] * std + mean
    rest = [np.float32] * (len(kernels) - 1)
    kinds = [np.float64, *rest]
    return Folded(
        tuple(np.ascontiguousarray(k, dtype=t) for k, t in zip(kernels, kinds, strict=True)),
        tuple(np.ascontiguousarray(b, dtype=t) for b, t in zip(biases, kinds, strict=True)),
    )


def gives_numbers(folded: Folded, scaler: Scaler, activation: str, slope: float) -> bool:
    """Whether a network gives finite numbers for stars in the middle and at both ends of every feature.

    The products are those of `stellarml.model.forward`, in NumPy: a float32 that overflows here does so there.
    """
    center, n_masks = np.asarray(scaler.center), len(scaler.masked)
    ends = [np.zeros_like(center), np.asarray(scaler.low) - center, np.asarray(scaler.high) - center]
    x: NDArray[np.floating[Any]] = np.stack([np.append(end, np.zeros(n_masks)) for end in ends])
    missing = np.append(np.zeros_like(center), np.ones(n_masks))
    x = np.vstack([x, missing])
    with np.errstate(all="ignore"):
        for i, (kernel, bias) in enumerate(zip(folded.kernels, folded.biases, strict=True)):
            if i:
                x = x.astype(np.float32)
                x = np.where(x < 0, slope * x, x) if activation == "leaky_relu" else x / (1 + np.exp(-x))
            x = x @ kernel + bias
        return bool(np.isfinite(x.astype(np.float32)).all())


def _dense_and_norms(model: Any) -> list[tuple[Any, Any, Any]]:
    found: list[tuple[Any, Any, Any]] = []
    for layer in model.layers:
        weights = [np.asarray(w, dtype=np.float64) for w in layer.get_weights()]
        if type(layer).__name__ == "Dense":
            kernel, bias = weights
            found.append((kernel, bias, None))
        elif type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = weights
            gain = gamma / np.sqrt(variance + layer.epsilon)
            found[-1] = (*found[-1][:2], (gain, beta - mean * gain))
    return found


def _unscaled(
    kernel: NDArray[np.float64], scaler: Scaler, rotation: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    n_axes = len(scaler.center) if rotation is None else rotation.shape[1]
    features = kernel[:n_axes] if rotation is None else rotation @ kernel[:n_axes]
    return np.vstack([features / np.asarray(scaler.scale)[:, None], kernel[n_axes:]])
