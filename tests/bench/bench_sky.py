"""What a simulated sky, where truth is known, says of the default model: each part is kept, and not done twice.

``main``: 200,000 training stars, 20,000 validation, 60,000 calibration; everything below is measured on a million
others, drawn like the labelled stars, unless another sample is named. ``coverage``: intervals for labels and for true
parameters, overall and in cells. ``unseen``: the same for all labelled stars beyond those, on which nothing was ever
chosen. ``weighted``: the model that the chain makes, for all stars that pass the cuts and that it has not learnt from,
new measurements of them simulated. ``flags``: what is injected (`sky_data`), how well it is told from clean stars,
labelled ones and all that pass the cuts.
``learners``: other learners on the same rows. ``missing``: bands taken away from the chain's model, against a model
trained without them. ``limit``: a million labels, and two million noiseless ones. ``posterior``: the best that could be
done with all that was measured of single stars. ``blocks``: split by blocks of the sky. ``zero points``: offsets of
SkyMapper's u and v left in. ``cost``: seconds of the presets for 624,410 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from match_data import default_folder
from model_data import make_sky
from sky_cost import cost_part
from sky_data import BANDS, LABELS, Sky, Stars, load_sky, new_measurement
from sky_fits import Found, Rows, auroc, by_cells, fit, metal_poor, places, share_of, summary, tested
from sky_learners import learners_part
from sky_limits import blocks_part, limit_part, posterior_part, zero_points_part

from stellarml.core.quality_flags import QualityFlag
from stellarml.model.bundle import load_bundle
from stellarml.model.predictor import Predictor
from stellarml.run.code import code_identity

STARS = 9_200_000
LEVELS = (68, 90, 95)
STRANGER = QualityFlag.OUTSIDE_JOINTLY | QualityFlag.COLOURS_DISAGREE
CATASTROPHE = {"teff": 500.0, "logg": 1.0, "feh": 1.0}
MIX = {"wrong match": 0.5, "white dwarf": 0.25, "distance": 0.15, "reddening": 0.1}


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
            told |= {
                "code": code_identity("stellarml.stages.train")["digest"],
                "seconds": perf_counter() - started,
            }
            path.write_text(json.dumps(told, indent=1))
        elif json.loads(path.read_text()).get("code") != code_identity("stellarml.stages.train")["digest"]:
            sys.stderr.write(
                f"{path.name} was made by other code; remove it, and its bundles, to have it anew\n"
            )
        sys.stdout.write(f"\n{name}: {path.read_text()}\n")
        sys.stdout.flush()


def main_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Fit, predict the test part, keep the predictions; errors against labels and truth, with and without weights."""
    rows, part = places()
    predictor = Predictor(load_bundle(fit(sky, folder, "bundle-main", preset, rows, part)))
    test = sky.labelled.take(tested())
    arrays = at_levels(predictor, test)
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


def coverage_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Shares of labels and of true parameters inside their intervals, overall and in cells."""
    return coverage_of(sky, tested(), dict(np.load(folder / "main.npz")))


def unseen_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Coverage again, of the labelled stars behind the training stars."""
    predictor = Predictor(load_bundle(folder / "bundle-main"))
    rows = np.arange(places()[0][-1] + 1, len(sky.labels))
    return {"rows": len(rows), **coverage_of(sky, rows, at_levels(predictor, sky.labelled.take(rows)))}


def at_levels(predictor: Predictor, stars: Stars) -> dict[str, npt.NDArray[Any]]:
    """Label stars; columns of intervals end with their level."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for level in LEVELS:
        found = predictor.label(stars.features, level, stars.more["ebmv_sfd"].to_numpy(), truth=True)
        arrays |= {f"{k}_{level}" if k.endswith(("_lo", "_hi")) else k: v for k, v in found.items()}
    return arrays


def not_learnt(sky: Sky) -> npt.NDArray[np.bool_]:
    """Return which stars of the sample to be labelled are in no part of the models."""
    learnt = sky.labelled.more["source_id"].to_numpy()[places()[0]]
    return np.asarray(~sky.target.more["source_id"].isin(learnt))


def coverage_of(sky: Sky, rows: Rows, found: dict[str, npt.NDArray[Any]]) -> Found:
    """Shares of the labels and true parameters of some rows inside their intervals."""
    test, label = sky.labelled.take(rows), sky.labels[rows]
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


def weighted_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Coverage of new measurements of stars that pass the cuts, by G, flagged and not, weighted and not."""
    rows, part = places()
    told: Found = {}
    labels = new_measurement(sky.target.truth, seed=4)
    known = np.isfinite(labels).all(axis=1) & not_learnt(sky)
    g = sky.target.more["phot_g_mean_mag"].to_numpy()
    bins = np.searchsorted(np.array([14.0, 15.0, 16.0, 17.0, 18.0]), g)
    for kind, target in (("unweighted", None), ("weighted", sky.target_table())):
        name = "bundle-main" if target is None else "bundle-weighted"
        bundle = fit(sky, folder, name, preset, rows, part, target=target)
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
                    "all": share_of(inside, chosen),
                    "not thin": share_of(inside, chosen & ~thin),
                    "no flag": share_of(inside, chosen & clean),
                    "thin": share_of(thin, chosen),
                }
            told[f"{kind} {name}"] = {
                "all": share_of(inside, known),
                "not thin": share_of(inside, known & ~thin),
                "no flag": share_of(inside, known & clean),
                "thin": share_of(thin, known),
            }
    return told


