"""What is in a model bundle, and whether it may be trusted.

A folder: `bundle.json` says everything in words and numbers and carries the SHA-256 of itself and of every other file,
`weights.npz` holds the folded matrices that labelling needs, one `.keras` a network holds what training made. No pickle
anywhere. A bundle is written beside its place and renamed, so a half-written one is never seen; it is refused, with the
difference, when a byte, a feature or a unit is not what it was.
"""

from __future__ import annotations

import hashlib
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
from stellarml.model.bundle_arrays import (
    MAX_BYTES,
    arrays_of,
    inputs_from,
    networks_from,
    novelty_from,
    read_arrays,
)
from stellarml.model.folding import Folded, gives_numbers
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
from stellarml.model.manifest_checks import MAX_MANIFEST_BYTES
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
    manifest = parse_manifest(_read_at_most(path, MAX_MANIFEST_BYTES), str(path))
    problems = []
    for name, digest in manifest.files.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif _digest_of(file) != digest:
            problems.append(f"{name} is not the file that was written: its SHA-256 differs from {MANIFEST}")
    raise_gathered(BundleError, f"{folder}: damaged bundle", problems)
    if features is not None:
        differences = feature_differences(manifest.features, features)
        raise_gathered(BundleError, f"{folder}: this model was made for other features", differences)
    weights = folder / WEIGHTS
    return bundle_from(manifest, _read_at_most(weights, MAX_BYTES), str(weights))


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_at_most(path: Path, most: int) -> bytes:
    """Return a file's bytes; one that is too large to be meant is not read."""
    size = path.stat().st_size
    if size > most:
        raise BundleError(f"{path}: has {size:,} bytes, expected at most {most:,}: it is not read")
    return path.read_bytes()


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
        If the bytes do not have that SHA-256, or do not make sense.
    """
    if sha256_of(blob) != sha256:
        raise BundleError(
            f"the model's bytes changed on their way: SHA-256 {sha256_of(blob)[:12]}..., expected {sha256[:12]}..."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            sizes = {name: archive.getinfo(name).file_size for name in (MANIFEST, WEIGHTS)}
            if sizes[MANIFEST] > MAX_MANIFEST_BYTES or sizes[WEIGHTS] > MAX_BYTES:
                raise BundleError(f"the model's bytes unpack to {sizes}: more than a model has")
            raw, weights = archive.read(MANIFEST), archive.read(WEIGHTS)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise BundleError(f"the model's bytes are no packed bundle: {error}") from None
    manifest = parse_manifest(raw, MANIFEST)
    if sha256_of(weights) != manifest.files.get(WEIGHTS):
        raise BundleError(f"{WEIGHTS}: its SHA-256 differs from {MANIFEST}")
    return bundle_from(manifest, weights, WEIGHTS)


def bundle_from(manifest: Manifest, weights: bytes, source: str) -> Bundle:
    """Read the arrays of weights.npz, and try the networks.

    Raises
    ------
    BundleError
        If the arrays are not those that the manifest asks for, or a network gives no number for usual stars.
    """
    arrays = read_arrays(weights, manifest, source)
    bundle = Bundle(manifest, inputs_from(arrays), networks_from(arrays, manifest), novelty_from(arrays))
    for network, folded in zip(manifest.networks, bundle.networks, strict=True):
        if not gives_numbers(folded, manifest.scaler, network.activation, network.slope):
            raise BundleError(
                f"{source}: the network {network.file} gives no finite label to stars in the middle and at the ends "
                "of what it was trained on: its weights are too large"
            )
    return bundle


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
