"""A HATS catalogue is not believed: counts, names that lead elsewhere, an index of other positions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.foreign_hats import TILES, Layout, field_of_stars, write_foreign

from stellarml.core.errors import InputError
from stellarml.storage import leaf_cache
from stellarml.storage.hats_reader import open_catalogue, read_ranges

EVERYTHING = np.array([[0, 12 << 58]])


@pytest.fixture(scope="module")
def stars() -> pa.Table:
    return field_of_stars(900).drop_columns(["field", "note", "lightcurve"])


def read(root: Path, *columns: str, cached: bool = False) -> pa.Table:
    catalogue = open_catalogue(root)
    return read_ranges(catalogue.leaves, EVERYTHING, columns, catalogue.schema, cached=cached)


def refused(root: Path, *words: str, columns: tuple[str, ...] = ("objID", "RA", "Dec")) -> None:
    with pytest.raises(InputError) as caught:
        read(root, *columns)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hats_nrows", "nan", "0 or more"),
        ("hats_nrows", "-5", "0 or more"),
        ("hats_nrows", "inf", "0 or more"),
        ("hats_nrows", "12.5", "a whole number"),
        ("hats_nrows", "many", "is not a number"),
        ("hats_npix_suffix", "/../../x.parquet", "how a file's name ends"),
        ("hats_npix_suffix", "..parquet", "how a file's name ends"),
        ("hats_npix_suffix", "/part.parquet", "how a file's name ends"),
        ("hats_npix_suffix", "*", "how a file's name ends"),
        ("hats_npix_suffix", "x" * 300, "how a file's name ends"),
    ],
)
def test_values_that_cannot_be(stars: pa.Table, tmp_path: Path, key: str, value: str, expected: str) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout())
    with (root / "hats.properties").open("a") as file:
        file.write(f"{key} = {value}\n")
    refused(root, f"{root / 'hats.properties'}: {key} = ", expected)


@pytest.mark.parametrize("threshold", ["nan", "-1", "wide"])
def test_thresholds_that_cannot_be(stars: pa.Table, tmp_path: Path, threshold: str) -> None:
    root = collection(tmp_path, stars, "main", "rim")
    with (root / "rim" / "hats.properties").open("a") as file:
        file.write(f"hats_margin_threshold = {threshold}\n")
    refused(root, f"{root / 'rim' / 'hats.properties'}: hats_margin_threshold = '{threshold}'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("Norder,Npix\n", "lists no tile"),
        ("Norder,Npix\n3,\n", "invalid literal"),
        ("Norder,Npix\n3\n", "expected columns Norder and Npix"),
        ('Norder,Npix\n3,"' + "3" * 200_000 + '"\n', "field larger than field limit"),
        ("Norder,Npix\n3," + "9" * 5000 + "\n", "Exceeds the limit"),
    ],
)
def test_partition_lists_that_cannot_be(stars: pa.Table, tmp_path: Path, content: str, words: str) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout())
    (root / "partition_info.csv").write_text(content)
    refused(root, "partition_info.csv", words)


def test_a_catalogue_without_rows_may_list_no_tile(stars: pa.Table, tmp_path: Path) -> None:
    root = write_foreign(tmp_path / "c", stars.slice(0, 0), Layout(told={"hats_nrows": "0"}))
    (root / "partition_info.csv").write_text("Norder,Npix\n")
    assert read(root, "RA").num_rows == 0


def collection(folder: Path, stars: pa.Table, primary: str, margins: str) -> Path:
    write_foreign(folder / "main", stars, Layout())
    told: dict[str, str | None] = {"dataproduct_type": "margin", "hats_margin_threshold": "10"}
    write_foreign(folder / "rim", stars, Layout(told=told))
    (folder / "collection.properties").write_text(
        f"hats_primary_table_url = {primary}\nall_margins = {margins}\ndefault_margin = {margins}\n"
    )
    return folder


@pytest.mark.parametrize(
    "link",
    ["../main", "/etc", "http://127.0.0.1:9/main", "main/../../x", "file:main", "..\\\\main", "s3://b/main"],
)
@pytest.mark.parametrize("key", ["hats_primary_table_url", "all_margins"])
def test_links_out_of_a_collection(stars: pa.Table, tmp_path: Path, link: str, key: str) -> None:
    places = (link, "rim") if key == "hats_primary_table_url" else ("main", link)
    root = collection(tmp_path / "c", stars, *places)
    refused(root, f"{root / 'collection.properties'}: {key} = ", "leads out of", "symbolic link")


def test_symbolic_links_inside_are_followed(stars: pa.Table, tmp_path: Path) -> None:
    root = collection(tmp_path / "c", stars, "linked", "rim")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(root / "main", tmp_path / "elsewhere" / "main")
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "main")
    leaf = (tmp_path / "elsewhere" / "main" / TILES[0].path).absolute()
    shutil.move(leaf, tmp_path / "leaf.parquet")
    leaf.symlink_to(tmp_path / "leaf.parquet")
    assert read(root, "RA", "Dec").num_rows == len(stars)


@pytest.mark.parametrize("name", ["../x/Norder=3/Npix=300.parquet", "Norder=3/Npix=x.parquet", ""])
def test_metadata_that_names_other_files(stars: pa.Table, tmp_path: Path, name: str) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout(partitions="metadata"))
    written: list[pq.FileMetaData] = []
    pq.write_table(stars.slice(0, 1), tmp_path / "one.parquet", metadata_collector=written)
    if name:
        written[0].set_file_path(name)
    pq.write_metadata(stars.schema, root / "dataset" / "_metadata", metadata_collector=written)
    refused(root, str(root / "dataset" / "_metadata"), "names the file")


def test_a_leaf_whose_rows_lie_in_another_file(stars: pa.Table, tmp_path: Path) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout())
    written: list[pq.FileMetaData] = []
    pq.write_table(stars, tmp_path / "one.parquet", metadata_collector=written)
    written[0].set_file_path("../../../one.parquet")
    written[0].write_metadata_file(root / TILES[0].path)
    refused(root, str(TILES[0].path), "row group 0 lies in another file ('../../../one.parquet')")


def replaced(root: Path, change: str) -> None:
    """Change the index or the positions of a leaf, its rows staying in their tile by the index."""
    path = root / TILES[0].path
    leaf = pq.read_table(path, partitioning=None)
    index = leaf["_healpix_29"].to_numpy()
    if change == "index sorted anew":
        leaf = leaf.set_column(leaf.column_names.index("_healpix_29"), "_healpix_29", pa.array(index[::-1]))
    if change == "positions of another catalogue":
        leaf = leaf.set_column(1, "RA", pa.array((leaf["RA"].to_numpy() + 90.0) % 360))
    if change == "off by an arcsec":
        leaf = leaf.set_column(2, "Dec", pa.array(leaf["Dec"].to_numpy() + 1 / 3600))
    pq.write_table(leaf, path, row_group_size=20)


@pytest.mark.parametrize(
    "change", ["index sorted anew", "positions of another catalogue", "off by an arcsec"]
)
@pytest.mark.parametrize("cached", [False, True])
def test_an_index_of_other_positions(stars: pa.Table, tmp_path: Path, change: str, cached: bool) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout())
    replaced(root, change)
    leaf_cache.COLUMNS.clear()
    with pytest.raises(InputError) as caught:
        read(root, "RA", "Dec", cached=cached)
    for word in (
        f"{root / TILES[0].path}: row group 0, row 0: _healpix_29 = ",
        "expected ",
        "does not belong",
    ):
        assert word in str(caught.value)


def test_positions_rounded_after_the_index_are_taken(stars: pa.Table, tmp_path: Path) -> None:
    for number, kind in enumerate((pa.float32(), pa.float64())):
        rounded = stars
        for name in ("RA", "Dec"):
            values = (
                stars[name].cast(kind).cast(pa.float64()).to_numpy().round(6).astype(kind.to_pandas_dtype())
            )
            rounded = rounded.set_column(stars.column_names.index(name), name, pa.array(values))
        root = write_foreign(tmp_path / str(number), rounded, Layout())
        assert read(root, "RA", "Dec").num_rows == len(stars)


def test_rows_without_a_position_are_passed_over(stars: pa.Table, tmp_path: Path) -> None:
    dec = stars["Dec"].to_numpy().copy()
    dec[::2] = np.nan
    holes = stars.set_column(stars.column_names.index("Dec"), "Dec", pa.array(dec, from_pandas=True))
    assert read(write_foreign(tmp_path / "c", holes, Layout()), "RA", "Dec").num_rows == len(stars)


def test_a_coarse_index_of_other_positions(stars: pa.Table, tmp_path: Path) -> None:
    """It chooses the row groups that are read: its limits must hold the rows."""
    root = write_foreign(tmp_path / "c", stars, Layout(index="hpx", order=12))
    assert read(root, "RA", "Dec").num_rows == len(stars)
    path = root / TILES[0].path
    leaf = pq.read_table(path, partitioning=None)
    wrong = np.full(len(leaf), leaf["hpx"].to_numpy()[0])
    pq.write_table(leaf.set_column(leaf.column_names.index("hpx"), "hpx", pa.array(wrong)), path)
    refused(
        root, f"{path}: row group 0", "its index of order 12 runs from", "does not belong to the positions"
    )


def test_an_index_beyond_the_sky(stars: pa.Table, tmp_path: Path) -> None:
    root = write_foreign(
        tmp_path / "c", stars, Layout(index="hpx", order=29, told={"hats_col_healpix_order": "12"})
    )
    refused(root, "its index 'hpx' runs from", "pixels of order 12", "hats_col_healpix_order")


def test_the_index_of_a_margin_is_compared_too(stars: pa.Table, tmp_path: Path) -> None:
    root = collection(tmp_path / "c", stars, "main", "rim")
    path = root / "rim" / TILES[0].path
    leaf = pq.read_table(path, partitioning=None)
    moved = leaf.set_column(1, "RA", pa.array(leaf["RA"].to_numpy() + 0.01))
    pq.write_table(moved, path)
    (margin,) = open_catalogue(root).margins
    schema = open_catalogue(root).schema
    with pytest.raises(InputError, match="row group 0, row 0: _healpix_29 = "):
        read_ranges(margin.leaves, EVERYTHING, ["RA", "Dec"], schema)


@pytest.mark.parametrize("index", ["_healpix_29", None])
def test_rows_in_a_leaf_of_another_name(stars: pa.Table, tmp_path: Path, index: str | None) -> None:
    root = write_foreign(tmp_path / "c", stars, Layout(index=index, partitions="folders"))
    first, second = TILES[1].path, TILES[2].path
    shutil.move(root / first, tmp_path / "kept.parquet")
    shutil.copy(root / second, root / first)
    refused(root, str(root / first), "rows of another tile", TILES[1].name)
