"""Small labelled tables and tiny networks for the tests of the model."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.core.config import Split, Train
from stellarml.features.feature_file import FeatureFile
from stellarml.features.split import split_of
from stellarml.training.fit import Task, train
from stellarml.training.presets import Phase, Preset

SPLIT = Split(salt="t", validation=0.15, test=0.15, calibration=0.2)

FEATURES = FeatureFile(
    id="star_id",
    labels=(
        {"name": "teff", "column": "t", "error": "e_t", "unit": "K"},
        {"name": "feh", "column": "m", "unit": "dex"},
    ),
    features=(
        {"name": "g", "expression": "g_psf", "unit": "mag"},
        {"name": "u_g", "expression": "u_psf - g_psf", "unit": "mag"},
        {"name": "g_r", "expression": "g_psf - r_psf", "unit": "mag"},
        {"name": "teff_gspphot", "expression": "teff_gspphot", "unit": "K"},
        {"name": "distance", "expression": "r_med_geo", "unit": "pc"},
    ),
)

TINY = Preset(
    name="tiny",
    widths=(12, 16, 12),
    phases=(Phase("mae", 4, 5e-3), Phase("smape", 2, 1e-3)),
    per_label=True,
    batch_norm=True,
    dropout=0.05,
    imputation="median",
    rotate="no",
    batch_rows=64,
)
TINY_SHARED = Preset(
    name="tiny_shared",
    widths=(16, 16),
    phases=(Phase("mae", 6, 1e-2),),
    activation="silu",
    batch_rows=64,
    members=2,
)
TINY_SCALES = dataclasses.replace(
    TINY_SHARED,
    name="tiny_scales",
    scales=True,
    missing_copies=0.7,
    weight_decay=1e-3,
    phases=(Phase("mae", 8, 1e-2),),
)


def settings(**changes: Any) -> Train:
    """Return training settings; `preset` is overridden by what `train` is given."""
    base = {"preset": "small", "seed": 5, "max_epochs": 0, "max_rows": 0, "threads": 0, "max_seconds": 0}
    base["tensorboard"] = False
    return Train(**{**base, **changes})


def stars(n: int = 1500, seed: int = 0, missing: bool = True) -> dict[str, np.ndarray]:
    """Return columns of a made-up survey: features as float32 with NaN for missing, labels, split."""
    rng = np.random.default_rng(seed)
    teff = rng.uniform(4000, 7000, n)
    feh = rng.normal(-0.3, 0.5, n)
    magnitude = rng.uniform(11, 17, n)
    noise = 0.01 * 10 ** (0.15 * (magnitude - 11))
    columns = {
        "star_id": rng.permutation(10 * n)[:n].astype(np.int64),
        "g": magnitude,
        "u_g": 3.2 - teff / 2500 + 0.4 * feh + noise * rng.normal(size=n),
        "g_r": 2.2 - teff / 3500 + 0.05 * feh + noise * rng.normal(size=n),
        "teff_gspphot": teff + 150 * rng.normal(size=n),
        "distance": 10 ** rng.uniform(2, 3.7, n),
    }
    if missing:
        columns["u_g"][rng.random(n) < 0.2] = np.nan
        columns["teff_gspphot"][rng.random(n) < 0.15] = np.nan
    out = {k: v if k == "star_id" else v.astype(np.float32) for k, v in columns.items()}
    out["teff"] = (teff + 60 * rng.normal(size=n)).astype(np.float32)
    out["feh"] = (feh + 0.08 * rng.normal(size=n)).astype(np.float32)
    out["ebmv_sfd"] = rng.uniform(0, 0.3, n).astype(np.float32)
    out["split"] = np.array(split_of(out["star_id"].tolist(), SPLIT))
    return out


def table_of(columns: dict[str, np.ndarray]) -> pa.Table:
    """Return an Arrow table with nulls for NaN."""
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def matrix_of(columns: dict[str, np.ndarray], features: FeatureFile = FEATURES) -> np.ndarray:
    """Return the features as the predictor takes them."""
    return np.stack([columns[name] for name in features.feature_names], axis=1).astype(np.float32)


def fit_bundle(out: Path, columns: dict[str, np.ndarray], preset: Preset = TINY, **changes: Any) -> Path:
    """Train `preset` on a table and return the bundle's folder."""
    task = Task(FEATURES, settings(**changes), SPLIT, preset)
    return train(table_of(columns), task, out / "m", provenance={"made": "up"})


@functools.cache
def tiny_bundle(preset: Preset = TINY) -> Path:
    """Return a bundle trained once for the whole test run."""
    folder = tempfile.mkdtemp(prefix="stellarml_model_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return fit_bundle(Path(folder), stars(), preset)
