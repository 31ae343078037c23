"""A simulated sky with the configuration that runs on it: what `simulate` and `demo` write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from stellarml.core.errors import UserError
from stellarml.core.files import LOCK, storage_errors, write_atomically
from stellarml.simulate import SimulateSettings, SimulateSummary, simulate

CONFIG = """\
# Written by `stellarml simulate`: {stars} simulated Gaia sources, seed {seed}.
# Run it with   stellarml run --config config.toml   ; every key is explained in the shipped conf/base.toml.
profile = "demo"

[surveys]
astrometry = "gaia_dr3"
photometry = "skymapper_dr2"
distances = "gaia_distances"
labels = ["sos"]

[raw]
gaia_dr3 = "raw/gaia_dr3"
gaia_distances = "raw/gaia_distances"
skymapper_dr2 = "raw/skymapper_dr2"
sos = "raw/sos"
"""
_RECORD = "simulation.json"
_DRAFT = ".simulating"


def make_sky(
    out: Path, settings: SimulateSettings, told: Callable[[str], None] | None = None
) -> SimulateSummary:
    """Simulate into `out`, or find that the same sky is already there; write ``config.toml`` beside it.

    The sky is drawn in a hidden folder and moved into place when it is whole, so a killed run leaves no half of one.

    Raises
    ------
    UserError
        If `out` holds another sky, or files that stellarml did not make.
    """
    record = out / "raw" / _RECORD
    wanted = settings.model_dump(mode="json", exclude={"workers"})
    if record.is_file():
        found = json.loads(record.read_text())
        if found["settings"] != wanted:
            was = found["settings"]
            raise UserError(
                f"{out}: holds a sky of {was['stars']} stars, seed {was['seed']}, made with other settings. "
                "Choose another folder, or remove this one."
            )
        return SimulateSummary(**found["summary"])
    if out.is_file() or (out.is_dir() and {p.name for p in out.iterdir()} - {_DRAFT, LOCK, "truth"}):
        raise UserError(f"{out}: is not empty. Choose an empty or a new folder for the simulated sky.")
    draft = out / _DRAFT
    with storage_errors(out):
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(out / "truth", ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            summary = simulate(settings, draft, told)
            content = {"settings": wanted, "summary": summary.model_dump(mode="json")}
            write_atomically(draft / "raw" / _RECORD, json.dumps(content, indent=1) + "\n")
            (draft / "truth").rename(out / "truth")
            (draft / "raw").rename(out / "raw")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            if not any(out.iterdir()):
                out.rmdir()
        write_atomically(out / "config.toml", CONFIG.format(stars=settings.stars, seed=settings.seed))
    return summary
