"""Small sound files of every format that the readers read: what is damaged."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.places import CHECKOUT

from fuzz.mutations import Lines

ROWS = 24


@cache
def table() -> pa.Table:
    """A table of all kinds of columns: ids beyond a float64's digits, nulls, text."""
    random = np.random.default_rng(7)
    magnitude = random.normal(15, 2, ROWS).astype(np.float32)
    return pa.table(
        {
            "id": pa.array(4_611_686_018_427_387_905 + 2 * np.arange(ROWS)),
            "ra": random.uniform(0, 360, ROWS).round(7),
            "dec": random.uniform(-90, 90, ROWS).round(7),
            "gmag": pa.array(magnitude, mask=magnitude > 17),
            "n": pa.array(random.integers(0, 99, ROWS), pa.int32()),
            "good": pa.array(random.random(ROWS) < 0.5),
            "name": pa.array([f"HD {i}" if i % 5 else None for i in range(ROWS)]),
        }
    )


def _lines(delimiter: str, end: str = "\n", quote: str = "") -> list[str]:
    rows = []
    for row in table().to_pylist():
        values = ["" if v is None else str(v) for v in row.values()]
        rows.append(delimiter.join(f"{quote}{v}{quote}" if quote else v for v in values) + end)
    return rows


_NAMES = ("id", "ra", "dec", "gmag", "n", "good", "name")
_TYPES = ("int64", "float64", "float64", "float32", "int32", "bool", "string")


def csv() -> list[tuple[bytes, Lines]]:
    """Plain, quoted, with carriage returns, with comments and a byte order mark."""
    head = ",".join(_NAMES)
    return [
        ("".join([head + "\n", *_lines(",")]).encode(), Lines(1, b",")),
        ("".join([head + "\n", *_lines(",", quote='"')]).encode(), Lines(1, b",")),
        ("".join([head + "\r\n", *_lines(",", "\r\n")]).encode(), Lines(1, b",")),
        ("".join(["\ufeff# said\n#\n" + head + "\n", *_lines(",")]).encode(), Lines(3, b",")),
        ("".join(["# " + head + "\n", *_lines(",")]).encode(), Lines(1, b",")),
    ]


def tsv() -> list[tuple[bytes, Lines]]:
    """Tabs, bars, and VizieR's answer with its lines of units and dashes."""
    vizier = "#RESOURCE=x\n#Column\tid\n" + "\t".join(_NAMES) + "\n \tdeg\tdeg\tmag\t \t \t \n"
    vizier += "\t".join("-" * 6 for _ in _NAMES) + "\n"
    return [
        ("".join(["\t".join(_NAMES) + "\n", *_lines("\t")]).encode(), Lines(1, b"\t")),
        ("".join(["|".join(_NAMES) + "\n", *_lines("|")]).encode(), Lines(1, b"|")),
        ("".join([vizier, *_lines("\t")]).encode(), Lines(5, b"\t")),
        ("".join([";".join(_NAMES) + "\n", *_lines(";")]).encode(), Lines(1, b";")),
    ]


def ecsv() -> list[tuple[bytes, Lines]]:
    """With commas and meta data; with blanks; with a mixin."""
    found = []
    for delimiter, meta in ((",", True), (" ", False)):
        head = ["# %ECSV 1.0", "# ---"]
        head += [f"# delimiter: '{delimiter}'"] if delimiter == "," else []
        head += ["# datatype:"]
        for name, kind in zip(_NAMES, _TYPES, strict=True):
            unit = ", unit: deg" if name in ("ra", "dec") else ""
            head.append(f"# - {{name: {name}, datatype: {kind}{unit}, description: 'x: [y]'}}")
        if meta:
            head += ["# meta: !!omap", "# - {a: 1}", "# - __serialized_columns__:", "#     coord:"]
            head += [
                "#       __class__: astropy.coordinates.sky_coordinate.SkyCoord",
                "#       ra: !astropy.table.SerializedColumn",
            ]
            head += ["#         name: ra", "# schema: astropy-2.0"]
        head.append(delimiter.join(_NAMES))
        rows = _lines(delimiter) if delimiter == "," else _lines(delimiter, quote='"')
        found.append(("".join(["\n".join(head), "\n", *rows]).encode(), Lines(len(head), delimiter.encode())))
    return found


