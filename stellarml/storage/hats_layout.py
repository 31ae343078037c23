"""Where the parts of a HATS catalogue lie: properties, leaves and their files, as any tool may have laid them out.

Read without the hats library on purpose: it refuses properties that lack a count of rows, warns where the partition
list is missing, and takes seconds to import. What one file does not say is taken from the next best: the
partition list, ``_metadata``, the names of the folders.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.errors import InputError
from stellarml.core.tiles import INDEX_ORDER, Tile
from stellarml.storage.hats_properties import FOLDER_SUFFIX, Properties, read_properties
from stellarml.storage.parquet_files import reading_parquet, refuse_other_files

PROPERTIES = ("hats.properties", "properties")
COLLECTION = "collection.properties"
PARTITION_LIST = "partition_info.csv"
_LEAF = re.compile(r"Norder=(\d{1,2})/(?:Dir=\d+/)?Npix=(\d{1,20})(?!\d)([^/]*)")


def is_catalogue(path: Path) -> bool:
    """Whether `path` is a HATS catalogue, a collection, or the ``dataset`` folder of one."""
    folders = [path, path.resolve().parent] if path.resolve().name == "dataset" else [path]
    return any((folder / name).is_file() for folder in folders for name in (*PROPERTIES, COLLECTION))


def find_catalogue(path: Path) -> tuple[Path, Properties | None]:
    """Return the folder that holds a catalogue's properties, and the collection's properties if it is one of those.

    Parameters
    ----------
    path
        A catalogue, a collection, or the ``dataset`` folder of a catalogue.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if any((path / name).is_file() for name in PROPERTIES):
        return path, None
    if (path / COLLECTION).is_file():
        collection = read_properties(path / COLLECTION)
        primary = collection.get("hats_primary_table_url")
        folder = collection.folder("hats_primary_table_url", primary) if primary else path
        if primary is None or not folder.is_dir():
            raise InputError(
                f"{collection.path}: hats_primary_table_url = {primary or 'nothing'}, which is no folder beside it; "
                "expected the folder of the collection's main catalogue."
            )
        return folder, collection
    if path.resolve().name == "dataset" and any(
        (path.resolve().parent / name).is_file() for name in PROPERTIES
    ):
        return path.resolve().parent, None
    reason = f"no {', '.join(PROPERTIES)} or {COLLECTION} there"
    if not path.is_dir():
        reason = "it is a file" if path.is_file() else "no such folder"
    raise InputError(
        f"{path}: is not a finished HATS catalogue ({reason}). Name the folder of a HATS catalogue or collection; "
        "for one of stellarml's own, run the stage that makes it."
    )


def catalogue_properties(root: Path) -> Properties:
    """Read the properties file of a catalogue's folder.

    Raises
    ------
    InputError
        If there is none.
    """
    for name in PROPERTIES:
        if (root / name).is_file():
            return read_properties(root / name)
    raise InputError(f"{root}: is not a HATS catalogue (no {' or '.join(PROPERTIES)} there).")


def leaf_files(root: Path, suffix: str) -> list[tuple[Tile, tuple[Path, ...]]]:
    """Return every tile of a catalogue with its Parquet files, in the order of the sky.

    Raises
    ------
    InputError
        If a tile that is listed has no file, or two tiles overlap.
    """
    found = {}
    for tile, path in _listed(root, suffix):
        _check_tile(tile, root)
        found[tile] = path
    tiles = sorted(found, key=lambda tile: tile.range)
    for first, second in pairwise(tiles):
        if first.range[1] > second.range[0]:
            raise InputError(
                f"{root}: its tiles {first.name} and {second.name} overlap; expected tiles that cover the sky once."
            )
    return [(tile, _files_of(found[tile], tile, suffix)) for tile in tiles]


def _listed(root: Path, suffix: str) -> Iterator[tuple[Tile, Path]]:
    dataset = root / "dataset"
    if (root / "partition_info.csv").is_file():
        for tile in partition_list(root / "partition_info.csv"):
            yield tile, _leaf_path(root, tile, suffix)
    elif (dataset / "_metadata").is_file():
        for name in _named_files(dataset / "_metadata"):
            tile_of = _tile(name)
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{dataset / '_metadata'}: names the file '{name}', outside its catalogue.")
            if tile_of is None:
                raise InputError(
                    f"{dataset / '_metadata'}: names the file '{name[:80]}', expected Norder=k/Dir=d/Npix=n.parquet. "
                    "Without _metadata the tiles are taken from the names of the folders."
                )
            yield tile_of, dataset / name[: name.index("Npix=")] / _leaf_name(name)
    else:
        for path in sorted(dataset.glob("Norder=*/Dir=*/Npix=*")):
            if tile_of := _tile(path.relative_to(dataset).as_posix()):
                yield tile_of, path


