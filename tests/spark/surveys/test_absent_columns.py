"""A cut whose column some files lack judges the rows of the others; no training set ends empty without a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stellarml.core.config import load_config
from stellarml.core.errors import InputError
from stellarml.stages.features import run as run_features
from stellarml.stages.ingest import ingest_survey
from stellarml.storage.hats_reader import open_catalogue

SURVEY = """
name = "t"
kind = "photometry"
files = { format = "csv", glob = "*.csv" }
position = { id = "id", ra = "ra", dec = "dec" }
columns = { keep = ["blend", "g"], optional = ["blend", "g"], types = { id = "long", blend = "int", g = "float" } }
[[cuts]]
name = "alone"
where = "blend = 0"
reason = "neighbours"
[[cuts]]
name = "bright"
where = "g < 18"
reason = "noise"
"""


def ingested(spark: Any, folder: Path, **files: str) -> tuple[dict[str, Any], dict[int, int]]:
    (folder / "t.toml").write_text(SURVEY)
    (folder / "raw").mkdir()
    for name, content in files.items():
        (folder / "raw" / f"{name}.csv").write_text(content)
    (folder / "config.toml").write_text('[raw]\nt = "raw"\n')
    config = load_config(folder / "config.toml")
    record = ingest_survey(spark, config, "t.toml")
    leaves = open_catalogue(folder / "lake" / "t").leaves
    rows = pa.concat_tables(pq.read_table(leaf.path, partitioning=None) for leaf in leaves)
    return record, dict(zip(rows["id"].to_pylist(), rows["cuts_failed"].to_pylist(), strict=True))


def test_rows_of_files_without_the_column_are_not_judged(
    spark: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record, failed = ingested(
        spark,
        tmp_path,
        a="id,ra,dec,g\n1,10,20,17\n2,11,21,19\n",
        b="id,ra,dec,g,blend\n3,12,22,17,0\n4,13,23,17,1\n5,14,24,17,\n",
    )
    assert failed == {1: 0, 2: 2, 3: 0, 4: 1, 5: 1}, (
        "a null in a file that has the column is the cut's own affair"
    )
    assert [step["failed_alone"] for step in record["cut_flow"]] == [0, 2, 1]
    said = "".join(capfd.readouterr())
    assert said.count("cut 'alone' of survey 't' is applied to 1 of 2 files: it needs blend") == 1


def test_a_cut_without_its_column_fails_nobody(spark: Any, tmp_path: Path) -> None:
    _, failed = ingested(spark, tmp_path, a="id,ra,dec\n1,10,20\n2,11,21\n")
    assert failed == {1: 0, 2: 0}


def test_names_that_are_no_identifiers_go_through_cuts(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(
        """
name = "t"
kind = "photometry"
files = { format = "csv", glob = "*.csv" }
position = { id = "id", ra = "coord.ra", dec = "DE(ICRS)" }
columns = { keep = ["J-mag"], types = { id = "long", "J-mag" = "float" }, null_when = { "J-mag" = "`J-mag` > 90" } }
[[cuts]]
name = "bright"
where = "`J-mag` < 18 and coord_ra > 5"
reason = "noise"
"""
    )
    (tmp_path / "a.csv").write_text(
        "id,coord.ra,DE(ICRS),J-mag\n1,10,20,17\n2,11,20,19\n3,12,20,99\n4,1,20,17\n"
    )
    (tmp_path / "config.toml").write_text('[raw]\nt = "a.csv"\n')
    ingest_survey(spark, load_config(tmp_path / "config.toml"), "t.toml")
    leaves = open_catalogue(tmp_path / "lake" / "t").leaves
    rows = pa.concat_tables(pq.read_table(leaf.path, partitioning=None) for leaf in leaves).sort_by("id")
    assert rows["cuts_failed"].to_pylist() == [0, 1, 1, 1] and rows["j-mag"].to_pylist() == [17, 19, None, 17]


def test_a_cut_that_fails_everybody_is_named(
    spark: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{n},{n % 300},20,{25},0\n" for n in range(300))
    record, _ = ingested(spark, tmp_path, a=f"id,ra,dec,g,blend\n{rows}")
    assert record["cut_flow"][-1]["rows_left"] == 0
    assert "cut 'bright' (g < 18) removes 100 % of the 300 rows of survey 't'" in "".join(capfd.readouterr())


def test_a_run_that_can_learn_nothing_names_the_cut(small_chain: Path, spark: Any, tmp_path: Path) -> None:
    """The chain's own tables, with a cut-flow in which one cut has removed every star."""
    root = tmp_path / "chain"
    shutil.copytree(small_chain, root)
    record = root / "lake" / "skymapper_dr2" / "run.json"
    found = json.loads(record.read_text())
    step = next(step for step in found["cut_flow"] if step["cut"] == "clean")
    step["failed_alone"] = found["cut_flow"][0]["rows_left"]
    record.write_text(json.dumps(found))
    matched = root / "lake" / "matched"
    for leaf in open_catalogue(matched).leaves:
        table = pq.read_table(leaf.path, partitioning=None)
        index = table.column_names.index("cuts_failed_skymapper_dr2")
        failing = pa.array([2] * table.num_rows, pa.int64())
        pq.write_table(table.set_column(index, "cuts_failed_skymapper_dr2", failing), leaf.path)
    with pytest.raises(
        InputError, match=r"none passes every cut; cut 'clean' \(.*removes 100 %.*cuts.disable"
    ):
        run_features(spark, load_config(root / "config.toml"), overwrite=True)
