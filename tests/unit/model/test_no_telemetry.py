"""Labelling tells nobody: ONNX Runtime, which reports to its maker, is kept from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kept", [True, False])
def test_no_file_of_a_session_is_left(tmp_path: Path, kept: bool) -> None:
    """What it would send it writes first. Without our word it does, or the test shows nothing."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    code = "import stellarml.model.forward" if kept else "import onnxruntime"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    written = [path.name for path in tmp_path.rglob("*") if path.is_file() and "numba" not in path.parts]
    if kept:
        assert written == []
    elif not written:
        pytest.skip("this build of ONNX Runtime writes nothing anyway")
