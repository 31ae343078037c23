"""The default model against other learners and the paper's network, on the same rows, fold by fold.

Every combination of table, fold, learner and seed is one part with a file of its own, so that a run that was stopped
goes on where it was. Calibration rows are kept from all learners. MAD is 1.4826 times the median absolute deviation of
prediction minus label, over the pooled folds of all seeds; sigma of a ratio comes from a paired bootstrap over folds
and seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from match_data import default_folder
from model_data import FOLDS, Labelled, load
from peers.client import Peer

from stellarml.core.config import Split, load_config
from stellarml.features.split import TEST, TRAIN, VALIDATION
from stellarml.labelling.spark_label import Predictor
from stellarml.model.bundle import load_bundle
from stellarml.training.fit import Task, train

OURS = ("default", "paper", "small")
LEARNERS = ("LightGBM", "XGBoost", "random forest", "SVR", "ridge")
GSPPHOT = {"teff": "teff_gspphot", "logg": "logg_gspphot", "feh": "mh_gspphot"}
BOOTSTRAPS = 1000
MAD_FACTOR = 1.4826


@dataclass(frozen=True)
class Part:
    """One fit: `learner` with `seed` on all folds of a table but `fold`."""

    table: str
    fold: int
    learner: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Where its predictions are kept."""
        return folder / f"{self.table}-{self.learner.replace(' ', '_')}-fold{self.fold}-seed{self.seed}.npz"


def ours(data: Labelled, part: Part, scratch: Path, threads: int) -> dict[str, npt.NDArray[np.float64]]:
    """Fit a preset; predictions and intervals of the test rows."""
    chosen = {"preset": part.learner, "seed": part.seed, "threads": threads}
    config = load_config(overrides=[f"train.{key}={value}" for key, value in chosen.items()])
    parts = data.parts(part.fold)
    bundle = train(
        data.table(parts),
        Task(data.spec, config.train, Split(salt="bench", validation=0.1, calibration=0.1, test=0.2)),
        scratch / part.path(scratch).stem,
    )
    predictor = Predictor(load_bundle(bundle))
    found: dict[str, npt.NDArray[np.float64]] = {}
    for level in (68, 90, 95):
        told = predictor.label(data.features[parts == TEST], level)
        for name in data.spec.label_names:
            found[name] = told[name].astype(np.float64)
            for end in ("lo", "hi"):
                found[f"{name}_{end}{level}"] = told[f"{name}_{end}"].astype(np.float64)
    return found


