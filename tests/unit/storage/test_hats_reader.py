"""HATS catalogues of other tools: every layout gives the same rows, damage is told by file and column."""

from __future__ import annotations

import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.foreign_hats import TILES, Layout, field_of_stars, write_foreign, write_properties
from hypothesis import given, settings
from hypothesis import strategies as st

from stellarml.core.errors import InputError
from stellarml.core.sky import halo_ranges, healpix_29, in_ranges, merge_ranges
from stellarml.core.tiles import Tile
from stellarml.storage import leaf_cache
from stellarml.storage.hats_reader import Catalogue, column_named, open_catalogue, read_ranges
from stellarml.storage.leaf_cache import ColumnCache

COLUMNS = ["objID", "RA", "Dec", "mag", "flags", "name", "field", "note", "lightcurve"]
LAYOUTS = {
    "usual": Layout(),
    "hats-import": Layout(hive_columns=True, index_type=pa.uint64()),
    "own name of the index": Layout(index="hpx"),
    "index of order 20": Layout(index="hpx", order=20),
    "index of order 8, one file of many": Layout(index="healpix_8", order=8, suffix="/", files=3),
    "no index": Layout(index=None),
    "index named, not there": Layout(index=None, told={"hats_col_healpix": "_healpix_29"}),
    "leaf folders": Layout(suffix="/", files=3),
    "leaf folders, unsorted": Layout(suffix="/", files=2, shuffled=True),
    "snappy": Layout(suffix=".snappy.parquet"),
    "suffix not told": Layout(suffix=".parq", told={"hats_npix_suffix": None}),
    "leaf folders not told": Layout(suffix="/", files=2, told={"hats_npix_suffix": None}),
    "unsorted": Layout(shuffled=True),
    "unsorted, no index": Layout(index=None, shuffled=True),
    "no statistics": Layout(statistics=False),
    "tiles from _metadata": Layout(partitions="metadata"),
    "tiles from _metadata, leaf folders": Layout(partitions="metadata", suffix="/", files=2),
    "tiles from folders": Layout(partitions="folders"),
    "tiles from folders, leaf folders": Layout(partitions="folders", suffix="/", files=2, shuffled=True),
    "older properties": Layout(properties="properties"),
    "names of the hats library": Layout(
        told={"hats_col_ra": None, "hats_col_dec": None, "ra_column": "ra", "dec_column": "DEC"}
    ),
    "a catalogue of sources": Layout(told={"dataproduct_type": "source", "hats_nrows": None}),
}


@pytest.fixture(scope="module")
def stars() -> pa.Table:
    return field_of_stars(3000)


def plain(table: pa.Table) -> pa.Table:
    """Return `table` with the types that readers get."""
    kinds = {"field": pa.string(), "note": pa.string()}
    return table.cast(pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in table.schema]))


def by_id(table: pa.Table) -> pa.Table:
    return table.sort_by([("_healpix_29", "ascending"), ("objID", "ascending")])


def some_ranges() -> list[np.ndarray[Any, Any]]:
    """Nothing, all, one tile, halos, many slivers, and ranges beside every tile."""
    everything = np.array([[0, 12 << 58]])
    halos = [halo_ranges(t.order, t.pixel, 300.0) for t in TILES[::2]]
    start, end = TILES[0].range[0], TILES[-1].range[1]
    cuts = np.unique(np.random.default_rng(5).integers(start, end, 800)).reshape(-1, 2)
    beside = np.array([[0, start], [end, 12 << 58]])
    return [np.empty((0, 2), np.int64), everything, np.array([TILES[3].range]), *halos, cuts, beside]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_rows(name: str, stars: pa.Table, tmp_path: Path) -> None:
    catalogue = open_catalogue(write_foreign(tmp_path / "c", stars, LAYOUTS[name]))
    assert catalogue.rows == len(stars) and [leaf.tile for leaf in catalogue.leaves] == sorted(
        TILES, key=lambda tile: tile.range
    )
    assert (catalogue.ra, catalogue.dec) == ("RA", "Dec")
    assert set(COLUMNS) <= set(catalogue.schema.names)
    assert not {"Norder", "Dir", "Npix"} & set(catalogue.schema.names)
    assert catalogue.schema.field("_healpix_29").type == pa.int64()
    expected = plain(stars)
    leaf_cache.COLUMNS.clear()
    for ranges in some_ranges():
        wanted = by_id(expected.filter(in_ranges(expected["_healpix_29"].to_numpy(), ranges)))
        for cached in (False, True, True):
            found = read_ranges(catalogue.leaves, ranges, COLUMNS, catalogue.schema, cached=cached)
            assert found.column_names == ["_healpix_29", *COLUMNS]
            index = found["_healpix_29"].to_numpy()
            assert (index[1:] >= index[:-1]).all()
            assert by_id(found).equals(wanted)


