"""How wide an interval must be to hold a new spectroscopic measurement in 68, 90 or 95 % of cases.

Split conformal, per cell. Rows that took no part in the fit give residuals; divided by a width, one for stars above the
prediction and one for those below, they are comparable between bright and faint stars; within each cell of
missing-value pattern, predicted label and width the ceil((n + 1) level)-th smallest of their absolute values is the
factor that holds for the next star drawn like them, whatever the network (Vovk et al. 2005; Lei et al. 2018; with
widths that are quantiles, Romano et al. 2019). Cells have at least `MIN_ROWS` calibration rows, or are merged with
their neighbours. A few hundred rows determine a factor to some per cent only, so cells of rare patterns count scores
of all stars besides, unless theirs are plainly others; for them the promise is an approximate one. Where it is known
which stars are to be labelled, cells go by their likeness to the labelled ones (`covariate_shift`) instead of the
width, and calibration stars are weighted with it.

Widths come from the network where it gives them; else both are a linear fit of log |residual| to the inputs, made on
the validation part. Where that part calibrates, too, a row's own width is fitted to the other folds of it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stellarml.core.toml_layers import Section
from stellarml.intervals.cells import CellClass
from stellarml.intervals.covariate_shift import CovariateShift

LEVELS = (68, 90, 95)


class LabelCalibration(Section):
    """Intervals of one label; half-widths are in its unit.

    `difficulty_weights` and `difficulty_bias` make the logarithm of both widths from the inputs; they are empty where
    the network gives widths. `difficulty_low` and `difficulty_high` clip that logarithm.

    `pooled_borrows`: fewer than `MIN_ROWS` calibration rows were without a class of their own, so the pooled class was
    made from all rows and promises nothing for the patterns that fall into it.
    """

    label: str
    difficulty_weights: tuple[float, ...]
    difficulty_bias: float
    difficulty_low: float
    difficulty_high: float
    classes: tuple[CellClass, ...]
    pooled_borrows: bool
    wide: dict[str, float]
    without_features: dict[str, float]


class Calibration(Section):
    """Intervals of all labels; `patterns` are those with a class of their own, `seen` all in the calibration rows.

    `part` is the part of the labelled stars that the calibration rows are: a part of their own, or validation.
    """

    part: Literal["calibration", "validation"] = "calibration"
    method: str
    levels: tuple[int, ...]
    min_rows: int
    patterns: tuple[str, ...]
    seen: tuple[str, ...]
    shift: CovariateShift | None
    labels: tuple[LabelCalibration, ...]


def conformal_quantile(
    scores: NDArray[np.float64], level: float, weights: NDArray[np.float64] | None = None
) -> float:
    """Return the smallest score up to which the weights reach `level` of their sum and the largest of them once more.

    Without weights that is the ceil((n + 1) level)-th smallest. It is the largest score where there are too few to
    promise the level.

    Parameters
    ----------
    scores
        Shape (n,), n >= 1.
    level
        In (0, 1).
    weights
        Shape (n,), positive; all 1 by default.
    """
    each = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(each[order])
    wanted = level * (reached[-1] + each.max()) * (1 - 1e-12)
    return float(scores[order][min(int(np.searchsorted(reached, wanted)), len(scores) - 1)])


def widths_of(
    table: LabelCalibration, log_widths: NDArray[np.float64] | None, linear: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the widths down and up, (n, 2), in the label's unit.

    Parameters
    ----------
    log_widths
        The network's, (n, 2).
    linear
        Inputs times `difficulty_weights`, (n,), where the network gives none.
    """
    if log_widths is None:
        if linear is None:
            raise ValueError("neither the network nor the inputs give a width")
        log_widths = np.repeat((linear + table.difficulty_bias)[:, None], 2, axis=1)
    widths: NDArray[np.float64] = np.exp(np.clip(log_widths, table.difficulty_low, table.difficulty_high))
    return widths
