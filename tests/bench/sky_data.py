"""The simulated sky where truth is known: labelled stars, stars to be labelled, and things that are no such stars.

Features are computed by Spark with the shipped feature file, once, and kept beside the sky. What is injected is stated
here, and is put into the columns of the matched catalogue, before features are computed:

- ``wrong match``: the photometry of another object, 20 to 200 rows away in the order of the sky.
- ``white dwarf``: a black body of 7,000 to 25,000 K with 0.009 to 0.013 solar radii, 30 to 150 pc
  away, without GSP-Phot for one half, with the hottest or coolest labels it knows for the other.
- ``quasar``: the simulator's own, matched, whatever cuts they fail.
- ``distance``: 30 % too far or too near. ``reddening``: E(B-V) three times too high, where it is above 0.1 mag.
- ``binary``: stars of the sky with an unresolved companion of at least 0.7 of their mass; nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from model_data import sky_config

from stellarml.features.feature_file import FeatureFile, load_feature_file
from stellarml.simulate.labels import CORE, STUDENT_NU
from stellarml.stages.features import passes_all_cuts
from stellarml.storage.hats_reader import read_leaves
from stellarml.training.read_lake import load_training_set

BANDS = ("u", "v", "g", "r", "i", "z")
LABELS = ("teff", "logg", "feh")
KINDS = ("wrong match", "white dwarf", "quasar", "distance", "reddening", "binary")
TARGET_STARS = 1_000_000
INJECTED = 20_000
TRUTH = ("source_id", "component", "is_binary", "mass_ratio", "is_contaminant", *LABELS, "weight", "G_true")
_WAVELENGTH_NM = {"u": 349.0, "v": 384.0, "g": 510.0, "r": 617.0, "i": 779.0, "z": 916.0}
_GAIA_NM = {"g": 622.0, "bp": 511.0, "rp": 777.0}
_VEGA_MINUS_AB = {"g": -0.114, "bp": -0.016, "rp": -0.356}  # differences of Gaia EDR3's zero points
_SUN_RADIUS_CM, _PARSEC_CM = 6.957e10, 3.0857e18


@dataclass(frozen=True)
class Stars:
    """Features (n, k), true parameters (n, 3), and columns by name, each (n,)."""

    features: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float64]
    more: pd.DataFrame

    def take(self, rows: npt.NDArray[np.generic]) -> Stars:
        """Return some stars, by mask or by index."""
        return Stars(self.features[rows], self.truth[rows], self.more.iloc[np.arange(len(self.more))[rows]])


@dataclass(frozen=True)
class Sky:
    """Labelled stars that pass every cut, in a random order of their own, and a sample of all that do."""

    spec: FeatureFile
    labelled: Stars
    labels: npt.NDArray[np.float64]
    label_errors: npt.NDArray[np.float64]
    repeats: npt.NDArray[np.float64]
    repeat_errors: npt.NDArray[np.float64]
    target: Stars
    injected: dict[str, Stars]

    def table(
        self, rows: npt.NDArray[np.integer], part: npt.NDArray[np.str_], *, noiseless: bool = False
    ) -> pa.Table:
        """Return a training table of labelled stars; `noiseless` gives them their true parameters."""
        columns = {"source_id": self.labelled.more["source_id"].to_numpy()[rows]}
        columns |= dict(zip(self.spec.feature_names, self.labelled.features[rows].T, strict=True))
        for j, name in enumerate(LABELS):
            columns[name] = (self.labelled.truth if noiseless else self.labels)[rows, j]
            if not noiseless:
                columns[f"e_{name}"] = self.label_errors[rows, j]
                columns[f"repeat_{name}"] = self.repeats[rows, j]
                columns[f"e_repeat_{name}"] = self.repeat_errors[rows, j]
        return pa.table({**columns, "split": pa.array(part)})

    def target_table(self) -> pa.Table:
        """Return the features of a sample of 100,000 stars that are to be labelled."""
        chosen = np.random.default_rng(5).choice(len(self.target.features), 100_000, replace=False)
        return pa.table(dict(zip(self.spec.feature_names, self.target.features[chosen].T, strict=True)))


def load_sky(root: Path) -> Sky:
    """Read what `prepare` keeps, preparing it first if need be."""
    folder = root / "bench"
    if not (folder / "injected.parquet").exists():
        prepare(root, folder)
    spec = load_feature_file("paper")
    truth = pq.read_table(root / "truth" / "gaia_truth.parquet", columns=list(TRUTH)).to_pandas()
    truth = truth.set_index("source_id").sort_index()
    training = load_training_set(root / "lake" / "training")
    order = np.random.default_rng(3).permutation(training.num_rows)
    training = training.take(pa.array(order))
    labelled = _stars(training, spec, truth)
    target = pq.read_table(folder / "target.parquet")
    injected = pq.read_table(folder / "injected.parquet")
    kinds = injected["kind"].to_pandas().to_numpy()
    return Sky(
        spec,
        labelled,
        _columns(training, LABELS),
        _columns(training, [f"e_{n}" for n in LABELS]),
        _columns(training, [f"repeat_{n}" for n in LABELS]),
        _columns(training, [f"e_repeat_{n}" for n in LABELS]),
        _stars(target, spec, truth),
        {kind: _stars(injected.filter(pa.array(kinds == kind)), spec, truth) for kind in KINDS},
    )


def new_measurement(truth: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Return labels as the simulator's spectroscopy would measure them, of the right star, (n, 3)."""
    draw = np.random.default_rng(seed)
    core = np.array([CORE[name] for name in LABELS])
    return np.asarray(truth + core * draw.standard_t(STUDENT_NU, truth.shape))


