"""Parquet files of any origin, opened: what is damaged in one, or lies in another file, is said with its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file, in its footer or in its pages, into our own error.

    Raises
    ------
    InputError
        Naming the file.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing; it was there when its table was made.") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: is not a readable Parquet file (a name or a text in it is not UTF-8)."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a readable Parquet file ({error}).") from None


def refuse_other_files(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse a file whose columns are said to lie in another one: pyarrow would take other bytes of this one for them.

    Raises
    ------
    InputError
        Naming the file, the row group, and the other file.
    """
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        other = row_group.column(0).file_path if row_group.num_columns else ""
        if other:
            raise InputError(
                f"{path}: its row group {group} lies in another file ('{other[:80]}'), and links are not followed. "
                "Name the files that hold the rows."
            )
