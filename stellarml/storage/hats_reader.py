"""Reading HATS catalogues in place, whoever made them: what they hold, and their rows in ranges of the sky."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from stellarml.core import sky
from stellarml.core.errors import InputError, did_you_mean
from stellarml.core.files import literal
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.tiles import INDEX_ORDER, Tile
from stellarml.run.log import get_logger
from stellarml.storage.hats_layout import (
    PARTITION_LIST,
    catalogue_properties,
    find_catalogue,
    leaf_files,
    leaf_metadata,
    raw_schema,
)
from stellarml.storage.hats_properties import Properties
from stellarml.storage.leaf_reader import Leaf, LeafFormat, Ranges, read_leaf, row_groups_in

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Catalogue", "Leaf", "LeafFormat", "Margin", "open_catalogue", "read_ranges", "row_groups_in"]

HIVE_COLUMNS = ("Norder", "Dir", "Npix", "margin_Norder", "margin_Dir", "margin_Npix")


@dataclass(frozen=True)
class Margin:
    """A margin catalogue: for each tile of its primary the rows of other tiles within `threshold_arcsec` of it."""

    root: Path
    threshold_arcsec: float
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Catalogue:
    """A HATS catalogue on disk: its leaves in the order of the sky and its schema.

    `schema` has the names of the files, and ``_healpix_29`` whether they have it or not; the folder names (Norder, Dir,
    Npix) are no columns of it.
    """

    root: Path
    leaves: tuple[Leaf, ...]
    schema: pa.Schema
    ra: str
    dec: str
    name: str = ""
    format: LeafFormat = field(default_factory=LeafFormat)
    margins: tuple[Margin, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all leaves."""
        return sum(leaf.rows for leaf in self.leaves)

    @property
    def margin(self) -> Margin | None:
        """The widest margin catalogue beside it."""
        return self.margins[-1] if self.margins else None


def open_catalogue(root: Path) -> Catalogue:
    """Open a HATS catalogue, a collection, or a catalogue by its ``dataset`` folder; nothing is copied.

    Raises
    ------
    InputError
        If it is none of them or no catalogue of objects, a leaf that it lists is missing or damaged, it has no
        positions, or the order of its index cannot be determined.
    """
    folder, collection = find_catalogue(root)
    properties = catalogue_properties(folder)
    if properties.kind not in ("object", "source"):
        raise InputError(
            f"{properties.path}: is a catalogue of type '{properties.kind}'; expected one of objects or sources. "
            f"Its main catalogue is {properties.get('hats_primary_table_url', 'primary_catalog') or 'not named there'}."
        )
    files = leaf_files(folder, properties.suffix)
    found = raw_schema(folder, (path for _, paths in files for path in paths))
    position = [
        _position_column(properties, found, *keys)
        for keys in (("hats_col_ra", "ra_column"), ("hats_col_dec", "dec_column"))
    ]
    layout = _leaf_format(properties, found, position[0], position[1])
    catalogue = Catalogue(
        folder,
        _leaves(files, layout, outside=False),
        reading_schema(found),
        position[0],
        position[1],
        properties.name,
        layout,
        _margins(collection, found),
    )
    stated = properties.number("hats_nrows", "total_rows", whole=True)
    if stated and not files:
        raise InputError(
            f"{folder}: states {stated:.0f} rows (hats_nrows) and lists no tile: its {PARTITION_LIST} or its folder "
            "dataset is empty. Copy it again."
        )
    if stated is not None and stated != catalogue.rows:
        get_logger().warning(
            "the catalogue holds another number of rows than its properties state",
            catalogue=str(folder),
            stated=int(stated),
            found=catalogue.rows,
        )
    return catalogue


def _margins(collection: Properties | None, schema: pa.Schema) -> tuple[Margin, ...]:
    found = []
    names = (
        re.split(r"[;,\s]+", (collection.get("all_margins", "default_margin") or "")) if collection else []
    )
    for name in filter(None, names):
        root = collection.folder("all_margins", name) if collection else Path()
        if not root.is_dir():
            get_logger().warning("a margin catalogue of the collection is missing", margin=str(root))
            continue
        found.append(open_margin(root, schema))
    return tuple(sorted(found, key=lambda margin: margin.threshold_arcsec))


def open_margin(root: Path, schema: pa.Schema | None = None) -> Margin:
    """Open a margin catalogue; `schema` is what the files of its primary have, where its own do not say.

    Raises
    ------
    InputError
        If it is no margin catalogue, or is damaged.
    """
    properties = catalogue_properties(root)
    threshold = properties.number("hats_margin_threshold", "margin_threshold")
    if properties.kind != "margin" or threshold is None:
        raise InputError(
            f"{properties.path}: is a catalogue of type '{properties.kind}' with hats_margin_threshold = {threshold}; "
            "expected a margin catalogue with its threshold in arcsec."
        )
    files = leaf_files(root, properties.suffix)
    found = raw_schema(root, (path for _, paths in files for path in paths)) if files else schema
    if found is None:
        return Margin(root, threshold, ())
    ra = _position_column(properties, found, "hats_col_ra", "ra_column")
    dec = _position_column(properties, found, "hats_col_dec", "dec_column")
    return Margin(root, threshold, _leaves(files, _leaf_format(properties, found, ra, dec), outside=True))