@cache
def parquet() -> list[bytes]:
    """As pyarrow writes it, with checksums and without, in several row groups; with dictionaries, lists, views."""
    found = []
    nested = table().append_column("list", pa.array([[1.0] * (i % 3) for i in range(ROWS)]))
    nested = nested.append_column("dict", nested["name"].combine_chunks().dictionary_encode())
    for content, options in (
        (table(), {"row_group_size": 9, "write_page_checksum": True, "compression": "zstd"}),
        (nested, {"compression": "none", "version": "1.0"}),
        (table(), {"data_page_version": "2.0", "column_encoding": "PLAIN", "use_dictionary": False}),
    ):
        stream = io.BytesIO()
        pq.write_table(content, stream, **options)
        found.append(stream.getvalue())
    return found


def _astropy() -> Any:
    from astropy.table import MaskedColumn, Table

    found = Table()
    for name in _NAMES:
        column = table()[name].combine_chunks()
        mask = column.is_null().to_numpy(zero_copy_only=False)
        values = (
            column.fill_null("" if name == "name" else 0 if name == "gmag" else False)
            if column.null_count
            else column
        )
        found[name] = MaskedColumn(values.to_numpy(zero_copy_only=False), mask=mask)
        if name == "name":
            found[name] = MaskedColumn(np.asarray(found[name], dtype="U8"), mask=mask)
    found["ra"].unit = found["dec"].unit = "deg"
    return found


@cache
def fits() -> list[bytes]:
    """A binary table, one with arrays of variable length and nulls, an ASCII table, two tables."""
    from astropy.io import fits as io_fits

    def stored(*extensions: Any) -> bytes:
        stream = io.BytesIO()
        io_fits.HDUList([io_fits.PrimaryHDU(), *extensions]).writeto(stream)
        return stream.getvalue()

    plain = io_fits.BinTableHDU(_astropy()["id", "ra", "dec", "gmag", "good", "name"])
    arrays = np.empty(ROWS, dtype=object)
    arrays[:] = [np.arange(i % 4, dtype=np.float32) for i in range(ROWS)]
    odd = io_fits.BinTableHDU.from_columns(
        [
            io_fits.Column("id", "K", array=np.arange(ROWS), null=5),
            io_fits.Column("ra", "D", array=table()["ra"].to_numpy(), unit="deg"),
            io_fits.Column("dec", "D", array=table()["dec"].to_numpy()),
            io_fits.Column("gmag", "I", array=np.arange(ROWS, dtype=np.int16)),
            io_fits.Column("v", "PE()", array=arrays),
            io_fits.Column("n", "J", array=np.arange(ROWS) + 2**31, bzero=2**31),
        ]
    )
    ascii_table = io_fits.TableHDU.from_columns(
        [
            io_fits.Column("id", "I10", array=np.arange(ROWS), ascii=True),
            io_fits.Column("ra", "F12.6", array=table()["ra"].to_numpy(), ascii=True),
            io_fits.Column("dec", "F12.6", array=table()["dec"].to_numpy(), ascii=True),
            io_fits.Column("name", "A6", array=np.array([f"s{i}" for i in range(ROWS)]), ascii=True),
        ]
    )
    return [stored(plain), stored(odd), stored(ascii_table), stored(plain, plain.copy())]


@cache
def votable() -> dict[str, list[bytes]]:
    """Each serialisation by its name."""
    from astropy.io import votable as io_votable

    found = {}
    for kind in ("tabledata", "binary", "binary2"):
        stream = io.BytesIO()
        io_votable.writeto(io_votable.from_table(_astropy()), stream, tabledata_format=kind)
        found[kind] = [stream.getvalue()]
    written = CHECKOUT / "tests" / "cases" / "01-votable-name-or-id"
    found["tabledata"] += [path.read_bytes() for path in sorted(written.glob("*.vot"))[:1]]
    return found
