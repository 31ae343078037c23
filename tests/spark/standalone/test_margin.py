"""A margin catalogue beside a catalogue: what it holds, who else can read it, and that it goes on where it stopped."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stellarml.core import sky
from stellarml.core.config import Config, Tiles, load_config
from stellarml.core.errors import UserError
from stellarml.core.tiles import Tile
from stellarml.standalone.margin import make_collection, write_margin
from stellarml.storage.hats_reader import open_catalogue
from stellarml.storage.hats_writer import write_catalogue
from stellarml.storage.margin_reader import read_with_margin

RADIUS_ARCSEC = 20.0
MARGIN_ARCSEC = 30.0
LEAVES = (Tile(4, 1204), Tile(4, 1205))


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(environment={})


@pytest.fixture(scope="module")
def sides() -> tuple[pa.Table, pa.Table]:
    """Two catalogues along the border of two tiles: right stars stand 15 arcsec across it from left ones."""
    rng = np.random.default_rng(0)
    border = _shared_border(4000)
    ra, dec = sky.from_unit_vectors(border + rng.normal(size=border.shape) * 25.0 / sky.ARCSEC_PER_RAD)
    left = _table(ra, dec)
    shift = rng.uniform(-10, 10, (2, len(ra))) / 3600
    right = _table(ra + shift[0] / np.cos(np.radians(dec)), dec + shift[1])
    return left, right


def _shared_border(n: int) -> np.ndarray[Any, Any]:
    import healpy

    points = healpy.boundaries(1 << LEAVES[0].order, LEAVES[0].pixel, step=n // 4, nest=True).T
    inwards = points + 1e-4 * (sky.unit_vectors(*_centre(LEAVES[1])) - points)
    ra, dec = sky.from_unit_vectors(inwards)
    index = sky.healpix_29(ra, dec)
    return points[(index >= LEAVES[1].range[0]) & (index < LEAVES[1].range[1])]


def _centre(tile: Tile) -> tuple[float, float]:
    import healpy

    ra, dec = healpy.pix2ang(1 << tile.order, tile.pixel, nest=True, lonlat=True)
    return float(ra), float(dec)


def _table(ra: np.ndarray[Any, Any], dec: np.ndarray[Any, Any]) -> pa.Table:
    index = sky.healpix_29(ra, dec)
    inside = np.zeros(len(index), bool)
    for tile in LEAVES:
        inside |= (index >= tile.range[0]) & (index < tile.range[1])
    rows = np.flatnonzero(inside)
    return pa.table({"_healpix_29": index[rows], "id": rows, "ra": ra[rows], "dec": dec[rows]})


def write(root: Path, table: pa.Table) -> Path:
    tiles = Tiles(max_rows=10_000, row_group_rows=100, min_order=4, max_order=6, compression="zstd")
    write_catalogue(root, table, tiles, name=root.name, ra="ra", dec="dec", id_column="id")
    return root


def test_margin_of_two_leaves(
    spark: Any, config: Config, sides: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    left, right = (write(tmp_path / name, side) for name, side in zip(("left", "right"), sides, strict=True))
    assert [leaf.tile for leaf in open_catalogue(right).leaves] == list(LEAVES)
    record = write_margin(spark, config, right, MARGIN_ARCSEC)
    made = tmp_path / "right_30arcs"
    assert record["rows"]["out"] == sum(len(t) for t in leaves_of(made).values())
    expected = expected_margin(sides[1], LEAVES)
    for tile, table in leaves_of(made).items():
        if tile in LEAVES:
            assert set(table["id"].to_pylist()) == expected[tile]
            index = table["_healpix_29"].to_numpy()
            assert (index[1:] >= index[:-1]).all()
    assert len(leaves_of(made)) > 2  # and of the empty tiles beside them

    make_collection(tmp_path, "right", [made.name])
    catalogue = open_catalogue(tmp_path)
    assert catalogue.margin is not None and catalogue.margin.threshold_arcsec == MARGIN_ARCSEC
    for tile in LEAVES:
        ranges = sky.halo_ranges(tile.order, tile.pixel, RADIUS_ARCSEC)
        found = read_with_margin(catalogue, tile, ranges, RADIUS_ARCSEC, ["id"])
        assert len(set(found["id"].to_pylist())) == len(found) > len(sides[1]) / 2

    from hats.io.validation import is_valid_catalog, is_valid_collection

    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert is_valid_catalog(made, strict=True)
            assert is_valid_collection(tmp_path, strict=True)
    finally:
        logging.disable(logging.NOTSET)
    check_lsdb(left, tmp_path, made, sides)


def leaves_of(root: Path) -> dict[Tile, pa.Table]:
    found = {}
    for path in sorted(root.rglob("Npix=*.parquet")):
        order = int(path.parent.parent.name.split("=")[1])
        found[Tile(order, int(path.stem.split("=")[1]))] = pq.read_table(path, partitioning=None)
    return found


def expected_margin(table: pa.Table, tiles: tuple[Tile, ...]) -> dict[Tile, set[int]]:
    """Rows of the other tile within the margin of a finely sampled border, by brute force."""
    import healpy

    found = {}
    vectors = sky.unit_vectors(table["ra"].to_numpy(), table["dec"].to_numpy())
    index = table["_healpix_29"].to_numpy()
    for tile in tiles:
        border = healpy.boundaries(1 << tile.order, tile.pixel, step=20_000, nest=True).T
        border = border[(border @ sky.unit_vectors(*_centre(LEAVES[0])) > 0.99)]
        outside = np.flatnonzero((index < tile.range[0]) | (index >= tile.range[1]))
        nearest = np.array([np.min(np.linalg.norm(border - v, axis=1)) for v in vectors[outside]])
        near = nearest * sky.ARCSEC_PER_RAD <= MARGIN_ARCSEC
        found[tile] = set(table["id"].to_numpy()[outside[near]].tolist())
        assert found[tile] and len(found[tile]) < len(outside)
    return found


def check_lsdb(left: Path, collection: Path, margin: Path, sides: tuple[pa.Table, pa.Table]) -> None:
    """LSDB, given the margin either way, finds every pair across the border; without it, it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lsdb = pytest.importorskip("lsdb")

        def pairs(right: Any) -> set[tuple[int, int]]:
            made = lsdb.open_catalog(left).crossmatch(
                right,
                radius_arcsec=RADIUS_ARCSEC,
                n_neighbors=50,
                suffix_method="all_columns",
                suffixes=("_l", "_r"),
            )
            frame: pd.DataFrame = made.compute()
            return set(zip(frame["id_l"].astype(int), frame["id_r"].astype(int), strict=True))

        expected = brute_force(*sides)
        given = pairs(lsdb.open_catalog(collection / "right", margin_cache=margin))
        assert given == expected
        assert pairs(lsdb.open_catalog(collection)) == expected
        assert len(pairs(lsdb.open_catalog(collection / "right"))) < len(expected)


