"""What labelling costs: the kernel alone, the stage from Parquet to Parquet, the recipe of Spark's documentation.

``engines``: one thread, the three folded 18-layer networks of the preset ``paper`` on the same features by NumPy, ONNX
Runtime (what the package uses) and Keras ``predict``, beside the rate of NumPy's product of two 2048 x 2048 matrices of
float32 in the same process. ``stage``: the stage label on two cores, medians after a first run that is discarded;
what is not the kernel is what the stage takes with the networks of one hidden layer of 8, intervals and flags and all,
and, for comparison, the time of two cores with ``paper`` less the kernel's, measured in two processes at once.
``recipe``: `predict_batch_udf` around ``model.predict``, which gives three numbers a star and no interval, on fewer
rows. ``slope``: seconds over rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import numpy.typing as npt
from label_data import make_matched
from label_recipe import RECIPES, recipe_of
from match_data import default_folder
from model_data import make_sky
from peers.processes import Sampler, is_spark_jvm, is_spark_worker, resident_bytes

from stellarml.core.config import Config, load_config

SKY_STARS = 2_400_000
ROWS = 2_000_000
KERNEL_ROWS = 32_768
MODELS = ("default", "costless", "paper")
TARGETS = {
    "kernel against sgemm": ">= 0.60",
    "not the kernel (us of a core per star)": "<= 9",
    "stars a second": ">= 70,000",
    "against the recipe": ">= 5",
    "largest worker (MiB, resident)": "<= 400",
}


def main() -> None:
    """Do the parts that are asked for and print each as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="engines,stage,recipe,slope")
    parser.add_argument("--data", type=Path, default=default_folder().with_name("bench_label"))
    parser.add_argument("--sky", type=Path, help="a simulated sky that is there already")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slope", default="2000000,6000000,20000000")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    if options.worker:
        sys.stdout.write(json.dumps(WORKERS[options.worker](options.data)) + "\n")
        return
    sky = options.sky or make_sky(options.data, SKY_STARS)
    for model in MODELS:
        if not (options.data / "models" / model / "run.json").exists():
            make_model(sky, options.data, model)
    told: dict[str, Any] = {}
    for part in options.parts.split(","):
        told[part] = PARTS[part](options, sky, told)
        sys.stdout.write(f"{part}: {json.dumps(told[part], indent=1)}\n")
        sys.stdout.flush()
    sys.stdout.write(f"targets: {json.dumps(TARGETS, indent=1)}\n")


def make_model(sky: Path, data: Path, name: str) -> None:
    """Train a preset on a few thousand stars: its speed does not depend on what it has learnt."""
    from stellarml.features.feature_file import load_feature_file
    from stellarml.training.fit import Task, train
    from stellarml.training.presets import PRESETS
    from stellarml.training.read_lake import load_training_set

    table = load_training_set(sky / "lake" / "training").slice(0, 8000)
    preset = replace(PRESETS["paper"], widths=(8,)) if name == "costless" else PRESETS[name]
    config = load_config(overrides=["train.max_epochs=12"])
    task = Task(load_feature_file("paper"), config.train, config.split, preset)
    train(table, task, data / "models" / name)
    record = {"stage": "train", "key": "bench", "origin": "bench", "inputs": [], "rows": {}, "seconds": 0}
    (data / "models" / name / "run.json").write_text(json.dumps(record))


def config_of(data: Path, rows: int, model: str = "paper") -> Config:
    """Return the configuration of a catalogue of `rows` rows; the model is one of `make_model`."""
    return load_config(
        overrides=[
            f"paths.lake={data / f'matched-{rows}' / 'lake'}",
            f"paths.labels={data / f'matched-{rows}' / 'labels'}",
            f"paths.models={data / 'models'}",
            f"label.model={model}",
            "log.level=warning",
            "spark.master=local[2]",
        ]
    )


def features_of_sky(data: Path, rows: int) -> npt.NDArray[np.float32]:
    """Return features of the first rows of the catalogue, kept beside it."""
    path = data / "features.npy"
    if not path.exists():
        from stellarml.features.feature_file import load_feature_file
        from stellarml.features.spark_columns import packed_features
        from stellarml.run.spark_session import start_session

        config = config_of(data, ROWS)
        spark = start_session(config.spark)
        leaf = next((config.lake_folder / "matched" / "dataset").rglob("*.parquet"))
        frame = spark.read.parquet(str(leaf)).limit(rows)
        packed = frame.select(
            packed_features(load_feature_file(config.feature_file), frame.columns).alias("x")
        ).toArrow()["x"]
        np.save(path, packed.combine_chunks().flatten().to_numpy().reshape(len(packed), -1))
        spark.stop()
    found: npt.NDArray[np.float32] = np.load(path)
    return found


