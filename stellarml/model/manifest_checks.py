"""Whether what bundle.json says makes sense: its hashes tell that nothing changed, not that a training wrote it.

Models are passed on, and whoever can sign a bundle can sign any number. All that labelling relies on is checked once,
when a bundle is read: numbers are finite and of a size that products in float32 hold, lists are as long as the features
and labels are many, edges rise, names differ, every label has a network and its intervals.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stellarml.core.errors import BundleError, raise_gathered
from stellarml.intervals.cells import POOLED, CellClass
from stellarml.intervals.conformal import LEVELS, Calibration, LabelCalibration

if TYPE_CHECKING:
    from stellarml.intervals.true_parameters import TruthTable
    from stellarml.model.manifest import Manifest, Network

MAX_MANIFEST_BYTES = 1 << 24
MAX_DEPTH = 32
MOST_LABELS = (
    64  # what labels predict of a star's inputs is a cubic function of them: n (n + 1) (n + 2) / 6 terms
)
LARGEST = 1e36
"""Of weights and half-widths, whatever their unit: a hundred of them may be added up before a float32 overflows."""
LARGEST_FLOAT32 = 3.4028234663852886e38
_LARGEST_LOG = math.log(LARGEST)
_SMALLEST_SCALE = 1e-12
_TINY = 1e-300  # for what must be above 0
_LARGEST_INTEGER = 1 << 64
_ROUNDING = 1e-6
_SHOWN = 20
_ERRORS = ("mean", "median", "std", "mad", "mae", "n")


def read_json(raw: bytes, source: str) -> Any:
    """Read JSON that somebody else may have written, and return it.

    Raises
    ------
    BundleError
        If it is not JSON, is nested more than `MAX_DEPTH` deep, or holds a number that is not finite or needs more than
        64 bits, or text that is no Unicode.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{source}: has {len(raw):,} bytes, expected at most {MAX_MANIFEST_BYTES:,}")
    try:
        data = json.loads(raw)
    except RecursionError:
        raise BundleError(f"{source}: is nested too deeply, expected at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise BundleError(f"{source}: is not JSON: {error}") from None
    waiting: list[tuple[str, int, Any]] = [("", 0, data)]
    problems: list[str] = []
    while waiting and len(problems) < _SHOWN:
        where, depth, value = waiting.pop()
        if depth > MAX_DEPTH:
            raise BundleError(
                f"{source}: key '{where[:40]}...' is nested too deeply, expected at most {MAX_DEPTH} levels"
            )
        if isinstance(value, dict):
            waiting += [
                (f"{where}.{key}" if where else key, depth + 1, inner) for key, inner in value.items()
            ]
            problems += [f"key {key!r} is no Unicode text" for key in value if not _is_unicode(key)]
        elif isinstance(value, list):
            waiting += [(f"{where}.{i}", depth + 1, inner) for i, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"key '{where}' is {value}, expected a finite number")
        elif isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
            problems.append(f"key '{where}' is an integer of more than 64 bits")
        elif isinstance(value, str) and not _is_unicode(value):
            problems.append(f"key '{where}' is no Unicode text")
    raise_gathered(BundleError, source, problems)
    return data


def check_manifest(manifest: Manifest, source: str) -> None:
    """Refuse a manifest that no training can have written.

    Raises
    ------
    BundleError
        Naming each key, what was found and what was expected.
    """
    problems = [
        *_labels(manifest),
        *_networks(manifest),
        *_scaler(manifest),
        *_calibration(manifest),
        *_truth(manifest),
        *_novelty(manifest),
        *_numbers_of_the_test_part(manifest),
    ]
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    raise_gathered(BundleError, f"{source}: makes no sense", [*problems[:_SHOWN], *more])


def _labels(manifest: Manifest) -> Iterator[str]:
    found = [(label.name, label.unit) for label in manifest.labels]
    expected = [(label.name, label.unit) for label in manifest.features.labels]
    if found != expected:
        yield f"'labels' are {_words(found)}, expected those of 'features.labels': {_words(expected)}"
    if len(found) > MOST_LABELS:
        yield f"'labels' are {len(found)}, expected at most {MOST_LABELS}"
    names = [feature.name for feature in manifest.features.features]
    yield from _differ("features.features", names)
    for label in manifest.labels:
        where = f"labels.{label.name}"
        yield from _within(f"{where}.low, median, high", (label.low, label.median, label.high), LARGEST)
        yield from _rising(f"{where}.low, median, high", (label.low, label.median, label.high))
        yield from _within(f"{where}.mean", [label.mean], LARGEST)
        yield from _between(f"{where}.std", [label.std], 0.0, LARGEST)
        yield from _between(f"{where}.rows", [label.rows], 0, 1 << 53)
    yield from _between("counts", manifest.counts.values(), 0, 1 << 53)
    for entry in manifest.outside_range:
        yield from _between(f"outside_range.{entry.name}", (entry.outside, entry.values), 0, 1 << 53)
        if entry.outside > entry.values:
            yield f"'outside_range.{entry.name}' has {entry.outside} of {entry.values} values outside"
    if manifest.reddening_high_mag is not None:
        yield from _within("reddening_high_mag", [manifest.reddening_high_mag], LARGEST)


def _networks(manifest: Manifest) -> Iterator[str]:
    names = {label.name for label in manifest.labels}
    networks = manifest.networks
    if not networks:
        yield "'networks' is empty, expected a network for each label"
    without = sorted(names - {output for network in networks for output in network.outputs})
    if networks and without:
        yield f"'networks' give no label {', '.join(without)}"
    if len({network.scales for network in networks}) > 1:
        yield "'networks' give widths (key 'scales') in some and none in others, expected all alike"
    yield from _differ("networks.file", [network.file for network in networks])
    for n, network in enumerate(networks):
        yield from _network(f"networks.{n}", network, names)


def _network(where: str, network: Network, names: set[str]) -> Iterator[str]:
    yield from _differ(f"{where}.outputs", network.outputs)
    unknown = sorted(set(network.outputs) - names)
    if unknown or not network.outputs:
        yield f"'{where}.outputs' are {_words(network.outputs)}, expected some of {_words(sorted(names))}"
    yield from _between(f"{where}.widths", network.widths, 1, 1 << 20)
    yield from _between(f"{where}.slope", [network.slope], 0.0, 1.0)
    yield from _between(f"{where}.dropout", [network.dropout], 0.0, 1.0)
    yield from _between(f"{where}.best_epoch", [network.best_epoch], 0, 1 << 53)
    curve = network.curve
    for key in ("phase", "loss", "val_loss", "val_mae"):
        yield from _long(f"{where}.curve.{key}", getattr(curve, key), len(curve.epoch), "epochs")


def _scaler(manifest: Manifest) -> Iterator[str]:
    scaler, k = manifest.scaler, len(manifest.features.features)
    lengths = []
    for key in ("center", "scale", "low", "high", "domain_low", "domain_high", "never_missing"):
        lengths += list(_long(f"scaler.{key}", getattr(scaler, key), k, "features"))
        if key in ("center", "low", "high"):
            yield from _within(f"scaler.{key}", getattr(scaler, key), LARGEST_FLOAT32)
    yield from lengths
    yield from _between("scaler.scale", scaler.scale, _SMALLEST_SCALE, LARGEST_FLOAT32)
    yield from _between("scaler.masked", scaler.masked, 0, k - 1)
    yield from _differ("scaler.masked", scaler.masked)
    if lengths:
        return
    for j, name in enumerate(manifest.features.feature_names):
        clip = (scaler.low[j], scaler.center[j], scaler.high[j])
        yield from _rising(f"scaler.low, center, high of {name}", clip, _ROUNDING * abs(scaler.scale[j]))
        yield from _rising(
            f"scaler.domain_low, high of {name}", (scaler.domain_low[j], scaler.domain_high[j])
        )


def _calibration(manifest: Manifest) -> Iterator[str]:
    calibration = manifest.calibration
    if calibration.levels != LEVELS:
        yield f"'calibration.levels' are {_words(calibration.levels)}, expected {_words(LEVELS)}"
    yield from _between("calibration.min_rows", [calibration.min_rows], 1, 1 << 53)
    found = [table.label for table in calibration.labels]
    expected = [label.name for label in manifest.labels]
    if found != expected:
        yield f"'calibration.labels' are {_words(found)}, expected {_words(expected)}"
    n_inputs = len(manifest.scaler.center) + len(manifest.scaler.masked)
    n_weights = 0 if all(network.scales for network in manifest.networks) else n_inputs
    for table in calibration.labels:
        yield from _intervals(f"calibration.labels.{table.label}", table, n_weights)
    yield from _shift(calibration, n_inputs)


def _shift(calibration: Calibration, n_inputs: int) -> Iterator[str]:
    shift = calibration.shift
    if shift is not None:
        yield from _long("calibration.shift.weights", shift.weights, n_inputs, "inputs of the networks")
        yield from _within("calibration.shift.weights", shift.weights, LARGEST)
        yield from _within("calibration.shift.bias, high", (shift.bias, shift.high), LARGEST)


def _intervals(where: str, table: LabelCalibration, n_weights: int) -> Iterator[str]:
    what = "inputs of the networks" if n_weights else "weights, because the networks give the widths"
    yield from _long(f"{where}.difficulty_weights", table.difficulty_weights, n_weights, what)
    yield from _within(f"{where}.difficulty_weights", table.difficulty_weights, LARGEST)
    yield from _within(f"{where}.difficulty_bias", [table.difficulty_bias], LARGEST)
    limits = (table.difficulty_low, table.difficulty_high)
    yield from _within(f"{where}.difficulty_low, high", limits, _LARGEST_LOG)
    yield from _rising(f"{where}.difficulty_low, high", limits)
    for key, by_level in (("wide", table.wide), ("without_features", table.without_features)):
        yield from _by_level(f"{where}.{key}", by_level)
        yield from _between(f"{where}.{key}", by_level.values(), 0.0, LARGEST)
    patterns = [cell_class.pattern for cell_class in table.classes]
    yield from _differ(f"{where}.classes.pattern", patterns)
    if POOLED not in patterns:
        yield f"'{where}.classes' has no class '{POOLED}' for stars whose pattern has none of its own"
    widest = math.exp(min(table.difficulty_high, _LARGEST_LOG))
    for cell_class in table.classes:
        yield from _cells(f"{where}.classes.{cell_class.pattern}", cell_class, LARGEST / max(widest, 1.0))


def _cells(where: str, cells: CellClass, largest: float) -> Iterator[str]:
    """Check one table of cells; `largest` is what a half-width per unit of width may be."""
    yield from _within(f"{where}.label_edges", cells.label_edges, LARGEST)
    yield from _rising(f"{where}.label_edges", cells.label_edges)
    bins = len(cells.label_edges) + 1
    yield from _long(f"{where}.inner_edges", cells.inner_edges, bins, "bins of the label")
    for edges in cells.inner_edges:
        yield from _within(f"{where}.inner_edges", edges, LARGEST)
        yield from _rising(f"{where}.inner_edges", edges)
    yield from _by_level(f"{where}.quantiles", cells.quantiles)
    shape = [len(edges) + 1 for edges in cells.inner_edges]
    tables: list[tuple[str, Sequence[Sequence[float]], float]] = [(f"{where}.rows", cells.rows, 1 << 53)]
    tables += [(f"{where}.quantiles.{level}", found, largest) for level, found in cells.quantiles.items()]
    for name, table, most in tables:
        found = [len(row) for row in table]
        if found != shape:
            yield f"'{name}' has {_words(found)} cells in its bins, expected {_words(shape)}"
        for row in table:
            yield from _between(name, row, 0, most)
    for lower, upper in pairwise(cells.quantiles[str(v)] for v in LEVELS if str(v) in cells.quantiles):
        pairs = [pair for rows in zip(lower, upper, strict=False) for pair in zip(*rows, strict=False)]
        if any(high < low * (1 - _ROUNDING) for low, high in pairs):
            yield f"'{where}.quantiles' fall where the level rises"


def _truth(manifest: Manifest) -> Iterator[str]:
    yield from _differ("truth.label", [table.label for table in manifest.truth])
    widths = {table.label: table.difficulty_high for table in manifest.calibration.labels}
    for table in manifest.truth:
        if table.label not in widths:
            yield f"'truth.label' is '{table.label}', expected one of {_words(sorted(widths))}"
        yield from _truth_table(f"truth.{table.label}", table, widths.get(table.label, 0.0))


def _truth_table(where: str, table: TruthTable, log_width: float) -> Iterator[str]:
    noise = table.noise
    yield from _between(f"{where}.usual_error", [table.usual_error], 0.0, LARGEST)
    yield from _between(f"{where}.to_68", [table.to_68], 0.0, LARGEST)
    yield from _between(f"{where}.noise.factor", [noise.factor], _TINY, LARGEST)
    yield from _between(f"{where}.noise.reference", [noise.reference], _TINY, LARGEST)
    yield from _between(f"{where}.noise.exponent", [noise.exponent], 0.0, 2.0)
    yield from _between(f"{where}.noise.pairs", [noise.pairs], 0, 1 << 53)
    if noise.nu and not 2.0 < noise.nu <= LARGEST:
        yield f"'{where}.noise.nu' is {noise.nu:g}, expected 0 or a number above 2"
    widest = math.exp(min(log_width, _LARGEST_LOG)) * max(table.to_68, 1.0)
    yield from _cells(f"{where}.cells", table.cells, LARGEST / max(widest, 1.0))


def _novelty(manifest: Manifest) -> Iterator[str]:
    novelty, n = manifest.novelty, len(manifest.labels)
    yield from _within("novelty.limits", novelty.limits, LARGEST_FLOAT32)
    for key in ("label_mean", "label_std"):
        yield from _long(f"novelty.{key}", getattr(novelty, key), n, "labels")
    yield from _within("novelty.label_mean", novelty.label_mean, LARGEST)
    yield from _between("novelty.label_std", novelty.label_std, _SMALLEST_SCALE, LARGEST)
    yield from _within("novelty.bias, usual_high", (*novelty.bias, *novelty.usual_high), LARGEST)


def _numbers_of_the_test_part(manifest: Manifest) -> Iterator[str]:
    """Check what is shown of a model; a model without test stars has no numbers, and so may a label."""
    test, coverage = (manifest.metrics.get(key, {}) for key in ("test", "coverage"))
    if not isinstance(test, dict) or not isinstance(coverage, dict):
        yield "'metrics.test' and 'metrics.coverage' must be tables"
        return
    for label in manifest.labels:
        if label.name not in test:
            continue
        for key, table, names in (("test", test, _ERRORS), ("coverage", coverage, [str(v) for v in LEVELS])):
            found = table.get(label.name)
            numbers = [found.get(name) for name in names] if isinstance(found, dict) else [None]
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers):
                yield f"'metrics.{key}.{label.name}' must hold numbers for {_words(names)}"


