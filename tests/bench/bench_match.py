"""The cross-match against LSDB and STILTS on the same files, in one run, everything up to the written catalogue.

All tools take turns, so that a change of the machine's mood meets all of them; the first turn is discarded. Two
processes each: ``local[2]``, a dask cluster of two workers of one thread, STILTS on both cores. The Spark session and
the dask client are up before the clock starts. Nearest neighbour within 1 arcsec; `full` is the match by errors,
epochs, proper motions and parallax, figure of merit, mates, unique pairs.

What favours whom:

- LSDB compresses what it writes with zstd at level 15, stellarml at level 1. ``lsdb`` is LSDB told to use level 1
  (`write_table_kwargs`), which is much faster; ``lsdb as shipped`` is its own setting. Ratios are to the former.
- LSDB reads our leaves of up to 500,000 rows and a margin catalogue of 5 arcsec that hats-import made (its default
  width); making the margin is not timed. stellarml reads its halos from the neighbouring leaves, in the timed part.
- Both write `_healpix_29`. LSDB adds one column of its own (the distance), stellarml eight (the ids
  again, distance, score, counts, flag).
- stellarml also writes statistics and run.json, LSDB a sky map and statistics of each partition.
- ACID (alpha) opens and starts its workers before the clock, like the others; it writes as it is shipped to.
- STILTS reads and writes uncompressed FITS, which it maps into memory (colfits was no faster), with its default tuning.
  Its time includes the launch of its Java, which is printed beside it. ``best`` treats both tables alike and so gives
  fewer rows; ``best1`` is what the others do.
- `limit` is pyarrow alone: inputs read, the output of ``ours all`` written, no halo and no match.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from match_data import LEFT_SLIM, RIGHT_SLIM, MatchData, bench_tiles, default_folder, make
from peers import limit, stilts
from peers.client import Peer
from peers.contest import Entry, Result, contest, show
from peers.ours import OURS, RADIUS_ARCSEC, Ours
from peers.processes import Sampler, is_spark_worker

MARGIN_ARCSEC = 5.0
AS_OURS = {"compression": "zstd", "compression_level": 1}
SMALL_ROWS = 1_000_000
SCALING_ROWS = (5_000_000, 10_000_000, 20_000_000, 30_000_000)
DENSE_PER_DEG2, DENSE_ROWS = 1_000_000.0, 2_000_000
TARGETS = (
    ("ours ids", "lsdb ids", 0.33),
    ("ours all", "lsdb all", 0.33),
    ("ours full", "lsdb all", 0.5),
    ("ours ids", "lsdb ids as shipped", 0.33),
    ("ours all", "lsdb all as shipped", 0.33),
    ("ours full", "lsdb all as shipped", 0.5),
    ("ours ids", "acid ids", None),
    ("ours all", "acid all", None),
    ("ours all", "limit", 2.5),
    ("ours all", "stilts best", None),
    ("ours all", "stilts best1", None),
)
STILTS_TARGET = {SMALL_ROWS: 0.5, 10 * SMALL_ROWS: 0.2}


def make_margin(data: MatchData, scratch: Path) -> None:
    """Make the margin catalogue that LSDB's documentation asks for, once."""
    if (data.margin / "hats.properties").exists():
        return
    request = {
        "task": "margin",
        "catalogue": str(data.hats("right")),
        "out": str(data.margin),
        "margin_arcsec": MARGIN_ARCSEC,
    }
    with Peer("hats-import", "run_hats_import.py", scratch) as peer:
        peer.ask(request)


