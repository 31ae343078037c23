"""The walls stand: each contract between packages is broken by an import that it is there to forbid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import CHECKOUT

pytestmark = pytest.mark.slow

PLANTED = {
    "Packages in layers": ("core/tiles.py", "import stellarml.run.log"),
    "The stages do not know each other; only the chain knows them all": (
        "stages/label.py",
        "import stellarml.stages.select",
    ),
    "TensorFlow lives in training/network.py": ("training/fit.py", "import tensorflow"),
    "ONNX lives in model": ("labelling/compare.py", "import onnxruntime"),
    "numba lives in crossmatch/kernel/compiled.py": ("crossmatch/kernel/pairs.py", "import numba"),
    "matplotlib and Jinja live in report": ("stages/report.py", "import matplotlib"),
    "Typer and Rich live in cli": ("run/log.py", "import rich"),
    "No Spark, however indirectly, in what is arrays, files or a model": (
        "model/scaling.py",
        "import pyspark.sql",
    ),
    "Kernel, features, intervals and model take arrays, not Arrow tables": (
        "intervals/conformal.py",
        "import pyarrow",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        CHECKOUT / "stellarml", tmp_path / "stellarml", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def linted(folder: Path) -> tuple[int, dict[str, str], str]:
    """Return status, verdict by contract, and all that import-linter says of the package in `folder`."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(.+) (KEPT|BROKEN)$", done.stdout, re.M)
    return done.returncode, dict(found), done.stdout + done.stderr


def test_every_contract_is_broken_by_a_planted_import(copy: Path) -> None:
    status, verdicts, said = linted(copy)
    assert status == 0 and verdicts == dict.fromkeys(PLANTED, "KEPT"), said
    for file, line in PLANTED.values():
        path = copy / "stellarml" / file
        first, _, rest = path.read_text().partition("from __future__ import annotations\n")
        assert rest, f"{path}: no place to plant"
        path.write_text(f"{first}from __future__ import annotations\n{line}\n{rest}")
    status, verdicts, said = linted(copy)
    assert status == 1 and verdicts == dict.fromkeys(PLANTED, "BROKEN"), said
    for file, _ in PLANTED.values():
        assert "stellarml." + file.removesuffix(".py").replace("/", ".") in said


def test_a_package_that_has_no_place_in_the_layers_is_refused(copy: Path) -> None:
    (copy / "stellarml" / "misc").mkdir()
    (copy / "stellarml" / "misc" / "__init__.py").write_text("")
    status, _, said = linted(copy)
    assert status == 1 and "misc" in said