def test_only_touched_row_groups_are_read(
    stars: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int]] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append((str(options["columns"]), group))
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for layout, columns in (
        (Layout(), "['_healpix_29', 'mag']"),
        (Layout(index="hp", order=14), "['RA', 'Dec', 'mag']"),
    ):
        catalogue = open_catalogue(write_foreign(tmp_path / f"{layout.order}", stars, layout))
        leaf = max(catalogue.leaves, key=lambda leaf: leaf.rows)
        keys = stars["_healpix_29"].to_numpy()
        inside = keys[(keys >= leaf.tile.range[0]) & (keys < leaf.tile.range[1])]
        read.clear()
        one = np.array([[inside[100], inside[100] + 1]])
        assert len(read_ranges(catalogue.leaves, one, ["mag"], catalogue.schema)) == 1
        assert read == [(columns, 1)]


@given(
    spans=st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 400)), max_size=12), cached=st.booleans()
)
@settings(max_examples=40)
def test_any_ranges_are_filtering_everything(
    spans: list[tuple[int, int]], cached: bool, shared: Catalogue, stars: pa.Table
) -> None:
    keys = stars["_healpix_29"].to_numpy()
    ranges = merge_ranges([[keys[i], keys[min(i + n, 2999)]] for i, n in spans])
    found = read_ranges(shared.leaves, ranges, ["objID"], shared.schema, cached=cached)
    assert found["objID"].to_pylist() == stars["objID"].filter(in_ranges(keys, ranges)).to_pylist()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, stars: pa.Table) -> Catalogue:
    folder = tmp_path_factory.mktemp("shared") / "c"
    return open_catalogue(write_foreign(folder, stars, Layout(index="hp", order=11, suffix="/", files=3)))


def test_a_catalogue_travels_to_tasks(shared: Catalogue) -> None:
    """Spark sends leaves by pickle; nothing of the open files goes along."""
    sent = pickle.loads(pickle.dumps(shared))
    assert sent == shared
    assert len(pickle.dumps(shared.leaves[0])) < 1000


def test_rows_on_the_border_stay_with_their_leaf(tmp_path: Path) -> None:
    """Another library may round a position on a border to the other side; no row is lost, none moves."""
    ra, dec = np.array([45.0, 45.0, 45.0, 315.0, 90.0, 0.0]), np.array([0.0, 5e-9, -5e-9, 0.0, 60.0, 90.0])
    truth = healpix_29(ra, dec)
    table = pa.table({"_healpix_29": truth, "RA": ra, "Dec": dec, "objID": np.arange(6)})
    home = [Tile(0, int(i >> 58)) for i in truth]
    assert [len(_touching(*place)) for place in zip(ra, dec, home, strict=True)] == [3, 3, 3, 3, 1, 3]
    for row, tile in enumerate(home):
        for other in (tile, *(_touching(ra[row], dec[row], tile))):
            root = tmp_path / f"{row}-{other.pixel}"
            one = table.slice(row, 1).set_column(0, "_healpix_29", pa.array([other.range[0]]))
            catalogue = open_catalogue(write_foreign(root, one, Layout(index=None), (other,)))
            found = read_ranges(catalogue.leaves, np.array([other.range]), ["RA", "Dec"], catalogue.schema)
            assert len(found) == 1 and found["RA"][0].as_py() == ra[row]
            key = found["_healpix_29"][0].as_py()
            assert other.range[0] <= key < other.range[1]
            assert in_ranges([key], halo_ranges(tile.order, tile.pixel, 0.1))[0]