def median_seconds(work: Callable[[], object], runs: int = 5) -> float:
    """Median of some runs, after one that is discarded."""
    work()
    seconds = []
    for _ in range(runs):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return float(np.median(seconds))


def kernel_worker(data: Path) -> dict[str, float]:
    """One process, one thread: sgemm, the package's engine, the same matrices by NumPy."""
    from stellarml.model.bundle import load_bundle
    from stellarml.model.predictor import Predictor

    bundle = load_bundle(data / "models" / "paper")
    predictor = Predictor(bundle)
    x = np.resize(np.load(data / "features.npy"), (KERNEL_ROWS, len(predictor.feature_names)))
    a = np.random.default_rng(0).random((2048, 2048), dtype=np.float32)
    flops = 2 * sum(k.size for folded in bundle.networks for k in folded.kernels)
    sgemm = 2 * 2048**3 / median_seconds(lambda: a @ a)
    ours = median_seconds(lambda: predictor._forward.run(x)) / len(x)
    all_of_it = median_seconds(lambda: predictor.label(x)) / len(x)
    plain = median_seconds(lambda: numpy_forward(bundle, x), 3) / len(x)
    return {
        "sgemm (Gflop/s)": sgemm / 1e9,
        "Mflop a star": flops / 1e6,
        "ONNX Runtime (us)": 1e6 * ours,
        "NumPy (us)": 1e6 * plain,
        "labels, intervals and flags (us)": 1e6 * all_of_it,
        "kernel against sgemm": flops / ours / sgemm,
        "NumPy against sgemm": flops / plain / sgemm,
    }


def numpy_forward(bundle: Any, features: npt.NDArray[np.float32], tile: int = 512) -> npt.NDArray[np.float32]:
    """The folded networks with NumPy's products, tile by tile, buffers and all."""
    from stellarml.model.scaling import centred

    scaler = bundle.manifest.scaler
    out = np.empty((len(features), len(bundle.networks)), np.float32)
    buffers = [
        [(np.empty((tile, k.shape[1]), k.dtype), np.empty((tile, k.shape[1]), np.float32)) for k in f.kernels]
        for f in bundle.networks
    ]
    for start in range(0, len(features), tile):
        x, missing = centred(features[start : start + tile], scaler)
        inputs = np.hstack([x, missing[:, list(scaler.masked)]])
        for n, (folded, held) in enumerate(zip(bundle.networks, buffers, strict=True)):
            h, slope = inputs, np.float32(bundle.manifest.networks[n].slope)
            for kernel, bias, (product, scratch) in zip(folded.kernels, folded.biases, held, strict=True):
                np.matmul(h, kernel, out=product)
                product += bias
                if kernel.shape[1] > 1:
                    activated = product if product.dtype == np.float32 else product.astype(np.float32)
                    np.multiply(activated, slope, out=scratch)
                    h = np.maximum(activated, scratch, out=scratch)
            out[start : start + tile, n] = product[:, 0]
    return out


def keras_worker(data: Path) -> dict[str, float]:
    """One process, one thread: Keras ``predict`` of the three networks on inputs that are ready."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    models = [tf.keras.models.load_model(p) for p in sorted((data / "models" / "paper").glob("*.keras"))]
    x = np.random.default_rng(0).normal(size=(KERNEL_ROWS, models[0].input_shape[1])).astype(np.float32)
    told = {}
    for batch in (32, 1024, 8192):
        count = 2048 if batch == 32 else len(x)

        def predict(count: int = count, batch: int = batch) -> object:
            return [m.predict(x[:count], batch_size=batch, verbose=0) for m in models]

        seconds = median_seconds(predict, 3)
        told[f"Keras predict, batches of {batch} (us)"] = 1e6 * seconds / count
    return told


WORKERS: dict[str, Callable[[Path], dict[str, float]]] = {"kernel": kernel_worker, "keras": keras_worker}


def in_process(name: str, data: Path, times: int = 1) -> list[dict[str, float]]:
    """Run a worker in so many processes at once."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--worker", name, "--data", str(data)]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        for _ in range(times)
    ]
    return [json.loads(p.communicate()[0].splitlines()[-1]) for p in running]


