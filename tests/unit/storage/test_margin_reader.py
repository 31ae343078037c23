"""Halos from a margin catalogue: the rows that neighbouring leaves give, no row twice, and when it may not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import healpy
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.foreign_hats import TILES, Layout, field_of_stars, write_foreign, write_properties
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from stellarml.core import sky
from stellarml.core.errors import InputError
from stellarml.core.tiles import Tile
from stellarml.standalone.margin import bordering_tiles, make_collection, margin_rows, margin_schema
from stellarml.storage import hats_reader as hats_reading
from stellarml.storage import leaf_reader as leaf_rows
from stellarml.storage import margin_reader as margin
from stellarml.storage.hats_reader import Catalogue, open_catalogue, open_margin
from stellarml.storage.leaf_reader import Leaf
from stellarml.storage.margin_reader import halo_source, margin_is_enough, read_with_margin, without
from stellarml.storage.pixel_border import near_border

MARGIN_ARCSEC, HALO_ARCSEC = 1200.0, 1100.0


def distance_arcsec(
    tile: Tile, ra: npt.ArrayLike, dec: npt.ArrayLike, step: int = 20_000
) -> npt.NDArray[np.float64]:
    """Distance to the border of a tile by brute force: to the nearest of its points, a little too far at most."""
    border = healpy.boundaries(1 << tile.order, tile.pixel, step=step, nest=True).T
    chord = cKDTree(border).query(sky.unit_vectors(ra, dec))[0]
    return 2 * np.arcsin(chord / 2) * sky.ARCSEC_PER_RAD


@pytest.mark.slow
@pytest.mark.parametrize(
    "tile", [Tile(0, 2), Tile(1, 31), Tile(3, 300), Tile(3, 63), Tile(5, 1023), Tile(9, 777_777)]
)
@pytest.mark.parametrize("radius", [0.5, 30.0, 2000.0])
def test_near_the_border_is_what_brute_force_finds(tile: Tile, radius: float) -> None:
    rng = np.random.default_rng(1)
    border = healpy.boundaries(1 << tile.order, tile.pixel, step=500, nest=True).T
    points = np.concatenate(
        [border[rng.integers(0, len(border), 3000)], np.repeat(border[::500], 300, axis=0)]
    )
    around = points + rng.normal(size=points.shape) * radius / sky.ARCSEC_PER_RAD
    ra, dec = sky.from_unit_vectors(around)
    found = near_border(tile.order, tile.pixel, ra, dec, radius)
    side = sky.SIDE_ARCSEC / (1 << tile.order)
    apart = distance_arcsec(tile, ra, dec)
    coarse = 1.5 * side / 20_000
    assert found[apart <= radius].all()
    assert not found[np.sqrt(np.maximum(apart**2 - coarse**2, 0)) > radius + 0.08].any()
    assert 0.1 < found.mean() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("tile", [Tile(0, 2), Tile(0, 4), Tile(0, 9), Tile(3, 63)])
def test_nothing_at_the_rim_is_lost(tile: Tile) -> None:
    """Positions straight off the border, on both sides, just within the radius; also where chords run beside it."""
    border = healpy.boundaries(1 << tile.order, tile.pixel, step=2048 * 3, nest=True).T
    aside = np.cross(border, np.roll(border, -1, axis=0) - np.roll(border, 1, axis=0))
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    for radius in (0.5, 20.0):
        for side in (-1, 1):
            step = side * np.tan(0.9999 * radius / sky.ARCSEC_PER_RAD)
            ra, dec = sky.from_unit_vectors(border + step * aside)
            assert near_border(tile.order, tile.pixel, ra, dec, radius).all()


def test_no_position_is_near_anything() -> None:
    assert not len(near_border(3, 5, [], [], 10.0))


_spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=8)


@given(first=_spans, second=_spans)
def test_what_is_left_of_ranges(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    a, b = (sky.merge_ranges([(i, i + n) for i, n in spans]) for spans in (first, second))
    everything = np.arange(80)
    left = without(a, b)
    assert np.array_equal(
        sky.in_ranges(everything, left), sky.in_ranges(everything, a) & ~sky.in_ranges(everything, b)
    )
    assert (left[1:, 0] >= left[:-1, 1]).all()


def write_margin_by_hand(catalogue: Catalogue, out: Path, arcsec: float, tiles: list[Tile]) -> None:
    schema = margin_schema(catalogue)
    listed = []
    for tile in tiles:
        table = margin_rows(catalogue, tile, arcsec, schema)
        if len(table):
            (out / tile.path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, out / tile.path)
            listed.append(f"{tile.order},{tile.pixel}")
    (out / "partition_info.csv").write_text("\n".join(["Norder,Npix", *listed]) + "\n")
    told = {"dataproduct_type": "margin", "hats_margin_threshold": str(arcsec), "obs_collection": out.name}
    write_properties(out / "hats.properties", Layout(told=told), 0)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven tiles with rows twice in them, a hole among them, and two margins; the wider also for the empty sky."""
    root = tmp_path_factory.mktemp("collection")
    stars = field_of_stars(6000)
    twice = pa.concat_tables([stars, stars.slice(1000, 500), stars.slice(1000, 100)])
    rows = pa.array(np.argsort(twice["_healpix_29"].to_numpy(), kind="stable"))
    kinds = twice.schema
    note = kinds.get_field_index("note")
    twice = twice.set_column(note, "note", twice["note"].cast(pa.string())).take(rows).cast(kinds)
    main = open_catalogue(write_foreign(root / "main", twice, Layout()))
    tiles = [leaf.tile for leaf in main.leaves]
    write_margin_by_hand(main, root / "narrow", HALO_ARCSEC / 2, tiles)
    write_margin_by_hand(main, root / "wide", MARGIN_ARCSEC, [*tiles, *bordering_tiles(tiles, MARGIN_ARCSEC)])
    write_margin_by_hand(main, root / "own", MARGIN_ARCSEC, tiles)
    make_collection(root, "main", ["narrow", "wide"])
    return root