def theirs(
    peer: Peer, data: Labelled, part: Part, scratch: Path, threads: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Fit another learner, one label after the other."""
    parts, found = data.parts(part.fold), {}
    for j, name in enumerate(data.spec.label_names):
        request = {
            "learner": part.learner,
            "seed": part.seed,
            "threads": threads,
            "data": str(scratch / "rows.npz"),
        }
        request["out"] = str(scratch / "predictions.npy")
        arrays = {"test_x": data.features[parts == TEST]}
        for kind in (TRAIN, VALIDATION):
            arrays[f"{kind}_x"] = data.features[parts == kind]
            arrays[f"{kind}_y"] = data.labels[parts == kind, j]
        np.savez(request["data"], **arrays)
        told = peer.ask(request)
        sys.stderr.write(f"  {name}: {told['chosen']}, {told['seconds']:.0f} s\n")
        found[name] = np.load(request["out"]).astype(np.float64)
    return found


def gspphot(data: Labelled, part: Part) -> dict[str, npt.NDArray[np.float64]]:
    """Take Gaia's own labels as they are; NaN where there are none."""
    test = data.features[data.parts(part.fold) == TEST]
    where = {n: data.spec.feature_names.index(c) for n, c in GSPPHOT.items()}
    return {name: test[:, column].astype(np.float64) for name, column in where.items()}


def plan(data: Labelled, learners: list[str], folds: int, seeds: int) -> Iterator[Part]:
    """List the parts: all of fold 0 first, so that a first table is there early."""
    for fold in range(folds):
        for learner in learners:
            if learner == "GSP-Phot" and GSPPHOT["teff"] not in data.spec.feature_names:
                continue
            once = learner in ("GSP-Phot", "ridge", "SVR")
            for seed in range(1 if once else seeds):
                yield Part(data.name, fold, learner, seed)


def run(data: Labelled, parts: list[Part], folder: Path, threads: int) -> None:
    """Do every part that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [part for part in parts if not part.path(folder).exists()]
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as name:
        scratch = Path(name)
        peer = (
            Peer("learners", "run_learners.py", scratch) if any(p.learner in LEARNERS for p in todo) else None
        )
        for n, part in enumerate(todo, start=1):
            started = perf_counter()
            if part.learner in OURS:
                found = ours(data, part, scratch, threads)
            elif part.learner == "GSP-Phot":
                found = gspphot(data, part)
            elif peer is not None:
                found = theirs(peer, data, part, scratch, threads)
            seconds = perf_counter() - started
            np.savez(part.path(folder), seconds=seconds, **found)
            told = ", ".join(f"{k} {v:.4g}" for k, v in mads(data, part, folder).items())
            sys.stderr.write(
                f"{n}/{len(todo)} {part.table} fold {part.fold} {part.learner} seed {part.seed}: MAD {told}; "
                f"{seconds:.0f} s\n"
            )
        if peer is not None:
            peer.close()


def errors_of(data: Labelled, part: Part, folder: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Prediction minus label of the test rows whose label is known."""
    rows = data.parts(part.fold) == TEST
    with np.load(part.path(folder)) as found:
        return {n: found[n] - data.labels[rows, j] for j, n in enumerate(data.spec.label_names) if n in found}


def mads(data: Labelled, part: Part, folder: Path) -> dict[str, float]:
    """MAD of each label in one part."""
    return {name: mad(e) for name, e in errors_of(data, part, folder).items()}


def mad(error: npt.NDArray[np.float64]) -> float:
    """1.4826 times the median absolute deviation from the median."""
    known = error[np.isfinite(error)]
    return float(MAD_FACTOR * np.median(np.abs(known - np.median(known))))


def show(data: Labelled, parts: list[Part], folder: Path) -> dict[str, object]:
    """Print the tables of one data set; return them."""
    errors: dict[str, dict[tuple[int, int], dict[str, npt.NDArray[np.float64]]]] = {}
    for part in parts:
        if part.path(folder).exists():
            errors.setdefault(part.learner, {})[part.fold, part.seed] = errors_of(data, part, folder)
    told: dict[str, object] = {}
    for name in data.spec.label_names:
        sys.stdout.write(
            f"\n{data.name} {name}\n{'':<16}{'MAD':>10}{'MAE':>10}{'st. dev.':>10}{'parts':>7}\n"
        )
        table = {}
        for learner, found in errors.items():
            pooled = np.concatenate([e[name] for e in found.values()])
            pooled = pooled[np.isfinite(pooled)]
            table[learner] = {
                "mad": mad(pooled),
                "mae": float(np.abs(pooled).mean()),
                "std": float(pooled.std()),
                "parts": len(found),
            }
            row = table[learner]
            sys.stdout.write(
                f"{learner:<16}{row['mad']:>10.4g}{row['mae']:>10.4g}{row['std']:>10.4g}{row['parts']:>7}\n"
            )
            of_seeds = _of_seeds(found, name)
            if len(of_seeds) > 1:
                row["seeds"] = of_seeds
                told_seeds = ", ".join(f"{v:.4g}" for v in of_seeds)
                sys.stdout.write(
                    f"{'':<16}  of each seed: {told_seeds}; spread {np.std(of_seeds, ddof=1):.2g}\n"
                )
        others = [k for k in table if k not in ("default", "small", "paper")] + [
            k for k in table if k == "paper"
        ]
        if "default" in table and others:
            best = min(others, key=lambda k: table[k]["mad"])
            ratio = table["default"]["mad"] / table[best]["mad"]
            sigma = _sigma(errors["default"], errors[best], name)
            sys.stdout.write(f"default / {best} = {ratio:.3f} +- {sigma:.3f}\n")
            table["ratio"] = {"to": best, "ratio": ratio, "sigma": sigma}
        told[name] = table
    told["coverage"] = coverage(
        data, [p for p in parts if p.learner in OURS and p.path(folder).exists()], folder
    )
    return told


def _of_seeds(found: dict[tuple[int, int], dict[str, npt.NDArray[np.float64]]], name: str) -> list[float]:
    """Return the MAD over all folds of each seed that has them all."""
    folds = {fold for fold, _ in found}
    seeds = sorted({seed for _, seed in found})
    whole = [seed for seed in seeds if all((fold, seed) in found for fold in folds)]
    return [mad(np.concatenate([found[fold, seed][name] for fold in sorted(folds)])) for seed in whole]


def _sigma(
    ours_: dict[tuple[int, int], dict[str, npt.NDArray[np.float64]]],
    others: dict[tuple[int, int], dict[str, npt.NDArray[np.float64]]],
    name: str,
) -> float:
    """Spread of the ratio of MADs over folds and seeds drawn anew; the same folds for both."""
    rng = np.random.default_rng(0)
    folds = sorted({fold for fold, _ in ours_} & {fold for fold, _ in others})
    ratios = []
    for _ in range(BOOTSTRAPS):
        drawn = rng.choice(folds, len(folds))
        both = []
        for errors in (ours_, others):
            chosen = []
            for fold in drawn:
                seeds = [seed for f, seed in errors if f == fold]
                chosen.append(errors[int(fold), int(rng.choice(seeds))][name])
            both.append(mad(np.concatenate(chosen)))
        ratios.append(both[0] / both[1])
    return float(np.std(ratios))


def coverage(data: Labelled, parts: list[Part], folder: Path) -> dict[str, dict[str, float]]:
    """Share of labels inside the intervals, over all folds and seeds."""
    inside: dict[str, dict[str, list[npt.NDArray[np.bool_]]]] = {}
    for part in parts:
        rows = data.parts(part.fold) == TEST
        with np.load(part.path(folder)) as found:
            for j, name in enumerate(data.spec.label_names):
                for level in (68, 90, 95):
                    label = data.labels[rows, j]
                    hit = (label >= found[f"{name}_lo{level}"]) & (label <= found[f"{name}_hi{level}"])
                    key = f"{name} {level}"
                    inside.setdefault(part.learner, {}).setdefault(key, []).append(hit[np.isfinite(label)])
    told = {
        learner: {key: float(np.concatenate(hits).mean()) for key, hits in found.items()}
        for learner, found in inside.items()
    }
    for learner, found in told.items():
        shares = ", ".join(f"{key}: {100 * share:.1f}" for key, share in found.items())
        sys.stdout.write(f"coverage of {learner}: {shares} %\n")
    return told


def main() -> None:
    """Fit what is missing, print the tables, keep them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tables", default="lamost,segue", help="also sky, for days; bench_sky.py is quicker"
    )
    parser.add_argument("--learners", default=",".join(("default", *LEARNERS, "paper", "GSP-Phot")))
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the five folds to run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sky-labelled", type=int, default=200_000)
    parser.add_argument("--data", type=Path, default=default_folder().with_name("bench_model"))
    parser.add_argument("--show", action="store_true", help="only print what is there")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    told = {}
    for name in options.tables.split(","):
        data = load(name, options.data, options.sky_labelled)
        if data is None:
            sys.stderr.write(f"{name}: its file is not beside the checkout; left out\n")
            continue
        folder = options.data / "parts"
        parts = list(plan(data, options.learners.split(","), options.folds, options.seeds))
        if not options.show:
            run(data, parts, folder, options.threads)
        told[name] = show(data, parts, folder)
    (options.data / "bench_model.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
