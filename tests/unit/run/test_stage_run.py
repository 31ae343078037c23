"""What an output was made from: unchanged, killed, changed, foreign, in use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stellarml.core.config import load_config
from stellarml.core.errors import ChangedInputError, InputError, OutputBusyError, StaleOutputError, UserError
from stellarml.run.fingerprint import digest, file_fingerprint, origin_of
from stellarml.run.log import UNCHANGED
from stellarml.run.marks import read_marks, read_record, write_mark
from stellarml.run.stage_run import Recipe, describe_inputs, stage_run

CONFIG = load_config(environment={})


def recipe(stage: str, raw: Path, **settings: str) -> Recipe:
    return Recipe(stage, "stellarml.run.stage_run", settings, raw=[raw])


def made(
    out: Path, raw: Path, *, finish: bool = True, units: tuple[str, ...] = ("a", "b"), **options: Any
) -> str:
    """Run a stage that writes one file a unit; return which of them it had to write."""
    settings = options.pop("relevant", {"scope": "full"})
    with stage_run(recipe("copy", raw, **settings), out, CONFIG, **options) as run:
        if run.complete:
            return "nothing"
        todo = [unit for unit in units if unit not in run.marks]
        for unit in todo:
            (out / f"{unit}.txt").write_text(raw.read_text() + unit)
            write_mark(out, unit, {"files": {f"{unit}.txt": (out / f"{unit}.txt").stat().st_size}})
        if finish:
            for folder in run.siblings:
                (folder / "half.txt").write_text("x")
            run.finish({"in": 1, "out": 1})
        return "".join(todo)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("one")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_record_of_a_finished_run(raw: Path, out: Path) -> None:
    assert made(out, raw) == "ab"
    record = read_record(out)
    assert record["stage"] == "copy" and record["rows"] == {"in": 1, "out": 1}
    assert record["inputs"] == [
        {"path": str(raw), "bytes": 3, "fingerprint": file_fingerprint(raw)["fingerprint"]}
    ]
    assert record["config"]["crossmatch"]["scope"] == "full" and "root" not in record["config"]
    assert record["code"]["version"] and record["versions"]["pyarrow"]
    assert record["seconds"] >= 0 and record["peak_memory_bytes"] > 0


def test_an_unchanged_record_says_so_and_the_file_does_not(raw: Path, out: Path) -> None:
    made(out, raw)
    first = read_record(out)
    assert UNCHANGED not in first
    for _ in range(2):
        with stage_run(recipe("copy", raw, scope="full"), out, CONFIG) as run:
            assert run.complete and run.record == first | {UNCHANGED: True}
    assert read_record(out) == first


def test_unchanged_does_nothing(raw: Path, out: Path) -> None:
    made(out, raw)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"}
    assert made(out, raw) == "nothing"
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"} == before


def test_killed_goes_on_with_what_is_missing(raw: Path, out: Path) -> None:
    assert made(out, raw, finish=False, units=("a",)) == "a"
    with pytest.raises(InputError, match=r"no run.json, so this stage's output is missing or unfinished"):
        read_record(out)
    assert made(out, raw) == "b"


def test_half_written_files_of_the_dead_are_swept(raw: Path, out: Path, tmp_path: Path) -> None:
    sibling = tmp_path / "sibling"
    made(out, raw, finish=False, units=("a",), siblings=[sibling])
    halves = [f / "dataset" / "Norder=3" / ".Npix=1.parquet.0a1b2c3d.tmp" for f in (out, sibling)]
    for half in halves:
        half.parent.mkdir(parents=True)
        half.write_text("PAR1")
    folder = out / "_work" / ".model.17.tmp"
    folder.mkdir(parents=True)
    (folder / "weights.npz").write_text("PK")
    halves.append(folder)
    assert made(out, raw, siblings=[sibling]) == "b"
    assert not any(half.exists() for half in halves)


def test_a_deleted_or_shortened_file_is_made_again(raw: Path, out: Path) -> None:
    made(out, raw)
    (out / "a.txt").unlink()
    assert made(out, raw) == "a"
    (out / "b.txt").write_text("")
    assert made(out, raw) == "b"
    assert made(out, raw) == "nothing"


def test_further_marks_do_not_hide_a_deleted_file(raw: Path, out: Path) -> None:
    """Stages mark steps that write no file, too; they must not be counted instead of a lost one."""
    made(out, raw, finish=False)
    write_mark(out, "plan", {"files": {}, "part": 1})
    assert made(out, raw) == ""
    assert made(out, raw) == "nothing"
    (out / "a.txt").unlink()
    assert made(out, raw) == "a"


def test_a_damaged_mark_is_not_trusted(raw: Path, out: Path) -> None:
    made(out, raw)
    (out / "_done" / "a.json").write_bytes(b'{"files"\xff')
    assert set(read_marks(out)) == {"b"}
    assert made(out, raw) == "a"


def test_changed_configuration_is_redone(raw: Path, out: Path) -> None:
    made(out, raw, units=("a", "b", "c"))
    assert made(out, raw, relevant={"scope": "selected"}) == "ab"
    assert not (out / "c.txt").exists()


def test_changed_code_is_redone(raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stellarml.run import stage_run as module

    made(out, raw)
    monkeypatch.setattr(module, "code_identity", lambda _: {"version": "0", "commit": "", "digest": "other"})
    assert made(out, raw) == "ab"


@pytest.mark.parametrize("finish", [True, False])
def test_other_inputs_are_refused(raw: Path, out: Path, finish: bool) -> None:
    made(out, raw, finish=finish)
    raw.write_text("two")
    with pytest.raises(StaleOutputError, match=r"made from other inputs.*changed: in.csv.*--overwrite"):
        made(out, raw)
    assert (out / "a.txt").read_text() == "onea", "a refusal leaves everything"
    assert made(out, raw, overwrite=True) == "ab"
    assert (out / "a.txt").read_text() == "twoa"


def test_gone_and_new_inputs_are_named(raw: Path, out: Path) -> None:
    made(out, raw)
    other = raw.with_name("other.csv")
    raw.unlink()
    other.write_text("another")
    with pytest.raises(StaleOutputError, match=r"gone: in.csv; new: other.csv"):
        made(out, other)


def test_nothing_made_yet_is_nothing_to_refuse(raw: Path, out: Path) -> None:
    """A first run that failed on a damaged file must not stand in the way of the repaired one."""
    made(out, raw, finish=False, units=())
    raw.write_text("repaired")
    assert made(out, raw) == "ab"


def test_a_moved_file_is_the_same_input(raw: Path, out: Path, tmp_path: Path) -> None:
    made(out, raw)
    (tmp_path / "elsewhere").mkdir()
    moved = raw.rename(tmp_path / "elsewhere" / raw.name)
    assert made(out, moved) == "nothing"


def test_without_its_state_the_record_tells(raw: Path, out: Path) -> None:
    made(out, raw)
    (out / "_state.json").write_text("{")
    assert made(out, raw) == "nothing"
    (out / "_state.json").unlink()
    assert made(out, raw, relevant={"scope": "selected"}) == "ab"


def test_clearing_that_was_killed_is_begun_again(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves and marks of the old configuration must not be taken for the new one's."""
    made(out, raw)
    import shutil

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            made(out, raw, relevant={"scope": "selected"})
    assert not (out / "run.json").exists()
    assert made(out, raw, relevant={"scope": "selected"}) == "ab"


