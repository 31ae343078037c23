"""Labelled tables on which models are compared: two of real spectra, one simulated; every learner sees the same rows.

Real tables lie beside the checkout and are left out where they are absent. Stated rules, before any split:

- ``lamost``: LAMOST labels, 13 bands of Gaia, Pan-STARRS, 2MASS and WISE. A magnitude whose error is missing was not
  measured. Labels outside 3,000 to 9,000 K or 0 to 6 dex, or [Fe/H] outside -4 to +1, are no labels.
- ``segue``: SEGUE [Fe/H], four SDSS colours. A colour outside -2 to 6 is a sentinel. A star that is listed several
  times (the same four colours) is in one fold as a whole.
- ``sky``: the simulator's sky through the whole chain, its 27 inputs of the paper's Table 1.

Everyone gets colours beside magnitudes: trees cannot take differences, and networks need not.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import Config, load_config
from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.features.split import CALIBRATION, TEST, TRAIN, VALIDATION

FOLDS = 5
SHARED = Path(__file__).parents[3] / "shared" / "data" / "real" / "labels"
UNITS = {"teff": "K", "logg": "dex", "feh": "dex"}
LIMITS = {"teff": (3000.0, 9000.0), "logg": (0.0, 6.0), "feh": (-4.0, 1.0)}


@dataclass(frozen=True)
class Labelled:
    """Stars with features (n, k), labels (n, n_labels), errors of the labels, and the group that stays in one fold."""

    name: str
    spec: FeatureFile
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float64]
    label_errors: npt.NDArray[np.float64]
    group: npt.NDArray[np.str_]
    more: dict[str, npt.NDArray[np.float64]]

    def fold_of(self) -> npt.NDArray[np.int64]:
        """Fold of each star, by the hash of its group; "fold" alone was used up when presets were chosen."""
        return (_hashed(self.group, "fold/2") * FOLDS).astype(np.int64)

    def parts(self, fold: int) -> npt.NDArray[np.str_]:
        """Part of each star when `fold` is the test: of the others 80 % train, 10 % validate, 10 % calibrate."""
        rest = _hashed(self.group, f"part/{fold}")
        part = np.where(rest < 0.1, VALIDATION, np.where(rest < 0.2, CALIBRATION, TRAIN))
        return np.where(self.fold_of() == fold, TEST, part)

    def table(self, part: npt.NDArray[np.str_]) -> pa.Table:
        """Return the training table."""
        columns = {self.spec.id: np.arange(len(part))}
        columns |= dict(zip(self.spec.feature_names, self.features.T, strict=True))
        columns |= dict(zip(self.spec.label_names, self.labels.T, strict=True))
        columns |= {f"e_{n}": e for n, e in zip(self.spec.label_names, self.label_errors.T, strict=True)}
        return pa.table({**columns, "split": pa.array(part)})

    def take(self, rows: npt.NDArray[np.integer]) -> Labelled:
        """Return some stars."""
        more = {name: values[rows] for name, values in self.more.items()}
        return Labelled(
            self.name,
            self.spec,
            self.features[rows],
            self.labels[rows],
            self.label_errors[rows],
            self.group[rows],
            more,
        )


def load(name: str, folder: Path, sky_labelled: int = 200_000) -> Labelled | None:
    """Return a table, or None where its file is not at hand."""
    if name == "lamost":
        path = SHARED / "lamost_13band_train.parquet"
        return lamost(path) if path.is_file() else None
    if name == "segue":
        path = SHARED / "segue_dr17_ugriz_feh.csv"
        return segue(path) if path.is_file() else None
    return sky(folder, sky_labelled)


def lamost(path: Path) -> Labelled:
    """Read the LAMOST table."""
    data = pq.read_table(path).to_pandas()
    bands = [c[2:] for c in data if c.startswith("e_") and c[2:] not in (*UNITS, "ebv")]
    for band in bands:
        data.loc[data[f"e_{band}"].isna(), band] = np.nan
    features = {band: data[band] for band in bands}
    features |= {f"{a}_{b}": data[a] - data[b] for a, b in pairwise(bands)}
    distance_modulus = -5.0 * np.log10(data["parallax"].where(data["parallax"] > 0) / 100.0)
    features["absolute_g"] = data["gaia_g"] - distance_modulus
    features |= {name: data[name] for name in ("parallax", "parallax_error", "ebv")}
    features["parallax_snr"] = data["parallax"] / data["parallax_error"]
    return _labelled("lamost", features, data, data["star_id"].astype(str).to_numpy())


def segue(path: Path) -> Labelled:
    """Read the SEGUE table."""
    data = pd.read_csv(path)
    colours = ["ug", "gr", "ri", "iz"]
    group = data[colours].astype("float32").astype(str).agg("/".join, axis=1).to_numpy().astype(str)
    values = data[colours].where((data[colours] > -2) & (data[colours] < 6))
    return _labelled("segue", {c: values[c] for c in colours}, data, group)


def sky(folder: Path, labelled: int) -> Labelled:
    """Simulate a sky with at least `labelled` training stars, once, and run the chain on it up to the features."""
    from stellarml.training.read_lake import load_training_set

    table = load_training_set(make_sky(folder, round(labelled * 4.6)) / "lake" / "training")
    spec = load_feature_file("paper")
    values = {name: table[name].to_numpy() for name in table.column_names if name != "split"}
    wanted = ("source_id", "phot_g_mean_mag", "ebmv_sfd", "ra", "dec")
    return Labelled(
        "sky",
        spec,
        np.column_stack([values[n].astype(np.float32) for n in spec.feature_names]),
        np.column_stack([values[n].astype(np.float64) for n in spec.label_names]),
        np.column_stack([values[f"e_{n}"].astype(np.float64) for n in spec.label_names]),
        values["source_id"].astype(str),
        {n: values[n].astype(np.float64) for n in wanted if n in values},
    )


def make_sky(folder: Path, stars: int) -> Path:
    """Simulate `stars` Gaia sources and run the chain on them up to the features, once; return the folder."""
    from stellarml.run.spark_session import start_session
    from stellarml.simulate import SimulateSettings
    from stellarml.simulate import demo_folder as demo
    from stellarml.stages.chain import run_stage

    root = folder / f"sky-{stars}"
    if not (root / "lake" / "training" / "run.json").exists():
        if not (root / "config.toml").exists():
            shutil.rmtree(root, ignore_errors=True)
            demo.make_sky(root, SimulateSettings(stars=stars, seed=11), sys.stderr.write)
        config = sky_config(root)
        spark = start_session(config.spark)
        for stage in ("ingest", "select", "crossmatch", "features"):
            run_stage(stage, spark, config)
        spark.stop()
    return root


def sky_config(root: Path) -> Config:
    """Return the configuration of a simulated sky's chain, with memory for millions of labelled stars."""
    larger = [
        "log.level=warning",
        "spark.driver_memory=6g",
        'spark.options={"spark.driver.maxResultSize"="4g"}',
    ]
    return load_config(root / "config.toml", overrides=larger)


def _labelled(
    name: str, features: dict[str, pd.Series], data: pd.DataFrame, group: npt.NDArray[np.str_]
) -> Labelled:
    labels = [label for label in UNITS if label in data]
    spec = FeatureFile(
        id="star",
        labels=tuple({"name": n, "column": n, "unit": UNITS[n]} for n in labels),
        features=tuple({"name": n, "expression": n, "unit": "mag"} for n in features),
    )
    possible = np.all([data[n].between(*LIMITS[n]) for n in labels], axis=0)
    errors = [data[f"e_{n}"] if f"e_{n}" in data else np.full(len(data), np.nan) for n in labels]
    return Labelled(
        name,
        spec,
        np.column_stack([features[n].to_numpy(np.float32) for n in features]),
        data[labels].to_numpy(np.float64),
        np.column_stack(errors).astype(np.float64),
        group,
        {},
    ).take(np.flatnonzero(possible))


def _hashed(group: npt.NDArray[np.str_], salt: str) -> npt.NDArray[np.float64]:
    distinct, index = np.unique(group, return_inverse=True)
    digits = [int(hashlib.sha256(f"{salt}:{g}".encode()).hexdigest()[:12], 16) / 16**12 for g in distinct]
    return np.array(digits)[index]