def in_halo(table: pa.Table, tile: Tile, radius: float) -> pa.Table:
    index = table["_healpix_29"].to_numpy()
    inside = (index >= tile.range[0]) & (index < tile.range[1])
    near = inside | (distance_arcsec(tile, table["RA"].to_numpy(), table["Dec"].to_numpy()) <= radius)
    return table.filter(pa.array(near)).sort_by([("_healpix_29", "ascending"), ("objID", "ascending")])


COLUMNS = ["objID", "RA", "Dec", "field"]


def wanted_tiles() -> list[Tile]:
    """The catalogue's own tiles, their parents and children, and tiles of the empty sky beside them."""
    parents = [Tile(t.order - 1, t.pixel // 4) for t in TILES]
    children = [Tile(t.order + 2, 16 * t.pixel + k) for t in TILES for k in (0, 5, 15)]
    return [*dict.fromkeys([*TILES, *parents, *children, Tile(5, 4826), Tile(6, 4 * 4826 + 1), Tile(2, 75)])]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_a_margin_gives_what_neighbouring_leaves_give(collection: Path, cached: bool) -> None:
    catalogue = open_catalogue(collection)
    alone = open_catalogue(collection / "main")
    assert [m.threshold_arcsec for m in catalogue.margins] == [HALO_ARCSEC / 2, MARGIN_ARCSEC]
    rows = 0
    for tile in wanted_tiles():
        ranges = sky.halo_ranges(tile.order, tile.pixel, HALO_ARCSEC)
        found, expected = (
            read_with_margin(c, tile, ranges, HALO_ARCSEC, COLUMNS, cached=cached) for c in (catalogue, alone)
        )
        index = found["_healpix_29"].to_numpy()
        assert (index[1:] >= index[:-1]).all() and sky.in_ranges(index, ranges).all()
        assert in_halo(found, tile, HALO_ARCSEC).equals(in_halo(expected, tile, HALO_ARCSEC))
        assert len(found) <= len(expected)
        rows += len(found)
    assert rows > 20_000


def test_neighbouring_leaves_are_left_alone(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile that the margin serves, only its own leaf and margin leaves about it are decoded."""
    catalogue = open_catalogue(collection)
    main = open_catalogue(collection / "main")
    partial = Catalogue(**vars(main) | {"margins": (open_margin(collection / "own"),)})
    opened: set[Path] = set()
    original = leaf_rows.read_leaf

    def noted(leaf: Leaf, *given: Any, **options: Any) -> pa.Table:
        opened.add(leaf.path)
        return original(leaf, *given, **options)

    monkeypatch.setattr(margin, "read_leaf", noted)
    monkeypatch.setattr(hats_reading, "read_leaf", noted)

    def read(which: Catalogue, tile: Tile) -> None:
        opened.clear()
        ranges = sky.halo_ranges(tile.order, tile.pixel, HALO_ARCSEC)
        read_with_margin(which, tile, ranges, HALO_ARCSEC, COLUMNS)

    own = TILES[3]
    read(catalogue, own)
    assert opened == {collection / "main" / own.path, collection / "wide" / own.path}
    # of this tile no leaf covers a quarter: what is near that quarter alone is in no margin of the catalogue's tiles
    read(partial, Tile(4, own.pixel // 4))
    assert not any("own" in path.parts for path in opened) and len(opened) > 3
    read(catalogue, Tile(4, own.pixel // 4))
    assert any("wide" in path.parts for path in opened)


def test_far_ranges_are_read_whole(collection: Path) -> None:
    catalogue = open_catalogue(collection)
    tile, far = TILES[3], sky.merge_ranges([TILES[0].range, TILES[4].range])
    ranges = sky.halo_ranges(tile.order, tile.pixel, HALO_ARCSEC)
    found = read_with_margin(catalogue, tile, ranges, HALO_ARCSEC, COLUMNS, far=far)
    without_far = read_with_margin(catalogue, tile, without(ranges, far), HALO_ARCSEC, COLUMNS)
    expected = sum(leaf.rows for leaf in catalogue.leaves if leaf.tile in (TILES[0], TILES[4]))
    assert len(found) == len(without_far) + expected


def test_of_overlapping_margin_leaves_the_fuller_one_counts() -> None:
    """Two rows of one index at the rim of one leaf's margin: only one may be in it, both are in the nearer leaf's."""
    pieces = [
        pa.table({"_healpix_29": [3, 5, 9], "id": [0, 1, 6]}),
        pa.table({"_healpix_29": [5, 5, 7], "id": [1, 2, 4]}),
        pa.table({"_healpix_29": [5, 7, 9], "id": [2, 4, 6]}),
    ]
    (found,) = margin._once(pieces)
    assert sorted(found["id"].to_pylist()) == [0, 1, 2, 4, 6]
    assert margin._once([pieces[0].slice(0, 0), pieces[1]]) == [pieces[1]]


def test_a_margin_of_another_tiling_is_not_used(collection: Path, tmp_path: Path) -> None:
    main = open_catalogue(collection / "main")
    write_margin_by_hand(main, tmp_path / "coarse", MARGIN_ARCSEC, [Tile(3, TILES[3].pixel // 16)])
    stale = Catalogue(**vars(main) | {"margins": (open_margin(tmp_path / "coarse"),)})
    tile = TILES[3]
    ranges = sky.halo_ranges(tile.order, tile.pixel, HALO_ARCSEC)
    found, expected = (read_with_margin(c, tile, ranges, HALO_ARCSEC, COLUMNS) for c in (stale, main))
    assert found.equals(expected)


def test_which_margin_is_enough_and_what_is_said(collection: Path) -> None:
    catalogue = open_catalogue(collection)
    narrow, wide = catalogue.margins
    assert margin_is_enough(wide, HALO_ARCSEC) and not margin_is_enough(narrow, HALO_ARCSEC)
    assert not margin_is_enough(wide, MARGIN_ARCSEC)
    assert halo_source(catalogue, 30.0) == "halo: margin catalogue narrow, 550 arcsec"
    assert halo_source(catalogue, HALO_ARCSEC) == "halo: margin catalogue wide, 1200 arcsec"
    assert halo_source(catalogue, 5000.0) == "halo: neighbouring leaves"
    assert catalogue.margin == wide


def test_a_margin_has_the_columns_of_its_catalogue(collection: Path) -> None:
    main = pq.read_schema(collection / "main" / "dataset" / "_common_metadata")
    leaf = next((collection / "wide").rglob("Npix=*.parquet"))
    assert pq.read_schema(leaf).equals(main)


def test_bordering_tiles_close_the_border() -> None:
    tiles = sorted(TILES, key=lambda tile: tile.range)
    empty = bordering_tiles(tiles, 10.0)
    both = [tile.range for tile in (*tiles, *empty)]
    assert len(sky.merge_ranges(both)) < len(both) and len(both) == len(set(both))
    assert sum(b - a for a, b in both) == sum(b - a for a, b in sky.merge_ranges(both))
    for tile in tiles:
        assert not len(without(sky.halo_ranges(tile.order, tile.pixel, 10.0), sky.merge_ranges(both)))
    assert bordering_tiles([], 10.0) == []
    assert len(bordering_tiles([Tile(9, 5)], 7200.0)) > len(bordering_tiles([Tile(9, 5)], 1.0))


class TestCollection:
    def test_a_margin_more(self, tmp_path: Path) -> None:
        for name in ("main", "m1", "m2"):
            (tmp_path / name).mkdir()
        make_collection(tmp_path, "main", [])
        assert "all_margins" not in (tmp_path / "collection.properties").read_text()
        make_collection(tmp_path, "main", ["m1"])
        make_collection(tmp_path, "main", ["m2", "m1"])
        lines = (tmp_path / "collection.properties").read_text().splitlines()
        assert "all_margins=m1 m2" in lines and "default_margin=m1" in lines
        assert "hats_primary_table_url=main" in lines

    def test_what_it_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "main").mkdir()
        with pytest.raises(InputError, match="m1: no such folder"):
            make_collection(tmp_path, "main", ["m1"])
        make_collection(tmp_path, "main", [])
        (tmp_path / "other").mkdir()
        with pytest.raises(InputError, match="main catalogue is main, not other"):
            make_collection(tmp_path, "other", [])
        (tmp_path / "collection.properties").write_text("nonsense = 1\n")
        with pytest.raises(InputError, match="is not understood"):
            make_collection(tmp_path, "main", [])

    def test_a_margin_that_is_none(self, collection: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="type 'object' with hats_margin_threshold = None"):
            open_margin(collection / "main")
        (tmp_path / "linked").symlink_to(collection / "main")
        (tmp_path / "collection.properties").write_text(
            "hats_primary_table_url = linked\nall_margins = gone\ndefault_margin = gone\n"
        )
        assert open_catalogue(tmp_path).margins == ()