def flags_part(sky: Sky, folder: Path, preset: str) -> Found:
    """AUROC of the distances of strangers, shares flagged, and catastrophic errors with and without the flags."""
    predictor = Predictor(load_bundle(folder / "bundle-main"))
    clean = sky.labelled.take(tested(200_000))
    limits = np.asarray(predictor.manifest.novelty.limits)

    def scores(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return (predictor.novelty(features) - limits).max(axis=1)

    others = sky.target.take(not_learnt(sky))
    populations = {"labelled stars": clean.features, "all that pass the cuts": others.features[:200_000]}
    usual = {name: scores(features) for name, features in populations.items()}
    limits_at_2 = {name: float(np.percentile(score, 98)) for name, score in usual.items()}
    told: Found = {
        f"flagged of {name}": float((predictor.label(features)["quality_flags"] & STRANGER != 0).mean())
        for name, features in populations.items()
    }
    wrong, caught = 0.0, dict.fromkeys(usual, 0.0)
    for kind, stars in sky.injected.items():
        found, score = predictor.label(stars.features), scores(stars.features)
        error = np.stack(
            [np.abs(found[n] - stars.truth[:, j]) > CATASTROPHE[n] for j, n in enumerate(LABELS)]
        )
        catastrophic = error.any(axis=0)
        told[kind] = {
            "n": len(score),
            **{f"auroc against {name}": auroc(score, known) for name, known in usual.items()},
            "flagged": float((found["quality_flags"] & STRANGER != 0).mean()),
            "any flag": float((found["quality_flags"] != 0).mean()),
            **{f"at 2 % of {name}": float((score > at).mean()) for name, at in limits_at_2.items()},
            "catastrophic": float(catastrophic.mean()),
        }
        if kind in MIX:
            wrong += MIX[kind] * float(catastrophic.mean())
            for name, at in limits_at_2.items():
                caught[name] += MIX[kind] * float((catastrophic & (score > at)).mean())
    told["mix"] = MIX
    for name, share in caught.items():
        told[f"catastrophic errors of the mix removed at 2 % of {name}"] = share / wrong
    return told


def missing_part(sky: Sky, folder: Path, preset: str) -> Found:
    """MAD without a band, of the one model and of a model that was trained for exactly that pattern.

    ``BENCH_BANDS`` names the patterns: uv,u,v,g,r,i,z unless told.
    """
    rows, part = places()
    target = sky.target_table()
    general = Predictor(load_bundle(fit(sky, folder, "bundle-weighted", preset, rows, part, target=target)))
    test, label = sky.labelled.take(tested(200_000)), sky.labels[tested(200_000)]
    told: Found = {}
    for bands in os.environ.get("BENCH_BANDS", ",".join(("uv", *BANDS))).split(","):
        name = f"bundle-lacking-{bands}"
        # The error of a magnitude goes with it: it tells the magnitude.
        gone = [n for b in bands for n in (f"{b}abs", f"{b}abs_nored", f"e_{b}_psf")]
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


PARTS: dict[str, Callable[[Sky, Path, str], Found]] = {
    "main": main_part,
    "coverage": coverage_part,
    "unseen": unseen_part,
    "weighted": weighted_part,
    "flags": flags_part,
    "learners": learners_part,
    "limit": limit_part,
    "posterior": posterior_part,
    "blocks": blocks_part,
    "zero points": zero_points_part,
    "missing": missing_part,
    "cost": cost_part,
}

if __name__ == "__main__":
    main()
