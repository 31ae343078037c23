"""Which labels, intervals and flags a star gets, in NumPy alone, for the workers.

No row is dropped and no NaN comes out: a star without any feature gets the training medians and an interval as wide as
the labels themselves, flagged. Everything needed comes from a verified bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stellarml.core.errors import InputError, NotFiniteError
from stellarml.core.names import QUALITY_FLAGS, interval_names
from stellarml.core.quality_flags import QualityFlag
from stellarml.features.missing_patterns import any_in_row, missing_of, patterns_of
from stellarml.intervals.cells import POOLED, factors
from stellarml.intervals.conformal import LabelCalibration, widths_of
from stellarml.intervals.true_parameters import truth_half_widths
from stellarml.model.bundle import Bundle, unpack_bundle
from stellarml.model.forward import Answer, Forward
from stellarml.model.manifest import LabelRange, Manifest
from stellarml.model.novelty import novelty_scores
from stellarml.model.onnx_graph import Head

REACH = 0.5  # of the range of the training labels: no prediction lies further beyond its ends


@dataclass(frozen=True)
class _Rows:
    """Some stars on their way to labels: what the networks answer, what is missing, and the flags so far.

    kinds, index
        The patterns of missing features that occur, and which of them each star has.
    nothing
        Stars without any feature.
    log_ratio
        How much more frequent such stars are among those to be labelled than among the labelled ones.
    """

    answer: Answer
    kinds: tuple[str, ...]
    index: NDArray[np.intp]
    nothing: NDArray[np.bool_]
    log_ratio: NDArray[np.float64] | None
    flags: NDArray[np.int32]


class Predictor:
    """A bundle, ready to label rows; one object a thread (it owns its buffers)."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self.manifest: Manifest = manifest
        self.feature_names = manifest.features.feature_names
        self.label_names = tuple(label.name for label in manifest.labels)
        tables = manifest.calibration.labels
        heads = [
            Head(n.activation, n.slope, tuple(self.label_names.index(o) for o in n.outputs), n.scales)
            for n in manifest.networks
        ]
        linear = [t.difficulty_weights for t in tables]
        widths = [np.array(linear, dtype=np.float64).T] if any(linear) else []
        self._novelty = bundle.novelty
        self._n_widths = len(tables) if widths else 0
        covariate_shift = manifest.calibration.shift
        ratio = [] if covariate_shift is None else [np.array(covariate_shift.weights)[:, None]]
        weights = np.hstack([*widths, bundle.novelty.linear, *ratio])
        self._forward = Forward(
            manifest.scaler, bundle.inputs.gaussian, bundle.networks, heads, len(self.label_names), weights
        )
        self._gspphot = np.array(["gspphot" in f.expression.lower() for f in manifest.features.features])

    @classmethod
    def from_bytes(cls, blob: bytes, sha256: str) -> Predictor:
        """Rebuild from `stellarml.model.bundle.pack_bundle`'s bytes; BundleError if they changed."""
        return cls(unpack_bundle(blob, sha256))

    def label(
        self,
        features: NDArray[np.float32],
        level: int = 68,
        reddening_mag: NDArray[np.floating[Any]] | None = None,
        *,
        truth: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Return NAME, NAME_lo, NAME_hi (float32) of every label and quality_flags (int32), each (n,).

        Parameters
        ----------
        features
            Shape (n, n_features) in the order of `feature_names`; NaN and infinity are missing.
        level
            68, 90 or 95: per cent of new spectroscopic measurements inside the interval.
        reddening_mag
            E(B-V) on the scale of the training table's `ebmv_sfd`, (n,); None where unknown.
        truth
            Return NAME_true_lo and NAME_true_hi (float32), too: `stellarml.intervals.true_parameters`.

        Raises
        ------
        InputError
            If the number of features or the level is not the model's, or it has no intervals for true parameters.
        NotFiniteError
            If a network gives no finite number for a star that has a feature, or an end of an interval is none.
        """
        if truth:
            self.manifest.check_truth()
        if level not in self.manifest.calibration.levels:
            raise InputError(
                f"level {level} is not calibrated; this model has {self.manifest.calibration.levels}"
            )
        rows = self._rows(features, reddening_mag)
        out: dict[str, NDArray[Any]] = {}
        for j, name in enumerate(self.label_names):
            out |= self._label(rows, j, level)
            if truth:
                out |= self._true_interval(rows, j, out[name], level)
        self._refuse_what_is_no_number(rows, out)
        out[QUALITY_FLAGS] = rows.flags
        return out

    def _refuse_what_is_no_number(self, rows: _Rows, out: Mapping[str, NDArray[Any]]) -> None:
        """Raise NotFiniteError rather than hand on a label that no flag marks.

        What the networks answer is looked at, too: an infinity would be cut off to the edge of the training labels.
        """
        if all(np.isfinite(values).all() for values in (rows.answer.labels, *out.values())):
            return
        problems = []
        for j, name in enumerate(self.label_names):
            wrong = ~np.isfinite(rows.answer.labels[:, j]) & ~rows.nothing
            for column in (name, *interval_names(name), *interval_names(name, true=True)):
                if column in out:
                    wrong |= ~np.isfinite(out[column])
            if wrong.any():
                problems.append(f"{name} in {int(wrong.sum()):,} of {len(wrong):,} rows")
        if problems:
            raise NotFiniteError(
                f"model {self.manifest.id}: its networks give no finite label or interval: {', '.join(problems)}; "
                "expected numbers for every row that has a feature. Use another model, or train this one again."
            )

    def _rows(self, features: NDArray[np.float32], reddening_mag: NDArray[np.floating[Any]] | None) -> _Rows:
        """Run the networks, and flag what does not depend on a label."""
        x = np.asarray(features, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.feature_names):
            raise InputError(
                f"features have shape {x.shape}, this model needs (n, {len(self.feature_names)}): "
                f"{', '.join(self.feature_names)}"
            )
        answer = self._forward.run(x)
        kinds, index = patterns_of(~np.isfinite(x))
        missing = missing_of(kinds, x.shape[1])
        flags = self._missing_flags(kinds, missing)[index]
        flags |= self._feature_flags(x, reddening_mag)
        flags |= self._novelty_flags(answer)
        covariate_shift, log_ratio = self.manifest.calibration.shift, None
        if covariate_shift is not None:
            log_ratio = answer.linear[:, -1] + covariate_shift.bias
            flags[log_ratio > covariate_shift.high] |= QualityFlag.THIN_CALIBRATION
        nothing = np.atleast_1d(missing.all(axis=1))[index]
        return _Rows(answer, kinds, index, nothing, log_ratio, flags)

    def _label(self, rows: _Rows, j: int, level: int) -> dict[str, NDArray[Any]]:
        """Return one label and its interval, and flag what depends on it."""
        known, table = self.manifest.labels[j], self.manifest.calibration.labels[j]
        value = np.where(
            rows.nothing, np.float32(known.median), _within_reach(rows.answer.labels[:, j], known)
        )
        widths = self._widths(rows, j)
        classes = {cell_class.pattern: c for c, cell_class in enumerate(table.classes)}
        own = np.array([classes.get(kind, classes[POOLED]) for kind in rows.kinds], dtype=np.intp)
        inner = _mean(widths) if rows.log_ratio is None else rows.log_ratio
        factor, counted = _factors(table, own[rows.index], value.astype(np.float64), inner, level)
        half = factor[:, None] * widths
        half[rows.nothing] = table.without_features[str(level)]
        if table.pooled_borrows:
            rows.flags[own[rows.index] == classes[POOLED]] |= QualityFlag.THIN_CALIBRATION
        wide, least = table.wide[str(level)], self.manifest.calibration.min_rows
        rows.flags[:] |= _label_flags(value, half, counted, known, wide, least)
        return {known.name: value, **_ends(interval_names(known.name), value, half)}

    def _true_interval(
        self, rows: _Rows, j: int, value: NDArray[np.float32], level: int
    ) -> dict[str, NDArray[np.float32]]:
        """Return the interval of one true parameter about its predicted `value`."""
        name = self.label_names[j]
        (table,) = (table for table in self.manifest.truth if table.label == name)
        half = truth_half_widths(table, value.astype(np.float64), self._widths(rows, j), level)
        half[rows.nothing] = self.manifest.calibration.labels[j].without_features[str(level)]
        return _ends(interval_names(name, true=True), value, half)

    def _widths(self, rows: _Rows, j: int) -> NDArray[np.float64]:
        table, log_widths = self.manifest.calibration.labels[j], rows.answer.log_widths
        if log_widths is None:
            return widths_of(table, None, rows.answer.linear[:, j])
        return widths_of(table, log_widths[:, :, j], None)

    def novelty(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how far stars are from those that the networks have learnt from, (n, 2): `novelty.KINDS`.

        Parameters
        ----------
        features
            As for `label`.
        """
        return self._novelty_scores(self._forward.run(np.asarray(features, dtype=np.float32)))

    def _novelty_scores(self, answer: Answer) -> NDArray[np.float64]:
        first = self._n_widths
        linear = answer.linear[:, first : first + self._novelty.linear.shape[1]]
        labels = answer.labels.astype(np.float64)
        return novelty_scores(self._novelty, self.manifest.novelty, linear, labels)

    def _novelty_flags(self, answer: Answer) -> NDArray[np.int32]:
        beyond = self._novelty_scores(answer) > np.asarray(self.manifest.novelty.limits)
        flags = np.zeros(len(beyond), dtype=np.int32)
        flags[beyond[:, 0]] |= QualityFlag.OUTSIDE_JOINTLY
        flags[beyond[:, 1]] |= QualityFlag.COLOURS_DISAGREE
        return flags

    def _missing_flags(self, kinds: Sequence[str], missing: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return what each pattern of missing features says of its stars, (n_kinds,)."""
        flags = np.zeros(len(kinds), dtype=np.int32)
        seen = self.manifest.calibration.seen
        flags[[kind not in seen for kind in kinds]] |= QualityFlag.THIN_CALIBRATION
        flags[(missing & np.asarray(self.manifest.scaler.never_missing)).any(axis=1)] |= (
            QualityFlag.OUTSIDE_DOMAIN
        )
        flags[(missing & ~self._gspphot).any(axis=1)] |= QualityFlag.MISSING_BANDS
        flags[(missing & self._gspphot).any(axis=1)] |= QualityFlag.MISSING_GSPPHOT
        flags[missing.all(axis=1)] |= QualityFlag.ALL_MISSING | QualityFlag.WIDE_INTERVAL
        return flags

    def _feature_flags(
        self, x: NDArray[np.float32], reddening_mag: NDArray[np.floating[Any]] | None
    ) -> NDArray[np.int32]:
        scaler = self.manifest.scaler
        flags = np.zeros(len(x), dtype=np.int32)
        low, high = (np.asarray(limit) for limit in (scaler.domain_low, scaler.domain_high))
        flags[any_in_row((x < low) | (x > high))] |= QualityFlag.OUTSIDE_DOMAIN
        limit = self.manifest.reddening_high_mag
        if reddening_mag is not None and limit is not None:
            flags[np.asarray(reddening_mag) > limit] |= QualityFlag.REDDENING_BEYOND
        return flags


def _factors(
    table: LabelCalibration,
    class_of: NDArray[np.intp],
    value: NDArray[np.float64],
    inner: NDArray[np.float64],
    level: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    factor, rows = np.zeros(len(value)), np.zeros(len(value), np.int64)
    for c, cell_class in enumerate(table.classes):
        chosen = class_of == c
        if chosen.any():
            factor[chosen], rows[chosen] = factors(cell_class, value[chosen], inner[chosen], level)
    return factor, rows


def _label_flags(
    value: NDArray[np.float32],
    half: NDArray[np.float64],
    rows: NDArray[np.int64],
    known: LabelRange,
    wide: float,
    min_rows: int,
) -> NDArray[np.int32]:
    flags = np.zeros(len(value), dtype=np.int32)
    flags[rows < min_rows] |= QualityFlag.THIN_CALIBRATION
    flags[_mean(half) > wide] |= QualityFlag.WIDE_INTERVAL
    flags[(value <= known.low) | (value >= known.high)] |= QualityFlag.LABEL_EDGE
    return flags


def _ends(
    names: tuple[str, str], value: NDArray[np.float32], half: NDArray[np.float64]
) -> dict[str, NDArray[np.float32]]:
    lo, hi = names
    return {lo: (value - half[:, 0]).astype(np.float32), hi: (value + half[:, 1]).astype(np.float32)}


def _within_reach(value: NDArray[np.float32], known: LabelRange) -> NDArray[np.float32]:
    """Return predictions, those far beyond the labels that were learnt from cut off: LABEL_EDGE marks them."""
    beyond = REACH * (known.high - known.low)
    return np.clip(value, np.float32(known.low - beyond), np.float32(known.high + beyond))


def _mean(both: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the two columns, (n,); NumPy's own takes ten times as long for rows of two."""
    return (both[:, 0] + both[:, 1]) / 2