def _within(where: str, values: Iterable[float], most: float) -> Iterator[str]:
    return _between(where, values, -most, most)


def _between(where: str, values: Iterable[float], low: float, high: float) -> Iterator[str]:
    """Say which of some numbers is the first outside, if one is; NaN is."""
    for value in values:
        if not low <= value <= high:
            yield f"'{where}' has {value:g}, expected numbers from {low:g} to {high:g}"
            return


def _rising(where: str, values: Sequence[float], rounding: float = 0.0) -> Iterator[str]:
    for one, other in pairwise(values):
        if one > other + rounding:
            yield f"'{where}' has {one:g} before {other:g}, expected numbers that do not fall"
            return


def _long(where: str, values: Sequence[Any], length: int, what: str) -> Iterator[str]:
    if len(values) != length:
        yield f"'{where}' has {len(values)} entries, expected {length}: the {what}"


def _differ(where: str, names: Sequence[Any]) -> Iterator[str]:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        yield f"'{where}' has {_words(twice)} twice"


def _by_level(where: str, found: Iterable[str]) -> Iterator[str]:
    expected = {str(level) for level in LEVELS}
    if set(found) != expected:
        yield f"'{where}' has the levels {_words(sorted(found))}, expected {_words(sorted(expected))}"


def _words(values: Iterable[Any]) -> str:
    shown = [" in ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values]
    return ", ".join(shown[:_SHOWN]) or "none"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