def _leaves(
    files: Sequence[tuple[Tile, tuple[Path, ...]]], layout: LeafFormat, *, outside: bool
) -> tuple[Leaf, ...]:
    def leaf(entry: tuple[Tile, tuple[Path, ...]]) -> Leaf:
        tile, paths = entry
        return Leaf(tile, paths, sum(leaf_metadata(path).num_rows for path in paths), layout, outside)

    with ThreadPoolExecutor(8) as pool:
        return tuple(leaf for leaf in pool.map(leaf, files) if leaf.rows)


def column_named(schema: pa.Schema, name: str) -> str | None:
    """Return the column of `schema` called `name`; where there is none, the only one that differs in case alone."""
    if name in schema.names:
        return name
    alike = [n for n in schema.names if n.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _position_column(properties: Properties, schema: pa.Schema, *keys: str) -> str:
    stated = properties.get(*keys)
    column = column_named(schema, stated) if stated else None
    if column is None:
        raise InputError(
            f"{properties.path}: {keys[0]} = {stated or 'nothing'}, expected a column of its files "
            f"({', '.join(schema.names[:12])}{', ...' if len(schema) > 12 else ''})."
            f"{did_you_mean(stated, schema.names) if stated else ''} Correct that line."
        )
    kind = schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise InputError(f"{properties.path}: {keys[0]} = {column} is a column of {kind}; expected degrees.")
    return column


def _leaf_format(properties: Properties, schema: pa.Schema, ra: str, dec: str) -> LeafFormat:
    stated = properties.get("hats_col_healpix", "healpix_column")
    column = column_named(schema, stated or HEALPIX_COLUMN)
    if column is None:
        return LeafFormat(None, INDEX_ORDER, ra, dec)
    if not pa.types.is_integer(schema.field(column).type):
        raise InputError(
            f"{properties.path}: its index '{column}' is a column of {schema.field(column).type}; expected integers. "
            "Name the right column in hats_col_healpix, or none: then the index is computed."
        )
    named = re.fullmatch(r"_?healpix_?(\d+)", column, re.IGNORECASE)
    order = properties.get("hats_col_healpix_order", "healpix_order") or (named[1] if named else "nothing")
    if not (order.isdecimal() and int(order) <= INDEX_ORDER):
        raise InputError(
            f"{properties.path}: hats_col_healpix_order = {order} of the index '{column}'; expected a whole number "
            "from 0 to 29. Correct that line, or take hats_col_healpix out: then the index is computed."
        )
    return LeafFormat(column, int(order), ra, dec)


def reading_schema(found: pa.Schema) -> pa.Schema:
    """Return the columns that a catalogue's readers get of files with the schema `found`.

    Folder names are left out. Dictionaries and views, of which no two row groups are alike in memory, become plain.
    """
    fields = [
        pa.field(f.name, _plain(f.type), f.nullable, f.metadata) for f in found if f.name not in HIVE_COLUMNS
    ]
    index = next((i for i, f in enumerate(fields) if f.name == HEALPIX_COLUMN), None)
    if index is None:
        return pa.schema([pa.field(HEALPIX_COLUMN, pa.int64()), *fields])
    fields[index] = fields[index].with_type(pa.int64())
    return pa.schema(fields)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def leaves_in(leaves: Sequence[Leaf], ranges: Ranges) -> list[Leaf]:
    """Return the leaves whose tiles touch one of `ranges`."""
    if not len(ranges) or not leaves:
        return []
    tiles = [leaf.tile for leaf in leaves]
    touched = sky.tiles_in_ranges([t.order for t in tiles], [t.pixel for t in tiles], ranges)
    return [leaf for leaf, is_touched in zip(leaves, touched, strict=True) if is_touched]


def read_ranges(
    leaves: Sequence[Leaf],
    ranges: Ranges,
    columns: Sequence[str],
    schema: pa.Schema,
    *,
    cached: bool = False,
) -> pa.Table:
    """Read the rows whose `_healpix_29` lies in any of `ranges`, in the order of the sky.

    Only row groups that touch a range are read. Rows of one index keep the order of their file.

    Parameters
    ----------
    ranges
        Shape (n_ranges, 2), half-open, ascending, disjoint.
    columns
        Names to read; `_healpix_29` is added.
    cached
        Keep the decoded columns for the next call in this process: for columns that neighbouring tiles read too.
    """
    names = [HEALPIX_COLUMN, *(c for c in columns if c != HEALPIX_COLUMN)]
    wanted = pa.schema([schema.field(n) for n in names])
    parts = [read_leaf(leaf, ranges, wanted, cached=cached) for leaf in leaves_in(leaves, ranges)]
    return pa.concat_tables([wanted.empty_table(), *parts])


def read_leaves(spark: SparkSession, root: Path) -> DataFrame:
    """Read the leaves of a HATS catalogue as a DataFrame, one partition a leaf."""
    return spark.read.option("recursiveFileLookup", "true").parquet(literal(root / "dataset"))
