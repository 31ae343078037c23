"""What a simulated sky, where truth is known, says of the default model: each part is kept, and not done twice.

``main``: 200,000 training stars, 20,000 validation, 60,000 calibration; everything below is measured on a million
others, drawn like the labelled stars, unless another sample is named. ``coverage``: intervals for labels and for true
parameters, overall and in cells. ``weighted``: the same networks, intervals made for all stars that pass the cuts, new
measurements of them simulated. ``flags``: what is injected (`sky_data`), how well it is told from clean stars.
``missing``: bands taken away, against a model trained without them. ``limit``: a million labels, and two million
noiseless ones. ``cost``: seconds of the presets for 624,410 rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from match_data import default_folder
from model_data import make_sky
from sky_data import BANDS, LABELS, Sky, load_sky, new_measurement

from stellarml.config import Split, load_config
from stellarml.flags import QualityFlag
from stellarml.model import load_bundle
from stellarml.parts import CALIBRATION, TRAIN, VALIDATION
from stellarml.predictor import Predictor
from stellarml.training import train

STARS = 9_200_000
TRAINED, VALIDATED, CALIBRATED, TESTED = 200_000, 20_000, 60_000, 1_000_000
LEVELS = (68, 90, 95)
CELL_STARS = 5000
STRANGER = QualityFlag.OUTSIDE_JOINTLY | QualityFlag.COLOURS_DISAGREE
CATASTROPHE = {"teff": 500.0, "logg": 1.0, "feh": 1.0}
MIX = {"wrong match": 0.5, "white dwarf": 0.25, "distance": 0.15, "reddening": 0.1}
Rows = npt.NDArray[np.integer]
Found = dict[str, Any]


def main() -> None:
    """Do every part that is not there yet; print all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stars", type=int, default=STARS, help="simulated Gaia sources")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--data", type=Path, default=default_folder().with_name("bench_model"))
    parser.add_argument("--preset", default="default")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    sky = load_sky(make_sky(options.data, options.stars))
    folder = options.data / f"sky-parts-{options.stars}-{options.preset}"
    folder.mkdir(exist_ok=True)
    for name in options.parts.split(","):
        path = folder / f"{name}.json"
        if not path.exists():
            started = perf_counter()
            told = PARTS[name](sky, folder, options.preset)
            path.write_text(json.dumps({**told, "seconds": perf_counter() - started}, indent=1))
        sys.stdout.write(f"\n{name}: {path.read_text()}\n")
        sys.stdout.flush()


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
    settings = load_config(overrides=[f"train.preset={preset}", f"train.seed={more.pop('seed', 0)}"]).train
    split = Split(salt="bench", validation=0.1, calibration=0.1, test=0.1)
    started = perf_counter()

    def tell(line: str) -> None:
        sys.stderr.write(f"{name} {perf_counter() - started:.0f} s: {line}\n")

    more.setdefault("provenance", {})
    return train(table, sky.spec, settings, split, folder, model_id=name, progress=tell, **more)


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


def main_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Fit, predict the test part, keep the predictions; errors against labels and truth, with and without weights."""
    rows, part = places()
    predictor = Predictor(
        load_bundle(fit(sky, folder, "bundle-main", preset, rows, part, checkpoints=folder / "checkpoints"))
    )
    test = sky.labelled.take(tested())
    ebv = test.more["ebmv_sfd"].to_numpy()
    arrays: dict[str, npt.NDArray[Any]] = {}
    for level in LEVELS:
        found = predictor.label(test.features, level, ebv, truth=True)
        arrays |= {f"{k}_{level}" if k.endswith(("_lo", "_hi")) else k: v for k, v in found.items()}
    np.savez(folder / "main.npz", **arrays)
    prediction = np.stack([arrays[n] for n in LABELS], axis=1).astype(np.float64)
    label, weight = sky.labels[tested()], test.more["weight"].to_numpy()
    told: Found = {"rows": len(label)}
    right = test.more["is_contaminant"].to_numpy() == 0
    for j, name in enumerate(LABELS):
        against_label, against_truth = prediction[:, j] - label[:, j], (prediction - test.truth)[right, j]
        told[name] = {
            "label": summary(against_label),
            "label, natural weights": summary(against_label, weight),
            "truth": summary(against_truth),
        }
    told["metal-poor"] = metal_poor(prediction[right, 2], label[right, 2], test.truth[right, 2])
    return told


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


def coverage_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Shares of labels and of true parameters inside their intervals, overall and in cells."""
    found = dict(np.load(folder / "main.npz"))
    test, label = sky.labelled.take(tested()), sky.labels[tested()]
    missing = ~np.isfinite(test.features)
    masks = np.unique(missing, axis=0, return_inverse=True)[1].ravel()
    told: Found = {"overall": {}, "truth": {}, "cells": {}, "worst": []}
    right = test.more["is_contaminant"].to_numpy() == 0
    edges = {
        "G": np.array([12.0, 13.0, 14.0, 15.0, 16.0]),
        "E(B-V)": np.array([0.02, 0.05, 0.1, 0.2, 0.4]),
    }
    axes = {
        "G": test.more["phot_g_mean_mag"].to_numpy(),
        "E(B-V)": test.more["ebmv_sfd"].to_numpy(),
    }
    for j, name in enumerate(LABELS):
        cells = {k: np.searchsorted(edges[k], axes[k]) for k in edges} | {"mask": masks}
        cells["predicted"] = np.searchsorted(np.quantile(found[name], np.arange(1, 10) / 10), found[name])
        for level in LEVELS:
            inside = (label[:, j] >= found[f"{name}_lo_{level}"]) & (
                label[:, j] <= found[f"{name}_hi_{level}"]
            )
            true = (test.truth[:, j] >= found[f"{name}_true_lo_{level}"]) & (
                test.truth[:, j] <= found[f"{name}_true_hi_{level}"]
            )
            told["overall"][f"{name} {level}"] = float(inside.mean())
            told["truth"][f"{name} {level}"] = {
                "all": float(true.mean()),
                "right star": float(true[right].mean()),
                "width against the label's": float(
                    np.median(found[f"{name}_true_hi_{level}"] - found[f"{name}_true_lo_{level}"])
                    / np.median(found[f"{name}_hi_{level}"] - found[f"{name}_lo_{level}"])
                ),
            }
            told["cells"][f"{name} {level}"] = by_cells(inside, cells, level, told["worst"], name)
    told["worst"] = sorted(told["worst"], key=lambda c: -c["off"])[:12]
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