def lsdb_request(
    data: MatchData, out: Path, *, slim: bool, write: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what `run_lsdb` is asked; `slim` for ids and positions only."""
    return {
        "left": str(data.hats("left")),
        "right": str(data.hats("right")),
        "margin": str(data.margin),
        "left_columns": LEFT_SLIM if slim else "all",
        "right_columns": RIGHT_SLIM if slim else "all",
        "radius_arcsec": RADIUS_ARCSEC,
        "write": write,
        "out": str(out),
    }


def entries_of(
    data: MatchData, ours: Ours, lsdb: Peer | None, acid: Peer | None, scratch: Path, runs: int, seldom: int
) -> list[Entry]:
    """List who takes part, in the order of a turn."""
    others = tuple(peer.pid for peer in (lsdb, acid) if peer)

    def us(case: str) -> Entry:
        return Entry(case, lambda: ours.match(case, data), runs, os.getpid(), others)

    def them(name: str, slim: bool, write: dict[str, Any] | None, times: int) -> list[Entry]:
        if lsdb is None:
            return []
        request = lsdb_request(data, scratch / name.replace(" ", "-"), slim=slim, write=write)
        return [Entry(name, lambda: lsdb.ask(request), times, lsdb.pid)]

    def new(name: str, slim: bool) -> list[Entry]:
        if acid is None:
            return []
        request = lsdb_request(data, scratch / name.replace(" ", "-"), slim=slim, write=None)
        request["margin_arcsec"] = MARGIN_ARCSEC
        return [Entry(name, lambda: acid.ask(request), runs, acid.pid)]

    def old(find: str, times: int) -> list[Entry]:
        if lsdb is None or not stilts.version():
            return []
        left, right = data.fits("left"), data.fits("right")
        out = scratch / f"stilts-{find}.fits"
        return [
            Entry(
                f"stilts {find}",
                lambda: stilts.match(left, right, out, find=find, radius_arcsec=RADIUS_ARCSEC),
                times,
                os.getpid(),
                others,
            )
        ]

    def bound() -> dict[str, Any]:
        written = ours.out("ours all") / "matches"
        inputs = data.hats("left"), data.hats("right")
        return limit.read_and_write(inputs, written, scratch / "limit", bench_tiles())

    return [
        us("ours ids"),
        *them("lsdb ids", True, AS_OURS, runs),
        *new("acid ids", True),
        us("ours all"),
        *them("lsdb all", False, AS_OURS, runs),
        *new("acid all", False),
        us("ours full"),
        Entry("limit", bound, runs, os.getpid(), others),
        *old("best", runs),
        *old("best1", seldom),
        *old("all", seldom),
        *them("lsdb ids as shipped", True, None, seldom),
        *them("lsdb all as shipped", False, None, seldom),
    ]


def memory(data: MatchData, ours: Ours, lsdb: Peer | None, scratch: Path) -> dict[str, dict[str, int]]:
    """Run every case once more and sample memory: the largest worker, and all processes of the tool together."""
    found = {}
    for case in OURS:
        with Sampler(os.getpid(), is_spark_worker, [lsdb.pid] if lsdb else []) as sampler:
            ours.match(case, data)
        found[case] = {"worker_bytes": sampler.worker_bytes, "total_bytes": sampler.total_bytes}
    if lsdb:
        workers = set(lsdb.workers)
        with Sampler(lsdb.pid, workers.__contains__) as sampler:
            lsdb.ask(lsdb_request(data, scratch / "lsdb-all", slim=False, write=AS_OURS))
        found["lsdb all"] = {"worker_bytes": sampler.worker_bytes, "total_bytes": sampler.total_bytes}
    return found


def _alone(ours: Ours, data: MatchData, runs: int) -> dict[str, Result]:
    entries = [Entry(case, partial(ours.match, case, data), runs, os.getpid()) for case in OURS]
    return contest(entries, runs)


def scaling(ours: Ours, folder: Path, runs: int, sizes: Sequence[int] = SCALING_ROWS) -> dict[str, Any]:
    """Time every case at several sizes; the slope between neighbours against the slope over all."""
    seconds: dict[str, list[float]] = {case: [] for case in OURS}
    for rows in sizes:
        data = make(folder, rows, rows * 2 // 5, 1)
        results = _alone(ours, data, runs)
        for case, result in results.items():
            seconds[case].append(result.median)
    told: dict[str, Any] = {"rows": list(sizes)}
    for case, times in seconds.items():
        steps = [
            (t1 - t0) / (r1 - r0) * 1e6
            for t0, t1, r0, r1 in zip(times, times[1:], sizes, sizes[1:], strict=False)
        ]
        whole = (times[-1] - times[0]) / (sizes[-1] - sizes[0]) * 1e6
        told[case] = {
            "seconds": times,
            "seconds_per_million_rows": steps,
            "over_all": whole,
            "largest_deviation": max(abs(step / whole - 1.0) for step in steps),
        }
    return told


def dense(ours: Ours, folder: Path, runs: int) -> dict[str, Any]:
    """Compare the cost a row at a million stars a square degree with that at 40,000, same number of rows."""
    told = {}
    for density in (40_000.0, DENSE_PER_DEG2):
        data = make(folder, DENSE_ROWS, DENSE_ROWS * 2 // 5, 1, density_per_deg2=density)
        results = _alone(ours, data, runs)
        told[f"{density:g}"] = {
            case: {
                "seconds": r.median,
                "rows": r.rows,
                "microseconds_per_left_row": r.median / DENSE_ROWS * 1e6,
            }
            for case, r in results.items()
        }
    return told


def main() -> None:
    """Measure, print, and keep the numbers as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="left rows of the full size; right: 0.4 of it"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--seldom", type=int, default=2, help="runs of LSDB as shipped and of STILTS best1, all"
    )
    parser.add_argument(
        "--sizes", choices=["small", "full", "both"], default="both", help="small: 1 M x 0.4 M"
    )
    parser.add_argument(
        "--only", default="", help="entries to run, separated by commas, for example 'ours all,limit'"
    )
    parser.add_argument("--skip-peers", action="store_true", help="stellarml and the physical limit only")
    parser.add_argument("--scaling", action="store_true", help="also 5 to 30 million left rows")
    parser.add_argument("--dense", action="store_true", help="also a million stars a square degree")
    parser.add_argument("--memory", action="store_true", help="also one run each with memory sampled")
    parser.add_argument("--data", type=Path, default=default_folder())
    parser.add_argument("--json", type=Path, help="default: bench_match.json in the data folder")
    options = parser.parse_args()
    sizes = {"small": [SMALL_ROWS], "full": [options.rows], "both": [SMALL_ROWS, options.rows]}[options.sizes]
    options.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.data, prefix="run-") as folder:
        scratch = Path(folder)
        data_sets = [make(options.data, rows, rows * 2 // 5, 1) for rows in dict.fromkeys(sizes)]
        lsdb = acid = None
        if not options.skip_peers:
            for data in data_sets:
                make_margin(data, scratch)
            lsdb = Peer("lsdb", "run_lsdb.py", scratch)
            acid = Peer("acid", "run_acid.py", scratch)
        ours = Ours(scratch)
        found: dict[str, Any] = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "versions": {n: version(n) for n in ("pyspark", "pyarrow", "numpy", "numba", "scipy")},
            "contests": {},
        }
        if lsdb:
            found["versions"] |= {"lsdb": lsdb.version, "stilts": stilts.version()}
        if acid:
            found["versions"]["acid"] = acid.version
        for data in data_sets:
            entries = entries_of(
                data, ours, lsdb, acid, scratch, options.runs, min(options.seldom, options.runs)
            )
            wanted = [name.strip() for name in options.only.split(",") if name.strip()]
            entries = [entry for entry in entries if not wanted or entry.name in wanted]
            results = contest(entries, options.runs)
            spec = data.spec
            targets = [
                (a, b, STILTS_TARGET.get(spec.left_rows) if b == "stilts best" else most)
                for a, b, most in TARGETS
            ]
            title = (
                f"{spec.left_rows} x {spec.right_rows} rows, medians of {options.runs}, warm, two processes"
            )
            sys.stdout.write(show(title, results, targets))
            key = f"{spec.left_rows}x{spec.right_rows}"
            found["contests"][key] = {
                name: result.as_json() for name, result in results.items() if result.seconds
            }
            if options.memory:
                found[f"memory {key}"] = memory(data, ours, lsdb, scratch)
                for name, sizes_of in found[f"memory {key}"].items():
                    sys.stdout.write(
                        f"{name:<20} largest worker {sizes_of['worker_bytes'] / 2**30:5.2f} GiB, "
                        f"all processes {sizes_of['total_bytes'] / 2**30:5.2f} GiB\n"
                    )
        for peer in (lsdb, acid):
            if peer:
                peer.close()
        if stilts.version() and not options.skip_peers:
            found["stilts_launch_seconds"] = stilts.launch_seconds()
            sys.stdout.write(f"launch of STILTS without work: {found['stilts_launch_seconds']:.2f} s\n")
        if options.scaling:
            found["scaling"] = scaling(ours, options.data, min(options.runs, 3))
            for case in OURS:
                told = found["scaling"][case]
                steps = ", ".join(f"{step:.3f}" for step in told["seconds_per_million_rows"])
                sys.stdout.write(
                    f"{case:<12} seconds {[round(s, 2) for s in told['seconds']]} at {found['scaling']['rows']} rows; "
                    f"slope {steps} s a million rows, within {100 * told['largest_deviation']:.0f} % (target: 15)\n"
                )
        if options.dense:
            found["dense"] = dense(ours, options.data, min(options.runs, 3))
            for density, cases in found["dense"].items():
                for case, told in cases.items():
                    sys.stdout.write(
                        f"{density:>8} a square degree  {case:<12} {told['seconds']:7.2f} s, {told['rows']} rows, "
                        f"{told['microseconds_per_left_row']:.2f} microseconds a left row\n"
                    )
        found["shuffle"] = ours.stop()
        sys.stdout.write(
            f"shuffled: {found['shuffle']['shuffle_bytes_written']} bytes written, "
            f"{found['shuffle']['shuffle_bytes_read']} read, in {found['shuffle']['tasks']} tasks; target: 0\n"
        )
        (options.json or options.data / "bench_match.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
