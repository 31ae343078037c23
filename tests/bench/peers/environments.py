"""Other tools' environments: one virtual environment each below ``.peers/``, made from its requirement file.

The files pin nothing: a peer is measured in its newest version, which the results name.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[2] / ".peers"


def python_of(peer: str) -> Path:
    """Return the Python of a peer's environment; make it where it is missing or its requirements have changed."""
    root = FOLDER / peer
    python = root / "bin" / "python"
    wanted = HERE / f"{peer}.txt"
    stamp = root / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--upgrade"]
        subprocess.run([*pip, "pip"], check=True)
        subprocess.run([*pip, "--requirement", str(wanted)], check=True)
        stamp.write_text(wanted.read_text())
    return python
