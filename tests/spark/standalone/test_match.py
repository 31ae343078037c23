"""`stellarml match`: what it writes for every mode, join, choice of columns and format, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import angular_separation
from astropy.table import Table
from helpers.small_surveys import DESCRIPTOR, stars, write_csv

from stellarml.cli import main as cli
from stellarml.core.config import Tiles
from stellarml.core.sky import healpix_29
from stellarml.storage.hats_writer import write_catalogue

Run = Callable[..., tuple[int, str]]
RADIUS = 1.0
FIRST = [
    "left_id",
    "right_id",
    "angular_distance",
    "score",
    "number_of_neighbours",
    "number_of_mates",
    "number_of_reverse_neighbours",
    "xm_flag",
]


@pytest.fixture
def match(spark: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `stellarml match` with tiles of 100 rows; return exit status, and what it said."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)

    def run(here: Path, *more: str, left: str = "left_hats", right: str = "right_hats") -> tuple[int, str]:
        surveys = ["--left-survey", str(here / "left.toml"), "--right-survey", str(here / "right.toml")]
        tiles = ["--set", "tiles.max_rows=100", "--set", "tiles.row_group_rows=100"]
        given = ["match", str(here / left), str(here / right), *surveys, *tiles, *more]
        monkeypatch.setattr(sys, "argv", ["stellarml", *given])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return status, told.out + told.err

    return run


def two_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """400 stars and 300 counterparts, 20 of them twice, 20 next to another star too, and 50 strangers."""
    rng = np.random.default_rng(8)
    left = stars(400).drop(columns=["teff", "feh"])
    near = left.iloc[:20].assign(source_id=left.source_id[:20] + 1, ra=left.ra[:20] + 0.4 / 3600)
    right = left.iloc[:300]
    right = pd.concat([right, right.iloc[20:40], stars(50, seed=4).drop(columns=["teff", "feh"])])
    right = right.rename(columns={"source_id": "object_id"}).assign(object_id=np.arange(len(right)) + 1)
    offset = rng.normal(0, 0.05 / 3600, (2, len(right)))
    return pd.concat([left, near]), right.assign(ra=right.ra + offset[0], dec=right.dec + offset[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two catalogues as CSV and as HATS, and their descriptors."""
    folder = tmp_path_factory.mktemp("match")
    left, right = two_tables()
    write_csv(folder / "left.csv", left)
    write_csv(folder / "right.csv", right)
    foreign(folder / "left_hats", left, {})
    foreign(folder / "right_hats", right, {})
    for name, key in (("left", "source_id"), ("right", "object_id")):
        text = DESCRIPTOR.format(name=f"{name}_survey", kind="photometry", id=key)
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of them to write beside."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def expected(mode: str) -> set[tuple[int, int]]:
    """All pairs within the radius by astropy; the nearest; those of degree 1 on both sides."""
    left, right = two_tables()
    a, b = np.radians(left[["ra", "dec"]].to_numpy()), np.radians(right[["ra", "dec"]].to_numpy())
    apart = np.degrees(angular_separation(*a.T[:, :, None], *b.T[:, None, :])) * 3600
    near = apart <= RADIUS
    if mode == "best":
        near &= apart == apart.min(axis=1, keepdims=True)
    if mode == "unique":
        near &= (near.sum(axis=1, keepdims=True) == 1) & (near.sum(axis=0, keepdims=True) == 1)
    i, j = np.nonzero(near)
    return set(
        zip(left.source_id.to_numpy()[i].tolist(), right.object_id.to_numpy()[j].tolist(), strict=True)
    )


def read(out: Path) -> pd.DataFrame:
    table: pd.DataFrame = pq.read_table(out / "matches.parquet").to_pandas()
    return table


def pairs(table: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(table.left_id.tolist(), table.right_id.tolist(), strict=True))


FIXED = ("--radius-arcsec", str(RADIUS), "--format", "parquet")


@pytest.mark.parametrize("mode", ["all", "best", "unique"])
def test_modes_are_those_of_all_pairs_by_astropy(here: Path, match: Run, mode: str) -> None:
    status, told = match(here, "--out", str(here / "out"), "--mode", mode, *FIXED)
    table = read(here / "out")
    assert status == 0
    assert pairs(table) == expected(mode)
    assert len(table) == len(expected(mode))
    assert f"{len(table)} rows" in told
    assert len(expected("all")) > len(expected("best")) > len(expected("unique")) > 200