def weighted_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Coverage of new measurements of all stars that pass the cuts, by G, flagged and not, weighted and not."""
    rows, part = places()
    told: Found = {}
    labels = new_measurement(sky.target.truth, seed=4)
    known = np.isfinite(labels).all(axis=1)
    g = sky.target.more["phot_g_mean_mag"].to_numpy()
    bins = np.searchsorted(np.array([14.0, 15.0, 16.0, 17.0, 18.0]), g)
    for kind, target in (("unweighted", None), ("weighted", sky.target_table())):
        bundle = fit(
            sky, folder, f"bundle-{'main' if target is None else kind}", preset, rows, part,
            checkpoints=folder / "checkpoints", target=target,
        )  # fmt: skip
        found = Predictor(load_bundle(bundle)).label(
            sky.target.features, 68, sky.target.more["ebmv_sfd"].to_numpy()
        )
        thin = (found["quality_flags"] & QualityFlag.THIN_CALIBRATION) != 0
        clean = found["quality_flags"] == 0
        for j, name in enumerate(LABELS):
            inside = (labels[:, j] >= found[f"{name}_lo"]) & (labels[:, j] <= found[f"{name}_hi"])
            for b in range(6):
                chosen = known & (bins == b)
                told[f"{kind} {name} G bin {b}"] = {
                    "n": int(chosen.sum()),
                    "all": _share(inside, chosen),
                    "not thin": _share(inside, chosen & ~thin),
                    "no flag": _share(inside, chosen & clean),
                    "thin": _share(thin, chosen),
                }
            told[f"{kind} {name}"] = {
                "all": _share(inside, known),
                "not thin": _share(inside, known & ~thin),
                "no flag": _share(inside, known & clean),
                "thin": _share(thin, known),
            }
    return told


def _share(inside: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_]) -> float | None:
    return float(inside[chosen].mean()) if chosen.sum() > 500 else None


def flags_part(sky: Sky, folder: Path, preset: str) -> Found:
    """AUROC of the distances of strangers, shares flagged, and catastrophic errors with and without the flags."""
    predictor = Predictor(load_bundle(folder / "bundle-main"))
    clean = sky.labelled.take(tested(200_000))
    limits = np.asarray(predictor.manifest.novelty.limits)

    def scores(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return (predictor.novelty(features) - limits).max(axis=1)

    usual = scores(clean.features)
    limit = np.percentile(usual, 98)
    told: Found = {
        "clean flagged": float((predictor.label(clean.features)["quality_flags"] & STRANGER != 0).mean())
    }
    wrong = caught = 0.0
    for kind, stars in sky.injected.items():
        found, score = predictor.label(stars.features), scores(stars.features)
        error = np.stack(
            [np.abs(found[n] - stars.truth[:, j]) > CATASTROPHE[n] for j, n in enumerate(LABELS)]
        )
        catastrophic = error.any(axis=0)
        told[kind] = {
            "n": len(score),
            "auroc": auroc(score, usual),
            "flagged": float((found["quality_flags"] & STRANGER != 0).mean()),
            "any flag": float((found["quality_flags"] != 0).mean()),
            "at 2 % of clean stars": float((score > limit).mean()),
            "catastrophic": float(catastrophic.mean()),
        }
        if kind in MIX:
            wrong += MIX[kind] * float(catastrophic.mean())
            caught += MIX[kind] * float((catastrophic & (score > limit)).mean())
    told["mix"] = MIX
    told["catastrophic errors of the mix removed at 2 % of clean stars"] = caught / wrong
    return told


def auroc(strange: npt.NDArray[np.float64], usual: npt.NDArray[np.float64]) -> float:
    """Chance that a stranger's score exceeds a usual star's."""
    ranks = np.searchsorted(np.sort(usual), strange)
    return float(ranks.mean() / len(usual))


def missing_part(sky: Sky, folder: Path, preset: str) -> Found:
    """MAD without a band, of the one model and of a model that was trained for exactly that pattern."""
    rows, part = places()
    general = Predictor(load_bundle(folder / "bundle-main"))
    test, label = sky.labelled.take(tested(200_000)), sky.labels[tested(200_000)]
    told: Found = {}
    for bands in (*BANDS, "uv"):
        name = f"bundle-without-{bands}"
        gone = [f"{b}{kind}" for b in bands for kind in ("abs", "abs_nored")]
        at = [sky.spec.feature_names.index(n) for n in gone]
        special = Predictor(load_bundle(fit(sky, folder, name, preset, rows, part, blank=gone)))
        features = test.features.copy()
        features[:, at] = np.nan
        row = {}
        for j, n in enumerate(LABELS):
            both = [
                summary(p.label(features)[n].astype(np.float64) - label[:, j])["mad"]
                for p in (general, special)
            ]
            row[n] = {"one model": both[0], "own model": both[1], "ratio": both[0] / both[1]}
        told[bands] = row
        sys.stderr.write(f"without {bands}: {row}\n")
    return told


def limit_part(sky: Sky, folder: Path, preset: str) -> Found:
    """The same network with two million noiseless labels; and with a million noisy ones; MAE against the truth."""
    most = min(2_000_000, len(sky.labels) - VALIDATED - CALIBRATED - 50_000)
    bundles = {
        "200,000 labels": folder / "bundle-main",
        "1,000,000 labels": fit(sky, folder, "bundle-million", preset, *places(1_000_000)),
        f"{most:,} noiseless": fit(sky, folder, "bundle-limit", preset, *places(most), noiseless=True),
    }
    test = sky.labelled.take(tested(50_000))
    told: Found = {}
    for kind, bundle in bundles.items():
        found = Predictor(load_bundle(bundle)).label(test.features)
        for j, name in enumerate(LABELS):
            told[f"{kind} {name}"] = summary(found[name].astype(np.float64) - test.truth[:, j])
    for name in LABELS:
        limit = told[f"{most:,} noiseless {name}"]["mae"]
        for kind in list(bundles)[:2]:
            told[f"{kind} {name} against the limit"] = told[f"{kind} {name}"]["mae"] / limit
    return told


def cost_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Seconds and memory of the presets for the paper's number of rows; when `default` reaches `paper`'s best."""
    held = VALIDATED + CALIBRATED
    rows = np.arange(held + round(624_410 * 0.72))
    part = np.where(rows < VALIDATED, VALIDATION, np.where(rows < held, CALIBRATION, TRAIN))
    told: Found = {}
    for name in ("default", "paper"):
        shutil.rmtree(folder / f"bundle-cost-{name}", ignore_errors=True)
        lines: list[tuple[float, str]] = []
        started = perf_counter()
        settings = load_config(overrides=[f"train.preset={name}"]).train
        split = Split(salt="bench", validation=0.1, calibration=0.1, test=0.1)

        def tell(
            line: str, started: float = started, lines: list[tuple[float, str]] = lines, name: str = name
        ) -> None:
            lines.append((perf_counter() - started, line))
            sys.stderr.write(f"{name} {lines[-1][0]:.0f} s: {line}\n")

        bundle = train(
            sky.table(rows, part), sky.spec, settings, split, folder,
            model_id=f"bundle-cost-{name}", provenance={}, progress=tell,
        )  # fmt: skip
        manifest = load_bundle(bundle).manifest
        told[name] = {
            "seconds": perf_counter() - started,
            "epochs": [len(n.curve.epoch) for n in manifest.networks],
            "best validation MAE (sd)": {
                ",".join(n.outputs): min(n.curve.val_mae) for n in manifest.networks
            },
            "peak memory (GiB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "lines": lines,
        }
    return told


PARTS: dict[str, Callable[[Sky, Path, str], Found]] = {
    "main": main_part,
    "coverage": coverage_part,
    "weighted": weighted_part,
    "flags": flags_part,
    "limit": limit_part,
    "missing": missing_part,
    "cost": cost_part,
}

if __name__ == "__main__":
    main()
