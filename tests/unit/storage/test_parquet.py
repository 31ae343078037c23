"""Tiles, leaves and small files: every row once, whole or not at all."""

from __future__ import annotations

import errno
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellarml.core.config import Tiles
from stellarml.core.errors import InputError, StorageError, UserError
from stellarml.core.files import storage_errors, write_atomically
from stellarml.core.sky import healpix_29
from stellarml.core.tiles import Tile, choose_tiles
from stellarml.run.ownership import refuse_foreign_folder
from stellarml.storage.hats_reader import open_catalogue, read_ranges, row_groups_in
from stellarml.storage.hats_writer import write_catalogue
from stellarml.storage.parquet import leaf_writer, write_parquet


def tiles(**changes: Any) -> Tiles:
    base = {"max_rows": 100, "row_group_rows": 100, "min_order": 0, "max_order": 6, "compression": "zstd"}
    return Tiles(**{**base, **changes})


_cells = st.dictionaries(st.integers(0, 12 * 4**6 - 1), st.integers(1, 400), min_size=1, max_size=60)


@given(_cells, st.integers(100, 2000), st.integers(0, 4))
def test_the_tiling_covers_every_row_once(cells: dict[int, int], max_rows: int, min_order: int) -> None:
    pixels = np.array(sorted(cells), np.int64)
    counts = np.array([cells[p] for p in sorted(cells)], np.int64)
    chosen = choose_tiles(pixels, counts, 6, tiles(max_rows=max_rows, min_order=min_order))
    ranges = [tile.range for tile, _ in chosen]
    assert ranges == sorted(ranges) and all(a[1] <= b[0] for a, b in pairwise(ranges))
    starts = pixels << 2 * (29 - 6)
    for (low, high), (tile, rows) in zip(ranges, chosen, strict=True):
        assert rows == counts[(starts >= low) & (starts < high)].sum() > 0
        assert rows <= max_rows or tile.order == 6
        assert tile.order >= min_order
    assert sum(rows for _, rows in chosen) == counts.sum()


