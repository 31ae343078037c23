"""FITS and VOTable, read by astropy, whole: archives hand them out in pieces that fit into memory."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.core.errors import InputError
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import FileColumn, Header, SourceFile
from stellarml.surveys.table_reader import BLOCK_ROWS, TableReader


class AstropyReader(TableReader):
    """What both formats share."""

    @abstractmethod
    def read(self, file: SourceFile) -> Any:
        """Return the file as an `astropy.table.Table`."""

    def header(self, file: SourceFile, written: Files) -> Header:
        """Read names, types and units; see `RawReader.header`."""
        table = self._table(file)
        columns = []
        for name in table.colnames:
            unit = str(table[name].unit) if table[name].unit is not None else None
            columns.append(FileColumn(str(name), _arrow_type(table[name].dtype), unit))
        return Header(file, tuple(columns))

    def pieces(self, file: SourceFile, names: list[str]) -> Iterator[pa.Table]:
        """Yield the named columns, some rows at a time."""
        table = self._table(file)
        for start in range(0, len(table), BLOCK_ROWS):
            part = table[start : start + BLOCK_ROWS]
            yield pa.table({name: _from_astropy(part[name], file) for name in names})

    def _table(self, file: SourceFile) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self.read(file)
            except Exception as error:
                raise InputError(f"{file.path}: is not a readable {self.family} file ({error}).") from None


class FitsReader(AstropyReader):
    """FITS binary tables."""

    family = "fits"
    suffixes = (".fits", ".fit", ".fts")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins with FITS' first card."""
        return head.startswith(b"SIMPLE  =")

    def read(self, file: SourceFile) -> Any:
        """Return the file as a table; units that astropy does not know are kept as text."""
        from astropy.table import Table

        return Table.read(file.path, format="fits", unit_parse_strict="silent")


class VotableReader(AstropyReader):
    """VOTable, of any serialisation."""

    family = "votable"
    suffixes = (".vot", ".votable", ".xml")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins like XML or with the root element."""
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<VOTABLE"))

    def read(self, file: SourceFile) -> Any:
        """Return the file's first table."""
        from astropy.table import Table

        return Table.read(file.path, format="votable")


def _from_astropy(column: Any, file: SourceFile) -> pa.Array:
    mask = np.asarray(column.mask) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None and column.dtype.kind != "O" else column)
    if values.ndim != 1:
        raise InputError(
            f"{file.path}: column '{column.name}' holds arrays of shape {values.shape[1:]}, expected one value a row."
        )
    if values.dtype.kind == "S":
        text = [v.decode("utf-8", "replace").strip() for v in values.tolist()]
        return pa.array([t or None for t in text], pa.string(), mask=mask)
    if values.dtype.kind in "UO":
        text = [None if v is None else str(v).strip() or None for v in values.tolist()]
        return pa.array(text, pa.string(), mask=mask)
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _arrow_type(dtype: Any) -> pa.DataType:
    if dtype.kind in "SUO":
        return pa.string()
    return pa.from_numpy_dtype(dtype.newbyteorder("="))
