"""How far the default model is from what can be done at all; other splits, other zero points."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import healpy as hp
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from importance import effective, weighted_median
from posterior import Sampler, likelihood_of_truth, star_of
from scipy.stats import kstest
from sky_data import LABELS, Sky, Stars
from sky_fits import (
    CALIBRATED,
    TRAINED,
    VALIDATED,
    Found,
    Rows,
    cells_of,
    fit,
    mae_in,
    places,
    predictions,
    summary,
    tested,
)

from stellarml.features.split import CALIBRATION, TRAIN, VALIDATION
from stellarml.model.bundle import load_bundle
from stellarml.model.predictor import Predictor
from stellarml.simulate.fields import FIELDS
from stellarml.simulate.galaxy import galactic, unit_vectors

POSTERIORS = 2000
# Offsets (mag) by SFD E(B-V): github.com/comhy/SMSS-DR2-ZP--corrections, Huang et al. 2021.
ZERO_POINT_EBV = (0.01, 0.05, 0.09, 0.15, 0.19, 0.25, 0.35, 0.45, 0.7, 1.2)
ZERO_POINT_U = (-0.002, 0.023, 0.057, 0.107, 0.132, 0.152, 0.166, 0.174, 0.237, 0.211)
ZERO_POINT_V = (0.001, 0.023, 0.044, 0.078, 0.095, 0.108, 0.131, 0.138, 0.174, 0.180)


def truths_held(bundle: Path, stars: Stars) -> Found:
    """Return how often intervals of true parameters hold them."""
    predictor = Predictor(load_bundle(bundle))
    told: Found = {}
    for level in (68, 90, 95):
        found = predictor.label(stars.features, level, stars.more["ebmv_sfd"].to_numpy(), truth=True)
        for j, name in enumerate(LABELS):
            lo, hi = (found[f"{name}_true_{end}"] for end in ("lo", "hi"))
            told[f"{name} {level}"] = float(((stars.truth[:, j] >= lo) & (stars.truth[:, j] <= hi)).mean())
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
    predicted = {
        k: predictions(Predictor(load_bundle(bundle)), test.features) for k, bundle in bundles.items()
    }
    for kind, found in predicted.items():
        for j, name in enumerate(LABELS):
            told[f"{kind} {name}"] = summary((found - test.truth)[:, j])
    g = test.more["phot_g_mean_mag"].to_numpy()
    cells = cells_of(test.truth, predicted["200,000 labels"][:, 2], g)
    told["MAE in cells"] = {cell: mae_in(chosen, test.truth, predicted) for cell, chosen in cells.items()}
    # Stars of neither training nor calibration. More labels mean more stars with two, which tell the labels' errors.
    later = sky.labelled.take(places(1_000_000)[0][-1] + 1 + np.arange(200_000))
    told["intervals of true parameters, 1,000,000 labels"] = truths_held(bundles["1,000,000 labels"], later)
    for name in LABELS:
        limit = told[f"{most:,} noiseless {name}"]["mae"]
        for kind in list(bundles)[:2]:
            told[f"{kind} {name} against the limit"] = told[f"{kind} {name}"]["mae"] / limit
    return told


def blocks_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Split by blocks of the sky (HEALPix order 4) instead of by star: no test star has a neighbour in training."""
    more = sky.labelled.more
    block = hp.ang2pix(1 << 4, more["ra"].to_numpy(), more["dec"].to_numpy(), nest=True, lonlat=True)
    kinds, index = np.unique(block, return_inverse=True)
    of_block = np.random.default_rng(2).permutation(len(kinds)) % 5
    held = np.flatnonzero(of_block[index] == 0)
    free = np.flatnonzero(of_block[index] != 0)[: VALIDATED + CALIBRATED + TRAINED]
    part = np.full(len(free), TRAIN, dtype="<U16")
    part[:VALIDATED], part[VALIDATED : VALIDATED + CALIBRATED] = VALIDATION, CALIBRATION
    predictor = Predictor(load_bundle(fit(sky, folder, "bundle-blocks", preset, free, part)))
    by_star = Predictor(load_bundle(folder / "bundle-main"))
    held = np.setdiff1d(held, places()[0])
    told: Found = {"blocks": len(kinds), "rows": len(held)}
    for title, model in (("by block", predictor), ("by star", by_star)):
        found = model.label(sky.labelled.features[held])
        for j, name in enumerate(LABELS):
            label = sky.labels[held, j]
            inside = (label >= found[f"{name}_lo"]) & (label <= found[f"{name}_hi"])
            told[f"{name} {title}"] = {
                **summary(found[name].astype(np.float64) - label),
                "68 % interval holds": float(inside.mean()),
            }
    return told


def zero_points_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Put the offsets of SkyMapper DR2's u and v (Huang et al. 2021) into the sky, and do not correct them."""
    ebv = sky.labelled.more["ebmv_sfd"].to_numpy()
    features = sky.labelled.features.copy()
    for band, offsets in (("u", ZERO_POINT_U), ("v", ZERO_POINT_V)):
        shift = np.interp(ebv, ZERO_POINT_EBV, offsets).astype(np.float32)
        for kind in ("abs", "abs_nored"):
            features[:, sky.spec.feature_names.index(f"{band}{kind}")] += shift
    off = dataclasses.replace(sky, labelled=dataclasses.replace(sky.labelled, features=features))
    rows, part = places()
    models = {
        "corrected": (sky, Predictor(load_bundle(folder / "bundle-main"))),
        "not corrected": (
            off,
            Predictor(load_bundle(fit(off, folder, "bundle-zero-points", preset, rows, part))),
        ),
    }
    models["not corrected, model of corrected stars"] = (off, models["corrected"][1])
    at = tested(200_000)
    told: Found = {}
    for title, (seen, predictor) in models.items():
        found = predictor.label(seen.labelled.features[at])
        for j, name in enumerate(LABELS):
            told[f"{name} {title}"] = summary(found[name].astype(np.float64) - sky.labels[at, j])
    return told


