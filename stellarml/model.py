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
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from stellarml.calibration import Calibration
from stellarml.errors import BundleError, InputError, StorageError, raise_gathered
from stellarml.feature_file import FeatureFile, feature_differences
from stellarml.folding import Folded
from stellarml.layers import Section, problems_of
from stellarml.novelty import Novelty, NoveltyMaps
from stellarml.scaling import InputMaps, Scaler
from stellarml.truth_intervals import MIN_ROWS, TruthTable
from stellarml.weights import arrays_of, inputs_from, is_plain, novelty_from, read_arrays

FORMAT = "stellarml model bundle"
FORMAT_VERSION = 3
MANIFEST, WEIGHTS = "bundle.json", "weights.npz"
EPOCH = (1980, 1, 1, 0, 0, 0)  # time stamp of every archive member: same model, same bytes


class LabelRange(Section):
    """One label among the training stars; `low`, `high` are the 0.1 and 99.9 percentiles."""

    name: str
    unit: str
    mean: float
    std: float
    median: float
    low: float
    high: float
    rows: int


class Curve(Section):
    """Training curve of one network; losses in the phase's own units, val_mae in standard deviations."""

    epoch: tuple[int, ...]
    phase: tuple[str, ...]
    loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_mae: tuple[float, ...]


class Network(Section):
    """One network: `outputs` are label names; networks that share an output are averaged."""

    file: str
    outputs: tuple[str, ...]
    widths: tuple[int, ...]
    activation: Literal["leaky_relu", "silu"]
    slope: float
    batch_norm: bool
    dropout: float
    scales: bool
    losses: tuple[str, ...]
    seed: int
    best_epoch: int
    best_phase: str
    stopped: str
    curve: Curve


class Manifest(Section):
    """bundle.json."""

    format: str
    format_version: int
    id: str
    preset: str
    created_utc: str
    features: FeatureFile
    scaler: Scaler
    imputation: Literal["median", "gaussian"]
    rotated: bool
    reddening_high_mag: float | None
    labels: tuple[LabelRange, ...]
    networks: tuple[Network, ...]
    seed: int
    split: dict[str, Any]
    settings: dict[str, Any]
    counts: dict[str, int]
    calibration: Calibration
    truth: tuple[TruthTable, ...] = ()
    novelty: Novelty
    metrics: dict[str, Any]
    warnings: tuple[str, ...]
    versions: dict[str, str]
    provenance: dict[str, Any]
    files: dict[str, str]
    sha256: str = ""

    def behaviour(self) -> str:
        """Return a digest of all that a prediction depends on: not of when and with what the model was made."""
        told = {
            "sha256",
            "created_utc",
            "settings",
            "counts",
            "metrics",
            "warnings",
            "versions",
            "provenance",
        }
        return _sha256(self.model_dump_json(exclude=told).encode())

    def output_names(self, *, truth: bool = False) -> tuple[str, ...]:
        """Return the names of the columns that a prediction has, in order; with those of `truth` at the end."""
        names = [label.name for label in self.labels]
        columns = [f"{name}{end}" for name in names for end in ("", "_lo", "_hi")]
        columns.append("quality_flags")
        return (*columns, *(f"{n}_true{end}" for n in names if truth for end in ("_lo", "_hi")))

    def check_truth(self) -> None:
        """Raise InputError if the model has no intervals for true parameters."""
        if len(self.truth) < len(self.labels):
            raise InputError(
                f"model {self.id} has no intervals for true parameters: fewer than "
                f"{MIN_ROWS} of its calibration stars stated the errors of their labels"
            )


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
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        fresh.mkdir(parents=True)
        with (fresh / WEIGHTS).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays_of(bundle.inputs, bundle.networks, bundle.novelty))
        for name, model in models.items():
            model.save(fresh / name)
            _settle_times(fresh / name)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        files = {p.name: _sha256(p.read_bytes()) for p in sorted(fresh.iterdir())}
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


def signed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of bundle.json with its own SHA-256, of all the rest with sorted keys."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**rest, "sha256": _sha256(json.dumps(rest, sort_keys=True).encode())}


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
        elif _sha256(file.read_bytes()) != digest:
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
    return blob, _sha256(blob)


def unpack_bundle(blob: bytes, sha256: str) -> Bundle:
    """Rebuild a bundle from `pack_bundle`'s bytes.

    Raises
    ------
    BundleError
        If the bytes do not have that SHA-256.
    """
    if _sha256(blob) != sha256:
        raise BundleError(
            f"the model's bytes changed on their way: SHA-256 {_sha256(blob)[:12]}..., expected {sha256[:12]}..."
        )
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        manifest = parse_manifest(archive.read(MANIFEST), MANIFEST)
        weights = archive.read(WEIGHTS)
    if _sha256(weights) != manifest.files.get(WEIGHTS):
        raise BundleError(f"{WEIGHTS}: its SHA-256 differs from {MANIFEST}")
    return bundle_from(manifest, weights, WEIGHTS)


def parse_manifest(raw: bytes, source: str) -> Manifest:
    """Read bundle.json; foreign JSON, another version and unsafe file names are refused."""
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{source}: is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f'{source}: is not a model bundle: expected "format": "{FORMAT}"')
    if data.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{source}: format version {data.get('format_version')!r}, this stellarml reads {FORMAT_VERSION}: "
            "train again or install the version named under 'versions'"
        )
    if data != signed(data):
        raise BundleError(f"{source}: is not the file that was written: its content differs from its SHA-256")
    try:
        manifest = Manifest(**data)
    except ValidationError as error:
        raise_gathered(BundleError, "damaged bundle", problems_of(error, Manifest, source))
        raise
    unsafe = [name for name in (manifest.id, *manifest.files) if not is_plain(name)]
    raise_gathered(BundleError, f"{source}: unsafe file names", [f"'{n}'" for n in unsafe])
    wanted = {WEIGHTS, *(n.file for n in manifest.networks)}
    absent = sorted(wanted - set(manifest.files))
    raise_gathered(BundleError, f"{source}: no SHA-256", [f"for {n}" for n in absent])
    return manifest


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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _settle_times(path: Path) -> None:
    """Rewrite a .keras archive without the moment of saving."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    metadata.pop("date_saved", None)
    members["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