def test_joins_share_the_left_rows_among_them(here: Path, match: Run) -> None:
    tables = {}
    for join in ("inner", "left", "anti"):
        assert match(here, "--out", str(here / join), "--mode", "unique", "--join", join, *FIXED)[0] == 0
        tables[join] = read(here / join)
    every = set(two_tables()[0].source_id)
    assert set(tables["inner"].left_id) | set(tables["anti"].left_id) == set(tables["left"].left_id) == every
    assert len(tables["inner"]) + len(tables["anti"]) == len(tables["left"]) == len(every)
    without = tables["left"][tables["left"].right_id.isna()]
    assert set(without.left_id) == set(tables["anti"].left_id)
    assert without[["angular_distance", "score", "xm_flag", "u_right"]].isna().all(axis=None)
    assert (without.number_of_neighbours > 0).any()  # several neighbours: not unique, but not lonely either
    assert not [name for name in tables["anti"].columns if name.endswith("_right")]
    inner = tables["left"].dropna(subset=["right_id"])
    assert pairs(inner) == pairs(tables["inner"])


def test_columns(here: Path, match: Run) -> None:
    match(here, "--out", str(here / "all"), *FIXED)
    table, (left, right) = read(here / "all"), two_tables()
    assert list(table.columns[:8]) == FIRST
    assert {"source_id", "object_id", "ra_left", "ra_right", "u_left", "u_right"} < set(table.columns)
    assert (table.left_id == table.source_id).all()
    assert (table.right_id == table.object_id).all()
    told = table.set_index("left_id").u_left
    np.testing.assert_array_equal(told, left.set_index("source_id").u[told.index].astype(np.float32))
    told = table.set_index("right_id").ra_right
    np.testing.assert_array_equal(told, right.set_index("object_id").ra[told.index])

    match(here, "--out", str(here / "ids"), "--columns", "ids", *FIXED)
    assert list(read(here / "ids").columns) == FIRST
    match(here, "--out", str(here / "some"), "--columns", "left.g,u,object_id", *FIXED)
    assert list(read(here / "some").columns) == [*FIRST, "g", "u_left", "object_id", "u_right"] or list(
        read(here / "some").columns
    ) == [*FIRST, "g", "u_left", "u_right", "object_id"]
    status, told = match(here, "--out", str(here / "none"), "--columns", "object_ids", *FIXED)
    assert status == 2
    assert "'object_ids' is a column of neither catalogue" in told
    assert "object_id" in told.replace("object_ids", "")


def test_every_format_holds_the_same_rows(here: Path, match: Run) -> None:
    from hats.io.validation import is_valid_catalog

    rows = {}
    for kind in ("hats", "parquet", "csv", "fits", "votable"):
        out = here / kind
        options = ("--radius-arcsec", "1", "--join", "left", "--format", kind)
        assert match(here, "--out", str(out), *options)[0] == 0
        record = json.loads((out / "run.json").read_text())
        if kind == "hats":
            assert is_valid_catalog(out / "matches", strict=True)
            table = pq.read_table(out / "matches" / "dataset", partitioning=None).to_pandas()
        elif kind == "parquet":
            table = read(out)
        elif kind == "csv":
            table = pd.read_csv(out / "matches.csv")
        else:
            found = Table.read(out / f"matches.{kind}", format=kind)
            assert str(found["angular_distance"].unit) == "arcsec"
            assert {str(found[n].unit) for n in ("ra_left", "dec_right")} == {"deg"}
            table = found.to_pandas()
        assert record["rows"]["out"] == len(table)
        values = table[["left_id", "right_id", "angular_distance", "xm_flag"]].astype(float).fillna(-1)
        rows[kind] = values.sort_values(["left_id", "right_id"]).to_numpy()
        left_over = {p.name for p in out.iterdir()} & {"_inputs", "_work"}
        assert not left_over
    for found in rows.values():
        np.testing.assert_allclose(found, rows["parquet"], rtol=1e-6)


