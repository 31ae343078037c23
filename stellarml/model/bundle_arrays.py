"""The arrays of a model bundle: what is in weights.npz, and whether it fits what bundle.json says.

Names, types and shapes are compared before an array is read, so that a small file cannot ask for much memory.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import BundleError, raise_gathered
from stellarml.model.folding import Folded
from stellarml.model.imputation import Gaussian
from stellarml.model.manifest_checks import LARGEST
from stellarml.model.novelty import NoveltyMaps, terms_of
from stellarml.model.scaling import InputMaps

if TYPE_CHECKING:
    from stellarml.model.manifest import Manifest

MAX_BYTES = 1 << 28
_SMALLEST_VARIANCE = 1e-12  # of the largest: what training adds to the diagonal is far above
_ROUNDING = 1e-9
_SUFFIX = ".npy"


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


@dataclass(frozen=True)
class _Header:
    """What a member of the archive says of its array, and the bytes that follow."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int


def read_arrays(weights: bytes, manifest: Manifest, source: str) -> dict[str, NDArray[Any]]:
    """Read the arrays that a manifest asks for.

    Raises
    ------
    BundleError
        If the file is no archive of plain arrays, is larger than `MAX_BYTES`, holds others than those, of other shapes
        or types, or numbers that no training leaves.
    """
    headers = _headers_of(weights, source)
    raise_gathered(BundleError, source, _misfits(headers, manifest))
    try:
        with np.load(io.BytesIO(weights), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # whatever a reader makes of a stranger's bytes
        raise _not_plain(source, error) from None
    raise_gathered(BundleError, source, [*_odd_numbers(arrays)])
    return arrays


def networks_from(arrays: Mapping[str, NDArray[Any]], manifest: Manifest) -> tuple[Folded, ...]:
    """Return the folded networks."""
    return tuple(
        Folded(
            tuple(arrays[f"network{n}_kernel{i:02d}"] for i in range(len(network.widths) + 1)),
            tuple(arrays[f"network{n}_bias{i:02d}"] for i in range(len(network.widths) + 1)),
        )
        for n, network in enumerate(manifest.networks)
    )


def inputs_from(arrays: Mapping[str, NDArray[Any]]) -> InputMaps:
    """Return what fills missing values and rotates features."""
    mean = arrays.get("imputation_mean")
    gaussian = None if mean is None else Gaussian(mean, arrays["imputation_covariance"])
    return InputMaps(gaussian, arrays.get("rotation"))


def novelty_from(arrays: Mapping[str, NDArray[Any]]) -> NoveltyMaps:
    """Return the distances of strangers."""
    return NoveltyMaps(arrays["novelty_linear"], arrays["novelty_predicted"])


def _headers_of(weights: bytes, source: str) -> dict[str, _Header]:
    """Read the directory of an archive and the first bytes of each member."""
    headers: dict[str, _Header] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(weights)) as archive:
            members = archive.infolist()
            names = [m.filename for m in members]
            unsafe = [
                n
                for n, times in Counter(names).items()
                if not is_plain(n) or not n.endswith(_SUFFIX) or times > 1
            ]
            if unsafe:
                raise BundleError(f"{source}: unsafe archive members {unsafe[:3]}")
            total = sum(m.file_size for m in members)
            if total > MAX_BYTES:
                raise BundleError(
                    f"{source}: unpacks to {total:,} bytes, expected at most {MAX_BYTES:,}: it is not read"
                )
            for member in members:
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
                    shape, _, dtype = read(file)
                    if dtype.hasobject:
                        raise ValueError(f"{member.filename} holds pickled objects")
                    headers[member.filename.removesuffix(_SUFFIX)] = _Header(
                        shape, dtype, member.file_size - file.tell()
                    )
    except BundleError:
        raise
    except Exception as error:  # whatever a reader makes of a stranger's bytes
        raise _not_plain(source, error) from None
    return headers


def _not_plain(source: str, error: Exception) -> BundleError:
    return BundleError(f"{source}: is not an archive of plain arrays: {error}")


