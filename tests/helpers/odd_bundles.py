"""Bundles that are signed as a stranger can sign them, and give no numbers."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np

from stellarml.model.manifest import MANIFEST, WEIGHTS, signed


def overflowing(bundle: Path, out: Path) -> Path:
    """Copy a bundle so that it gives numbers where it is tried, and none for stars whose first two features differ."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / MANIFEST).read_text())
    ends = {"center": 0.0, "low": -8.0, "high": 8.0, "domain_low": -8.0, "domain_high": 8.0}
    for key, value in ends.items():
        manifest["scaler"][key][:2] = [value, value]
    with np.load(out / WEIGHTS) as stored:
        arrays = {name: stored[name] for name in stored.files}
    kernel = arrays["network0_kernel00"]
    kernel[:], arrays["network0_bias00"][:] = 0.0, 0.0
    kernel[0], kernel[1] = 2.0**119, -(2.0**119)  # exact, so that equal features cancel
    arrays["network0_kernel01"][:] = 1e36
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (out / WEIGHTS).write_bytes(stream.getvalue())
    manifest["files"][WEIGHTS] = hashlib.sha256(stream.getvalue()).hexdigest()
    (out / MANIFEST).write_text(json.dumps(signed(manifest)))
    return out
