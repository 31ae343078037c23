"""Which rows of the simulated sky are for what, fits that are kept, and the figures that all parts share."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sky_data import LABELS, Sky

from stellarml.core.config import Split, load_config
from stellarml.features.split import CALIBRATION, TRAIN, VALIDATION
from stellarml.model.predictor import Predictor
from stellarml.training.fit import Task, train
from stellarml.training.watch import Watch

TRAINED, VALIDATED, CALIBRATED, TESTED = 200_000, 20_000, 60_000, 1_000_000
CELL_STARS = 5000
GIANT_LOGG = 3.5
FEH_EDGES = (-9.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 1.0)
THREADS = int(os.environ.get("BENCH_THREADS", "2"))
SPLIT = Split(salt="bench", validation=0.1, calibration=0.1, test=0.1)
Rows = npt.NDArray[np.integer]
Found = dict[str, Any]


def fit(
    sky: Sky, folder: Path, name: str, preset: str, rows: Rows, part: npt.NDArray[np.str_], **more: Any
) -> Path:
    """Train a model of some rows, unless it is there; return its bundle."""
    if (folder / name / "bundle.json").exists():
        return folder / name
    noiseless, blank = more.pop("noiseless", False), more.pop("blank", ())
    table = sky.table(rows, part, noiseless=noiseless)
    for column in blank:
        at = table.schema.get_field_index(column)
        table = table.set_column(at, column, pa.nulls(table.num_rows, pa.float32()))
    chosen = {"preset": preset, "seed": more.pop("seed", 0), "threads": THREADS}
    settings = load_config(overrides=[f"train.{key}={value}" for key, value in chosen.items()]).train
    started = perf_counter()

    def tell(line: str) -> None:
        sys.stderr.write(f"{name} {perf_counter() - started:.0f} s: {line}\n")

    task = Task(sky.spec, settings, SPLIT, more.pop("preset", None))
    watch = Watch(tell, more.pop("checkpoints", None), more.pop("logs", None))
    return train(table, task, folder / name, watch=watch, **more)


def places(trained: int = TRAINED) -> tuple[Rows, npt.NDArray[np.str_]]:
    """Return rows of the labelled stars and their parts: calibration and validation first, training after the test."""
    held = VALIDATED + CALIBRATED
    first = np.arange(held)
    begin = held + TESTED if trained <= TRAINED else held + 50_000
    rows = np.concatenate([first, np.arange(begin, begin + trained)])
    part = np.where(rows < VALIDATED, VALIDATION, np.where(rows < held, CALIBRATION, TRAIN))
    return rows, part


def tested(most: int = TESTED) -> Rows:
    """Return the first rows of the test part; 50,000 of them are in no training part of any size."""
    begin = VALIDATED + CALIBRATED
    return np.arange(begin, begin + most)


def summary(
    error: npt.NDArray[np.float64], weight: npt.NDArray[np.float64] | None = None
) -> dict[str, float]:
    """MAD (1.4826 x), MAE, standard deviation and median of errors, each row counted by its weight."""
    w = np.ones(len(error)) if weight is None else weight
    order = np.argsort(error)
    middle = error[order][np.searchsorted(np.cumsum(w[order]), 0.5 * w.sum())]
    size = np.abs(error - middle)
    order = np.argsort(size)
    mean = float(np.average(error, weights=w))
    return {
        "median": float(middle),
        "mad": 1.4826 * float(size[order][np.searchsorted(np.cumsum(w[order]), 0.5 * w.sum())]),
        "mae": float(np.average(np.abs(error), weights=w)),
        "std": float(np.sqrt(np.average((error - mean) ** 2, weights=w))),
    }


def predictions(predictor: Predictor, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the labels of stars, (n, 3)."""
    found = predictor.label(features)
    return np.stack([found[name] for name in LABELS], axis=1).astype(np.float64)


def cells_of(
    truth: npt.NDArray[np.float64], predicted_feh: npt.NDArray[np.float64], g: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which stars are dwarfs, giants, bright, faint, and metal-poor by truth and by prediction."""
    giant = truth[:, 1] < GIANT_LOGG
    cells = {"all": np.ones(len(g), bool), "dwarfs": ~giant, "giants": giant}
    cells |= {"G < 13": g < 13, "G 13 to 15": (g >= 13) & (g < 15), "G > 15": g >= 15}
    for by, feh in (("true", truth[:, 2]), ("predicted", predicted_feh)):
        for low, high in pairwise(FEH_EDGES):
            cells[f"{by} [Fe/H] {low:g} to {high:g}"] = (feh >= low) & (feh < high)
    return cells


def mae_in(
    chosen: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.float64],
    predicted: dict[str, npt.NDArray[np.float64]],
) -> Found:
    """Mean absolute errors of every estimate of some stars, and how many these are; of fewer than 20 none."""
    told: Found = {"n": int(chosen.sum())}
    if told["n"] >= 20:
        for title, found in predicted.items():
            mae = np.abs(found - truth)[chosen].mean(axis=0)
            told[title] = dict(zip(LABELS, mae.tolist(), strict=True))
    return told


def metal_poor(
    prediction: npt.NDArray[np.float64], label: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]
) -> list[Found]:
    """Bias and MAD of [Fe/H] in bins of metal-poor stars, by label, truth and prediction, and the slope."""
    bins = [(-1.5, -1.0), (-2.0, -1.5), (-2.5, -2.0), (-9.0, -2.5)]
    told = []
    for by, axis in (("label", label), ("truth", truth), ("prediction", prediction)):
        for low, high in bins:
            chosen = (axis >= low) & (axis < high)
            if chosen.sum() < 30:
                told.append({"by": by, "low": low, "high": high, "n": int(chosen.sum())})
                continue
            error = (prediction - (label if by == "label" else truth))[chosen]
            slope = float(np.polyfit(axis[chosen], error, 1)[0])
            told.append(
                {"by": by, "low": low, "high": high, "n": int(chosen.sum()), **summary(error), "slope": slope}
            )
    return told


def by_cells(
    inside: npt.NDArray[np.bool_],
    cells: dict[str, npt.NDArray[np.integer]],
    level: int,
    worst: list[Found],
    name: str,
) -> Found:
    """How many cells of at least 5,000 stars are within max(3 points, 4 standard errors); adds those that are not."""
    checked = failed = 0
    combined = {**cells, "all four": sum(cells[k].astype(np.int64) * 100**n for n, k in enumerate(cells))}
    for axis, index in combined.items():
        kinds, place, counts = np.unique(index, return_inverse=True, return_counts=True)
        shares = np.bincount(place, weights=inside) / counts
        for kind, share, n in zip(kinds, shares, counts, strict=True):
            if n < CELL_STARS:
                continue
            checked += 1
            allowed = max(0.03, 4 * float(np.sqrt(level / 100 * (1 - level / 100) / n)))
            off = abs(float(share) - level / 100)
            if off > allowed:
                failed += 1
                worst.append(
                    {"label": name, "level": level, "axis": axis, "cell": int(kind), "n": int(n), "off": off}
                )
    return {"checked": checked, "failed": failed}


def share_of(inside: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_]) -> float | None:
    return float(inside[chosen].mean()) if chosen.sum() > 500 else None


def auroc(strange: npt.NDArray[np.float64], usual: npt.NDArray[np.float64]) -> float:
    """Chance that a stranger's score exceeds a usual star's."""
    ranks = np.searchsorted(np.sort(usual), strange)
    return float(ranks.mean() / len(usual))
