"""FITS and VOTable, read by astropy, whole: archives hand them out in pieces that fit into memory.

Columns go by the names that the file gives its fields; mixins (SkyCoord, Time) by the parts they are stored as.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow as pa

from stellarml.core.errors import InputError
from stellarml.surveys.astropy_warnings import told
from stellarml.surveys.column_mapping import wider
from stellarml.surveys.descriptor import Files
from stellarml.surveys.fits_layout import check_layout
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
        groups: dict[tuple[tuple[str, str], ...], list[FileTable]] = {}
        for table in self._tables(file, say=True):
            columns = tuple((name, str(table.rows[name].unit or "")) for name in table.rows.colnames)
            groups.setdefault(columns, []).append(table)
        several = sum(map(len, groups.values())) > 1
        with self._converting(file):
            return tuple(_header(file, group, several) for group in groups.values())

    def pieces(self, header: Header, names: list[str], part: Part | None = None) -> Iterator[pa.Table]:
        """Yield the named columns, some rows at a time, table after table."""
        for table in self._tables(header.file):
            if table.number in header.tables:
                for start in range(0, len(table.rows), BLOCK_ROWS):
                    piece = table.rows[start : start + BLOCK_ROWS]
                    with self._converting(header.file):
                        found = pa.table({name: _from_astropy(piece[name]) for name in names})
                    yield found

    @contextmanager
    def _converting(self, file: SourceFile) -> Iterator[None]:
        """Turn what a column raises that Arrow has no type or no value for into an InputError that names the file."""
        try:
            yield
        except (
            pa.ArrowException,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(
                f"{file.path}: a column of this {self.family} file cannot be read ({error})."
            ) from None

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
        wanted = file.table.lower()
        chosen = [t for t in found if wanted in (t.title.lower(), str(t.number))]
        if not chosen:
            there = ", ".join(f"'{t.title}' ({t.number})" if t.title else f"{t.number}" for t in found)
            raise InputError(f"{file.path}: has no table '{file.table}'; it has {there}.")
        return chosen


def _header(file: SourceFile, group: list[FileTable], named: bool) -> Header:
    rows, columns = group[0].rows, []
    for name in rows.colnames:
        unit = str(rows[name].unit) if rows[name].unit is not None else None
        kind = reduce(wider, (_arrow_type(table.rows[name]) for table in group))
        columns.append(FileColumn(str(name), kind, unit, group[0].aliases.get(name)))
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
        from astropy.table import MaskedColumn, Table

        check_layout(file)
        found = []
        # An absolute path is no address; a relative one such as http:/x would be fetched.
        with fits.open(file.path.absolute(), memmap=not file.gzipped) as extensions:
            for number, extension in enumerate(extensions):
                if not hasattr(extension, "fileinfo"):  # astropy goes on without what it makes no sense of
                    raise InputError(f"{file.path}: its extension {number} is damaged. Fetch it again.")
                if isinstance(extension, fits.BinTableHDU | fits.TableHDU) and not isinstance(
                    extension, fits.CompImageHDU
                ):
                    nulls = _stored_nulls(extension)
                    rows = _plain(Table.read(extension, unit_parse_strict="silent"))
                    if len(rows) != extension.header["NAXIS2"]:
                        raise InputError(
                            f"{file.path}: its table {number} holds {len(rows)} rows, its header says "
                            f"{extension.header['NAXIS2']}. Fetch it again."
                        )
                    for name, null in nulls.items():
                        if name in rows.colnames and null.any():
                            rows[name] = MaskedColumn(rows[name], mask=null | _mask_of(rows[name]))
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

        stated = _rows_stated(file)
        document = votable.parse(str(file.path.absolute()), verify="warn")
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
            title = str(element.name or element.ID or "")
            found.append(FileTable(number, title, rows, _mixin_aliases(rows.colnames) | ids))
        read = sum(len(table.rows) for table in found)
        if read < stated:
            raise InputError(
                f"{file.path}: states {stated} rows (nrows) and holds {read}: it has been cut off. Fetch it again."
            )
        return found


def _rows_stated(file: SourceFile) -> int:
    """Return how many rows the tables of a VOTable state, 0 where one does not; refuse rows that lie elsewhere.

    A link would be followed, to any file and any host.

    Raises
    ------
    InputError
        Naming the line of the link.
    """
    parser = expat.ParserCreate()
    stated: list[int] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        element = name.rpartition(":")[2]
        if element == "STREAM" and "href" in attributes:
            raise InputError(
                f"{file.path} line {parser.CurrentLineNumber}: its rows lie elsewhere ({attributes['href'][:80]}), and "
                "links are not followed. Fetch them, and name the file that holds them."
            )
        if element == "TABLE":
            rows = attributes.get("nrows", "")
            stated.append(int(rows) if rows.isdecimal() and len(rows) < 19 else 0)

    parser.StartElementHandler = begin
    with file.open() as stream:
        try:
            parser.ParseFile(stream)
        except expat.ExpatError:
            return 0  # damaged: astropy says it better
    return sum(stated) if all(stated) else 0


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


def _stored_nulls(extension: Any) -> dict[str, np.ndarray]:
    """Return which rows of a FITS table hold a null, by the stored bytes, and take the columns' null values away.

    astropy compares a null with the scaled values, cannot write one into an unsigned column, and takes the null of a
    logical column (a byte 0 beside T and F) for False.
    """
    stored, nulls = extension.data.view(np.ndarray), {}
    for column in extension.columns:
        values = np.asarray(stored[column.name])
        if values.ndim > 1:
            continue
        if values.dtype.kind == "S" and column.null is not None:  # an ASCII table's number
            nulls[column.name] = np.char.strip(values) == str(column.null).strip().encode()
        elif str(column.format).lstrip("0123456789") == "L":
            nulls[column.name] = ~np.isin(values.view(np.uint8), [ord("T"), ord("F")])
        elif isinstance(column.null, int | np.integer) and values.dtype.kind in "iu":
            nulls[column.name] = values == column.null
        else:
            continue
        column.null = None
    return nulls


def _mask_of(column: Any) -> np.ndarray:
    return np.asarray(column.mask) if hasattr(column, "mask") else np.zeros(len(column), dtype=bool)


def _from_astropy(column: Any) -> pa.Array:
    mask = np.asarray(column.mask) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None and column.dtype.kind != "O" else column)
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
    if values.ndim > 1 and values.shape[1:] == (1,):  # one value a row, written as an array
        values, mask = values[:, 0], None if mask is None else mask.reshape(len(values))
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
    if kind.kind == "c":
        return pa.list_(pa.float64())
    if kind.kind == "O" and _holds_arrays(np.asarray(column)):
        return pa.list_(pa.float64())
    if kind.kind in "SUO":
        return pa.string()
    plain = pa.from_numpy_dtype(kind.newbyteorder("="))
    plain = pa.float32() if pa.types.is_float16(plain) else plain
    return pa.list_(plain) if column.ndim > 1 and column.shape[1:] != (1,) else plain
