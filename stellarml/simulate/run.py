"""The order in which a whole simulated sky is drawn and written.

The true sky is drawn first, in memory (about 0.5 kB a source); then threads write one file each, block by block, from
random streams keyed by block, so that neither memory nor bytes depend on the number of threads.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core import progress
from stellarml.core.errors import StorageError, UserError
from stellarml.simulate import distances, labels
from stellarml.simulate.ecsv import gaia_columns, gaia_header, skymapper_columns
from stellarml.simulate.gaia_rows import QUOTED, gaia_rows
from stellarml.simulate.isochrones import BANDS
from stellarml.simulate.settings import MIN_STARS, SimulateSettings, SimulateSummary
from stellarml.simulate.skymapper_objects import sky_objects
from stellarml.simulate.skymapper_rows import skymapper_rows
from stellarml.simulate.streams import stream
from stellarml.simulate.text import table_block, write_gzip
from stellarml.simulate.truth import KINDS, QUASAR, Truth, draw_truth

LEVEL8_PIXELS = 786_432
MIN_GAIA_FILES, ROWS_A_GAIA_FILE = 8, 500_000
MIN_SKYMAPPER_FILES, ROWS_A_SKYMAPPER_FILE = 4, 250_000
BLOCK_ROWS = 25_000
_CORE = (
    "ra",
    "dec",
    "ruwe",
    "ipd_frac_multi_peak",
    "ipd_frac_odd_win",
    "astrometric_sigma5d_max",
    "parallax_error",
)

Told = Callable[[str], None]
Span = tuple[int, int]


def simulate(settings: SimulateSettings, out: Path, told: Told | None = None) -> SimulateSummary:
    """Write the raw files of a simulated sky below `out`, and the truth beside them.

    Parameters
    ----------
    settings : SimulateSettings
        Number of Gaia rows, seed, realism switches.
    out : Path
        Gets `raw/gaia_dr3`, `raw/gaia_distances`, `raw/skymapper_dr2`, `raw/sos` and `truth`.
    told : callable, optional
        Called with one line a step, instead of `core.progress.step`.

    Raises
    ------
    UserError
        Fewer than 1000 stars, or a `raw` folder that already holds files.
    StorageError
        The file system refused; nothing is left behind.
    """
    started = time.monotonic()
    report = told or progress.step
    _check(settings, out)
    unfinished = out / "simulate.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        summary = _write(settings, unfinished, report)
        for name in ("truth", "raw"):
            shutil.rmtree(out / name, ignore_errors=True)
            (unfinished / name).rename(out / name)
        unfinished.rmdir()
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StorageError(
            f"the simulated sky could not be written to {out}: {error}. Nothing was kept; a sky of {settings.stars} "
            f"stars needs about {settings.stars / 1e6:.1f} GB. Free the space and run it again."
        ) from error
    return summary.model_copy(update={"seconds": time.monotonic() - started})


def _write(settings: SimulateSettings, out: Path, report: Told) -> SimulateSummary:
    """Write `raw` and `truth` below `out`."""
    truth = draw_truth(settings, report)
    folders = {name: out / "raw" / name for name in ("gaia_dr3", "gaia_distances", "skymapper_dr2", "sos")}
    for folder in (*folders.values(), out / "truth"):
        folder.mkdir(parents=True)
    random_index = stream(settings.seed, "random_index").permutation(settings.stars)
    files: dict[str, list[Path]] = {name: [] for name in folders}
    with ThreadPoolExecutor(settings.workers) as pool:
        report(f"writing {settings.stars} Gaia sources")
        progress.expect(settings.stars)
        jobs = []
        for first, last, span in gaia_partition(truth["source_id"]):
            name = f"{first:06d}-{last:06d}.csv.gz"
            gaia, distance = (
                folders["gaia_dr3"] / f"GaiaSource_{name}",
                folders["gaia_distances"] / f"Distance_{name}",
            )
            files["gaia_dr3"].append(gaia)
            files["gaia_distances"].append(distance)
            jobs.append(pool.submit(_write_gaia, truth, random_index, span, gaia, distance, settings))
        written = [job.result() for job in jobs]
        core = {name: np.concatenate([part[name] for part, _ in written]) for name in _CORE}
        objects = sky_objects(truth, settings, report)
        report(f"writing {len(objects['ra'])} SkyMapper objects")
        progress.expect(len(objects["ra"]))
        jobs_sm = []
        for k, span in enumerate(_even_spans(len(objects["ra"]), MIN_SKYMAPPER_FILES, ROWS_A_SKYMAPPER_FILE)):
            path = folders["skymapper_dr2"] / f"dr2_master_{k:03d}.csv.gz"
            files["skymapper_dr2"].append(path)
            jobs_sm.append(pool.submit(_write_skymapper, objects, truth, span, path, settings))
        for job in jobs_sm:
            job.result()
    table, contaminant = labels.label_rows(
        truth, core["ra"], core["dec"], _poor_astrometry(core), settings.seed, settings.realism
    )
    path = folders["sos"] / "sos.csv.gz"
    files["sos"].append(path)
    head = (",".join(labels.COLUMNS) + "\n").encode()
    write_gzip(path, iter([head, bytes(table_block(table, labels.COLUMNS, ""))]))
    report("writing the truth")
    _write_truth(truth, contaminant, objects, out / "truth")
    rows = {
        "gaia_dr3": settings.stars,
        "gaia_distances": sum(n for _, n in written),
        "skymapper_dr2": len(objects["ra"]),
        "sos": len(table["source_id"]),
    }
    return SimulateSummary(
        stars=settings.stars,
        seed=settings.seed,
        rows=rows,
        files={name: tuple(p.relative_to(out).as_posix() for p in paths) for name, paths in files.items()},
        drawn=_drawn(truth, objects, np.asarray(table["source_id"]), contaminant),
        seconds=0.0,
    )


def _check(settings: SimulateSettings, out: Path) -> None:
    if settings.stars < MIN_STARS:
        raise UserError(
            f"stars is {settings.stars}; a simulated sky needs at least {MIN_STARS} Gaia sources. Ask for more stars."
        )
    raw = out / "raw"
    if any(path.is_file() for path in raw.rglob("*")):
        raise UserError(
            f"{raw} already holds files; a simulated sky is written into an empty folder. "
            "Remove it or name another output folder."
        )


def gaia_partition(source_id: np.ndarray) -> Iterator[tuple[int, int, Span]]:
    """Yield first and last level-8 pixel and rows (start, stop) of each bulk file; consecutive, without gaps.

    Borders lie between pixels, where the running count passes an equal share, as in the archive.
    """
    n = len(source_id)
    n_files = max(MIN_GAIA_FILES, -(-n // ROWS_A_GAIA_FILE))
    pixel = source_id >> 43
    border = pixel[np.minimum(np.arange(1, n_files) * n // n_files, n - 1)] + 1
    first = np.r_[0, _strictly_rising(border)]
    last = np.r_[first[1:] - 1, LEVEL8_PIXELS - 1]
    edge = [*(int(np.searchsorted(pixel, a)) for a in first), n]
    for k in range(n_files):
        yield int(first[k]), int(last[k]), (edge[k], edge[k + 1])


def _strictly_rising(border: np.ndarray) -> np.ndarray:
    """Return borders moved up where two fell on one pixel."""
    steps = np.arange(len(border))
    return np.maximum.accumulate(border - steps) + steps


def _even_spans(n: int, at_least: int, rows: int) -> list[Span]:
    n_files = max(at_least, -(-n // rows))
    edges = [k * n // n_files for k in range(n_files + 1)]
    return list(pairwise(edges))


def _blocks(span: Span) -> Iterator[slice]:
    for start in range(span[0], span[1], BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, span[1]))


def _write_gaia(
    truth: Truth,
    random_index: np.ndarray,
    span: Span,
    path: Path,
    distance_path: Path,
    settings: SimulateSettings,
) -> tuple[dict[str, np.ndarray], int]:
    """Write one bulk file and its distances; return what later steps need of it, and the rows of distances."""
    names = [column.name for column in gaia_columns()]
    core: dict[str, list[np.ndarray]] = {name: [] for name in _CORE}
    distance_text = [(",".join(distances.COLUMNS) + "\n").encode()]
    rows = 0

    def blocks() -> Iterator[bytes | memoryview]:
        nonlocal rows
        yield gaia_header()
        for part in _blocks(span):
            block = {name: column[part] for name, column in truth.items()}
            key = f"{part.start}"
            table = gaia_rows(block, random_index[part], settings.seed, key, settings.realism)
            for name in _CORE:
                core[name].append(np.asarray(table[name]))
            near = distances.distance_rows(
                block["source_id"], np.asarray(table["parallax"]), np.asarray(table["parallax_error"]),
                np.isfinite(table["bp_rp"]), block["distance_pc"], stream(settings.seed, "distances", key),
            )  # fmt: skip
            rows += len(near["source_id"])
            distance_text.append(bytes(table_block(near, distances.COLUMNS, "null")))
            yield table_block(table, names, "null", QUOTED)
            progress.advance(part.stop - part.start)

    write_gzip(path, blocks())
    write_gzip(distance_path, iter(distance_text))
    empty = np.empty(0)
    return {name: np.concatenate(parts) if parts else empty for name, parts in core.items()}, rows


def _write_skymapper(
    objects: dict[str, np.ndarray], truth: Truth, span: Span, path: Path, settings: SimulateSettings
) -> None:
    names = [name for name, _ in skymapper_columns()]

    def blocks() -> Iterator[bytes | memoryview]:
        yield (",".join(names) + "\n").encode()
        for part in _blocks(span):
            block = {name: column[part] for name, column in objects.items()}
            yield table_block(
                skymapper_rows(block, truth, settings.seed, f"{part.start}", settings.realism), names, ""
            )
            progress.advance(part.stop - part.start)

    write_gzip(path, blocks())


def _poor_astrometry(core: dict[str, np.ndarray]) -> np.ndarray:
    """Return which sources fail one of the paper's astrometric cuts (reference: section 2.1 of the paper)."""
    good = (core["ruwe"] <= 1.4) & (core["astrometric_sigma5d_max"] <= 0.1) & (core["parallax_error"] <= 0.1)
    good &= (core["ipd_frac_multi_peak"] <= 10) & (core["ipd_frac_odd_win"] <= 10)
    return np.asarray(~good)


