"""How many rows the tasks of one Spark job have passed so far, told through a folder: one small file a process.

Spark's own counts reach the driver when a task ends, and a table of one file is one task. Where the executors do not
see the folder nothing is counted, and nothing is lost but the rate.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np


def tell_rows(folder: Path, rows: int) -> None:
    """Say that so many more rows are done; called on an executor after each batch."""
    with contextlib.suppress(OSError), (folder / str(os.getpid())).open("ab") as stream:
        stream.write(np.int64(rows).tobytes())


def rows_told(folder: Path) -> int:
    """Return the rows that all processes have told of."""
    return sum(int(np.fromfile(path, np.int64).sum()) for path in folder.glob("*"))
