"""FITS and VOTable, read by astropy, whole: archives hand them out in pieces that fit into memory.

Columns go by the names that the file gives its fields; mixins (SkyCoord, Time) by the parts they are stored as.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stellarml.core.errors import InputError
from stellarml.surveys.astropy_warnings import told
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_reader import FileColumn, Header, Part, SourceFile
from stellarml.surveys.table_reader import BLOCK_ROWS, TableReader

_OVERFLOW = "the archive has cut its answer off (OVERFLOW): rows are missing"


@dataclass(frozen=True)
class FileTable:
    """One table of a file: its number, its name, its rows as an astropy table, second names of its columns."""

    number: int
    title: str
    rows: Any
    aliases: dict[str, str]


class AstropyReader(TableReader):
    """What both formats share."""

    @abstractmethod
    def tables(self, file: SourceFile) -> list[FileTable]:
        """Return the tables of the file."""

    def headers(self, file: SourceFile, written: Files) -> tuple[Header, ...]:
        """Read names, types and units of each set of columns; see `RawReader.headers`."""
        groups: dict[tuple[str, ...], list[FileTable]] = {}
        for table in self._tables(file, say=True):
            groups.setdefault(tuple(table.rows.colnames), []).append(table)
        several = sum(map(len, groups.values())) > 1
        return tuple(_header(file, group, several) for group in groups.values())

    def pieces(self, header: Header, names: list[str], part: Part | None = None) -> Iterator[pa.Table]:
        """Yield the named columns, some rows at a time, table after table."""
        for table in self._tables(header.file):
            if table.number in header.tables:
                for start in range(0, len(table.rows), BLOCK_ROWS):
                    piece = table.rows[start : start + BLOCK_ROWS]
                    yield pa.table({name: _from_astropy(piece[name]) for name in names})

    def _tables(self, file: SourceFile, *, say: bool = False) -> list[FileTable]:
        with told(file.path if say else None):
            try:
                found = [table for table in self.tables(file) if table.rows.colnames]
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"{file.path}: is not a readable {self.family} file ({error}).") from None
        if not found:
            raise InputError(f"{file.path}: holds no table.")
        if file.table is None:
            return found
        chosen = [t for t in found if file.table in (t.title, str(t.number))]
        if not chosen:
            there = ", ".join(f"'{t.title or t.number}'" for t in found)
            raise InputError(f"{file.path}: has no table '{file.table}'; it has {there}.")
        return chosen


def _header(file: SourceFile, group: list[FileTable], named: bool) -> Header:
    rows, columns = group[0].rows, []
    for name in rows.colnames:
        unit = str(rows[name].unit) if rows[name].unit is not None else None
        columns.append(FileColumn(str(name), _arrow_type(rows[name]), unit, group[0].aliases.get(name)))
    numbers = tuple(table.number for table in group)
    titles = tuple(table.title or str(table.number) for table in group) if named else ()
    return Header(file, tuple(columns), tables=numbers, titles=titles)


class FitsReader(AstropyReader):
    """FITS binary and ASCII tables."""

    family = "fits"
    suffixes = (".fits", ".fit", ".fts")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins with FITS' first card."""
        return head.startswith(b"SIMPLE  =")

    def tables(self, file: SourceFile) -> list[FileTable]:
        """Return every table extension; units that astropy does not know are kept as text."""
        from astropy.io import fits
        from astropy.table import Table

        found = []
        with fits.open(file.path, memmap=not file.gzipped) as extensions:
            for number, extension in enumerate(extensions):
                if isinstance(extension, fits.BinTableHDU | fits.TableHDU) and not isinstance(
                    extension, fits.CompImageHDU
                ):
                    rows = _plain(Table.read(extension, unit_parse_strict="silent"))
                    _restore_null_logicals(extension, rows)
                    found.append(FileTable(number, extension.name, rows, _mixin_aliases(rows.colnames)))
        return found


