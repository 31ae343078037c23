"""Which features a row lacks, as one number or one short text a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def patterns_of(missing: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return the distinct patterns as hexadecimal text (first feature in the highest bit), and each row's index.

    Parameters
    ----------
    missing
        Shape (n, n_features).
    """
    n, k = missing.shape
    width, used = 8 * max(1, -(-k // 64)), -(-k // 8)
    packed = np.zeros((n, width), dtype=np.uint8)
    packed[:, :used] = np.packbits(missing, axis=1)
    keys = packed.view(np.uint64 if width == 8 else np.dtype((np.void, width)))[:, 0]
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    return tuple(packed[i, :used].tobytes().hex() for i in first), index
