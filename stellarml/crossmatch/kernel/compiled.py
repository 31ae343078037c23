"""How are the inner loops compiled? One decorator, so that every loop obeys the same rules.

No fastmath and no threads: the numbers of a pair must not depend on where in an array it stands. The machine code is
cached beside the module; where neither that folder nor the user's can be written (a wheel in a read-only image), numba
would refuse to import, and compiling anew in each process is the lesser evil.

Compiled functions take arrays, one by one: members of an object that are looked up inside a loop make it half as fast.
That is why they have more parameters than a function of this project should have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile `function` with numba: no Python objects, no GIL, cached where a cache can be kept."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))
