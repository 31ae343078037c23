"""`stellarml match` with a fixed radius against four oracles on the same rows, pair for pair, and against itself.

All pairs by NumPy, a Spark SQL join, STILTS on the same CSV files, LSDB on our own HATS files with our own margin. The
sky is meant to hurt: a field across RA = 0, one about the pole, one where four base pixels meet, clumps in which every
source is a neighbour of every other, duplicates to the last bit, and tiles small enough to cut through all of them.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import angular_separation

from stellarml.cli import main as cli
from stellarml.core import sky
from stellarml.core.config import load_config
from stellarml.run.units import run_units
from stellarml.stages.ingest import ingest_survey
from stellarml.standalone import match
from stellarml.standalone.margin import write_margin
from stellarml.storage.hats_reader import open_catalogue

RADIUS_ARCSEC = 1.0
ROUNDING_ARCSEC = 2e-7
"""What may lie between two tools' distances; no pair is so near the radius."""

DESCRIPTOR = """\
name = "{name}"
kind = "photometry"
[files]
format = "csv"
glob = "*.csv"
[position]
id = "{name}_id"
ra = "ra"
dec = "dec"
"""
FIELDS = {"ra_zero": (0.0, -35.0, 700.0), "pole": (0.0, 90.0, 250.0), "corner": (45.0, 0.0, 500.0)}
SMALL = ("tiles.max_rows=3000", "tiles.row_group_rows=500")
LARGE = ("tiles.max_rows=1000000",)


def about(
    rng: np.random.Generator, ra: Any, dec: Any, sigma_arcsec: float, n: int, flat: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Scatter `n` positions about places, on the tangent plane; evenly in a square, or normally."""
    offset = rng.uniform(-1, 1, (2, n)) if flat else rng.normal(size=(2, n))
    a, d = np.radians(np.broadcast_to(ra, n)), np.radians(np.broadcast_to(dec, n))
    east = np.column_stack([-np.sin(a), np.cos(a), np.zeros(n)])
    here = np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    shift = offset[0][:, None] * east + offset[1][:, None] * np.cross(here, east)
    return sky.from_unit_vectors(here + np.radians(sigma_arcsec / 3600.0) * shift)


def made_up() -> tuple[pd.DataFrame, pd.DataFrame]:
    """About 20,000 and 10,000 rows."""
    rng = np.random.default_rng(20)
    lefts, rights = [], []
    for ra, dec, size in FIELDS.values():
        n = 5600
        stars = about(rng, ra, dec, size, n, flat=True)
        seen = rng.random(n) < 0.4
        lefts.append(stars)
        rights.append(about(rng, stars[0][seen], stars[1][seen], 0.25, int(seen.sum())))
        rights.append(about(rng, ra, dec, size, 400, flat=True))
        clumps = np.array(about(rng, ra, dec, 0.3 * size, 20))
        clumps[0, :6], clumps[1, 0] = ra, dec
        for clump_ra, clump_dec in clumps.T:
            lefts.append(about(rng, clump_ra, clump_dec, 0.5, 45))
            rights.append(about(rng, clump_ra, clump_dec, 0.5, 30))
    tables = []
    for name, parts in (("left", lefts), ("right", rights)):
        ra, dec = np.concatenate(parts, axis=1)
        again = rng.choice(len(ra), 300)
        ra, dec = np.concatenate([ra, ra[again]]), np.concatenate([dec, dec[again]])
        tables.append(pd.DataFrame({f"{name}_id": rng.permutation(len(ra)) + 1, "ra": ra, "dec": dec}))
    left, right = tables
    same = rng.choice(len(left), 200)
    twins = left.iloc[same].rename(columns={"left_id": "right_id"}).assign(right_id=np.arange(200) + 900_000)
    return left, pd.concat([right, twins], ignore_index=True)


@pytest.fixture(scope="module")
def sides() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables."""
    return made_up()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sides: tuple[pd.DataFrame, pd.DataFrame]) -> Path:
    """The tables as CSV files, and their descriptors."""
    here = tmp_path_factory.mktemp("oracles")
    for name, table in zip(("left", "right"), sides, strict=True):
        table.to_csv(here / f"{name}.csv", index=False)
        (here / f"{name}.toml").write_text(DESCRIPTOR.format(name=name))
    return here


@pytest.fixture(scope="module")
def expected(sides: tuple[pd.DataFrame, pd.DataFrame]) -> pd.Series:
    """All pairs within the radius: every left row against every right row."""
    left, right = sides
    return brute_force(left, right)