def _expected(manifest: Manifest) -> dict[str, tuple[tuple[int | None, ...], type[np.floating[Any]]]]:
    """Return the shape, None where it is free, and the type of each array that a manifest asks for."""
    k = len(manifest.scaler.center)
    n_inputs = k + len(manifest.scaler.masked)
    expected: dict[str, tuple[tuple[int | None, ...], type[np.floating[Any]]]] = {
        "novelty_linear": ((n_inputs, None), np.float64),
        "novelty_predicted": ((terms_of(len(manifest.labels)) + 1, None), np.float64),
    }
    for n, network in enumerate(manifest.networks):
        sizes = [n_inputs, *network.widths, len(network.outputs) * (3 if network.scales else 1)]
        for i, (before, after) in enumerate(pairwise(sizes)):
            kind = np.float32 if i else np.float64
            expected[f"network{n}_kernel{i:02d}"] = (before, after), kind
            expected[f"network{n}_bias{i:02d}"] = (after,), kind
    if manifest.imputation == "gaussian":
        expected["imputation_mean"] = (k,), np.float64
        expected["imputation_covariance"] = (k, k), np.float64
    if manifest.rotated:
        expected["rotation"] = (k, None), np.float64  # training's own: it is in the first kernels already
    return expected


def _misfits(headers: Mapping[str, _Header], manifest: Manifest) -> list[str]:
    expected = _expected(manifest)
    problems = [f"array '{name}' is missing" for name in expected if name not in headers]
    problems += [f"array '{name}' is unknown" for name in headers if name not in expected]
    for name, header in headers.items():
        shape, kind = expected.get(name, (header.shape, header.dtype.type))
        fits = len(shape) == len(header.shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, header.shape, strict=True)
        )
        if not fits:
            problems.append(f"array '{name}' has shape {_words(header.shape)}, expected {_words(shape)}")
        elif header.dtype != np.dtype(kind):
            problems.append(f"array '{name}' is of {header.dtype}, expected {np.dtype(kind)}")
        elif math.prod(header.shape) * header.dtype.itemsize != header.size:
            problems.append(
                f"array '{name}' has {header.size:,} bytes, too many or too few for {_words(header.shape)}"
            )
    axes = headers["rotation"].shape[-1] if "rotation" in headers and not problems else 0
    if axes > len(manifest.scaler.center):
        problems.append(f"array 'rotation' has {axes} axes, expected at most the number of features")
    if not problems:
        linear, predicted = headers["novelty_linear"].shape, headers["novelty_predicted"].shape
        if linear[1] != 2 * predicted[1] + 2 or predicted[1] > linear[0]:
            problems.append(
                f"arrays 'novelty_linear' and 'novelty_predicted' have {linear[1]} and {predicted[1]} columns, "
                "expected 2 m + 2 and m, m not above the number of inputs"
            )
    return problems


def _words(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _odd_numbers(arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Say which arrays hold numbers that are not finite, overflow, or are no covariance."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            yield f"array '{name}' does not hold finite numbers"
        elif array.size and np.abs(array).max() > LARGEST:
            yield f"array '{name}' holds {np.abs(array).max():g}, expected numbers up to {LARGEST:g}"
    covariance = arrays.get("imputation_covariance")
    if covariance is None or not covariance.size or not np.isfinite(covariance).all():
        return
    largest = np.abs(covariance).max()
    lowest = np.linalg.eigvalsh(covariance)[0] if largest <= LARGEST else 0.0
    symmetric = np.abs(covariance - covariance.T).max() <= _ROUNDING * largest
    if not symmetric or not lowest > _SMALLEST_VARIANCE * max(largest, 1.0):
        yield "array 'imputation_covariance' is no covariance: expected a symmetric matrix, positive in every direction"


def is_plain(name: str) -> bool:
    """Whether a file name stays in its folder, and can be shown as it is."""
    return name.isprintable() and bool(name) and not name.startswith(".") and not set(name) & set("/\\:")