def _write_truth(truth: Truth, contaminant: np.ndarray, objects: dict[str, np.ndarray], folder: Path) -> None:
    columns: dict[str, pa.Array] = {
        "source_id": pa.array(truth["source_id"]),
        "component": pa.array([KINDS[c] for c in truth["component"].tolist()]),
        "is_binary": pa.array(truth["is_binary"] == 1),
        "close_pair": pa.array(truth["close_pair"]),
        "is_contaminant": pa.array(contaminant),
    }
    for name in ("teff", "logg", "feh", "alpha", "age_gyr", "mass", "mass_ratio"):
        columns[name] = pa.array(truth[name].astype(np.float64), from_pandas=True)
    extragalactic = truth["component"] >= QUASAR
    columns["distance_pc"] = pa.array(truth["distance_pc"], mask=extragalactic)
    for name in ("ra", "dec", "pmra", "pmdec", "parallax", "ebv_true", "ebv_sfd", "weight"):
        columns[name] = pa.array(truth[name].astype(np.float64))
    for band in BANDS:
        columns[f"{band}_true"] = pa.array(truth[f"m_{band}"])
    pq.write_table(pa.table(columns), folder / "gaia_truth.parquet", compression="zstd")
    host, second = objects["host"], objects["second"]
    pq.write_table(
        pa.table({
            "object_id": pa.array(objects["object_id"]),
            "source_id": pa.array(truth["source_id"][host], mask=host < 0),
            "blended": pa.array(second >= 0),
            "true_epoch_mjd": pa.array(objects["true_epoch"]),
            "blended_source_id": pa.array(truth["source_id"][second], mask=second < 0),
        }),
        folder / "skymapper_truth.parquet",
        compression="zstd",
    )  # fmt: skip


def _drawn(
    truth: Truth, objects: dict[str, np.ndarray], labelled: np.ndarray, contaminant: np.ndarray
) -> dict[str, int]:
    star = truth["component"] < QUASAR
    counts = {name: int((truth["component"] == k).sum()) for k, name in enumerate(KINDS)}
    return counts | {
        "giants": int((star & (np.nan_to_num(truth["logg"], nan=9.0) < 3.5)).sum()),
        "binaries": int((truth["is_binary"] == 1).sum()),
        "close_pairs": int(truth["close_pair"].sum()),
        "fast_movers": int((np.hypot(truth["pmra"], truth["pmdec"]) >= 1000.0).sum()),
        "skymapper_blends": int((objects["second"] >= 0).sum()),
        "skymapper_only": int((objects["host"] < 0).sum()),
        "labelled": len(np.unique(labelled)),
        "contaminants": int(contaminant.sum()),
    }
