"""What a match did, in numbers that tiles report and the driver adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stellarml.crossmatch.kernel.frame_offset import BIN_MAS, centre_of
from stellarml.crossmatch.kernel.match_tile import TileMatch
from stellarml.crossmatch.kernel.settings import Floats, Integers

_BIN_MAS = 1.0
_SAMPLE_ROWS = 1_000_000
_AXES = ("offset_ra_mas", "offset_dec_mas")
_MULTIPLICITIES = ("number_of_neighbours", "number_of_mates", "number_of_reverse_neighbours")


def is_sampled(ids: Integers, rows: int) -> npt.NDArray[np.bool_]:
    """Tell which ids belong to the sample of about a million of a catalogue's `rows`; all of a smaller one.

    The choice is that of the id alone, so that it does not depend on tiles.
    """
    every = -(-rows // _SAMPLE_ROWS)
    if every <= 1:
        return np.ones(len(ids), dtype=bool)
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    chosen: npt.NDArray[np.bool_] = (mixed >> np.uint64(32)) % np.uint64(every) == 0
    return chosen


def tile_statistics(
    result: TileMatch, owned: npt.NDArray[np.bool_], offsets_mas: Floats | None = None
) -> dict[str, Any]:
    """Count the owned rows of one tile, or of a part of it: matched or not, how often, how far apart.

    Parameters
    ----------
    offsets_mas : ndarray, shape (n, 2), optional
        Right minus left, east and north, of unique pairs.
    """
    offsets = np.empty((0, 2)) if offsets_mas is None else offsets_mas
    degree = result.neighbours_of_left[owned]
    best = result.best
    separation = (result.distance_arcsec[result.unique] * (1000.0 / _BIN_MAS)).astype(np.int64)
    return {
        "left_taking_part": int(owned.sum()),
        "left_with_neighbours": int((degree > 0).sum()),
        "left_without": int((degree == 0).sum()),
        "pairs": int(degree.sum(dtype=np.int64)),
        "best": int(best.sum()),
        "unique": int(result.unique.sum()),
        "multiplicity": {
            "number_of_neighbours": _counts(degree),
            "number_of_mates": _counts(result.number_of_mates[best]),
            "number_of_reverse_neighbours": _counts(result.number_of_reverse_neighbours[best]),
        },
        "separation_mas": _counts(separation),
        **{name: _counts(np.floor(offsets[:, k] / BIN_MAS).astype(np.int64)) for k, name in enumerate(_AXES)},
    }


def add_statistics(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the counts of a tile's parts, to what `tile_statistics` gives of a whole one."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, dict):
                total[name] = add_statistics([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total


def merge_statistics(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the tiles; the quantiles of the separation are those of its histogram of 1 mas bins.

    `offset_ra_mas`, `offset_dec_mas` are medians of right minus left over (a sample of) the unique pairs, as
    `kernel.frame_offset.centre_of` takes them: what is left of it where a frame offset was removed.
    """
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
    return total | _offset([_merged([part[name] for part in parts]) for name in _AXES])


def _offset(counts: list[dict[str, int]]) -> dict[str, Any]:
    pairs = sum(counts[0].values())
    if not pairs:
        return dict.fromkeys((*_AXES, "offset_error_mas")) | {"offset_pairs": 0}
    centres = [centre_of(np.array([*map(int, c)]), np.array([*c.values()])) for c in counts]
    medians: dict[str, Any] = {
        name: round(median, 2) for name, (median, _, _) in zip(_AXES, centres, strict=True)
    }
    return medians | {
        "offset_error_mas": round(max(error for _, error, _ in centres), 2),
        "offset_pairs": pairs,
    }


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
    """Return the quantile in arcsec, its place inside its bin by the bin's share."""
    if not counts:
        return None
    cumulative = np.cumsum(list(counts.values()))
    wanted = fraction * float(cumulative[-1])
    index = int(np.searchsorted(cumulative, wanted))
    before = int(cumulative[index - 1]) if index else 0
    inside = (wanted - before) / (int(cumulative[index]) - before)
    return round((int(list(counts)[index]) + inside) * _BIN_MAS / 1000.0, 6)
