"""The number between 0 and 1 that belongs to a star for ever, on any machine.

SHA-256 of ``salt:id``, cut to 52 bits. Every choice that must not depend on the order of rows, on partitions or on
a random generator's state (the split, the subset of `train.max_rows`) is a comparison of these digits. Thresholds
are compared as hexadecimal text, so that Spark (`sha2`) and hashlib need no arithmetic to agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

DIGITS = 13  # hexadecimal digits kept: 52 bits


def hash_digits(ids: Iterable[object], salt: str) -> list[str]:
    """Return the first 13 hexadecimal digits of SHA-256 of ``salt:id`` for each id; a null id hashes the salt.

    Parameters
    ----------
    ids
        Integers or strings; an integer hashes as its decimal text, as Spark casts it.
    salt
        Another salt, another order.
    """
    prefix = salt.encode()
    digest = hashlib.sha256
    return [
        digest(prefix if i is None else prefix + b":" + str(i).encode()).hexdigest()[:DIGITS] for i in ids
    ]


def threshold(fraction: float) -> str:
    """Return the digits below which a share `fraction` of all ids lie; `fraction` is in [0, 1)."""
    return f"{int(fraction * 16**DIGITS):0{DIGITS}x}"
