"""Other learners on the simulated sky, on the rows that the default model has, errors counted by natural weights.

Each learner and fold is kept in a file of its own. A fold has 200,000 training stars that no other has; validation
and test stars are the same for all, and calibration stars are kept from every learner. Trees get colours beside
magnitudes, as they cannot take differences. GSP-Phot's own labels are taken as they are, where there are any.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from bench_model import GSPPHOT, LEARNERS
from peers.client import Peer
from sky_data import LABELS, Sky
from sky_fits import TRAINED, VALIDATED, Found, Rows, fit, places, summary, tested

from stellarml.features.split import TRAIN
from stellarml.model.bundle import load_bundle
from stellarml.model.predictor import Predictor

COMPARED = 200_000
FOLDS = int(os.environ.get("BENCH_FOLDS", "1"))
BANDS = ("u", "v", "g", "r", "i", "z")
BOOTSTRAPS, BLOCKS = 200, 200


def learners_part(sky: Sky, folder: Path, preset: str) -> Found:
    """MAD, MAE and standard deviation of every learner; the ratio of the preset to the best other, with its sigma."""
    kept = folder / "learners"
    kept.mkdir(exist_ok=True)
    order = ("GSP-Phot", preset, "ridge", "LightGBM", "XGBoost", "SVR", "random forest", "paper")
    wanted = os.environ.get("BENCH_LEARNERS", ",".join(order)).split(",")
    for fold in range(FOLDS):
        for learner in wanted:
            path = kept / f"{learner.replace(' ', '_')}-fold{fold}.npz"
            if not path.exists():
                started = perf_counter()
                found = _predictions(sky, folder, learner, fold, preset)
                np.savez(path, found=found, seconds=perf_counter() - started)
                sys.stderr.write(f"{learner} fold {fold}: {perf_counter() - started:.0f} s\n")
    files = {name: sorted(kept.glob(f"{name.replace(' ', '_')}-fold*.npz")) for name in order}
    return _compared(
        sky, {name: [np.load(p)["found"] for p in paths] for name, paths in files.items()}, preset
    )


def _predictions(sky: Sky, folder: Path, learner: str, fold: int, preset: str) -> npt.NDArray[np.float32]:
    rows, part = places()
    rows = np.where(part == TRAIN, rows + fold * TRAINED, rows)
    features, test = sky.labelled.features, tested(COMPARED)
    if learner == "GSP-Phot":
        at = [sky.spec.feature_names.index(GSPPHOT[name]) for name in LABELS]
        return features[np.ix_(test, at)]
    if learner not in LEARNERS:
        main = learner == preset and fold == 0
        bundle = fit(
            sky, folder, "bundle-main" if main else f"bundle-{learner}-fold{fold}", learner, rows, part,
            checkpoints=folder / "checkpoints" / f"{learner}-fold{fold}",
        )  # fmt: skip
        found = Predictor(load_bundle(bundle)).label(features[test])
        return np.stack([found[name] for name in LABELS], axis=1)
    inputs = _with_colours(sky, features)
    threads = int(os.environ.get("BENCH_THREADS", "2"))
    columns = []
    with Peer("learners", "run_learners.py", folder / "learners") as peer:
        for j, name in enumerate(LABELS):
            request = {"learner": learner, "seed": fold, "threads": threads}
            request |= {"data": str(folder / f"rows-{os.getpid()}.npz")}
            request |= {"out": str(folder / f"found-{os.getpid()}.npy")}
            valid, train = rows[:VALIDATED], rows[part == TRAIN]
            np.savez(
                request["data"], test_x=inputs[test], train_x=inputs[train], validation_x=inputs[valid],
                train_y=sky.labels[train, j], validation_y=sky.labels[valid, j],
            )  # fmt: skip
            told = peer.ask(request)
            sys.stderr.write(f"  {learner} {name}: {told['chosen']}, {told['seconds']:.0f} s\n")
            columns.append(np.load(request["out"]))
    Path(request["data"]).unlink()
    Path(request["out"]).unlink()
    return np.stack(columns, axis=1)


def _with_colours(sky: Sky, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    names = sky.spec.feature_names
    pairs = [(f"{a}abs", f"{b}abs") for a, b in pairwise(BANDS)]
    pairs += [(f"{a}abs_nored", f"{b}abs_nored") for a, b in pairwise(BANDS)]
    colours = [features[:, names.index(a)] - features[:, names.index(b)] for a, b in pairs]
    return np.column_stack([features, *colours])


def _compared(sky: Sky, found: dict[str, list[npt.NDArray[np.float32]]], preset: str) -> Found:
    rows: Rows = tested(COMPARED)
    label, weight = sky.labels[rows], sky.labelled.more["weight"].to_numpy()[rows]
    told: Found = {}
    for j, name in enumerate(LABELS):
        table: Found = {}
        errors = {k: [f[:, j].astype(np.float64) - label[:, j] for f in folds] for k, folds in found.items()}
        for learner, folds in errors.items():
            pooled = np.concatenate(folds) if folds else np.empty(0)
            known = np.isfinite(pooled)
            if known.any():
                weights = np.tile(weight, len(folds))[known]
                table[learner] = {
                    **summary(pooled[known], weights), "folds": len(folds), "share": float(known.mean())
                }  # fmt: skip
        others = [k for k in table if k not in (preset, "GSP-Phot")]
        if preset in table and others:
            best = min(others, key=lambda k: table[k]["mad"])
            table["ratio"] = {
                "to": best,
                "ratio": table[preset]["mad"] / table[best]["mad"],
                "sigma": _sigma(errors[preset], errors[best], weight),
            }
        told[name] = table
    return told


def _sigma(
    ours: list[npt.NDArray[np.float64]],
    theirs: list[npt.NDArray[np.float64]],
    weight: npt.NDArray[np.float64],
) -> float:
    """Spread of the ratio of MADs over folds and blocks of test stars drawn anew, the same for both."""
    draw = np.random.default_rng(0)
    folds = min(len(ours), len(theirs))
    blocks = np.array_split(np.arange(len(weight)), BLOCKS)
    ratios = []
    for _ in range(BOOTSTRAPS):
        stars = np.concatenate([blocks[b] for b in draw.integers(0, BLOCKS, BLOCKS)])
        drawn = draw.integers(0, folds, folds)
        mads = [
            summary(np.concatenate([e[k][stars] for k in drawn]), np.tile(weight[stars], folds))["mad"]
            for e in (ours, theirs)
        ]
        ratios.append(mads[0] / mads[1])
    return float(np.std(ratios))