def _touching(ra: float, dec: float, tile: Tile) -> list[Tile]:
    """Return the base pixels within 0.1 mas of a position, beside its own."""
    step = 1e-4 / 3600
    around = [(ra + a * step, dec + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    around = around if dec < 90 else [(turn, 90 - step) for turn in (45, 135, 225, 315)]
    found = {int(healpix_29([a], [b])[0] >> 58) for a, b in around}
    return [Tile(0, pixel) for pixel in sorted(found - {tile.pixel})]


class TestOpening:
    def test_a_collection_its_catalogue_and_its_dataset_are_one(
        self, stars: pa.Table, tmp_path: Path
    ) -> None:
        root = write_foreign(tmp_path / "main", stars, Layout())
        (tmp_path / "collection.properties").write_text(
            "#HATS Collection\nobs_collection = two\\: words\nhats_primary_table_url = main\n"
        )
        found = [open_catalogue(path) for path in (tmp_path, root, root / "dataset")]
        assert found[0] == found[1] == found[2]
        assert found[0].name == "foreign" and found[0].margin is None

    @pytest.mark.slow
    def test_what_lsdb_writes(self, stars: pa.Table, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lsdb = pytest.importorskip("lsdb")
            frame = stars.select(["objID", "RA", "Dec", "mag", "flags"]).to_pandas()
            made = lsdb.from_dataframe(
                frame, ra_column="RA", dec_column="Dec", drop_empty_siblings=False, partition_rows=500
            )
            made.write_catalog(tmp_path / "plain", catalog_name="plain", as_collection=False)
            lsdb.from_dataframe(
                frame, ra_column="RA", dec_column="Dec", partition_rows=500, margin_threshold=900
            ).write_catalog(tmp_path / "both", catalog_name="both")
        for root in ("plain", "both", "both/both", "both/both/dataset"):
            catalogue = open_catalogue(tmp_path / root)
            assert len(catalogue.leaves) > 5
            assert (catalogue.margin is not None) == (root == "both")
            for ranges in some_ranges():
                rows = stars.select(["_healpix_29", "objID", "RA", "mag"])
                wanted = rows.filter(in_ranges(rows["_healpix_29"].to_numpy(), ranges))
                found = read_ranges(catalogue.leaves, ranges, ["objID", "RA", "mag"], catalogue.schema)
                assert by_id(found).equals(by_id(wanted))
        margin = open_catalogue(tmp_path / "both").margin
        assert margin is not None and margin.threshold_arcsec == 900 and margin.leaves[0].outside

    def test_names_are_found_without_regard_to_case(self, shared: Catalogue) -> None:
        assert column_named(shared.schema, "objid") == "objID"
        assert column_named(shared.schema, "dec") == "Dec"
        assert column_named(shared.schema, "magnitude") is None
        assert column_named(pa.schema([("Ra", pa.int8()), ("RA", pa.int8())]), "ra") is None

    def test_an_empty_leaf_file_holds_no_rows(self, stars: pa.Table, tmp_path: Path) -> None:
        root = write_foreign(tmp_path / "c", stars, Layout(), (*TILES, Tile(3, 5)))
        catalogue = open_catalogue(root)
        assert catalogue.rows == len(stars) and Tile(3, 5) not in [leaf.tile for leaf in catalogue.leaves]


class TestCache:
    def test_a_row_group_is_decoded_once(self, shared: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
        decoded: list[tuple[int, tuple[str, ...]]] = []
        original = pq.ParquetFile.read_row_group

        def counted(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
            decoded.append((group, tuple(options["columns"])))
            return original(self, group, **options)

        leaf_cache.COLUMNS.clear()
        monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
        whole = np.array([shared.leaves[0].tile.range])
        first = read_ranges(shared.leaves, whole, ["mag"], shared.schema, cached=True)
        times = len(decoded)
        assert times >= 3
        assert read_ranges(shared.leaves, whole, ["mag"], shared.schema, cached=True).equals(first)
        assert len(decoded) == times
        read_ranges(shared.leaves, whole, ["mag", "flags"], shared.schema, cached=True)
        assert decoded[times:] == [(group, ("flags",)) for group, _ in decoded[:times]]

    def test_a_leaf_written_anew_is_read_anew(self, stars: pa.Table, tmp_path: Path) -> None:
        layout = Layout()
        for seed in (1, 2):
            table = field_of_stars(500, seed)
            catalogue = open_catalogue(write_foreign(tmp_path / "c", table, layout))
            everything = np.array([[0, 12 << 58]])
            found = read_ranges(catalogue.leaves, everything, ["RA"], catalogue.schema, cached=True)
            assert found["RA"].to_pylist() == table["RA"].to_pylist()

    def test_memory_is_bounded_and_the_oldest_goes(self) -> None:
        column = pa.chunked_array([np.zeros(100)])
        cache = ColumnCache(3 * 800)
        asked: list[str] = []

        def decode(names: list[Any]) -> dict[Any, pa.ChunkedArray]:
            asked.extend(name for name, _ in names)
            return dict.fromkeys(names, column)

        for name in ("a", "b", "c", "a", "d", "a", "b", "c", "d"):
            cache.fetch("block", [(name, pa.float64())], decode)
            assert cache.bytes <= 3 * 800
        assert asked == ["a", "b", "c", "d", "b", "c", "d"]
        cache.fetch("block", [("wide", pa.float64())], lambda names: {n: _big() for n in names})
        assert cache.bytes == 3 * 800


def _big() -> pa.ChunkedArray:
    return pa.chunked_array([np.zeros(10_000)])


class TestDamage:
    @pytest.fixture
    def root(self, stars: pa.Table, tmp_path: Path) -> Path:
        return write_foreign(tmp_path / "c", stars, Layout(suffix="/", files=2))

    def refuses(self, root: Path, *told: str) -> None:
        with pytest.raises(InputError) as caught:
            catalogue = open_catalogue(root)
            read_ranges(catalogue.leaves, np.array([[0, 12 << 58]]), COLUMNS, catalogue.schema)
        for word in told:
            assert word in str(caught.value)

    def test_a_leaf_that_is_listed_is_missing(self, root: Path) -> None:
        shutil.rmtree(root / TILES[0].path.with_suffix(""))
        self.refuses(root, "Npix=300", "the file is missing", "Norder=3_Npix=300", "Copy it again")

    def test_a_leaf_is_an_empty_folder(self, root: Path) -> None:
        for path in (root / TILES[0].path.with_suffix("")).glob("*.parquet"):
            path.unlink()
        self.refuses(root, "Npix=300", "empty folder", "at least one Parquet file")

    def test_a_file_is_cut_short(self, root: Path) -> None:
        path = next((root / TILES[1].path.with_suffix("")).glob("*.parquet"))
        path.write_bytes(path.read_bytes()[:-9])
        self.refuses(root, path.name, "is not a readable Parquet file")

    def test_a_file_vanishes_while_it_is_read(self, root: Path) -> None:
        catalogue = open_catalogue(root)
        catalogue.leaves[0].paths[0].unlink()
        with pytest.raises(InputError, match="the file is missing"):
            read_ranges(catalogue.leaves, np.array([[0, 12 << 58]]), ["RA"], catalogue.schema)

    def test_pages_are_damaged(self, root: Path) -> None:
        path = next((root / TILES[1].path.with_suffix("")).glob("*.parquet"))
        content = bytearray(path.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        path.write_bytes(content)
        self.refuses(root, path.name, "is not a readable Parquet file")

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            ({"hats_col_ra": None}, ["hats_col_ra = nothing", "expected a column", "objID"]),
            ({"hats_col_dec": "decl"}, ["hats_col_dec = decl", "Did you mean 'Dec'?"]),
            ({"hats_col_ra": "name"}, ["hats_col_ra = name", "large_string", "degrees"]),
            ({"hats_col_healpix_order": "deep"}, ["hats_col_healpix_order = deep", "from 0 to 29"]),
            ({"hats_col_healpix_order": "30"}, ["hats_col_healpix_order = 30"]),
            ({"hats_col_healpix": "objID", "hats_col_healpix_order": None}, ["order = nothing", "objID"]),
            ({"hats_col_healpix": "mag"}, ["'mag'", "float", "integers"]),
            (
                {"dataproduct_type": "margin", "hats_primary_table_url": "gaia"},
                ["type 'margin'", "objects", "gaia"],
            ),
            ({"dataproduct_type": "association"}, ["type 'association'"]),
            ({"dataproduct_type": "map"}, ["type 'map'"]),
            ({"hats_nrows": "many"}, ["hats_nrows = 'many'", "not a number"]),
        ],
    )
    def test_properties_that_cannot_be(
        self, root: Path, told: dict[str, str | None], words: list[str]
    ) -> None:
        layout = Layout(suffix="/", files=2)
        write_properties(root / "hats.properties", replace(layout, told=told), 3000)
        self.refuses(root, "hats.properties", *words)

    def test_tiles_that_cannot_be(self, root: Path) -> None:
        listed = root / "partition_info.csv"
        listed.write_text("Norder,Npix\n3,300\n4,1201\n")
        self.refuses(root, "Norder=3_Npix=300 and Norder=4_Npix=1201 overlap")
        listed.write_text("Norder,Npix\n3,3000\n")
        self.refuses(root, "Norder=3_Npix=3000", "not on the sky")
        listed.write_text("order,pixel\n3,300\n")
        self.refuses(root, "partition_info.csv", "Norder and Npix")

    def test_no_catalogue_at_all(self, root: Path, tmp_path: Path) -> None:
        self.refuses(tmp_path / "nowhere", "nowhere", "no such folder")
        self.refuses(tmp_path, "is not a finished HATS catalogue", "collection.properties")
        (root / "hats.properties").unlink()
        self.refuses(root / "dataset", "is not a finished HATS catalogue")
        (tmp_path / "collection.properties").write_text("hats_primary_table_url = gone\n")
        self.refuses(tmp_path, "hats_primary_table_url = gone", "no folder beside it")

    @pytest.mark.parametrize("statistics", [True, False])
    @pytest.mark.parametrize("index", ["_healpix_29", None])
    def test_rows_of_another_tile(
        self, stars: pa.Table, tmp_path: Path, statistics: bool, index: str | None
    ) -> None:
        root = write_foreign(tmp_path / "c", stars, Layout(statistics=statistics, index=index))
        shutil.copy(root / TILES[1].path, root / TILES[2].path)
        self.refuses(root, str(TILES[2].path), "rows of another tile", TILES[2].name)
        catalogue = open_catalogue(root)
        with pytest.raises(InputError, match="rows of another tile"):
            read_ranges(catalogue.leaves, np.array([TILES[2].range]), ["RA"], catalogue.schema)

    def test_a_leaf_without_a_column_or_with_another_type(self, stars: pa.Table, tmp_path: Path) -> None:
        root = write_foreign(tmp_path / "c", stars, Layout())
        path = root / TILES[4].path
        good = pq.read_table(path, partitioning=None)
        pq.write_table(good.drop_columns("mag"), path)
        self.refuses(root, str(TILES[4].path), "column 'mag' is missing")
        pq.write_table(good.set_column(2, "Dec", good["name"]), path)
        self.refuses(root, str(TILES[4].path), "column 'Dec'", "large_string", "double")
        empty = pa.array([None, *good["_healpix_29"].to_pylist()[1:]], pa.int64())
        position = good.column_names.index("_healpix_29")
        pq.write_table(good.set_column(position, "_healpix_29", empty), path)
        self.refuses(root, str(TILES[4].path), "'_healpix_29' is missing in 1 rows")

    def test_positions_off_the_sky(self, stars: pa.Table, tmp_path: Path) -> None:
        root = write_foreign(tmp_path / "c", stars, Layout(index=None))
        path = root / TILES[4].path
        good = pq.read_table(path, partitioning=None)
        bad = np.where(np.arange(len(good)) == 1, np.nan, good["RA"].to_numpy())
        pq.write_table(good.set_column(1, "RA", pa.array(bad)), path)
        self.refuses(root, str(TILES[4].path), "1 of", "not on the sky")