def brute_force(left: pa.Table, right: pa.Table) -> set[tuple[int, int]]:
    found = set()
    ra, dec = right["ra"].to_numpy(), right["dec"].to_numpy()
    for row in left.to_pylist():
        near = np.flatnonzero(sky.separation_arcsec(row["ra"], row["dec"], ra, dec) < RADIUS_ARCSEC)
        found |= {(row["id"], int(i)) for i in right["id"].to_numpy()[near]}
    return found


def test_it_goes_on_where_it_stopped(
    spark: Any, config: Config, sides: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    root = write(tmp_path / "main", sides[1])
    make_collection(tmp_path, "main", [])
    first = write_margin(spark, config, tmp_path, MARGIN_ARCSEC)
    made = tmp_path / "main_30arcs"
    text = (tmp_path / "collection.properties").read_text()
    assert "all_margins=main_30arcs" in text and "default_margin=main_30arcs" in text
    content = {path: path.read_bytes() for path in made.rglob("Npix=*.parquet")}
    again = write_margin(spark, config, root, MARGIN_ARCSEC)
    assert again == first | {"unchanged": True}

    one, *others = sorted(content)
    one.unlink()
    kept = {path: path.stat().st_mtime_ns for path in others}
    write_margin(spark, config, root / "dataset", MARGIN_ARCSEC)
    assert {path: path.read_bytes() for path in made.rglob("Npix=*.parquet")} == content
    assert {path: path.stat().st_mtime_ns for path in others} == kept

    shutil.rmtree(root / "dataset")
    write(root, sides[1].slice(0, 500))
    with pytest.raises(UserError, match="was made from other inputs"):
        write_margin(spark, config, root, MARGIN_ARCSEC)


def test_what_is_refused(
    spark: Any, config: Config, sides: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    root = write(tmp_path / "main", sides[1])
    with pytest.raises(UserError, match="--arcsec -1: expected a positive number"):
        write_margin(spark, config, root, -1.0)
    with pytest.raises(UserError, match="is the catalogue itself"):
        write_margin(spark, config, root, 5.0, root)


def test_nothing_is_near(spark: Any, config: Config, tmp_path: Path) -> None:
    """A catalogue whose rows are all far from every border has an empty margin, which opens."""
    ra, dec = _centre(LEAVES[0])
    table = pa.table({"_healpix_29": sky.healpix_29([ra], [dec]), "id": [1], "ra": [ra], "dec": [dec]})
    root = write(tmp_path / "main", table)
    record = write_margin(spark, config, root, MARGIN_ARCSEC)
    assert record["rows"] == {"in": 1, "out": 0}
    make_collection(tmp_path, "main", ["main_30arcs"])
    catalogue = open_catalogue(tmp_path)
    assert catalogue.margin is not None and catalogue.margin.leaves == ()