def brute_force(left: pd.DataFrame, right: pd.DataFrame) -> pd.Series:
    vectors = sky.unit_vectors(left["ra"], left["dec"]), sky.unit_vectors(right["ra"], right["dec"])
    near = np.cos(np.radians(1.5 * RADIUS_ARCSEC / 3600.0))
    found = [
        np.argwhere(vectors[0][start : start + 1000] @ vectors[1].T >= near) + np.array([start, 0])
        for start in range(0, len(left), 1000)
    ]
    a, b = np.concatenate(found).T
    l_ra, l_dec = np.radians(left[["ra", "dec"]].to_numpy()[a]).T
    r_ra, r_dec = np.radians(right[["ra", "dec"]].to_numpy()[b]).T
    apart = np.degrees(angular_separation(l_ra, l_dec, r_ra, r_dec)) * 3600.0
    assert not (np.abs(apart - RADIUS_ARCSEC) < ROUNDING_ARCSEC).any(), (
        "a pair on the very radius tells nothing"
    )
    within = apart <= RADIUS_ARCSEC
    return as_pairs(
        left["left_id"].to_numpy()[a[within]], right["right_id"].to_numpy()[b[within]], apart[within]
    )


def as_pairs(left_id: Any, right_id: Any, arcsec: Any) -> pd.Series:
    """Distances by pair, in order; a pair that comes twice would stay twice."""
    index = pd.MultiIndex.from_arrays([np.asarray(left_id, int), np.asarray(right_id, int)])
    return pd.Series(np.asarray(arcsec, float), index=index).sort_index()


def assert_same(found: pd.Series, expected: pd.Series) -> None:
    assert found.index.is_unique
    assert len(expected.index.difference(found.index)) == 0, "missing"
    assert len(found.index.difference(expected.index)) == 0, "unexpected"
    assert np.abs(found.to_numpy() - expected.to_numpy()).max() < ROUNDING_ARCSEC