class VotableReader(AstropyReader):
    """VOTable, of any serialisation; a column is found by its field's name, or else by its ID."""

    family = "votable"
    suffixes = (".vot", ".votable", ".xml")

    def begins(self, head: bytes) -> bool:
        """Return whether the file begins like XML or with the root element."""
        return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<VOTABLE"))

    def tables(self, file: SourceFile) -> list[FileTable]:
        """Return every table of every resource.

        Raises
        ------
        InputError
            If the archive has written an error in place of a result.
        """
        from astropy.io import votable

        document = votable.parse(str(file.path), verify="warn")
        found = []
        for info in document.iter_info():
            if info.name == "QUERY_STATUS" and info.value == "ERROR":
                raise InputError(
                    f"{file.path}: the archive's answer is an error: {info.content or 'no reason given'}"
                )
            if info.name == "QUERY_STATUS" and info.value == "OVERFLOW":
                warnings.warn(f"{file.path}: {_OVERFLOW}", stacklevel=2)
        for number, element in enumerate(document.iter_tables()):
            rows = element.to_table(use_names_over_ids=True)
            ids = {
                name: str(f.ID) for name, f in zip(rows.colnames, element.fields, strict=True) if name != f.ID
            }
            rows = _plain(rows)
            found.append(
                FileTable(
                    number, str(element.name or element.ID or ""), rows, _mixin_aliases(rows.colnames) | ids
                )
            )
        return found


def _plain(table: Any) -> Any:
    """Return the table with mixins (SkyCoord, Time) as the plain columns they are stored as."""
    from astropy.table.serialize import represent_mixins_as_columns

    return represent_mixins_as_columns(table)


def _mixin_aliases(names: list[str]) -> dict[str, str]:
    """Return the last part of names such as 'coord.ra' where it is no other column's."""
    endings = [name.rpartition(".")[2].lower() for name in names]
    return {
        name: name.rpartition(".")[2]
        for name, ending in zip(names, endings, strict=True)
        if "." in name and endings.count(ending) == 1
    }


def _restore_null_logicals(extension: Any, rows: Any) -> None:
    """Mask the nulls of FITS' logical columns: a byte 0 beside T and F, which astropy takes for False."""
    from astropy.table import MaskedColumn

    for column in extension.columns:
        if str(column.format).lstrip("0123456789") != "L" or column.name not in rows.colnames:
            continue
        stored = np.asarray(extension.data.view(np.ndarray)[column.name])
        null = ~np.isin(stored.view(np.uint8), [ord("T"), ord("F")])
        if null.ndim == 1 and null.any():
            rows[column.name] = MaskedColumn(rows[column.name], mask=null)


def _from_astropy(column: Any) -> pa.Array:
    mask = np.asarray(column.mask) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None and column.dtype.kind != "O" else column)
    if values.ndim > 1:
        inner = pa.array(values.reshape(len(values), -1).ravel().astype(values.dtype.newbyteorder("=")))
        offsets = np.arange(len(values) + 1, dtype=np.int32) * int(np.prod(values.shape[1:]))
        return pa.ListArray.from_arrays(pa.array(offsets), inner)
    if values.dtype.kind == "S":
        text = [v.decode("utf-8", "replace").strip() for v in values.tolist()]
        return pa.array([t or None for t in text], pa.string(), mask=mask)
    if values.dtype.kind == "O" and _holds_arrays(values):
        return pa.array([None if v is None else np.asarray(v).ravel().tolist() for v in values])
    if values.dtype.kind in "UO":
        text = [None if v is None else str(v).strip() or None for v in values.tolist()]
        return pa.array(text, pa.string(), mask=mask)
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _holds_arrays(values: np.ndarray) -> bool:
    first = next((v for v in values if v is not None), None)
    return isinstance(first, np.ndarray | list)


def _arrow_type(column: Any) -> pa.DataType:
    kind = column.dtype
    if kind.kind == "O" and _holds_arrays(np.asarray(column)):
        return pa.list_(pa.float64())
    if kind.kind in "SUO":
        return pa.string()
    plain = pa.from_numpy_dtype(kind.newbyteorder("="))
    plain = pa.float32() if pa.types.is_float16(plain) else plain
    return pa.list_(plain) if column.ndim > 1 else plain
