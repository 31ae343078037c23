"""Surveys of a few hundred made-up stars, written as a user would write files and descriptors of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DESCRIPTOR = """\
name = "{name}"
kind = "{kind}"
[files]
format = "csv"
glob = "*.csv*"
[position]
id = "{id}"
ra = "ra"
dec = "dec"
ra_error = {{ value = 50, unit = "mas" }}
dec_error = {{ value = 50, unit = "mas" }}
epoch = {{ value = 2016.0, unit = "jyear" }}
[columns]
keep = ["flag", "g", "u"]
[columns.types]
{id} = "long"
flag = "int"
g = "float"
u = "float"
[[cuts]]
name = "bright"
where = "g < 18"
reason = "test"
[[cuts]]
name = "clean"
where = "flag = 0"
on_null = "keep"
reason = "test"
"""

LABELS = """\
name = "labels"
kind = "labels"
[files]
format = "csv"
glob = "*.csv*"
[position]
id = "source_id"
[columns.types]
source_id = "long"
[labels.teff]
value = "teff"
unit = "K"
[labels.feh]
value = "feh"
unit = "dex"
"""

FEATURES = """\
id = "source_id"
[[labels]]
name = "teff"
column = "teff"
unit = "K"
[[labels]]
name = "feh"
column = "feh"
unit = "dex"
[[features]]
name = "g_mag"
expression = "g"
unit = "mag"
[[features]]
name = "u_right"
expression = "u_right_survey"
unit = "mag"
[[features]]
name = "u_g"
expression = "u - g"
unit = "mag"
"""

CONFIG = """\
[surveys]
astrometry = "left_survey.toml"
photometry = "right_survey.toml"
distances = ""
labels = ["labels.toml"]
[raw]
left_survey = "raw/left"
right_survey = "raw/right"
labels = "raw/labels"
[features]
file = "features.toml"
[tiles]
max_rows = 100
row_group_rows = 100
[ingest]
max_rejected_fraction = 0.05
[train]
preset = "small"
max_epochs = 2
[spark]
min_free_memory = "1m"
"""


def stars(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return rows with every column that the descriptors name."""
    rng = np.random.default_rng(seed)
    feh = rng.normal(-0.3, 0.5, n)
    return pd.DataFrame(
        {
            "source_id": 4_611_686_018_427_387_905 + 2 * rng.permutation(n),
            "ra": rng.uniform(20, 26, n),
            "dec": rng.uniform(-33, -27, n),
            "flag": rng.integers(0, 3, n) // 2,
            "g": rng.uniform(12, 18.5, n).astype(np.float32),
            "u": rng.uniform(13, 20, n).astype(np.float32),
            "teff": 5000 + 800 * feh,
            "feh": feh,
        }
    )


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write a CSV, gzipped where the name says so, the same bytes for the same rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: Any = {"method": "gzip", "mtime": 1} if path.suffix == ".gz" else None
    table.to_csv(path, index=False, compression=options)
    return path


def write_surveys(folder: Path, n: int = 400) -> Path:
    """Write raw files, descriptors and config.toml of a whole chain; return the config's path."""
    left = stars(n)
    right = left.rename(columns={"source_id": "object_id"}).assign(object_id=np.arange(n) + 1)
    offset = np.random.default_rng(1).normal(0, 0.03 / 3600, (2, n))
    right = right.assign(ra=right.ra + offset[0], dec=right.dec + offset[1])
    columns = ["ra", "dec", "flag", "g", "u"]
    write_csv(folder / "raw" / "left" / "a.csv", left.iloc[: n // 2][["source_id", *columns]])
    write_csv(folder / "raw" / "left" / "b.csv.gz", left.iloc[n // 2 :][["source_id", *columns]])
    write_csv(folder / "raw" / "right" / "a.csv.gz", right[["object_id", *columns]])
    write_csv(folder / "raw" / "labels" / "a.csv", left[["source_id", "teff", "feh"]])
    for name, kind, key in (
        ("left_survey", "astrometry", "source_id"),
        ("right_survey", "photometry", "object_id"),
    ):
        (folder / f"{name}.toml").write_text(DESCRIPTOR.format(name=name, kind=kind, id=key))
    (folder / "labels.toml").write_text(LABELS)
    (folder / "features.toml").write_text(FEATURES)
    (folder / "config.toml").write_text(CONFIG)
    return folder / "config.toml"
