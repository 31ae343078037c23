"""Killed, damaged, changed: what a second run does again, what it leaves alone, and that the bytes are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.small_surveys import stars, write_csv, write_surveys

from stellarml.core.config import Config, load_config
from stellarml.core.errors import InputError, StaleOutputError
from stellarml.run.marks import read_record
from stellarml.run.stage_run import describe_inputs
from stellarml.stages.chain import run_stage
from stellarml.stages.ingest import ingest_survey

SURVEY = "left_survey"
MATCHES = ("matched", "neighbourhood", "best_neighbour")


def config_of(folder: Path, *overrides: str) -> Config:
    return load_config(folder / "config.toml", overrides=overrides, environment={})


@pytest.fixture(scope="module")
def made(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after ingest, select, crossmatch and features."""
    folder = tmp_path_factory.mktemp("made")
    config = load_config(write_surveys(folder, 1200), environment={})
    for stage in ("ingest", "select", "crossmatch", "features"):
        run_stage(stage, spark, config)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    """Return every data file below `folder`; records hold times, marks are compared apart."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "dataset" in p.parts and p.suffix == ".parquet"
    }


def stamps(folder: Path) -> dict[str, int]:
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def leaves(folder: Path) -> list[Path]:
    return sorted(folder.rglob("Npix=*.parquet"))


def unfinish(out: Path) -> None:
    """Leave a folder as a kill just before the end would."""
    (out / "run.json").unlink()


def rewritten(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name, stamp in after.items() if before.get(name) != stamp and name.endswith(".parquet")}


@pytest.mark.parametrize("stage", ["ingest", "select", "crossmatch", "features"])
def test_unchanged_does_nothing(copy: Path, spark: Any, stage: str) -> None:
    before = stamps(copy)
    run_stage(stage, spark, config_of(copy))
    assert stamps(copy) == before


def test_ingest_killed_among_its_tiles(copy: Path, made: Path, spark: Any) -> None:
    out = copy / "lake" / SURVEY
    lost = leaves(out)[1:4]
    unfinish(out)
    for leaf in lost:
        leaf.unlink()
        tile = f"{leaf.parent.parent.name}_{leaf.stem}"
        (out / "_done" / f"{tile}.json").unlink()
    with pytest.raises(InputError, match="no run"):
        describe_inputs([], [out])
    before = stamps(out / "dataset")
    ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    assert content(out) == content(made / "lake" / SURVEY)
    redone = {str(leaf.relative_to(out / "dataset")) for leaf in lost}
    assert {n for n in rewritten(before, stamps(out / "dataset")) if "Npix" in n} == redone
    assert read_record(out)["rows"] == read_record(made / "lake" / SURVEY)["rows"]
    assert read_record(out)["cut_flow"] == read_record(made / "lake" / SURVEY)["cut_flow"]


def test_ingest_killed_between_reading_and_tiles(
    copy: Path, made: Path, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stellarml.stages import ingest as module

    out = copy / "lake" / SURVEY
    shutil.rmtree(out)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_tiles", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    marks = sorted(p.name for p in (out / "_done").iterdir())
    assert marks == ["read-00000-a.json", "read-00001-b.json"]
    shard = next((out / "_work").glob("00001-*.parquet"))
    kept = next((out / "_work").glob("00000-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-7])
    stamp = kept.stat().st_mtime_ns

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_tiles", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    assert kept.stat().st_mtime_ns == stamp, "the file that was whole is not read again"
    ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    assert content(out) == content(made / "lake" / SURVEY)
    assert not (out / "_work").exists()


def test_rejects_are_the_same_after_a_kill(copy: Path, spark: Any) -> None:
    path = copy / "raw" / "left" / "a.csv"
    lines = path.read_text().splitlines()
    lines[5] = "bad"
    path.write_text("\n".join([*lines, lines[9]]))
    out = copy / "lake" / SURVEY
    config = config_of(copy)
    ingest_survey(spark, config, f"{SURVEY}.toml", overwrite=True)
    wanted = {p.name: p.read_bytes() for p in (out / "_rejected").iterdir()}
    record = read_record(out)
    assert record["rows"]["rejected"] == 2 and len(wanted) == 2
    unfinish(out)
    for leaf in leaves(out)[::2]:
        leaf.unlink()
    again = ingest_survey(spark, config, f"{SURVEY}.toml")
    assert {p.name: p.read_bytes() for p in (out / "_rejected").iterdir()} == wanted
    assert again["rows"] == record["rows"] and again["cut_flow"] == record["cut_flow"]


@pytest.mark.parametrize("name", MATCHES)
def test_crossmatch_with_a_leaf_lost(copy: Path, made: Path, spark: Any, name: str) -> None:
    lake = copy / "lake"
    lost = leaves(lake / name)[2]
    lost.unlink()
    before = {n: stamps(lake / n / "dataset") for n in MATCHES}
    run_stage("crossmatch", spark, config_of(copy))
    for table in MATCHES:
        assert content(lake / table) == content(made / "lake" / table)
        again = rewritten(before[table], stamps(lake / table / "dataset"))
        assert {Path(n).name for n in again if "Npix" in n} == {lost.name}, "one tile of all"
        assert read_record(lake / table)["rows"] == read_record(made / "lake" / table)["rows"]


def test_crossmatch_killed(copy: Path, made: Path, spark: Any) -> None:
    lake = copy / "lake"
    for name in MATCHES:
        unfinish(lake / name)
    for mark in sorted((lake / "matched" / "_done").glob("*.json"))[::3]:
        mark.unlink()
    for leaf in leaves(lake / "matched")[::3]:
        leaf.unlink()
    run_stage("crossmatch", spark, config_of(copy))
    for name in MATCHES:
        assert content(lake / name) == content(made / "lake" / name)
    assert read_record(lake / "matched")["match"] == read_record(made / "lake" / "matched")["match"]


@pytest.mark.parametrize(("stage", "folder"), [("select", "stars"), ("features", "training")])
def test_a_leaf_deleted_afterwards_is_restored(
    copy: Path, made: Path, spark: Any, stage: str, folder: str
) -> None:
    out = copy / "lake" / folder
    leaves(out)[0].unlink()
    run_stage(stage, spark, config_of(copy))
    assert content(out) == content(made / "lake" / folder)


def test_changed_configuration_is_redone_and_what_follows_too(copy: Path, made: Path, spark: Any) -> None:
    config = config_of(copy, "tiles.max_rows=300")
    before = leaves(copy / "lake" / SURVEY)
    for stage in ("ingest", "select", "crossmatch"):
        run_stage(stage, spark, config)
    after = leaves(copy / "lake" / SURVEY)
    assert len(after) < len(before), "no leaf of the old tiling is left"
    for name in (SURVEY, "stars", *MATCHES):
        old, new = read_record(made / "lake" / name), read_record(copy / "lake" / name)
        assert new["rows"] == old["rows"] and new["key"] != old["key"]
    old, new = (read_record(f / "lake" / "matched")["match"] for f in (made, copy))
    assert new["pairs"] == old["pairs"]


def test_a_changed_cut_is_redone(copy: Path, spark: Any) -> None:
    path = copy / f"{SURVEY}.toml"
    path.write_text(path.read_text().replace("g < 18", "g < 14"))
    ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    left = read_record(copy / "lake" / SURVEY)["cut_flow"][1]["rows_left"]
    assert left == (stars(1200).g < 14).sum()


def test_changed_raw_files_are_refused(copy: Path, spark: Any) -> None:
    config = config_of(copy)
    before = stamps(copy / "lake")
    write_csv(
        copy / "raw" / "left" / "c.csv", stars(50, seed=9)[["source_id", "ra", "dec", "flag", "g", "u"]]
    )
    with pytest.raises(StaleOutputError, match=r"new: c.csv"):
        run_stage("ingest", spark, config)
    assert stamps(copy / "lake") == before


def test_a_lock_left_behind_holds_nobody_up(copy: Path, spark: Any) -> None:
    (copy / "lake" / SURVEY / ".lock").write_text("1 on another machine")
    before = stamps(copy / "lake")
    ingest_survey(spark, config_of(copy), f"{SURVEY}.toml")
    assert stamps(copy / "lake") == before
