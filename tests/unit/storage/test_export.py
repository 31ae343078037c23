"""One file from many rows: what FITS and VOTable cannot hold as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table

from stellarml.core.config import load_config
from stellarml.storage.export import write_file
from stellarml.storage.formats import Format


@pytest.mark.parametrize("kind", ["fits", "votable"])
def test_bytes_stay_numbers(tmp_path: Path, kind: Format) -> None:
    """`astropy` writes int8 to FITS as logical values, and refuses it in VOTable."""
    schema = pa.schema(
        [
            pa.field("params", pa.int8(), metadata={"unit": ""}),
            pa.field("ra", pa.float64(), metadata={"unit": "deg"}),
        ]
    )
    table = pa.table(
        {"params": pa.array([31, 95, 3, None], pa.int8()), "ra": [0.0, 1.0, 2.0, 3.0]}, schema=schema
    )
    out = tmp_path / f"x.{kind}"
    assert write_file([table], schema, out, kind, load_config(environment={}).tiles) == 4
    found = Table.read(out, format=kind)
    assert list(found["params"][:3]) == [31, 95, 3] and np.ma.is_masked(found["params"][3])
    assert found["ra"].unit == "deg"