def prepare(root: Path, folder: Path) -> None:
    """Compute the features of a sample of all stars that pass every cut, and of what is injected."""
    from pyspark.sql import functions as sf

    from stellarml.features.spark_columns import feature_columns
    from stellarml.run.spark_session import start_session

    config = sky_config(root)
    spec = load_feature_file(config.feature_file)
    spark = start_session(config.spark)
    matched = read_leaves(spark, root / "lake" / "matched")
    features = feature_columns(spec, matched.columns)
    kept = ("source_id", "phot_g_mean_mag", "ebmv_sfd", "ra", "dec")
    own = [sf.col(n).cast("float").alias(n) if n == "ebmv_sfd" else sf.col(n) for n in kept]
    folder.mkdir(exist_ok=True)
    stars = matched.where(passes_all_cuts(matched))
    total = stars.count()
    sample = stars.where(
        sf.pmod(sf.xxhash64("source_id"), sf.lit(1_000_003)) < 1_000_003 * TARGET_STARS / total
    )
    pq.write_table(sample.select(*own, *features).toArrow(), folder / "target.parquet")
    clean = stars.where(
        sf.pmod(sf.xxhash64("source_id", sf.lit(7)), sf.lit(1_000_003)) < 1_000_003 * 6 * INJECTED / total
    )
    rows = clean.orderBy("_healpix_29").toPandas()
    truth = pq.read_table(
        root / "truth" / "gaia_truth.parquet", columns=["source_id", "component", "mass_ratio"]
    )
    truth = truth.to_pandas().set_index("source_id")
    quasars = truth.index[truth["component"] == "quasar"].to_numpy()
    found = spark.createDataFrame(pd.DataFrame({"source_id": quasars})).join(matched, "source_id").toPandas()
    ratio = truth["mass_ratio"].reindex(rows["source_id"]).to_numpy()
    parts = []
    for kind, table in inject(rows, found.head(INJECTED), ratio).items():
        frame = spark.createDataFrame(pa.Table.from_pandas(table, schema=None, preserve_index=False))
        told = frame.select(*own, *features).toArrow()
        parts.append(told.append_column("kind", pa.array([kind] * told.num_rows)))
    pq.write_table(pa.concat_tables(parts), folder / "injected.parquet")
    spark.stop()


