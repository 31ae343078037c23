"""Whether a table can teach anything: read it, order it, and refuse it in words before a network is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stellarml.core.errors import InputError, TrainingError, did_you_mean, raise_gathered
from stellarml.core.names import EBV, error_name
from stellarml.features.feature_file import FeatureFile
from stellarml.features.split import CALIBRATION, SPLITS, TEST, TRAIN, VALIDATION, hash_digits

MIN_ROWS = {TRAIN: 100, VALIDATION: 10}
MIN_CALIBRATING = 20
LEAST_TARGET = 500  # rows without labels: fewer cannot say what the stars to be labelled are like
SENTINEL_STARS = 5  # share one value
SENTINEL_RANGES = 3.0  # that is so many times the others' range away from their middle


@dataclass(frozen=True)
class Stars:
    """Labelled stars in the order of their ids; features (n, k) and labels (n, n_labels) with NaN for missing.

    `label_errors` are the stated ones; `repeats`, of stars measured twice, the difference of both labels, and
    `repeat_errors` the root of the sum of their squared stated errors; (n, n_labels), NaN where there is none.
    """

    ids: NDArray[Any]
    features: NDArray[np.float32]
    labels: NDArray[np.float64]
    label_errors: NDArray[np.float64]
    repeats: NDArray[np.float64]
    repeat_errors: NDArray[np.float64]
    part: NDArray[np.str_]
    reddening_mag: NDArray[np.float32] | None

    def of(self, part: str) -> Stars:
        """Return the stars of one part."""
        return self.take(self.part == part)

    def take(self, rows: NDArray[Any]) -> Stars:
        """Return some stars, by mask or by index."""
        reddening = None if self.reddening_mag is None else self.reddening_mag[rows]
        return Stars(
            self.ids[rows],
            self.features[rows],
            self.labels[rows],
            self.label_errors[rows],
            self.repeats[rows],
            self.repeat_errors[rows],
            self.part[rows],
            reddening,
        )


def read_stars(
    table: pa.Table, features: FeatureFile, max_rows: int, salt: str, calibrating: str = CALIBRATION
) -> Stars:
    """Read, sort and check a training table.

    Parameters
    ----------
    table
        The id, the features and labels by name, and `split`; optionally `ebmv_sfd` and, for a label NAME, e_NAME (its
        stated error), repeat_NAME and e_repeat_NAME (see `Stars`; rows of the same id are compared, too).
    max_rows
        0, or the most training rows to keep: those with the smallest salted hash, so that a subset is always part of
        a larger one.
    salt
        Of that hash.
    calibrating
        The part that intervals will be calibrated on: a part of its own, or validation.

    Raises
    ------
    InputError
        If columns are missing.
    TrainingError
        Gathering everything that makes the table unfit.
    """
    wanted = [features.id, *features.feature_names, *features.label_names, "split"]
    known = table.column_names
    absent = [f"column '{n}' is missing.{did_you_mean(n, known)}" for n in wanted if n not in known]
    raise_gathered(InputError, "training table", absent)
    raise_gathered(InputError, "training table", _odd_types(table, features))
    ids = table[features.id].to_numpy(zero_copy_only=False)
    stars = Stars(
        ids=ids,
        features=_matrix(table, features.feature_names).astype(np.float32),
        labels=_matrix(table, features.label_names),
        label_errors=_optional(table, [error_name(n) for n in features.label_names]),
        repeats=_optional(table, [f"repeat_{n}" for n in features.label_names]),
        repeat_errors=_optional(table, [error_name(f"repeat_{n}") for n in features.label_names]),
        part=np.asarray(table["split"].to_pylist(), dtype=np.str_),
        reddening_mag=_matrix(table, (EBV,))[:, 0].astype(np.float32) if EBV in known else None,
    )
    stars = stars.take(_stable_order(stars))
    stars = _with_pairs(stars)
    if max_rows:
        stars = _first_by_hash(stars, max_rows, salt)
    raise_gathered(TrainingError, "training table", _problems(stars, features, calibrating))
    return stars


def read_target(
    table: pa.Table | None, features: FeatureFile
) -> tuple[NDArray[np.float32] | None, list[str]]:
    """Return the features of stars that are to be labelled, sorted, (n, n_features), NaN for missing; and warnings.

    Too few rows can be separated from the labelled ones by chance alone: below `LEAST_TARGET` there is None.

    Raises
    ------
    InputError
        If columns are missing.
    """
    if table is None or not table.num_rows:
        return None, []
    known = table.column_names
    absent = [
        f"column '{n}' is missing.{did_you_mean(n, known)}" for n in features.feature_names if n not in known
    ]
    raise_gathered(InputError, "table of stars to be labelled", absent)
    if table.num_rows < LEAST_TARGET:
        return None, [
            f"{table.num_rows} rows without labels are too few to say what the stars to be labelled are like "
            f"(at least {LEAST_TARGET}): intervals are for stars like the labelled ones"
        ]
    found = _matrix(table, features.feature_names).astype(np.float32)
    return found[np.lexsort(found.T)], []


def warnings_of(stars: Stars, features: FeatureFile) -> list[str]:
    """Return what a user should know about the training part although training goes on."""
    warnings = []
    train = stars.of(TRAIN)
    for name, column in zip(features.feature_names, train.features.T, strict=True):
        finite = column[np.isfinite(column)]
        if not len(finite):
            warnings.append(f"feature '{name}' is missing in every training star: it is ignored")
        elif finite.min() == finite.max():
            warnings.append(
                f"feature '{name}' is {finite[0]:g} in every training star: nothing to learn from it"
            )
        warnings += [
            f"feature '{name}' is {value:g} in {count} training stars, far from all others: if that means missing, "
            "say so in [null_when] of the feature file"
            for value, count in _sentinels(finite)
        ]
    if not (stars.part == TEST).any():
        warnings.append("no test rows: the model's errors are not measured")
    return warnings


def _odd_types(table: pa.Table, features: FeatureFile) -> list[str]:
    problems = []
    for name in (*features.feature_names, *features.label_names):
        kind = table.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            problems.append(f"column '{name}' is of type {kind}, expected a number")
    found = {str(v) for v in pc.unique(table["split"]).to_pylist()}
    odd = sorted(found - set(SPLITS))
    if odd:
        problems.append(f"column 'split' holds {odd}, expected only {list(SPLITS)}")
    if table[features.id].null_count:
        problems.append(
            f"column '{features.id}' has {table[features.id].null_count} nulls: a star needs an id"
        )
    return problems


def _matrix(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float64]:
    out = np.empty((table.num_rows, len(names)))
    for j, name in enumerate(names):
        column = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        out[:, j] = np.where(np.isfinite(column), column, np.nan)
    return out


def _optional(table: pa.Table, names: Sequence[str]) -> NDArray[np.float64]:
    absent = np.full(table.num_rows, np.nan)
    known = table.column_names
    columns = [_matrix(table, (name,))[:, 0] if name in known else absent for name in names]
    return np.stack(columns, axis=1)


def _with_pairs(stars: Stars) -> Stars:
    """Add the differences of rows of the same id to `repeats`; `stars` are in the order of their ids."""
    same = np.flatnonzero(stars.ids[1:] == stars.ids[:-1])
    repeats, errors = stars.repeats.copy(), stars.repeat_errors.copy()
    differences = np.abs(stars.labels[same + 1] - stars.labels[same])
    combined = np.hypot(stars.label_errors[same], stars.label_errors[same + 1])
    known = np.isfinite(differences) & np.isfinite(combined)
    repeats[same] = np.where(known, differences, repeats[same])
    errors[same] = np.where(known, combined, errors[same])
    return replace(stars, repeats=repeats, repeat_errors=errors)


def _stable_order(stars: Stars) -> NDArray[np.int64]:
    """Order by id; rows that share one (repeated stars) by their values, so that no order of delivery shows."""
    if len(np.unique(stars.ids)) == len(stars.ids):
        return np.argsort(stars.ids, kind="stable")
    keys = [*stars.features.T[::-1], *stars.labels.T[::-1], stars.ids]
    return np.lexsort(keys)


def _problems(stars: Stars, features: FeatureFile, calibrating: str) -> list[str]:
    needed = MIN_ROWS | {calibrating: MIN_CALIBRATING}
    problems = [
        f"the {part} part has {found} stars, at least {least} are needed ({len(stars.ids)} labelled stars in all)"
        for part, least in needed.items()
        if (found := int((stars.part == part).sum())) < least
    ]
    idle = int((stars.part == CALIBRATION).sum())
    if calibrating != CALIBRATION and idle:
        problems.append(
            f"the calibration part has {idle} stars although split.calibration is 0, so that the {calibrating} part "
            "calibrates: nobody would use them. Give split.calibration their share, or split the table anew"
        )
    if problems:
        return problems
    for j, name in enumerate(features.label_names):
        known = np.isfinite(stars.labels[:, j])
        for part, least in needed.items():
            found = int((known & (stars.part == part)).sum())
            if found < least:
                problems.append(
                    f"label '{name}' is known for {found} stars of the {part} part, at least {least} are needed"
                )
        values = stars.labels[known & (stars.part == TRAIN), j]
        if len(values) > 1 and np.ptp(values) <= 1e-6 * max(1.0, abs(float(values[0]))):
            problems.append(f"label '{name}' is {values[0]:g} for every training star: nothing to learn")
        problems += [
            f"label '{name}' is {value:g} for {count} stars, far from all others: if that means unknown, say so in "
            "[null_when] of the feature file"
            for value, count in _sentinels(stars.labels[known, j])
        ]
    train = stars.features[stars.part == TRAIN]
    if len(train) and not np.isfinite(train).any():
        problems.append(
            f"all {train.shape[1]} features are missing in all {len(train)} training stars: check the feature file's "
            "expressions against the table's columns"
        )
    return problems


def _sentinels(values: NDArray[Any]) -> list[tuple[float, int]]:
    """Return the least and the largest value, with their counts, if several stars share it far from all others."""
    found = []
    for value in {float(values.min()), float(values.max())} if len(values) else ():
        others = values[values != value]
        count = len(values) - len(others)
        if count >= SENTINEL_STARS and len(others) > count:
            low, middle, high = np.percentile(others, [1, 50, 99])
            if high > low and abs(value - middle) > SENTINEL_RANGES * (high - low):
                found.append((value, count))
    return sorted(found)


def _first_by_hash(stars: Stars, max_rows: int, salt: str) -> Stars:
    train = np.flatnonzero(stars.part == TRAIN)
    if len(train) <= max_rows:
        return stars
    digits = np.array(hash_digits(stars.ids[train].tolist(), f"{salt}/max_rows"))
    dropped = train[np.argsort(digits, kind="stable")[max_rows:]]
    return stars.take(np.setdiff1d(np.arange(len(stars.ids)), dropped))