def _named_files(path: Path) -> list[str]:
    """Return the files whose row groups a ``_metadata`` lists."""
    metadata = parquet_metadata(path)
    with reading_parquet(path):
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return sorted({str(group.column(0).file_path) if group.num_columns else "" for group in groups})


def _leaf_name(path: str) -> str:
    return path[path.index("Npix=") :].split("/")[0]


def _tile(path: str) -> Tile | None:
    found = _LEAF.search(path)
    return Tile(int(found[1]), int(found[2])) if found else None


def partition_list(path: Path) -> list[Tile]:
    """Read the tiles of a ``partition_info.csv``.

    Raises
    ------
    InputError
        If it is empty, lacks Norder or Npix, or they are no integers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if not {"Norder", "Npix"} <= set(rows.fieldnames or ()):
                raise KeyError("Norder, Npix" if rows.fieldnames else "the file is empty")
            tiles = [Tile(int(row["Norder"]), int(row["Npix"])) for row in rows]
    except (KeyError, ValueError, TypeError, csv.Error, OSError) as error:
        raise InputError(
            f"{path}: is not a partition list ({error!r}); expected columns Norder and Npix of integers. "
            "Without that file the tiles are taken from the names of the folders."
        ) from None
    for tile in tiles:
        _check_tile(tile, path)
    return tiles


def _check_tile(tile: Tile, source: Path) -> None:
    if not (0 <= tile.order <= INDEX_ORDER and 0 <= tile.pixel < 12 << 2 * tile.order):
        raise InputError(f"{source}: names the tile {tile.name}, which is not on the sky.")


def _leaf_path(root: Path, tile: Tile, suffix: str) -> Path:
    """Return where the leaf of a tile is, or should be; a suffix that the properties do not name is found as well."""
    stem = (root / tile.path).with_suffix("")
    expected = stem if suffix == FOLDER_SUFFIX else stem.with_name(stem.name + suffix)
    if expected.exists():
        return expected
    others = [path for path in (stem, *sorted(stem.parent.glob(f"{stem.name}.*"))) if path.exists()]
    return others[0] if len(others) == 1 else expected


def _files_of(path: Path, tile: Tile, suffix: str) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise InputError(
            f"{path}: the file is missing, the leaf of tile {tile.name} that its catalogue lists. Copy it again, or "
            f"run what made the catalogue again (leaves end in '{suffix}' there)."
        )
    files = tuple(sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_"))))
    if not files:
        raise InputError(
            f"{path}: the leaf of tile {tile.name} is an empty folder; expected at least one Parquet file. "
            "Copy it again, or run what made the catalogue again."
        )
    return files


def parquet_metadata(path: Path) -> pq.FileMetaData:
    """Read a Parquet footer.

    Raises
    ------
    InputError
        If the file is missing or is not Parquet.
    """
    with reading_parquet(path):
        return pq.read_metadata(path)


def leaf_metadata(path: Path) -> pq.FileMetaData:
    """Read the footer of a file that holds rows.

    Raises
    ------
    InputError
        If the file is missing, is not Parquet, or says that its rows lie in another file.
    """
    metadata = parquet_metadata(path)
    with reading_parquet(path):
        refuse_other_files(path, metadata)
    return metadata


def raw_schema(root: Path, files: Iterable[Path]) -> pa.Schema:
    """Return the Arrow schema of a catalogue's files: from its common metadata, or else from its first leaf.

    Raises
    ------
    InputError
        If there is no file to take it from.
    """
    candidates = [root / "dataset" / name for name in ("_common_metadata", "_metadata")]
    for path in (*(p for p in candidates if p.is_file()), *files):
        with reading_parquet(path):
            schema: pa.Schema = parquet_metadata(path).schema.to_arrow_schema()
            if len(set(schema.names)) == len(schema.names):
                return schema
        raise InputError(f"{path}: has two columns of one name; expected names that differ.")
    raise InputError(f"{root}: holds no leaf and no dataset/_common_metadata, so its columns are unknown.")
