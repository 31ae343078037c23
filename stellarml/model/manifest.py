"""What bundle.json says of a model, and whether it is the file that was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from stellarml.core.errors import BundleError, InputError, raise_gathered
from stellarml.core.names import prediction_names
from stellarml.core.toml_layers import Section, problems_of
from stellarml.features.feature_file import FeatureFile
from stellarml.features.plausible_ranges import OutsideRange
from stellarml.intervals.conformal import Calibration
from stellarml.intervals.true_parameters import MIN_ROWS, TruthTable
from stellarml.model.bundle_arrays import is_plain
from stellarml.model.manifest_checks import check_manifest, read_json
from stellarml.model.novelty import Novelty
from stellarml.model.scaling import Scaler

FORMAT = "stellarml model bundle"


FORMAT_VERSION = 4
READABLE_VERSIONS = (3, 4)
"""Version 3 knows no ranges of labels and features: a model of it is fed as it was trained, with any value."""


MANIFEST, WEIGHTS = "bundle.json", "weights.npz"


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
    outside_range: tuple[OutsideRange, ...] = ()
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
        excluded = {
            "sha256",
            "created_utc",
            "settings",
            "counts",
            "outside_range",
            "metrics",
            "warnings",
            "versions",
            "provenance",
        }
        return sha256_of(self.model_dump_json(exclude=excluded).encode())

    def output_names(self, *, truth: bool = False) -> tuple[str, ...]:
        """Return the names of the columns that a prediction has, in order; with those of `truth` at the end."""
        return prediction_names((label.name for label in self.labels), true=truth)

    def check_truth(self) -> None:
        """Raise InputError if the model has no intervals for true parameters."""
        if len(self.truth) < len(self.labels):
            raise InputError(
                f"model {self.id} has no intervals for true parameters: fewer than "
                f"{MIN_ROWS} of its calibration stars stated the errors of their labels"
            )


def signed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of bundle.json with its own SHA-256, of all the rest with sorted keys."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**rest, "sha256": sha256_of(json.dumps(rest, sort_keys=True).encode())}


def parse_manifest(raw: bytes, source: str) -> Manifest:
    """Read bundle.json; foreign JSON, another version, unsafe file names and what makes no sense are refused."""
    data = read_json(raw, source)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f'{source}: is not a model bundle: expected "format": "{FORMAT}"')
    if data.get("format_version") not in READABLE_VERSIONS:
        raise BundleError(
            f"{source}: format version {data.get('format_version')!r}, this stellarml reads "
            f"{' and '.join(str(version) for version in READABLE_VERSIONS)}: "
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
    check_manifest(manifest, source)
    return manifest


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of `data` as hex digits."""
    return hashlib.sha256(data).hexdigest()
