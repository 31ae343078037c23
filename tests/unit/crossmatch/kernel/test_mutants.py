"""The suite turns red where it must: six mutants here, all of them with ``make mutants``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.places import CHECKOUT

RUNNER = CHECKOUT / "tests" / "mutants" / "run_mutants.py"


@pytest.mark.slow
def test_six_broken_copies_of_the_cross_match_are_noticed() -> None:
    """No cos(dec), no RA wrap, coordinates of 32 bits, RING for NESTED, a halo of 1r, epochs ignored."""
    done = subprocess.run(
        [sys.executable, str(RUNNER), "--six"], check=False, capture_output=True, text=True, cwd=RUNNER.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "6 killed"