def test_what_is_done_is_not_done_again(here: Path, match: Run) -> None:
    out = here / "out"
    match(here, "--out", str(out), *FIXED)
    before = (out / "run.json").stat().st_mtime_ns, (out / "matches.parquet").read_bytes()
    assert match(here, "--out", str(out), *FIXED)[0] == 0
    assert before == ((out / "run.json").stat().st_mtime_ns, (out / "matches.parquet").read_bytes())
    match(here, "--out", str(out), "--mode", "unique", *FIXED)
    assert pairs(read(out)) == expected("unique")
    left, _ = two_tables()
    shutil.rmtree(here / "left_hats")
    foreign(here / "left_hats", left.iloc[:100], {})
    status, told = match(here, "--out", str(out), *FIXED)
    assert status == 2
    assert "--overwrite" in told
    assert match(here, "--out", str(out), "--overwrite", *FIXED)[0] == 0
    assert len(read(out)) <= 100


def test_a_killed_match_goes_on_to_the_same_bytes(here: Path, match: Run) -> None:
    out = here / "out"
    options = ("--radius-arcsec", "1")
    match(here, "--out", str(out), *options)
    leaves = sorted((out / "matches" / "dataset").rglob("Npix=*.parquet"))
    assert len(leaves) > 3
    before = {path: path.read_bytes() for path in leaves}
    (out / "run.json").unlink()
    leaves[0].unlink()
    leaves[1].write_bytes(b"half")
    kept = leaves[2].stat().st_mtime_ns
    assert match(here, "--out", str(out), *options)[0] == 0
    assert {path: path.read_bytes() for path in leaves} == before
    assert leaves[2].stat().st_mtime_ns == kept


TILES = Tiles(max_rows=100, row_group_rows=100, min_order=0, max_order=12, compression="zstd")


def foreign(path: Path, table: pd.DataFrame, names: dict[str, str]) -> None:
    rows = pa.Table.from_pandas(table.rename(columns=names), preserve_index=False)
    ra, dec = names.get("ra", "ra"), names.get("dec", "dec")
    index = pa.array(healpix_29(table.ra.to_numpy(), table.dec.to_numpy()))
    rows = rows.add_column(0, "_healpix_29", index)
    key = "source_id" if "source_id" in table else names.get("object_id", "object_id")
    write_catalogue(path, rows, TILES, name="foreign", ra=ra, dec=dec, id_column=key)


def test_a_catalogue_of_others_is_read_in_place_under_its_own_names(here: Path, match: Run) -> None:
    """Names in another case, an epoch whose sentinel is still in: the same pairs as from the raw files."""
    _, right = two_tables()
    right = right.assign(mean_epoch=np.where(np.arange(len(right)) % 3 == 0, 0.0, 57_000.0))
    write_csv(here / "right.csv", right)
    old = 'epoch = { value = 2016.0, unit = "jyear" }'
    new = 'epoch = { column = "mean_epoch", unit = "mjd", null_when = "mean_epoch = 0" }'
    text = (here / "right.toml").read_text().replace(old, new)
    assert new in text
    (here / "right.toml").write_text(text)
    shutil.rmtree(here / "right_hats")
    foreign(here / "right_hats", right, {"object_id": "Object_ID", "ra": "RA", "mean_epoch": "Mean_Epoch"})
    raw = match(here, "--out", str(here / "raw"), "--format", "parquet", left="left.csv", right="right.csv")
    in_place = match(
        here, "--out", str(here / "in_place"), "--format", "parquet", left="left_hats", right="right_hats"
    )
    assert (raw[0], in_place[0]) == (0, 0), (raw[1], in_place[1])
    a, b = read(here / "raw"), read(here / "in_place")
    assert len(a) > 300
    pd.testing.assert_frame_equal(a[FIRST], b[FIRST])
    assert (a.xm_flag & 2).sum() > 50  # epochs that the mean stood in for
    assert {"Object_ID", "RA", "Mean_Epoch"} < set(b.columns)
    assert not (here / "in_place" / "_inputs").exists()
    shutil.rmtree(here / "in_place")
    in_place = match(
        here, "--out", str(here / "in_place"), left="left_hats/dataset", right="right_hats/dataset"
    )
    assert in_place[0] == 0