def posterior_part(sky: Sky, folder: Path, preset: str) -> Found:
    """Sample the posteriors of single test stars; a part of them at a time, so that a stopped run goes on."""
    stars, rows = raw_stars(sky, folder)
    kept = folder / "posterior"
    kept.mkdir(exist_ok=True)
    samplers: dict[str, Sampler] = {}
    for first in range(0, len(stars), 50):
        path = kept / f"{first:05d}.npz"
        if path.exists():
            continue
        found = [posterior_of(samplers, stars.iloc[n], n) for n in range(first, min(first + 50, len(stars)))]
        np.savez(path, **{k: np.array([f[k] for f in found]) for k in found[0]})
        sys.stderr.write(f"posterior: {first + len(found)}/{len(stars)}\n")
    parts = [dict(np.load(path)) for path in sorted(kept.glob("*.npz"))]
    found = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return told_of_posteriors(sky, folder, preset, found, rows, stars)


def raw_stars(sky: Sky, folder: Path) -> tuple[pd.DataFrame, Rows]:
    """Return the rows of ``lake/matched`` of `POSTERIORS` test stars with their truth, and their test rows."""
    root = folder.parent / f"sky-{folder.name.split('-')[2]}"
    right = np.flatnonzero(sky.labelled.more["is_contaminant"].to_numpy()[tested(50_000)] == 0)
    rows = tested(50_000)[right[:POSTERIORS]]
    ids = sky.labelled.more["source_id"].to_numpy()[rows]
    path = folder / "posterior-stars.parquet"
    if not path.exists():
        wanted = pc.field("source_id").isin(pa.array(ids))
        matched = ds.dataset(root / "lake" / "matched" / "dataset", format="parquet", partitioning=None)
        truth = pq.read_table(root / "truth" / "gaia_truth.parquet", filters=wanted).to_pandas()
        drop = [c for c in ("ra", "dec", "pmra", "pmdec", "parallax", "ebv_sfd") if c in truth]
        stars = matched.to_table(filter=wanted).to_pandas().merge(truth.drop(columns=drop), on="source_id")
        stars.to_parquet(path)
    return pd.read_parquet(path).set_index("source_id").loc[ids], rows


def posterior_of(samplers: dict[str, Sampler], row: pd.Series, n: int) -> dict[str, npt.NDArray[np.float64]]:
    """Sample one star, and once more with twice the samples for every tenth."""
    at = unit_vectors(np.array([row["ra"]]), np.array([row["dec"]]))[0]
    centres = unit_vectors(*(np.array([getattr(f, k) for f in FIELDS]) for k in ("ra_deg", "dec_deg")))[0]
    field = FIELDS[int((centres @ at[0]).argmax())]
    if field.name not in samplers:
        samplers[field.name] = Sampler(field)
    star = star_of(row, float(galactic(np.array([row["ra"]]), np.array([row["dec"]]))[1][0]))
    samples, weights = samplers[field.name].posterior(star, n)
    truth = row[list(LABELS)].to_numpy(np.float64)
    told = {
        "median": weighted_median(samples[:, :3], weights),
        "effective": np.array(effective(weights)),
        "rank": ((samples[:, :3] < truth) * weights[:, None]).sum(axis=0),
        "likelihood rank": np.array(((samples[:, 3] < likelihood_of_truth(star, row)) * weights).sum()),
        "again": np.full(3, np.nan),
    }
    if n % 10 == 0:
        told["again"] = weighted_median(*_first(samplers[field.name].posterior(star, n + 10**6, last=32_000)))
    return told


def _first(sampled: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]) -> tuple[Any, Any]:
    return sampled[0][:, :3], sampled[1]


def told_of_posteriors(
    sky: Sky, folder: Path, preset: str, found: Found, rows: Rows, stars: pd.DataFrame
) -> Found:
    """Errors of posterior medians and of networks on the same stars, and what certifies the former."""
    count = len(found["effective"])
    truth, features = sky.labelled.truth[rows[:count]], sky.labelled.features[rows[:count]]
    told: Found = {
        "stars": count,
        "share with at least 100 effective samples": float((found["effective"] >= 100).mean()),
        "p of uniform ranks": {
            name: float(kstest(found["rank"][:, j], "uniform").pvalue) for j, name in enumerate(LABELS)
        },
        "p of uniform likelihood ranks": float(kstest(found["likelihood rank"], "uniform").pvalue),
    }
    again = np.isfinite(found["again"][:, 0])
    shift = np.abs(found["again"] - found["median"])[again].mean(axis=0)
    told["mean shift with twice the samples"] = dict(zip(LABELS, shift.tolist(), strict=True))
    bundles = {"200,000 labels": fit(sky, folder, "bundle-main", preset, *places())}
    for bundle, title in (("million", "1,000,000 labels"), ("limit", "noiseless")):
        if (folder / f"bundle-{bundle}" / "bundle.json").exists():
            bundles[title] = folder / f"bundle-{bundle}"
    predicted = {"posterior": found["median"]}
    predicted |= {k: predictions(Predictor(load_bundle(bundle)), features) for k, bundle in bundles.items()}
    g = stars["phot_g_mean_mag"].to_numpy()[:count]
    cells = cells_of(truth, predicted["200,000 labels"][:, 2], g)
    told["MAE in cells"] = {cell: mae_in(chosen, truth, predicted) for cell, chosen in cells.items()}
    return told
