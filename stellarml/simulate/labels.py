"""A table of spectroscopic labels in the manner of the Survey of Surveys.

Bright stars mostly (G < 14.5, a tail to 17), because that is what spectroscopy covers: intervals calibrated on bright
stars must be tested on faint ones. Errors are Student-t (nu = 3). Some labels belong to another star: one in a hundred
where the astrometry is good, four in five where it is poor, so that the paper's cuts reduce about 10 % to 1 %. Some
stars have two rows, one in five of those in conflict.

Columns: source_id, ra, dec (deg), teff, e_teff (K), logg, e_logg, feh, e_feh (dex), n_surveys (how many surveys were
averaged), flag (bits: 1 low signal-to-noise, 2 near the edge of the spectroscopic grid).
"""

from __future__ import annotations

import numpy as np

from stellarml.simulate.settings import Realism
from stellarml.simulate.streams import Bools, Floats, stream
from stellarml.simulate.text import Column
from stellarml.simulate.truth import QUASAR, Truth

COLUMNS = ("source_id", "ra", "dec", "teff", "e_teff", "logg", "e_logg", "feh", "e_feh", "n_surveys", "flag")
CORE = {"teff": 45.0, "logg": 0.05, "feh": 0.04}
STUDENT_NU = 3.0

_SHARE_BY_G = (
    [8.0, 10.0, 13.0, 14.0, 14.5, 15.0, 16.0, 17.0, 17.4],
    [0.5, 0.85, 0.9, 0.85, 0.6, 0.3, 0.15, 0.06, 0.0],
)
_WRONG_GOOD, _WRONG_POOR = 0.009, 0.8
_DUPLICATE_SHARE, _CONFLICT_SHARE = 0.015, 0.2


def label_rows(
    truth: Truth, ra: Floats, dec: Floats, poor: Bools, seed: int, realism: Realism
) -> tuple[dict[str, Column], Bools]:
    """Return the label table, ascending in source_id, and which sources of the sky carry another star's labels.

    Parameters
    ----------
    truth : dict of ndarray, shape (n,)
    ra, dec : ndarray, shape (n,)
        Observed positions (deg).
    poor : ndarray of bool, shape (n,)
        Sources that fail an astrometric quality cut.
    """
    draw = stream(seed, "labels")
    n = len(ra)
    star = truth["component"] < QUASAR
    teff, logg = np.nan_to_num(truth["teff"], nan=0.0), np.nan_to_num(truth["logg"], nan=9.0)
    covered = star & (teff > 3800) & (teff < 7900) & (logg < 5.2)
    labelled = np.flatnonzero(covered & (draw.random(n) < np.interp(truth["m_G"], *_SHARE_BY_G)))
    chance = np.where(poor[labelled], _WRONG_POOR, _WRONG_GOOD) * (1.0 if realism.contaminants else 0.0)
    wrong = np.asarray(draw.random(len(labelled)) < chance)
    donor = labelled.copy()
    if len(labelled) > 1:
        donor[wrong] = labelled[draw.integers(0, len(labelled), int(wrong.sum()))]
    contaminant = np.zeros(n, dtype=np.bool_)
    contaminant[labelled[wrong]] = True

    twice = draw.random(len(labelled)) < (_DUPLICATE_SHARE if realism.duplicate_labels else 0.0)
    of = np.concatenate([labelled, labelled[twice]])
    giver = np.concatenate([donor, donor[twice]])
    second = np.arange(len(of)) >= len(labelled)
    conflict = second & (draw.random(len(of)) < _CONFLICT_SHARE)
    order = np.argsort(of, kind="stable")
    of, giver, conflict = of[order], giver[order], conflict[order]
    m = len(of)
    scale = 1.0 if realism.label_noise else 0.0
    value = {}
    for name, core in CORE.items():
        value[name] = truth[name][giver] + scale * core * draw.standard_t(STUDENT_NU, m)
    value["teff"] += conflict * draw.choice(np.array([-1.0, 1.0]), m) * draw.uniform(400, 1500, m)
    value["logg"] += conflict * draw.normal(0, 0.8, m)
    value["feh"] += conflict * draw.normal(0, 0.5, m)
    faint = truth["m_G"][of] > 14.5
    low_snr = draw.random(m) < np.where(faint, 0.06, 0.01)
    edge = (value["teff"] > 7500) | (value["feh"] < -3.0) | (value["feh"] > 0.5)
    out: dict[str, Column] = {
        "source_id": truth["source_id"][of],
        "ra": np.round(ra[of], 7),
        "dec": np.round(dec[of], 7),
        "n_surveys": draw.choice(np.array([1, 2, 3]), m, p=[0.82, 0.15, 0.03]),
        "flag": low_snr * 1 + edge * 2,
    }
    for name, digits in (("teff", 1), ("logg", 3), ("feh", 3)):
        out[name] = np.round(value[name], digits)
        out[f"e_{name}"] = np.round(1.4 * CORE[name] * np.exp(draw.normal(0, 0.25, m)), digits + 1)
    return out, contaminant
