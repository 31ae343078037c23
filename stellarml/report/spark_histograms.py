"""How histograms are filled where the rows lie: one pass of the table fills any number of them.

Each task bins its rows with NumPy and hands on only its occupied bins; Spark adds those up and the driver receives
at most one row a bin. Exploding every row once a histogram in SQL needs no Python worker, but moves
rows x histograms records: for 100,000 rows and 40 histograms on two cores it took 5.0 s, this way 0.9 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

from stellarml.core.histograms import Counts, FloatArray, Histogram, add, empty, fill

BUFFER_ROWS = 262_144
_SCHEMA = "histogram int, bin long, n long, total double, squares double"


def bin_table(
    table: DataFrame, histograms: Sequence[Histogram], columns: Mapping[str, Column]
) -> dict[str, Counts]:
    """Fill `histograms` from `table` in one pass.

    Parameters
    ----------
    table
        Any DataFrame.
    histograms
        Their names must differ.
    columns
        For every column that a histogram names, how to compute it from the table; cast to double, null and NaN
        alike mean missing.

    Returns
    -------
    dict
        Histogram name to filled histogram; all zero where the table has no row.
    """
    if not histograms:
        return {}
    needed = sorted({name for histogram in histograms for name in histogram.columns})
    slim = table.select(*(columns[name].cast("double").alias(name) for name in needed))
    declared = tuple(histograms)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return occupied_bins(batches, declared)

    partial = slim.mapInArrow(count, _SCHEMA)
    summed = partial.groupBy("histogram", "bin").agg(
        *(F.sum(name).alias(name) for name in ("n", "total", "squares"))
    )
    bins = summed.toArrow()
    return _assemble(bins, declared)


def occupied_bins(
    batches: Iterator[pa.RecordBatch], histograms: Sequence[Histogram]
) -> Iterator[pa.RecordBatch]:
    """Yield one batch: every occupied bin of every histogram over all `batches` of a task."""
    filled = [empty(histogram) for histogram in histograms]
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BUFFER_ROWS:
            filled = _fill_all(filled, waiting)
            waiting, rows = [], 0
    if rows:
        filled = _fill_all(filled, waiting)
    yield _to_batch(filled)


def _fill_all(filled: list[Counts], batches: list[pa.RecordBatch]) -> list[Counts]:
    table = pa.Table.from_batches(batches)
    arrays: dict[str, FloatArray] = {name: table[name].to_numpy() for name in table.column_names}
    return [add(counts, fill(counts.histogram, arrays)) for counts in filled]


def _to_batch(filled: Sequence[Counts]) -> pa.RecordBatch:
    where = [np.flatnonzero(counts.n) for counts in filled]
    number = [np.full(len(bins), i, dtype=np.int32) for i, bins in enumerate(where)]

    def taken(name: str) -> FloatArray:
        return np.concatenate([getattr(c, name).ravel()[bins] for c, bins in zip(filled, where, strict=True)])

    return pa.RecordBatch.from_pydict(
        {
            "histogram": pa.array(np.concatenate(number), pa.int32()),
            "bin": pa.array(np.concatenate(where), pa.int64()),
            "n": pa.array(taken("n"), pa.int64()),
            "total": pa.array(taken("total"), pa.float64()),
            "squares": pa.array(taken("squares"), pa.float64()),
        }
    )


def _assemble(bins: pa.Table, histograms: Sequence[Histogram]) -> dict[str, Counts]:
    arrays = {name: bins[name].to_numpy() for name in bins.column_names}
    filled: dict[str, Counts] = {}
    for number, histogram in enumerate(histograms):
        counts = empty(histogram)
        mine = arrays["histogram"] == number
        for name in ("n", "total", "squares"):
            getattr(counts, name).ravel()[arrays["bin"][mine]] = arrays[name][mine]
        filled[histogram.name] = counts
    return filled
