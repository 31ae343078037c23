"""``python -m fuzz.run_fuzz``: so many damaged files of each format, each format in processes of its own.

A process that says nothing for ten seconds hangs: it is killed, the input counted, and the next process goes on after
it; one that dies is counted the same way. ``--keep`` writes one input of each new kind of failure into the corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fuzz.formats import FORMATS, GOOD, OUTCOMES, keep_in_corpus

BATCH = 1000
HANG_SECONDS = 10.0
START_SECONDS = 120.0
MEMORY_BYTES = 8 << 30


def say(line: str) -> None:
    """Print a line at once, whoever reads it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def child(name: str, start: int, end: int) -> None:
    """Run the inputs of some seeds; print a line before and after each."""
    import warnings

    from fuzz import formats
    from stellarml.core.config import load_config
    from stellarml.run.log import configure_logging

    configure_logging(load_config(overrides=["log.level=error"], environment={}).log)
    warnings.simplefilter("ignore")
    made = FORMATS[name]
    made.input(start)
    with tempfile.TemporaryDirectory(prefix="stellarml_fuzz_") as folder:
        made.run(made.input(start), Path(folder, "x"))  # what is imported late is imported now
        formats.watch()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for seed in range(start, end):
            given = made.input(seed)
            say(json.dumps([seed, None, ""]))
            outcome = made.run(given, Path(folder, "x"))
            say(json.dumps([seed, outcome.kind, outcome.why]))


def outcomes(name: str, start: int, end: int) -> Iterator[tuple[int, str, str]]:
    """Yield the outcome of each seed, from processes of `BATCH` seeds each."""
    while start < end:
        last = start
        for seed, kind, why in _batch(name, start, min(start + BATCH, end)):
            last = seed + 1
            yield seed, kind, why
        start = last


def _batch(name: str, start: int, end: int) -> Iterator[tuple[int, str, str]]:
    command = [sys.executable, "-m", "fuzz.run_fuzz", "--child", name, str(start), str(end)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in process.stdout or ():
            said.put(line)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    current: int | None = None
    wait, running = START_SECONDS, False
    try:
        while True:
            try:
                line = said.get(timeout=wait)
            except queue.Empty:
                yield start if current is None else current, "hang", f"no answer in {wait:g} s"
                return
            if line is None:
                if current is None:
                    raise SystemExit(
                        f"{name}: the process did not come to its first input; try  {' '.join(command)}"
                    )
                if process.wait() != 0 or running:
                    yield current, "foreign", f"the process died with {process.returncode}"
                return
            if not line.startswith("["):
                continue
            current, kind, why = json.loads(line)
            running, wait = kind is None, HANG_SECONDS if kind is None else START_SECONDS
            if kind is not None:
                yield current, kind, why
                current += 1
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Run what the command line asks for; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS), help="names of formats; all by default")
    parser.add_argument("--inputs", type=int, default=20_000, help="of each format")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--keep", action="store_true", help="put new kinds of failure into the corpus")
    chosen = parser.parse_args()
    say(f"{'format':<18}{'inputs':>8}" + "".join(f"{kind:>9}" for kind in OUTCOMES) + f"{'seconds':>9}")
    bad = 0
    for name in chosen.formats:
        begun, counts, failures = time.monotonic(), Counter[str](), Counter[str]()
        first: dict[str, int] = {}
        for seed, kind, why in outcomes(name, chosen.start, chosen.start + chosen.inputs):
            counts[kind] += 1
            if kind not in GOOD:
                label = f"{kind}: {re.sub(r'[0-9]+', 'N', why.partition(': ')[0])[:100]}"
                failures[label] += 1
                first.setdefault(label, seed)
        row = "".join(f"{counts[kind]:>9}" for kind in OUTCOMES)
        say(f"{name:<18}{counts.total():>8}{row}{time.monotonic() - begun:>9.0f}")
        for label, count in failures.most_common(25):
            say(f"    {count:>5} {label}, first seed {first[label]}")
            if chosen.keep:
                keep_in_corpus(name, first[label])
        bad += sum(failures.values())
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
