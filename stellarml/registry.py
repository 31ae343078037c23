"""The models on disk: which there are, and which one labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stellarml.config import Config
from stellarml.errors import BundleError, InputError, UserError, did_you_mean
from stellarml.feature_file import FeatureFile
from stellarml.log import get_logger
from stellarml.manifest import read_record
from stellarml.model import MANIFEST, load_bundle
from stellarml.weights import is_plain


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


def finished_models(config: Config) -> dict[str, dict[str, Any]]:
    """Return run.json of every finished model by id, newest last; those that cannot be read are told and left out."""
    found = []
    for path in sorted(config.path(config.paths.models).glob("*/run.json")):
        if not (path.parent / MANIFEST).is_file():
            continue
        try:
            created = load_bundle(path.parent).manifest.created_utc
            found.append((created, path.parent.name, read_record(path.parent)))
        except UserError as error:
            get_logger().warning("a model that cannot be used", model=path.parent.name, reason=str(error))
    return {name: record for _, name, record in sorted(found, key=lambda item: item[:2])}


def chosen_model(config: Config, features: FeatureFile | None = None) -> Path:
    """Return the folder of the model to label with: the one configured, or else the newest.

    Raises
    ------
    InputError
        If there is none.
    BundleError
        If it is damaged, or was made for other features than `features`.
    """
    models = config.path(config.paths.models)
    if config.label.model:
        folder = models / plain_id(config.label.model, "label.model")
        if not folder.is_dir():
            known = [p.name for p in models.glob("*/") if (p / MANIFEST).is_file()]
            raise BundleError(
                f"{folder}: no such model.{did_you_mean(config.label.model, known)} "
                f"Models there: {', '.join(sorted(known)) or 'none'}."
            )
    else:
        known = list(finished_models(config))
        if not known:
            raise InputError(f"{models}: holds no finished model. Run  stellarml train  first.")
        folder = models / known[-1]
    load_bundle(folder, features)
    return folder
