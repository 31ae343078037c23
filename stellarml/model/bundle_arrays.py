"""The arrays of a model bundle: what is in weights.npz, and whether it fits what bundle.json says."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import BundleError, raise_gathered
from stellarml.model.folding import Folded
from stellarml.model.imputation import Gaussian
from stellarml.model.novelty import NoveltyMaps
from stellarml.model.scaling import InputMaps

MAX_BYTES = 1 << 30


def arrays_of(inputs: InputMaps, networks: Sequence[Folded], novelty: NoveltyMaps) -> dict[str, NDArray[Any]]:
    """Return the arrays of a bundle by their names in the file."""
    arrays: dict[str, NDArray[Any]] = {
        "novelty_linear": novelty.linear,
        "novelty_predicted": novelty.predicted,
    }
    for n, network in enumerate(networks):
        for i, (kernel, bias) in enumerate(zip(network.kernels, network.biases, strict=True)):
            arrays[f"network{n}_kernel{i:02d}"] = kernel
            arrays[f"network{n}_bias{i:02d}"] = bias
    if inputs.gaussian is not None:
        arrays["imputation_mean"] = inputs.gaussian.mean
        arrays["imputation_covariance"] = inputs.gaussian.covariance
    if inputs.rotation is not None:
        arrays["rotation"] = inputs.rotation
    return arrays


def inputs_from(
    arrays: Mapping[str, NDArray[Any]], k: int, imputed: bool, rotated: bool, source: str
) -> InputMaps:
    """Return what fills missing values and rotates `k` features; BundleError if it is missing or does not fit."""
    expected = {"imputation_mean": (k,), "imputation_covariance": (k, k)} if imputed else {}
    for name, shape in expected.items():
        if name not in arrays or arrays[name].shape != shape:
            raise BundleError(f"{source}: array '{name}' of shape {shape} is missing")
    rotation = arrays.get("rotation")
    if rotated and (rotation is None or rotation.ndim != 2 or rotation.shape[0] != k):
        raise BundleError(f"{source}: array 'rotation' with {k} rows is missing")
    gaussian = Gaussian(*(arrays[name] for name in expected)) if expected else None
    return InputMaps(gaussian, rotation)


def novelty_from(arrays: Mapping[str, NDArray[Any]], n_inputs: int, source: str) -> NoveltyMaps:
    """Return the distances of strangers; BundleError if they are missing or do not fit."""
    nothing = np.empty((0, 0))
    linear = arrays.get("novelty_linear", nothing)
    predicted = arrays.get("novelty_predicted", nothing)
    fits = linear.ndim == predicted.ndim == 2 and linear.shape == (n_inputs, 2 * predicted.shape[1] + 2)
    if not fits:
        raise BundleError(
            f"{source}: arrays 'novelty_linear' and 'novelty_predicted' are missing or do not fit"
        )
    return NoveltyMaps(linear, predicted)


def read_arrays(weights: bytes, source: str) -> dict[str, NDArray[Any]]:
    """Read the arrays; pickled objects, unsafe members and numbers that are not finite are refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(weights)) as archive:
            members = archive.infolist()
        unsafe = [m.filename for m in members if not is_plain(m.filename)]
        if unsafe or sum(m.file_size for m in members) > MAX_BYTES:
            raise BundleError(f"{source}: unsafe archive members {unsafe[:3]}")
        with np.load(io.BytesIO(weights), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise BundleError(f"{source}: is not an archive of plain arrays: {error}") from None
    odd = [
        n for n, a in arrays.items() if a.dtype not in (np.float32, np.float64) or not np.isfinite(a).all()
    ]
    raise_gathered(BundleError, source, [f"array {n} does not hold finite numbers" for n in odd])
    return arrays


def is_plain(name: str) -> bool:
    """Whether a file name stays in its folder."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0")
