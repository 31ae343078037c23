"""Where things lie around the checkout."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SHARED = CHECKOUT.parent / "shared" / "data"
"""Rows of real surveys and small failing inputs; they are not part of the project."""
REAL = SHARED / "real"