def run_match(spark: object, left: Path, right: Path, out: Path, *more: str) -> pd.DataFrame:
    """Run the command in this process, on the session of the tests."""
    here = next(p for p in left.parents if (p / "left.toml").is_file())
    surveys = ["--left-survey", str(here / "left.toml"), "--right-survey", str(here / "right.toml")]
    given = [
        "match",
        str(left),
        str(right),
        *surveys,
        "--out",
        str(out),
        "--radius-arcsec",
        str(RADIUS_ARCSEC),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)
        patch.setattr(sys, "argv", ["stellarml", *given, "--mode", "all", "--format", "parquet", *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    return pq.read_table(out / "matches.parquet").to_pandas()


def options(tiles: tuple[str, ...]) -> list[str]:
    return [word for setting in tiles for word in ("--set", setting)]


@pytest.fixture(scope="module")
def lake(folder: Path, spark: Any) -> Path:
    """Both tables as HATS catalogues of small tiles."""
    for name in ("left", "right"):
        config = load_config(
            overrides=[f"paths.lake='{folder / 'lake'}'", f"raw.{name}='{folder / name}.csv'", *SMALL],
            environment={},
        )
        ingest_survey(spark, config, str(folder / f"{name}.toml"))
    return folder / "lake"


@pytest.fixture(scope="module")
def ours(folder: Path, lake: Path, spark: object) -> pd.DataFrame:
    """All pairs, from the HATS catalogues."""
    assert len(open_catalogue(lake / "left").leaves) > 8
    return run_match(spark, lake / "left", lake / "right", folder / "ours", *options(SMALL))


def pairs_of(table: pd.DataFrame) -> pd.Series:
    return as_pairs(table["left_id"], table["right_id"], table["angular_distance"])


def test_all_pairs_by_brute_force(
    ours: pd.DataFrame, expected: pd.Series, sides: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    assert len(expected) > 20_000
    ra = [
        side.set_index(f"{name}_id")["ra"][expected.index.get_level_values(level)].to_numpy()
        for level, (name, side) in enumerate(zip(("left", "right"), sides, strict=True))
    ]
    across = np.abs(ra[0] - ra[1]) > 180.0
    assert across.sum() > 1000, "pairs across RA = 0 must be there to be missed"
    assert_same(pairs_of(ours), expected)
    left, right = expected.index.get_level_values(0), expected.index.get_level_values(1)
    assert np.array_equal(ours["number_of_neighbours"], left.value_counts()[ours["left_id"]])
    assert np.array_equal(ours["number_of_reverse_neighbours"], right.value_counts()[ours["right_id"]])


def test_spark_sql_join(folder: Path, ours: pd.DataFrame, expected: pd.Series, spark: Any) -> None:
    """Bands of declination, each right row in its own and both its neighbours; haversine."""
    for name in ("left", "right"):
        table = spark.read.csv(
            str(folder / f"{name}.csv"), header=True, schema=f"{name}_id long, ra double, dec double"
        )
        table.createOrReplaceTempView(f"oracle_{name}")
    query = f"""
        with l as (select *, floor(dec * 3600 / 2) as band from oracle_left),
             r as (select *, explode(sequence(floor(dec * 3600 / 2) - 1, floor(dec * 3600 / 2) + 1)) as band
                   from oracle_right),
             pairs as (select left_id, right_id, degrees(2 * asin(sqrt(
                         pow(sin(radians(l.dec - r.dec) / 2), 2)
                         + cos(radians(l.dec)) * cos(radians(r.dec)) * pow(sin(radians(l.ra - r.ra) / 2), 2)
                       ))) * 3600 as arcsec from l join r using (band))
        select * from pairs where arcsec <= {RADIUS_ARCSEC}"""
    found = spark.sql(query).coalesce(4).toPandas()
    for name in ("left", "right"):
        spark.catalog.dropTempView(f"oracle_{name}")
    joined = as_pairs(found["left_id"], found["right_id"], found["arcsec"])
    assert_same(joined, expected)
    assert_same(pairs_of(ours), joined)


@pytest.mark.skipif(
    shutil.which("stilts") is None, reason="the stilts command is not installed (Debian: stilts)"
)
def test_stilts(folder: Path, ours: pd.DataFrame, expected: pd.Series) -> None:
    """STILTS 3.4.7 loses pairs across its RA = 0, 17 of 61,141 here: it is asked again with the sky turned by half."""
    answers = []
    for turned in (0, 180):
        made = folder / f"stilts_{turned}.csv"
        values = f"(ra+{turned})%360 dec"
        command = [
            "stilts", "tmatch2", f"in1={folder / 'left.csv'}", "ifmt1=csv", f"in2={folder / 'right.csv'}", "ifmt2=csv",
            "matcher=sky", f"params={RADIUS_ARCSEC}", f"values1={values}", f"values2={values}", "join=1and2",
            "find=all", "progress=none", "ocmd=keepcols 'left_id right_id Separation'", f"out={made}", "ofmt=csv",
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(made)
        answers.append(as_pairs(table["left_id"], table["right_id"], table["Separation"]))
        assert answers[-1].index.is_unique and len(answers[-1]) > 0.999 * len(expected)
    theirs = pd.concat(answers)
    theirs = theirs[~theirs.index.duplicated()].sort_index()
    assert_same(theirs, expected)
    assert_same(pairs_of(ours), theirs)


def test_lsdb_on_our_own_files(lake: Path, ours: pd.DataFrame, expected: pd.Series, spark: Any) -> None:
    write_margin(spark, load_config(environment={}), lake / "right", 2.0 * RADIUS_ARCSEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lsdb = pytest.importorskip("lsdb")
        right = lsdb.open_catalog(lake / "right", margin_cache=lake / "right_2arcs")
        many = int(expected.groupby(level=0).size().max())
        found = (
            lsdb.open_catalog(lake / "left")
            .crossmatch(right, radius_arcsec=RADIUS_ARCSEC, n_neighbors=many + 1, suffixes=("_l", "_r"))
            .compute()
        )
    theirs = as_pairs(found["left_id_l"], found["right_id_r"], found["_dist_arcsec"])
    assert_same(theirs, expected)
    assert_same(pairs_of(ours), theirs)


def test_other_tiles_in_another_order_give_the_same_table(
    folder: Path, lake: Path, ours: pd.DataFrame, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tiles in a random order: the same bytes. Raw files in one tile a base pixel: the same rows, in order."""
    sizes = []

    def shuffled(session: Any, run: Any, units: Any, work: Any, **more: Any) -> Any:
        sizes.append(len(units))
        mixed = random.Random(4).sample(range(len(units)), len(units))
        marks = run_units(session, run, [units[i] for i in mixed], work, **more)
        return [marks[mixed.index(i)] for i in range(len(units))]

    monkeypatch.setattr(match, "run_units", shuffled)
    run_match(spark, lake / "left", lake / "right", folder / "mixed", *options(SMALL))
    tables = [folder / name / "matches.parquet" for name in ("ours", "mixed")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    few = run_match(spark, folder / "left.csv", folder / "right.csv", folder / "few", *options(LARGE))
    pd.testing.assert_frame_equal(few, ours, check_exact=True)
    assert sizes[0] > 8 > sizes[1]


def test_swapped_sides_have_the_same_unique_pairs(
    folder: Path, lake: Path, ours: pd.DataFrame, spark: Any
) -> None:
    once = (ours["number_of_neighbours"] == 1) & (ours["number_of_reverse_neighbours"] == 1)
    expected = pairs_of(ours[once])
    for name in ("left", "right"):
        text = (folder / f"{name}.toml").read_text()
        other = "right" if name == "left" else "left"
        (folder / "swapped").mkdir(exist_ok=True)
        (folder / "swapped" / f"{other}.toml").write_text(text)
        (folder / "swapped" / other).symlink_to(lake / name)
    here = folder / "swapped"
    back = run_match(spark, here / "left", here / "right", here / "out", *options(SMALL), "--mode", "unique")
    assert len(expected) > 5000
    assert_same(as_pairs(back["right_id"], back["left_id"], back["angular_distance"]), expected)