def inject(
    rows: pd.DataFrame, quasars: pd.DataFrame, mass_ratio: npt.NDArray[np.float64]
) -> dict[str, pd.DataFrame]:
    """Return the rows of each kind with their columns changed; `rows` are clean stars in the order of the sky."""
    draw = np.random.default_rng(17)
    block = np.array_split(draw.permutation(len(rows))[: 4 * INJECTED], 4)
    photometry = [f"{start}{b}_psf" for b in BANDS for start in ("", "e_")]

    wrong = rows.iloc[block[0]].copy()
    step = draw.integers(20, 200, len(wrong)) * draw.choice([-1, 1], len(wrong))
    other = rows.iloc[(block[0] + step) % len(rows)]
    wrong[photometry] = other[photometry].to_numpy()

    distance = rows.iloc[block[2]].copy()
    distance["r_med_geo"] *= draw.choice([1 / 1.3, 1.3], len(distance)).astype(np.float32)

    dusty = rows[rows["ebmv_sfd"] > 0.1].head(INJECTED).copy()
    dusty["ebmv_sfd"] *= 3
    return {
        "wrong match": wrong,
        "white dwarf": _white_dwarfs(rows.iloc[block[1]].copy(), draw),
        "quasar": quasars[rows.columns],
        "distance": distance,
        "reddening": dusty,
        "binary": rows[mass_ratio > 0.7].head(INJECTED),
    }


def _white_dwarfs(rows: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    n = len(rows)
    teff = np.exp(draw.uniform(np.log(7000), np.log(25_000), n))
    radius = draw.uniform(0.009, 0.013, n)
    distance = 30 + 120 * draw.random(n) ** (1 / 3)

    def magnitude(nanometres: float) -> npt.NDArray[np.float64]:
        """Return AB magnitudes of black bodies: pi B_nu (R / d)^2, in erg/s/cm2/Hz."""
        wavelength = nanometres * 1e-7
        planck = 3.97289e-16 / wavelength**3 / np.expm1(1.438777 / wavelength / teff)
        flux = np.pi * planck * (radius * _SUN_RADIUS_CM / (distance * _PARSEC_CM)) ** 2
        return np.asarray(-2.5 * np.log10(flux) - 48.6, dtype=np.float64)

    for band, nanometres in _WAVELENGTH_NM.items():
        rows[f"{band}_psf"] = (magnitude(nanometres) + 0.02 * draw.normal(size=n)).astype(np.float32)
    for band, nanometres in _GAIA_NM.items():
        rows[f"phot_{band}_mean_mag"] = (magnitude(nanometres) + _VEGA_MINUS_AB[band]).astype(np.float32)
    rows["r_med_geo"] = distance.astype(np.float32)
    rows["parallax"], rows["parallax_error"] = 1000 / distance, np.float32(0.05)
    rows["teff_gspphot"] = np.minimum(teff, 15_000).astype(np.float32)
    rows["logg_gspphot"] = np.float32(5.2)
    without = draw.random(n) < 0.5
    for name in rows.columns:
        if "gspphot" in name:
            rows.loc[without, name] = np.nan
    return rows


def _stars(table: pa.Table, spec: FeatureFile, truth: pd.DataFrame) -> Stars:
    more = table.select(
        [n for n in ("source_id", "phot_g_mean_mag", "ebmv_sfd", "ra", "dec") if n in table.column_names]
    )
    frame = more.to_pandas()
    found = truth.reindex(frame["source_id"].to_numpy())
    for name in ("component", "is_binary", "is_contaminant", "weight", "G_true"):
        frame[name] = found[name].to_numpy()
    return Stars(
        _columns(table, spec.feature_names).astype(np.float32),
        found[list(LABELS)].to_numpy(np.float64),
        frame,
    )


def _columns(table: pa.Table, names: list[str] | tuple[str, ...]) -> npt.NDArray[np.float64]:
    absent = np.full(table.num_rows, np.nan)
    return np.column_stack(
        [table[n].to_numpy().astype(np.float64) if n in table.column_names else absent for n in names]
    )
