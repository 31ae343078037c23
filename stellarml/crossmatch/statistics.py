"""What a match did, in numbers that tiles report and the driver adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stellarml.crossmatch.kernel import TileMatch

_BIN_MAS = 1.0
_MULTIPLICITIES = ("number_of_neighbours", "number_of_mates", "number_of_reverse_neighbours")


def tile_statistics(result: TileMatch, owned: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Count the owned rows of one tile: matched or not, how often, how far apart."""
    degree = result.neighbours_of_left[owned]
    best = result.best
    separation = (result.distance_arcsec[result.unique] * (1000.0 / _BIN_MAS)).astype(np.int64)
    return {
        "left_taking_part": int(owned.sum()),
        "left_with_neighbours": int((degree > 0).sum()),
        "left_without": int((degree == 0).sum()),
        "pairs": len(result.left_row),
        "best": int(best.sum()),
        "unique": int(result.unique.sum()),
        "multiplicity": {
            "number_of_neighbours": _counts(degree),
            "number_of_mates": _counts(result.number_of_mates[best]),
            "number_of_reverse_neighbours": _counts(result.number_of_reverse_neighbours[best]),
        },
        "separation_mas": _counts(separation),
    }


def merge_statistics(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the tiles; the quantiles of the separation are those of its histogram of 1 mas bins."""
    total: dict[str, Any] = {
        name: sum(part[name] for part in parts)
        for name in ("left_taking_part", "left_with_neighbours", "left_without", "pairs", "best", "unique")
    }
    total["multiplicity"] = {
        name: _merged([part["multiplicity"][name] for part in parts]) for name in _MULTIPLICITIES
    }
    separation = _merged([part["separation_mas"] for part in parts])
    for percent in (16, 50, 84):
        total[f"separation_arcsec_p{percent}"] = _quantile(separation, percent / 100)
    total["median_separation_arcsec"] = total["separation_arcsec_p50"]
    return total


def _counts(values: npt.NDArray[Any]) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {str(v): int(n) for v, n in zip(found.tolist(), counts.tolist(), strict=True)}


def _merged(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[int, int] = {}
    for part in parts:
        for value, count in part.items():
            total[int(value)] = total.get(int(value), 0) + count
    return {str(value): total[value] for value in sorted(total)}


def _quantile(counts: dict[str, int], fraction: float) -> float | None:
    """Return the centre of the bin that holds the quantile, in arcsec."""
    if not counts:
        return None
    cumulative = np.cumsum(list(counts.values()))
    index = int(np.searchsorted(cumulative, fraction * cumulative[-1]))
    return round((int(list(counts)[index]) + 0.5) * _BIN_MAS / 1000.0, 6)