@given(_cells)
def test_a_tile_is_split_only_where_it_must_be(cells: dict[int, int]) -> None:
    pixels = np.array(sorted(cells), np.int64)
    counts = np.array([cells[p] for p in sorted(cells)], np.int64)
    for tile, _ in choose_tiles(pixels, counts, 6, tiles(max_rows=500)):
        if tile.order:
            parent = Tile(tile.order - 1, tile.pixel // 4)
            low, high = parent.range
            starts = pixels << 2 * (29 - 6)
            assert counts[(starts >= low) & (starts < high)].sum() > 500


def test_names_and_paths_of_a_leaf() -> None:
    tile = Tile(7, 123_456)
    assert tile.name == "Norder=7_Npix=123456"
    assert tile.path == Path("dataset/Norder=7/Dir=120000/Npix=123456.parquet")
    assert Tile(0, 11).range == (11 << 58, 12 << 58)


def stars(n: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    ra = np.where(rng.random(n) < 0.5, rng.uniform(0, 360, n), rng.uniform(10, 10.5, n))
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, n))) * np.where(ra < 11, 0.01, 1)
    return pa.table(
        {
            "_healpix_29": healpix_29(ra, dec),
            "source_id": rng.permutation(n).astype(np.int64),
            "ra": ra,
            "dec": dec,
            "note": [f"n{i}" for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hats") / "stars"
    write_catalogue(
        root, stars(5000), tiles(max_rows=400), name="stars", ra="ra", dec="dec", id_column="source_id"
    )
    return root


def test_a_written_catalogue_holds_every_row(catalogue: Path) -> None:
    opened = open_catalogue(catalogue)
    assert len(opened.leaves) > 12 and opened.rows == 5000
    assert (opened.ra, opened.dec) == ("ra", "dec")
    table = pa.concat_tables(pq.read_table(leaf.path, partitioning=None) for leaf in opened.leaves)
    wanted = stars(5000).sort_by([("_healpix_29", "ascending"), ("source_id", "ascending")])
    assert table.equals(wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12 * 4**8), min_size=2, max_size=12, unique=True))
def test_ranges_are_read_as_a_plain_filter_would(catalogue: Path, borders: list[int]) -> None:
    edges = np.array(sorted(borders)[: len(borders) // 2 * 2], np.int64) << 2 * (29 - 8)
    ranges = edges.reshape(-1, 2)
    opened = open_catalogue(catalogue)
    found = read_ranges(opened.leaves, ranges, ["source_id", "note"], opened.schema)
    whole = stars(5000).sort_by([("_healpix_29", "ascending"), ("source_id", "ascending")])
    keys = whole["_healpix_29"].to_numpy()
    inside = np.zeros(len(keys), bool)
    for low, high in ranges:
        inside |= (keys >= low) & (keys < high)
    assert found.equals(whole.select(["_healpix_29", "source_id", "note"]).filter(pa.array(inside)))


def test_only_row_groups_that_touch_a_range_are_read(catalogue: Path) -> None:
    leaf = max(open_catalogue(catalogue).leaves, key=lambda leaf: leaf.rows)
    metadata = pq.read_metadata(leaf.path)
    assert metadata.num_row_groups > 2
    keys = pq.read_table(leaf.path, partitioning=None)["_healpix_29"].to_numpy()
    one = np.array([[keys[150], keys[150] + 1]])
    assert row_groups_in(metadata, one) == [1]
    assert row_groups_in(metadata, np.array([leaf.tile.range])) == list(range(metadata.num_row_groups))
    assert row_groups_in(metadata, np.array([[0, keys[0]], [keys[-1] + 1, 2**62]])) == []


def test_no_range_no_row(catalogue: Path) -> None:
    opened = open_catalogue(catalogue)
    found = read_ranges(opened.leaves, np.empty((0, 2), np.int64), ["ra"], opened.schema)
    assert found.num_rows == 0 and found.column_names == ["_healpix_29", "ra"]


def test_an_unfinished_catalogue_is_refused(tmp_path: Path) -> None:
    write_catalogue(
        tmp_path, stars(300), tiles(max_rows=100), name="s", ra="ra", dec="dec", id_column="source_id"
    )
    leaf = open_catalogue(tmp_path).leaves[0].path
    content = leaf.read_bytes()
    leaf.write_bytes(content[:-20])
    with pytest.raises(InputError, match=rf"{leaf.name}: is not a readable Parquet file"):
        open_catalogue(tmp_path)
    leaf.unlink()
    with pytest.raises(InputError, match=rf"{leaf.name}: the file is missing"):
        open_catalogue(tmp_path)
    for name in ("hats.properties", "properties"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="is not a finished HATS catalogue"):
        open_catalogue(tmp_path)


class TestAtomic:
    def test_the_old_content_stays_when_the_new_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "deep" / "a.json"
        write_atomically(path, "old")
        assert path.read_text() == "old"

        def full(self: Path, content: bytes) -> int:
            with self.open("wb") as stream:
                stream.write(content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match=r"a.json: the disk is full. What was finished is kept"):
            write_atomically(path, "new")
        assert path.read_text() == "old"
        assert [p.name for p in path.parent.iterdir()] == ["a.json"]

    def test_a_leaf_is_whole_or_absent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "leaf.parquet"

        def full(writer: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(StorageError, match="the disk is full"):
            write_parquet(path, stars(10), tiles())
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_is_really_full(self, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            with pytest.raises(StorageError, match="the disk is full"):
                write_parquet(small / "leaf.parquet", stars(100_000), tiles())
            assert list(small.iterdir()) == []
        finally:
            subprocess.run(["umount", str(small)], check=True)

    @pytest.mark.parametrize("batch", [1, 7, 100, 101, 1000])
    def test_bytes_do_not_depend_on_how_many_rows_come_at_once(self, tmp_path: Path, batch: int) -> None:
        table = stars(300)
        groups = tiles(row_group_rows=100)
        write_parquet(tmp_path / "whole", table, groups)
        with leaf_writer(tmp_path / "parts", table.schema, groups) as writer:
            for start in range(0, 300, batch):
                writer.write(table.slice(start, batch))
        assert writer.rows == 300
        assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
        assert pq.read_metadata(tmp_path / "parts").num_row_groups == 3

    def test_bytes_depend_on_the_rows_alone(self, tmp_path: Path) -> None:
        table = stars(1000)
        chunked = pa.concat_tables([table.slice(0, 300), table.slice(300, 1), table.slice(301)])
        one = write_parquet(tmp_path / "a", table, tiles())
        two = write_parquet(tmp_path / "b", chunked, tiles())
        assert one == two == {"rows": 1000, "bytes": (tmp_path / "a").stat().st_size}
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_what_the_file_system_refuses(self, tmp_path: Path) -> None:
        for number, told in ((errno.EDQUOT, "disk is full"), (errno.EROFS, "cannot write here")):
            with pytest.raises(StorageError, match=told), storage_errors(tmp_path):
                raise OSError(number, "no")
        with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
            raise FileNotFoundError(errno.ENOENT, "other errors stay what they are")


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    refuse_foreign_folder(tmp_path / "new")
    refuse_foreign_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds files that stellarml did not make \(thesis.tex"):
        refuse_foreign_folder(tmp_path)
    with pytest.raises(UserError, match="is a file, expected a folder"):
        refuse_foreign_folder(tmp_path / "thesis.tex")
    (tmp_path / "run.json").write_text("{}")
    refuse_foreign_folder(tmp_path)