def test_siblings_live_and_die_with_the_output(raw: Path, out: Path, tmp_path: Path) -> None:
    sibling = tmp_path / "sibling"
    assert made(out, raw, siblings=[sibling]) == "ab"
    assert read_record(sibling) == read_record(out)
    assert made(out, raw, siblings=[sibling]) == "nothing"
    (sibling / "run.json").unlink()
    assert made(out, raw, siblings=[sibling], finish=False) == ""
    assert not (out / "run.json").exists(), "unfinished together"
    made(out, raw, siblings=[sibling], relevant={"scope": "selected"})
    assert sorted(p.name for p in sibling.iterdir()) == [".lock", "half.txt", "run.json"]


def test_foreign_folders_are_refused_before_anything(raw: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "notes.md").write_text("mine")
    with pytest.raises(UserError, match="notes"):
        made(out, raw, overwrite=True)
    (tmp_path / "sibling").mkdir()
    (tmp_path / "sibling" / "photo.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"photo.jpg"):
        made(tmp_path / "new", raw, siblings=[tmp_path / "sibling"])
    assert (out / "notes.md").exists() and (tmp_path / "sibling" / "photo.jpg").exists()


def test_in_use_by_a_living_process(raw: Path, out: Path) -> None:
    made(out, raw)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time\n"
            "stream = open(sys.argv[1], 'a+')\n"
            "fcntl.flock(stream, fcntl.LOCK_EX)\n"
            "stream.truncate(0); stream.write('4711 on here'); stream.flush()\n"
            "print('held', flush=True); time.sleep(60)",
            str(out / ".lock"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputBusyError, match=r"another run \(process 4711 on here\)") as told:
            made(out, raw, overwrite=True)
        assert told.value.exit_status == 75
        assert (out / "run.json").exists()
        holder.kill()
    assert made(out, raw) == "nothing", "the lock of a dead process holds nobody up"


def test_two_runs_in_one_process(raw: Path, out: Path) -> None:
    with (
        stage_run(recipe("copy", raw), out, CONFIG),
        pytest.raises(OutputBusyError),
        stage_run(recipe("copy", raw), out, CONFIG),
    ):
        pass


def test_derived_inputs_carry_their_origin(raw: Path, out: Path, tmp_path: Path) -> None:
    made(out, raw)
    records, origin = describe_inputs([], [out])
    assert records[0]["fingerprint"] == read_record(out)["key"]
    assert origin == digest([read_record(out)["origin"]])
    made(out, raw, relevant={"scope": "selected"})
    again, same = describe_inputs([], [out])
    assert again[0]["fingerprint"] != records[0]["fingerprint"], "another key: what follows is redone"
    assert same == origin, "the same raw files: what follows is not refused"
    with pytest.raises(InputError, match="no run"):
        describe_inputs([], [tmp_path / "nowhere"])


def test_settled_files_are_missed_when_they_go(raw: Path, out: Path) -> None:
    def once() -> bool:
        with stage_run(recipe("fit", raw), out, CONFIG) as run:
            if run.complete:
                return False
            (out / "_work").mkdir()
            write_mark(out, "step", {"files": {}})
            (out / "page.html").write_text("x")
            run.settle([Path("page.html")])
            run.finish({"in": 1, "out": 1})
        return True

    assert once() and not once()
    assert set(read_marks(out)) == {"output"} and not (out / "_work").exists()
    (out / "page.html").unlink()
    assert once() and not once()


def test_a_damaged_record(raw: Path, out: Path) -> None:
    made(out, raw)
    (out / "run.json").write_text('{"stage": ')
    with pytest.raises(InputError, match=r"run.json: is damaged.*--overwrite"):
        read_record(out)


class TestFingerprint:
    def test_any_byte_of_a_small_file_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        found = set()
        for place in (0, 30_000, 65_000):
            content = bytearray(65_536)
            content[place] = 1
            path.write_bytes(content)
            found.add(file_fingerprint(path)["fingerprint"])
        assert len(found) == 3

    def test_ends_of_a_large_file_count(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        found = set()
        for place in (0, 5_000_000 - 1):
            content = bytearray(5_000_000)
            content[place] = 1
            path.write_bytes(content)
            found.add(file_fingerprint(path)["fingerprint"])
        assert len(found) == 2

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="gone: cannot be read"):
            file_fingerprint(tmp_path / "gone")

    def test_digest_keeps_parts_apart(self) -> None:
        assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["abc"])
        assert digest(["a", "b"]) != digest(["b", "a"])

    def test_origin_is_of_content_not_of_place_or_order(self) -> None:
        one = {"path": "/x/a.csv", "bytes": 1, "fingerprint": "f"}
        two = {"path": "/x/b.csv", "bytes": 2, "fingerprint": "g"}
        assert origin_of([one, two]) == origin_of([two, {**one, "path": "/y/z/a.csv"}])
        assert origin_of([one, two]) != origin_of([one, {**two, "bytes": 3}])


