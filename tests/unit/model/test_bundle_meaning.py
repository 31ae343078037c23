"""Bundles that are well signed and senseless: refused when they are read, or their predictions are numbers.

Every array and every number of bundle.json is spoilt in every way, and the bundle is signed anew, as a stranger can.
"""

from __future__ import annotations

import functools
import io
import json
import math
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_tables import TINY, TINY_SCALES, matrix_of, stars, tiny_bundle
from helpers.odd_bundles import overflowing

from stellarml.core.errors import BundleError, NotFiniteError
from stellarml.model.bundle import Bundle, bundle_from, load_bundle, pack_bundle, unpack_bundle
from stellarml.model.folding import Folded
from stellarml.model.manifest import MANIFEST, WEIGHTS, parse_manifest, sha256_of, signed
from stellarml.model.manifest_checks import MAX_DEPTH, MOST_LABELS
from stellarml.model.predictor import Predictor

pytestmark = pytest.mark.tensorflow

PRESETS = {"tiny": TINY, "tiny_scales": TINY_SCALES}
ORDINARY = matrix_of(stars(60, seed=3))
Arrays = dict[str, Any]
Step = str | int


@functools.cache
def parts(preset: str) -> tuple[str, bytes]:
    """Return bundle.json and weights.npz of a small trained bundle."""
    folder = tiny_bundle(PRESETS[preset])
    return (folder / MANIFEST).read_text(), (folder / WEIGHTS).read_bytes()


def arrays_of(preset: str) -> Arrays:
    with np.load(io.BytesIO(parts(preset)[1])) as stored:
        return {name: stored[name] for name in stored.files}


