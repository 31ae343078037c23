"""The models on disk: which there are, and which one labels."""

from __future__ import annotations

from pathlib import Path

from stellarml.core.errors import BundleError, InputError, did_you_mean
from stellarml.features.feature_file import FeatureFile
from stellarml.model.bundle import load_bundle
from stellarml.model.bundle_arrays import is_plain
from stellarml.model.manifest import MANIFEST, Manifest, parse_manifest
from stellarml.run.log import get_logger
from stellarml.run.ownership import RECORD


def plain_id(name: str, source: str) -> str:
    """Return a model's id if it is one: a name, and no path.

    Raises
    ------
    BundleError
        If it would leave the folder of the models.
    """
    if not is_plain(name):
        raise BundleError(f"{source}: '{name}' is a path, expected the name of a model")
    return name


def finished_models(models: Path) -> list[str]:
    """Return the ids of all finished models, the newest last; those of another format are logged and left out."""
    found = []
    for path in models.glob(f"*/{RECORD}"):
        manifest = path.with_name(MANIFEST)
        if not manifest.is_file():
            continue
        try:
            created = parse_manifest(manifest.read_bytes(), str(manifest)).created_utc
        except BundleError as error:
            get_logger().warning("a model that cannot be used", model=path.parent.name, reason=str(error))
        else:
            found.append((created, path.parent.name))
    return [name for _, name in sorted(found)]


def chosen_model(models: Path, name: str = "", features: FeatureFile | None = None) -> tuple[Path, Manifest]:
    """Return the folder of the model to label with, and its manifest.

    Parameters
    ----------
    models
        The folder of all models.
    name
        Id of a model; empty for the newest one that is finished.
    features
        What the caller is about to feed; None to skip that comparison.

    Raises
    ------
    InputError
        If there is none.
    BundleError
        If it is damaged, or was made for other features than `features`.
    """
    if name:
        folder = models / plain_id(name, "label.model")
        if not folder.is_dir():
            known = [p.name for p in models.glob("*/") if (p / MANIFEST).is_file()]
            raise BundleError(
                f"{folder}: no such model.{did_you_mean(name, known)} "
                f"Models there: {', '.join(sorted(known)) or 'none'}."
            )
    else:
        known = finished_models(models)
        if not known:
            raise InputError(f"{models}: holds no finished model. Run  stellarml train  first.")
        folder = models / known[-1]
    return folder, load_bundle(folder, features).manifest