def test_marks_are_json_that_others_can_read(raw: Path, out: Path) -> None:
    made(out, raw)
    assert json.loads((out / "_done" / "a.json").read_text()) == {"files": {"a.txt": 4}}


def test_an_input_is_never_inside_the_output(raw: Path, out: Path) -> None:
    """The review that found a catalogue deleted by --overwrite began here."""
    made(out, raw)
    for inside in (out / "a.txt", out):
        with pytest.raises(UserError, match="holds an input of this run"):
            made(out, inside, overwrite=True)
    link = raw.with_name("link")
    link.symlink_to(out)
    with pytest.raises(UserError, match="holds an input of this run"):
        made(link, out / "a.txt", overwrite=True)
    assert (out / "a.txt").read_text() == "onea"


def test_the_output_of_another_stage_is_refused(raw: Path, out: Path) -> None:
    made(out, raw)
    for _ in range(2):
        with (
            pytest.raises(UserError, match="is the output of the stage copy, not of paste"),
            stage_run(recipe("paste", raw), out, CONFIG, overwrite=True),
        ):
            pass
        (out / "_state.json").unlink(missing_ok=True)
    assert (out / "a.txt").exists()


def test_files_that_nobody_can_account_for_are_left_alone(raw: Path, out: Path) -> None:
    made(out, raw)
    for name in ("run.json", "_state.json"):
        (out / name).write_text("{")
    for overwrite in (False, True):
        with pytest.raises(
            UserError, match=r"run.json, _state.json, _done.*cannot be read.*delete the folder"
        ):
            made(out, raw, overwrite=overwrite)
    assert (out / "a.txt").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_user_put_into_the_output_stays(raw: Path, out: Path, killed: bool) -> None:
    made(out, raw)
    (out / "plots").mkdir()
    (out / "plots" / "figure.png").write_text("mine")
    (out / "paper.tex").write_text("mine")
    if killed:
        made(out, raw, finish=False, relevant={"scope": "other"}, units=("a", "c"))
        assert (out / "c.txt").exists()
    assert made(out, raw, relevant={"scope": "selected"}) == "ab"
    assert made(out, raw, overwrite=True, relevant={"scope": "selected"}) == "ab"
    assert not (out / "c.txt").exists(), "what a killed run left is its own"
    assert (out / "plots" / "figure.png").read_text() == (out / "paper.tex").read_text() == "mine"


@pytest.mark.parametrize("swap", ["replaced", "gone"])
def test_an_input_that_is_swapped_while_it_is_read_makes_nothing(raw: Path, out: Path, swap: str) -> None:
    """The record would name the old file and the rows would be the new one's: nothing of it is trusted later."""
    with (
        pytest.raises(ChangedInputError, match=r"replaced while|vanished while"),
        stage_run(recipe("copy", raw, scope="full"), out, CONFIG) as run,
    ):
        raw.write_text("two") if swap == "replaced" else raw.unlink()
        (out / "a.txt").write_text("two a")
        write_mark(out, "a", {"files": {"a.txt": 5}})
        run.finish({"in": 1, "out": 1})
    assert not (out / "run.json").exists() and not read_marks(out)
    raw.write_text("one")
    assert made(out, raw) == "ab", "neither is the unit that was made of another file"
    assert (out / "a.txt").read_text() == "onea"