def packed(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def read(manifest: dict[str, Any], weights: bytes) -> Bundle:
    """Sign a bundle anew, and read it."""
    manifest["files"][WEIGHTS] = sha256_of(weights)
    raw = json.dumps(signed(manifest)).encode()
    return bundle_from(parse_manifest(raw, MANIFEST), weights, WEIGHTS)


def outcome(manifest: dict[str, Any], weights: bytes, *, told_only: bool = False) -> str:
    """Return how a bundle ends: refused, or with numbers; anything else raises.

    `told_only`: what was spoilt does not change a label, so none is asked for.
    """
    try:
        bundle = read(manifest, weights)
    except BundleError as error:
        assert str(error).startswith((MANIFEST, WEIGHTS, "damaged bundle"))
        return "refused"
    if told_only:
        return "numbers"
    predictor = Predictor(bundle)
    for level in predictor.manifest.calibration.levels:
        for name, values in predictor.label(ORDINARY, level).items():
            assert np.isfinite(values).all(), name
    return "numbers"


def spoilt(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    for name, value in (("nan", np.nan), ("inf", np.inf), ("-inf", -np.inf), ("1e38", 1e38)):
        for where in ("first", "all"):
            changed = array.copy()
            changed[(0,) * array.ndim if where == "first" else ...] = value
            yield f"{name} {where}", changed
    yield "0", np.zeros_like(array)
    yield "negative", -np.abs(array) - 1
    yield "short", array[:-1]
    yield "long", np.concatenate([array, array[:1]])
    yield "empty", array[:0]
    yield "wide", np.concatenate([array, array[..., :1]], axis=-1)
    yield "rank", array[None]
    yield "scalar", np.float64(1.0)
    yield "strings", array.astype("U8")
    yield "complex", array.astype(complex)
    yield "integers", array.astype(np.int64)
    yield "other width", array.astype(np.float32 if array.dtype == np.float64 else np.float64)
    yield "half", array.astype(np.float16)
    yield "big endian", array.astype(array.dtype.newbyteorder(">"))
    yield "objects", array.astype(object)


MAY_BE_ZERO_OR_NEGATIVE = ("network", "novelty", "rotation", "imputation_mean")
"""Weights: any number of a usual size is one. What else an array is spoilt with must be refused."""


@pytest.mark.parametrize("preset", PRESETS)
def test_every_array_is_checked(preset: str) -> None:
    text, _ = parts(preset)
    arrays = arrays_of(preset)
    assert len(arrays) > 8
    for name, array in arrays.items():
        for fault, changed in spoilt(array):
            found = outcome(json.loads(text), packed({**arrays, name: changed}))
            harmless = fault in ("0", "negative") and name.startswith(MAY_BE_ZERO_OR_NEGATIVE)
            assert found == ("numbers" if harmless else "refused"), (name, fault)
        without = {other: values for other, values in arrays.items() if other != name}
        assert outcome(json.loads(text), packed(without)) == "refused"
    assert outcome(json.loads(text), packed({**arrays, "further": np.zeros(3)})) == "refused"


def leaves(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Yield the place of every number; of a list of numbers, the first and the last."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i in sorted(
            {0, len(value) - 1} if value and not isinstance(value[0], dict) else range(len(value))
        ):
            if value:
                yield from leaves(value[i], (*path, i))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def at(manifest: Any, path: tuple[Step, ...]) -> Any:
    return functools.reduce(lambda inner, step: inner[step], path, manifest)


NUMBERS: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    0,
    -1.5,
    -3,
    1e38,
    -1e38,
    1e300,
    10**30,
    "1e999",
    "x",
    [],
    None,
)
NEVER = (math.nan, math.inf, -math.inf, 10**30, "x", [])
TOLD_ONLY = ("split", "settings", "counts", "outside_range", "provenance", "versions", "metrics", "seed")
"""Parts of bundle.json that no label depends on, as the training curves: any finite number of 64 bits will do."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny_scales"])
def test_every_number_of_the_manifest_is_checked(preset: str) -> None:
    text, weights = parts(preset)
    ends = {"refused": 0, "numbers": 0}
    for path, _ in leaves(json.loads(text)):
        aside = path[0] in TOLD_ONLY or "curve" in path
        for value in NEVER[:4] if aside else NUMBERS:
            manifest = json.loads(text)
            at(manifest, path[:-1])[path[-1]] = value
            found = outcome(manifest, weights, told_only=aside)
            ends[found] += 1
            assert found == "refused" or value not in NEVER, (path, value)
    assert ends["refused"] > 1500 and ends["numbers"] > 100, ends


def others(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], list[Any]]]:
    """Yield the place of every text, truth value, list and table, with what is put there instead."""
    if isinstance(value, dict):
        yield (
            path,
            [
                {},
                [],
                None,
                {**value, "further": 1},
                *({k: v for k, v in value.items() if k != gone} for gone in value),
            ],
        )
        for key, inner in value.items():
            yield from others(inner, (*path, key))
    elif isinstance(value, list):
        yield path, [[], {}, value[:-1], value + value[:1], value[::-1], [*value, None]]
        for i in sorted({0, len(value) - 1}) if value else ():
            yield from others(value[i], (*path, i))
    elif isinstance(value, bool):
        yield path, [not value, 2, None]
    elif isinstance(value, str):
        yield path, ["", "x", "\x1b[2J\n", 5, None, [value]]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny_scales"])
def test_every_other_value_of_the_manifest_is_checked(preset: str) -> None:
    text, weights = parts(preset)
    ends = {"refused": 0, "numbers": 0}
    for path, values in others(json.loads(text)):
        aside = bool(path) and (path[0] in TOLD_ONLY or "curve" in path)
        for value in values[:3] if aside else values:
            if not path:
                continue
            manifest = json.loads(text)
            at(manifest, path[:-1])[path[-1]] = value
            if path[0] == "files" and not isinstance(manifest["files"], dict):
                continue
            ends[outcome(manifest, weights, told_only=aside)] += 1
    assert ends["refused"] > 700 and ends["numbers"] > 100, ends


REFUSED: dict[tuple[Step, ...], tuple[Any, ...]] = {
    ("scaler", "scale", 0): (0, -1.5, 1e300, 1e-300),
    ("scaler", "center", 0): (1e38, -1e38),
    ("scaler", "low", 0): (1e38,),
    ("scaler", "high", 0): (-1e38,),
    ("scaler", "domain_low", 0): (1e38,),
    ("scaler", "masked", 0): (-1, 99),
    ("labels", 0, "std"): (-1.5, 1e38),
    ("labels", 0, "median"): (1e38, -1e38),
    ("labels", 0, "low"): (1e38,),
    ("labels", 0, "rows"): (-3,),
    ("labels", 0, "unit"): ("dex",),
    ("networks", 0, "widths", 0): (0, -3, 10**12),
    ("networks", 0, "slope"): (-1.5, 1e38),
    ("networks", 0, "scales"): (True, False),
    ("networks", 0, "outputs"): ([], ["mass"], ["teff", "teff"]),
    ("calibration", "levels"): ([], [90, 68, 95], [68], [68, 90, 95, 99]),
    ("calibration", "min_rows"): (0, -3),
    ("calibration", "labels", 0, "label"): ("feh",),
    ("calibration", "labels", 0, "difficulty_low"): (1e38, 1e300),
    ("calibration", "labels", 0, "difficulty_high"): (-1e38, 700.0),
    ("calibration", "labels", 0, "wide", "68"): (-1.5, 1e38),
    ("calibration", "labels", 0, "wide"): ({}, {"68": 1.0}),
    ("calibration", "labels", 0, "without_features", "95"): (-1.5, 1e38),
    ("calibration", "labels", 0, "classes"): ([],),
    ("calibration", "labels", 0, "classes", 0, "label_edges"): ([2.0, 1.0], [1.0]),
    ("calibration", "labels", 0, "classes", 0, "inner_edges"): ([], [[2.0, 1.0]]),
    ("calibration", "labels", 0, "classes", 0, "rows"): ([], [[]], [[1, 1, 1]]),
    ("calibration", "labels", 0, "classes", 0, "rows", 0, 0): (-3,),
    ("calibration", "labels", 0, "classes", 0, "quantiles"): ({},),
    ("calibration", "labels", 0, "classes", 0, "quantiles", "90"): ([], [[]]),
    ("calibration", "labels", 0, "classes", 0, "quantiles", "90", 0, 0): (-1.5, 1e38, 0),
    ("novelty", "label_std", 0): (0, -1.5),
    ("novelty", "label_mean"): ([], [1.0]),
    ("novelty", "limits"): ([], [1.0]),
    ("metrics", "test", "teff"): ({}, 1, {"mean": "x"}),
    ("metrics", "coverage"): ({}, []),
    ("features", "features"): ([],),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_what_must_be_refused_is(preset: str) -> None:
    text, weights = parts(preset)
    for path, values in REFUSED.items():
        for value in values:
            manifest = json.loads(text)
            if value is at(manifest, path):
                continue
            at(manifest, path[:-1])[path[-1]] = value
            assert outcome(manifest, weights) == "refused", (path, value)


def twice(entries: list[Any]) -> None:
    entries.append(entries[0])


STRUCTURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no networks": lambda m: m.update(networks=[]),
    "a network less": lambda m: m["networks"].pop(),
    "a network twice": lambda m: twice(m["networks"]),
    "no labels": lambda m: m.update(labels=[]),
    "a label less": lambda m: m["labels"].pop(),
    "a label twice": lambda m: twice(m["labels"]),
    "labels in another order": lambda m: m["labels"].reverse(),
    "a label twice everywhere": lambda m: [twice(m["labels"]), twice(m["features"]["labels"])],
    "a feature twice": lambda m: twice(m["features"]["features"]),
    "a feature less": lambda m: m["features"]["features"].pop(),
    "a short scale": lambda m: m["scaler"]["scale"].pop(),
    "a mask twice": lambda m: twice(m["scaler"]["masked"]),
    "intervals of a label less": lambda m: m["calibration"]["labels"].pop(),
    "a class twice": lambda m: twice(m["calibration"]["labels"][0]["classes"]),
    "many labels": lambda m: m["features"]["labels"].extend(
        {"name": f"l{i}", "column": "x", "unit": "K"} for i in range(2 * MOST_LABELS)
    ),
}


@pytest.mark.parametrize("fault", STRUCTURES)
@pytest.mark.parametrize("preset", PRESETS)
def test_lists_fit_together(preset: str, fault: str) -> None:
    text, weights = parts(preset)
    manifest = json.loads(text)
    STRUCTURES[fault](manifest)
    assert outcome(manifest, weights) == "refused"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * (MAX_DEPTH + 2) + b"1" + b"}" * (MAX_DEPTH + 2), "nested too deeply"),
        (b'{"a": [0, NaN]}', r"key 'a\.1' is nan, expected a finite number"),
        (b'{"a": {"b": -1e999}}', r"key 'a\.b' is -inf, expected a finite number"),
        (b'{"a": 100000000000000000000}', "more than 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"a": "\\ud800"}', "key 'a' is no Unicode text"),
        (b'"' + b"x" * (1 << 24) + b'"', "expected at most 16,777,216"),
    ],
)
def test_json_is_bounded(raw: bytes, told: str) -> None:
    with pytest.raises(BundleError, match=told):
        parse_manifest(raw, MANIFEST)


def header(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    return stream.getvalue() + data


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "a header of 10^12 numbers": lambda: archive({"novelty_linear": header((10**6, 10**6))}),
    "a fitting shape without data": lambda: archive({"novelty_linear": header((7, 10**12))}),
    "300 MB of zeros": lambda: archive({"novelty_linear": header((300, 131_072), bytes(8 * 300 * 131_072))}),
    "60 MB of zeros of another shape": lambda: archive(
        {"novelty_linear": header((60, 131_072), bytes(60 << 20))}
    ),
    "no header": lambda: archive({"novelty_linear": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 60_000}),
    "a header of another version": lambda: archive({"novelty_linear": b"\x93NUMPY\x09\x00"}),
    "a negative shape": lambda: archive({"novelty_linear": header((-7, -8))}),
    "an empty archive": lambda: archive({}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_ask_for_much_memory(bomb: str) -> None:
    text, _ = parts("tiny")
    weights = BOMBS[bomb]()
    assert len(weights) < 1 << 20
    tracemalloc.start()
    try:
        assert outcome(json.loads(text), weights) == "refused"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_large_files_are_not_read(tmp_path: Path) -> None:
    """Sparse files, so that the disk does not hold them: 1 TB each."""
    for name in (MANIFEST, WEIGHTS):
        bundle = shutil.copytree(tiny_bundle(TINY), tmp_path / name)
        with (bundle / name).open("r+b") as file:
            file.truncate(1 << 40)
        if name == WEIGHTS:
            continue
        with pytest.raises(BundleError, match=r"has 1,099,511,627,776 bytes, expected at most"):
            load_bundle(bundle)


def test_members_twice_and_of_other_kinds_are_refused() -> None:
    text, weights = parts("tiny")
    stream = io.BytesIO(weights)
    with zipfile.ZipFile(stream, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("novelty_linear.npy", header((7, 2), bytes(112)))
    assert outcome(json.loads(text), stream.getvalue()) == "refused"
    stream = io.BytesIO(weights)
    with zipfile.ZipFile(stream, "a") as file:
        file.writestr("readme.txt", b"hello")
    assert outcome(json.loads(text), stream.getvalue()) == "refused"


def test_the_message_names_the_key_and_what_was_expected() -> None:
    text, weights = parts("tiny")
    manifest = json.loads(text)
    manifest["scaler"]["scale"][1] = -0.5
    with pytest.raises(
        BundleError, match=r"'scaler\.scale' has -0\.5, expected numbers from 1e-12 to 3\.40282e\+38"
    ):
        read(manifest, weights)
    arrays = arrays_of("tiny")
    arrays["network0_kernel01"] = arrays["network0_kernel01"].astype(np.float64)
    with pytest.raises(BundleError, match=r"'network0_kernel01' is of float64, expected float32"):
        read(json.loads(text), packed(arrays))


def test_an_overflow_of_usual_weights_is_found_by_trying() -> None:
    """Each weight passes, all of them together do not."""
    text, _ = parts("tiny")
    arrays = arrays_of("tiny")
    for i in range(4):
        arrays[f"network0_kernel{i:02d}"][:] = 1e20
    with pytest.raises(BundleError, match="gives no finite label to stars in the middle"):
        read(json.loads(text), packed(arrays))


def test_packed_bytes_are_bounded(tmp_path: Path) -> None:
    blob = b"no archive"
    with pytest.raises(BundleError, match="no packed bundle"):
        unpack_bundle(blob, sha256_of(blob))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MANIFEST, bytes(17 << 20))
        file.writestr(WEIGHTS, b"")
    with pytest.raises(BundleError, match="more than a model has"):
        unpack_bundle(stream.getvalue(), sha256_of(stream.getvalue()))


def with_last_bias(bundle: Bundle, value: float) -> Bundle:
    """Return a bundle whose first network answers `value`, as no file can say it."""
    first = bundle.networks[0]
    biases = (*first.biases[:-1], np.full_like(first.biases[-1], value))
    return Bundle(
        bundle.manifest, bundle.inputs, (Folded(first.kernels, biases), *bundle.networks[1:]), bundle.novelty
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_label_that_is_no_number_is_an_error(value: float) -> None:
    """An infinity, too, which would be cut off to the edge of the training labels."""
    predictor = Predictor(with_last_bias(load_bundle(tiny_bundle(TINY)), value))
    rows = matrix_of(stars(5))
    rows[3] = np.nan
    with pytest.raises(NotFiniteError, match=r"^model m: .*: teff in 4 of 5 rows; expected numbers"):
        predictor.label(rows)


def test_stars_without_features_keep_the_medians_whatever_the_network_says() -> None:
    predictor = Predictor(with_last_bias(load_bundle(tiny_bundle(TINY)), np.nan))
    out = predictor.label(np.full((2, 5), np.nan, np.float32))
    assert (out["teff"] == np.float32(predictor.manifest.labels[0].median)).all()
    assert np.isfinite(out["teff_lo"]).all() and np.isfinite(out["teff_hi"]).all()


def test_an_end_of_an_interval_that_is_no_number_is_an_error() -> None:
    bundle = load_bundle(tiny_bundle(TINY))
    first, *others = bundle.manifest.calibration.labels
    odd = first.model_copy(update={"difficulty_bias": math.nan})
    calibration = bundle.manifest.calibration.model_copy(update={"labels": (odd, *others)})
    manifest = bundle.manifest.model_copy(update={"calibration": calibration})
    predictor = Predictor(Bundle(manifest, bundle.inputs, bundle.networks, bundle.novelty))
    with pytest.raises(NotFiniteError, match="teff in 5 of 5 rows"):
        predictor.label(matrix_of(stars(5)))


def test_presets_cover_every_kind_of_array() -> None:
    found = {name.rstrip("0123456789") for preset in PRESETS for name in arrays_of(preset)}
    assert {
        "novelty_linear",
        "novelty_predicted",
        "rotation",
        "imputation_mean",
        "imputation_covariance",
    } <= found
    assert pack_bundle(tiny_bundle(TINY))


def test_a_bundle_that_passes_and_overflows_gives_no_row(tmp_path: Path) -> None:
    predictor = Predictor(load_bundle(overflowing(tiny_bundle(TINY), tmp_path / "m")))
    rows = matrix_of(stars(5))
    rows[:, 1] = 12.0  # as the magnitude, beyond the end that it is clipped to
    assert np.isfinite(predictor.label(rows)["teff"]).all()
    rows[2, 1] = 3.0
    with pytest.raises(NotFiniteError, match="teff in 1 of 5 rows"):
        predictor.label(rows)


@pytest.mark.parametrize("place", [(), ("features",), ("calibration",)])
@pytest.mark.parametrize("key", ["spark", "options", "config"])
def test_a_bundle_has_no_place_for_spark_options(place: tuple[Step, ...], key: str) -> None:
    """Its `settings` are those of the training, told and never read: tests of apply give the session's own."""
    text, weights = parts("tiny")
    manifest = json.loads(text)
    at(manifest, place)[key] = {"spark.plugins": "x"}
    with pytest.raises(BundleError, match="unknown key"):
        read(manifest, weights)
