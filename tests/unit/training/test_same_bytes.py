"""The same training in another process, folder and order of hashes gives the same bundle, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.places import CHECKOUT

from stellarml.model.bundle import load_bundle
from stellarml.model.manifest import MANIFEST

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

TRAIN = """
import sys
from pathlib import Path

from helpers.model_tables import TINY, TINY_SCALES, fit_bundle, stars

for preset in (TINY, TINY_SCALES):
    fit_bundle(Path(sys.argv[1]) / preset.name, stars(500), preset)
"""


def trained(out: Path, hash_seed: int) -> dict[str, bytes]:
    """Train two small models in a process of their own; return every file of theirs."""
    paths = [str(CHECKOUT), str(CHECKOUT / "tests")]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", TRAIN, out], env=environment, check=True, capture_output=True)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def undated(raw: bytes) -> dict[str, Any]:
    """Return bundle.json without its date, and the digest that covers it."""
    content = json.loads(raw)
    assert content.pop("created_utc") and content.pop("sha256")
    return content


def test_two_trainings_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "elsewhere" / "b"
    one, other = trained(first, 1), trained(second, 4242)
    assert set(one) == set(other) and sum(name.endswith(".keras") for name in one) == 4
    manifests = [name for name in one if name.endswith(MANIFEST)]
    assert [name for name in one if one[name] != other[name] and name not in manifests] == []
    for name in manifests:
        assert undated(one[name]) == undated(other[name])
        assert list(json.loads(one[name])) == list(json.loads(other[name]))
        keys = [load_bundle((root / name).parent).manifest.behaviour() for root in (first, second)]
        assert keys[0] == keys[1]