def test_a_catalogue_matched_with_itself(here: Path, match: Run) -> None:
    left, _ = two_tables()
    shutil.copy(here / "left.toml", here / "right.toml")
    assert match(here, "--out", str(here / "out"), "--mode", "all", *FIXED, right="left_hats")[0] == 0
    table = read(here / "out")
    assert len(table) == len(left) + 2 * 20
    assert (table.angular_distance[table.left_id == table.right_id] == 0.0).all()


def test_nothing_in_common_is_a_warning_and_an_empty_table(here: Path, match: Run) -> None:
    _, right = two_tables()
    shutil.rmtree(here / "right_hats")
    foreign(here / "right_hats", right.assign(dec=right.dec + 60), {})
    for kind in ("hats", "parquet", "fits"):
        status, told = match(here, "--out", str(here / kind), "--radius-arcsec", "1", "--format", kind)
        assert status == 0
        assert "has a counterpart in right_survey" in told
        assert json.loads((here / kind / "run.json").read_text())["rows"]["out"] == 0
    assert list(read(here / "parquet").columns[:8]) == FIRST


def test_refusals(here: Path, match: Run) -> None:
    text = (here / "right.toml").read_text()
    without = "\n".join(line for line in text.splitlines() if "_error" not in line)
    (here / "right.toml").write_text(without)
    status, told = match(here, "--out", str(here / "out"))
    assert status == 2
    assert "--radius-arcsec" in told
    assert "right_survey" in told
    assert match(here, "--out", str(here / "out"), *FIXED)[0] == 0  # a fixed radius needs no errors
    status, told = match(here, "--out", str(here / "zero"), "--radius-arcsec", "0")
    assert status == 2
    assert "--radius-arcsec is 0" in told
    status, told = match(here, "--out", str(here / "no"), *FIXED, right="nothing.csv")
    assert status == 2
    assert "nothing.csv" in told
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("precious")
    status, told = match(here, "--out", str(here / "full"), *FIXED)
    assert status == 2
    assert (here / "full" / "mine.txt").read_text() == "precious"


def test_a_hats_catalogue_without_a_needed_column(here: Path, match: Run) -> None:
    _, right = two_tables()
    shutil.rmtree(here / "right_hats")
    foreign(here / "right_hats", right, {"object_id": "objectid"})
    status, told = match(here, "--out", str(here / "out"), left="left_hats", right="right_hats")
    assert status == 2
    assert "object_id" in told
    assert "objectid" in told


def test_rejected_rows_are_told_and_kept(here: Path, match: Run) -> None:
    left, _ = two_tables()
    left = left.reset_index(drop=True)
    left.loc[:2, "ra"] = np.nan
    write_csv(here / "gaps.csv", left)
    given = [
        "--join",
        "left",
        "--columns",
        "ids",
        "--radius-arcsec",
        "1",
        "--format",
        "csv",
        "--out",
        str(here / "g"),
    ]
    status, told = match(here, *given, left="gaps.csv")
    rows = left.ra.isna().sum()
    assert status == 0 and "left rows rejected when read" in told
    record = json.loads((here / "g" / "run.json").read_text())
    assert record["rows"]["left_rejected"] == rows and record["rows"]["right_rejected"] == 0
    kept = pd.concat(pd.read_parquet(p) for p in (here / "g" / "_rejected" / "left").glob("*.parquet"))
    assert len(kept) == rows and {"file", "line", "reason"} <= set(kept.columns)


def test_separations_are_those_of_the_pairs(here: Path, match: Run) -> None:
    out = here / "s"
    match(
        here,
        "--mode",
        "unique",
        "--columns",
        "ids",
        "--radius-arcsec",
        "1",
        "--format",
        "parquet",
        "--out",
        str(out),
    )
    found = pd.read_parquet(out / "matches.parquet").angular_distance
    record = json.loads((out / "run.json").read_text())["match"]
    for percent in (16, 50, 84):
        exact = np.quantile(found, percent / 100)
        assert record[f"separation_arcsec_p{percent}"] == pytest.approx(exact, abs=0.001)