def engines_part(options: argparse.Namespace, sky: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Each engine alone on the machine, and ours on both cores at once."""
    make_matched(sky, options.data / f"matched-{ROWS}", ROWS)
    features_of_sky(options.data, KERNEL_ROWS)
    alone = in_process("kernel", options.data)[0] | in_process("keras", options.data)[0]
    return {"alone": alone, "both cores": in_process("kernel", options.data, 2)}


def stage_part(options: argparse.Namespace, sky: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The stage on two cores; its workers' and driver's memory."""
    make_matched(sky, options.data / f"matched-{ROWS}", ROWS)
    stages: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        rows, seconds, memory = timed_stage(options.data, ROWS, options.runs, model)
        middle = float(np.median(seconds))
        stages[model] = {
            **{"rows": rows, "seconds": seconds, **memory},
            **{"stars a second": rows / middle, "core us a star": 2e6 * middle / rows},
        }
    found = {"default": stages["default"], "networks of no cost": stages["costless"], **stages["paper"]}
    found["not the kernel (us of a core per star)"] = stages["costless"]["core us a star"]
    if "engines" in told:
        kernel = np.mean([w["ONNX Runtime (us)"] for w in told["engines"]["both cores"]])
        found["not the kernel, by difference"] = found["core us a star"] - float(kernel)
    return found


def timed_stage(
    data: Path, rows: int, runs: int, model: str = "paper"
) -> tuple[int, list[float], dict[str, float]]:
    """Return rows, the seconds of each run, and the largest memory of a worker and of the driver's JVM."""
    from stellarml.run.spark_session import start_session
    from stellarml.stages import label

    config = config_of(data, rows, model)
    spark = start_session(config.spark)
    worker = Sampler(os.getpid(), is_spark_worker, size_of=resident_bytes)
    jvm = Sampler(os.getpid(), is_spark_jvm)

    def run() -> dict[str, Any]:
        shutil.rmtree(config.labels_folder, ignore_errors=True)
        return label.run(spark, config)

    with worker, jvm:  # the first run, which is not timed: sampling costs a tenth of a core
        found = run()["rows"]["out"]
    seconds = [run()["seconds"] for _ in range(runs)]
    spark.stop()
    memory = {
        "largest worker (MiB, resident)": worker.worker_bytes / 2**20,
        "JVM (MiB)": jvm.worker_bytes / 2**20,
    }
    return found, seconds, memory


def recipe_part(options: argparse.Namespace, sky: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The recipe: features in an array column, one model.predict for each network in a predict_batch_udf.

    As the documentation has it, with batches of 100 and no further option; and with batches of 8192, which is ours.
    """
    from pyspark.sql import functions as sf

    from stellarml.features.feature_file import load_feature_file
    from stellarml.features.spark_columns import packed_features
    from stellarml.run.spark_session import start_session

    make_matched(sky, options.data / f"matched-{ROWS}", ROWS)
    config = config_of(options.data, ROWS)
    spark = start_session(config.spark)
    matched = spark.read.parquet(str(config.lake_folder / "matched" / "dataset"))
    packed = packed_features(load_feature_file(config.feature_file), matched.columns).alias("x")
    found: dict[str, Any] = {}
    for name, (batch, limit) in RECIPES.items():
        rows = matched.limit(limit).select("source_id", packed).repartition(2)
        rows.write.mode("overwrite").parquet(str(options.data / "recipe-in"))
        ready = spark.read.parquet(str(options.data / "recipe-in"))
        labelled = ready.select("source_id", recipe_of(options.data, batch)(sf.col("x")).alias("labels"))
        out = str(options.data / "recipe-out")
        seconds = median_seconds(partial(labelled.write.mode("overwrite").parquet, out), 3)
        found[name] = {"rows": limit, "seconds": seconds, "stars a second": limit / seconds}
        if "stage" in told:
            found[name]["against the recipe"] = told["stage"]["stars a second"] * seconds / limit
    spark.stop()
    return found


def slope_part(options: argparse.Namespace, sky: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Microseconds a star and memory for more and more rows."""
    found: dict[str, Any] = {}
    for rows in sorted(int(text) for text in options.slope.split(",")):
        make_matched(sky, options.data / f"matched-{rows}", rows)
        count, seconds, memory = timed_stage(options.data, rows, 3 if rows <= 6_000_000 else 1)
        found[f"{count:,} rows"] = {"us a star": 1e6 * float(np.median(seconds)) / count, **memory}
        shutil.rmtree(options.data / f"matched-{rows}" / "labels", ignore_errors=True)
        sleep(1)
    return found


Part = Callable[[argparse.Namespace, Path, dict[str, Any]], dict[str, Any]]
PARTS: dict[str, Part] = {
    "engines": engines_part,
    "stage": stage_part,
    "recipe": recipe_part,
    "slope": slope_part,
}


if __name__ == "__main__":
    main()
