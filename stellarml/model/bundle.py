"""What is in a model bundle, and whether it may be trusted.

A folder: `bundle.json` says everything in words and numbers and carries the SHA-256 of itself and of every other file,
`weights.npz` holds the folded matrices that labelling needs, one `.keras` a network holds what training made. No pickle
anywhere. A bundle is written beside its place and renamed, so a half-written one is never seen; it is refused, with the
difference, when a byte, a feature or a unit is not what it was.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stellarml.core.errors import BundleError, StorageError, raise_gathered
from stellarml.core.files import hidden_beside
from stellarml.features.feature_file import FeatureFile, feature_differences
from stellarml.model.bundle_arrays import arrays_of, inputs_from, novelty_from, read_arrays
from stellarml.model.folding import Folded
from stellarml.model.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    WEIGHTS,
    Manifest,
    parse_manifest,
    sha256_of,
    signed,
)
from stellarml.model.novelty import NoveltyMaps
from stellarml.model.scaling import InputMaps

EPOCH = (1980, 1, 1, 0, 0, 0)  # time stamp of every archive member: same model, same bytes


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its manifest, the maps of its inputs, the folded networks, and the distances of strangers."""

    manifest: Manifest
    inputs: InputMaps
    networks: tuple[Folded, ...]
    novelty: NoveltyMaps


def save_bundle(
    folder: Path,
    manifest: Mapping[str, Any],
    bundle: Bundle,
    models: Mapping[str, Any],
    texts: Mapping[str, str],
) -> Path:
    """Write a bundle beside `folder`, then rename it into place, replacing an older one.

    Parameters
    ----------
    manifest
        All fields of `Manifest` but `format`, `format_version`, `files` and `sha256`.
    bundle
        Whose arrays are written.
    models
        Keras models by file name.
    texts
        Further files, such as the model card.

    Raises
    ------
    StorageError
        If the disk refuses; an older bundle in the same place survives.
    """
    fresh, old = hidden_beside(folder), hidden_beside(folder)
    try:
        fresh.mkdir(parents=True)
        with (fresh / WEIGHTS).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays_of(bundle.inputs, bundle.networks, bundle.novelty))
        for name, model in models.items():
            model.save(fresh / name)
            _settle_archive(fresh / name)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        files = {p.name: sha256_of(p.read_bytes()) for p in sorted(fresh.iterdir())}
        whole = Manifest(format=FORMAT, format_version=FORMAT_VERSION, files=files, **manifest)
        text = json.dumps(signed(whole.model_dump(mode="json")), indent=1, allow_nan=False)
        (fresh / MANIFEST).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise StorageError(
            f"{folder}: the model could not be written ({error.strerror or error}); no half-written bundle is left"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_bundle(folder: Path, features: FeatureFile | None = None) -> Bundle:
    """Read and verify a bundle.

    Parameters
    ----------
    features
        What the caller is about to feed; None to skip that comparison.

    Raises
    ------
    BundleError
        If a file is missing or changed, the manifest is foreign or of another version, or `features` differ.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"has no {MANIFEST}"
        raise BundleError(f"{folder}: {what}; expected a folder made by `stellarml train`")
    manifest = parse_manifest(path.read_bytes(), str(path))
    problems = []
    for name, digest in manifest.files.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif sha256_of(file.read_bytes()) != digest:
            problems.append(f"{name} is not the file that was written: its SHA-256 differs from {MANIFEST}")
    raise_gathered(BundleError, f"{folder}: damaged bundle", problems)
    if features is not None:
        differences = feature_differences(manifest.features, features)
        raise_gathered(BundleError, f"{folder}: this model was made for other features", differences)
    return bundle_from(manifest, (folder / WEIGHTS).read_bytes(), str(folder / WEIGHTS))


def pack_bundle(folder: Path) -> tuple[bytes, str]:
    """Return what labelling needs of a verified bundle as bytes, and their SHA-256."""
    load_bundle(folder)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in (MANIFEST, WEIGHTS):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), (folder / name).read_bytes())
    blob = stream.getvalue()
    return blob, sha256_of(blob)


def unpack_bundle(blob: bytes, sha256: str) -> Bundle:
    """Rebuild a bundle from `pack_bundle`'s bytes.

    Raises
    ------
    BundleError
        If the bytes do not have that SHA-256.
    """
    if sha256_of(blob) != sha256:
        raise BundleError(
            f"the model's bytes changed on their way: SHA-256 {sha256_of(blob)[:12]}..., expected {sha256[:12]}..."
        )
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        manifest = parse_manifest(archive.read(MANIFEST), MANIFEST)
        weights = archive.read(WEIGHTS)
    if sha256_of(weights) != manifest.files.get(WEIGHTS):
        raise BundleError(f"{WEIGHTS}: its SHA-256 differs from {MANIFEST}")
    return bundle_from(manifest, weights, WEIGHTS)


def bundle_from(manifest: Manifest, weights: bytes, source: str) -> Bundle:
    """Read the arrays of weights.npz, refusing pickled objects, unsafe members and shapes that do not fit."""
    arrays = read_arrays(weights, source)
    n_inputs = len(manifest.scaler.center) + len(manifest.scaler.masked)
    networks = []
    for n, network in enumerate(manifest.networks):
        depth = len(network.widths) + 1
        shape = [n_inputs, *network.widths, len(network.outputs) * (3 if network.scales else 1)]
        try:
            kernels = tuple(arrays[f"network{n}_kernel{i:02d}"] for i in range(depth))
            biases = tuple(arrays[f"network{n}_bias{i:02d}"] for i in range(depth))
        except KeyError as error:
            raise BundleError(f"{source}: array {error} is missing") from None
        found = [k.shape for k in kernels], [b.shape for b in biases]
        expected = [(shape[i], shape[i + 1]) for i in range(depth)], [(w,) for w in shape[1:]]
        if found != expected:
            raise BundleError(f"{source}: network {n} has shapes {found[0]}, the manifest says {expected[0]}")
        networks.append(Folded(kernels, biases))
    inputs = inputs_from(
        arrays, len(manifest.scaler.center), manifest.imputation == "gaussian", manifest.rotated, source
    )
    return Bundle(manifest, inputs, tuple(networks), novelty_from(arrays, n_inputs, source))


def _settle_archive(path: Path) -> None:
    """Rewrite a .keras archive without what differs between equal trainings: the moment, and addresses in memory."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    metadata.pop("date_saved", None)
    members["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
    config = json.loads(members["config.json"])
    _number_shared_objects(config, {})
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)


def _number_shared_objects(config: Any, numbers: dict[int, int]) -> None:
    """Give objects that a network shares, known by their addresses, numbers in the order in which they appear."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "shared_object_id":
                config[key] = numbers.setdefault(value, len(numbers) + 1)
            else:
                _number_shared_objects(value, numbers)
    elif isinstance(config, list):
        for value in config:
            _number_shared_objects(value, numbers)
