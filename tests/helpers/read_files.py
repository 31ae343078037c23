"""Files read as an ingest reads them, without Spark: a descriptor for them, their rows, and what was rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from helpers.places import CHECKOUT
from stellarml.surveys.column_mapping import Resolved
from stellarml.surveys.descriptor import Descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_readers import reader_of

CASES = CHECKOUT / "tests" / "cases"

VIZIER = (
    "#RESOURCE=x\n#Column\tid\nid\tRAJ2000\tDEJ2000\tgmag\n \tdeg\tdeg\tmmag\n"
    "----\t------\t------\t-----\n1\t10.5\t-20\t15000\n2\t11.5\t-21\t   \n"
)
"""A table as VizieR writes it for a tab-separated answer."""


def survey(*keep: str, **more: Any) -> Descriptor:
    position = {"id": "id", "ra": "ra", "dec": "dec", **more.pop("position", {})}
    return Descriptor(
        name="t",
        kind="photometry",
        files={"format": "csv", "glob": "*"},
        position=position,
        columns={"keep": list(keep)},
        **more,
    )


def read(descriptor: Descriptor, path: Path) -> tuple[pa.Table, list[tuple[int, str]], Resolved]:
    """Return the rows of a survey's files as an ingest reads them, and the rejects."""
    found = settled_columns(descriptor, find_files(descriptor, path))
    tables, rejects = [found.schema.empty_table()], []
    for number, header in enumerate(found.headers):
        names, schema = list(found.sources[number]), found.read_schema(number)
        for block in reader_of(header.file).blocks(header, names, schema, descriptor.files, 1 << 20):
            table = block.table
            for column, conversion in found.conversions[number].items():
                values = conversion(table.column(column).combine_chunks())
                table = table.set_column(column, found.schema.field(column), values)
            tables.append(table)
            rejects += block.rejects
    return pa.concat_tables(tables), rejects, found
