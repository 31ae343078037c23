"""Which bytes are UTF-8 text? Files of text and Parquet files hold others under that name."""

from __future__ import annotations

import pyarrow as pa


def is_utf8(block: bytes) -> bool:
    """Return whether bytes are UTF-8 text."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def decoded(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """Return bytes as text, null where they are not UTF-8, and the rows where they are not."""
    try:
        return column.cast(pa.string()), []
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    garbled = []
    for row, value in enumerate(column.to_pylist()):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            values.append(None)
            garbled.append(row)
    return pa.array(values, pa.string()), garbled
