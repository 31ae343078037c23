"""The short form of `make fuzz`: some damaged files of every format, and all that ever failed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz.formats import CORPUS, FORMATS, GOOD, Outcome, corpus_files, from_corpus

from stellarml.surveys.raw_reader import Block
from stellarml.surveys.text_parser import BlockParser

INPUTS = {name: 40 for name in FORMATS if name != "bundle"} | {"hats": 20, "parquet": 80}
"""Of each format; the fuzzer takes thousands, from the same seeds on. A bundle takes TensorFlow to make."""
MOST_CORPUS_BYTES = 200_000


def outcomes(name: str, folder: Path, inputs: int) -> list[Outcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [FORMATS[name].run(FORMATS[name].input(seed), folder / "x") for seed in range(inputs)]


@pytest.mark.parametrize("name", INPUTS)
def test_damaged_files_are_read_rejected_or_refused(name: str, tmp_path: Path) -> None:
    found = outcomes(name, tmp_path, INPUTS[name])
    assert {n: o for n, o in enumerate(found) if o.kind not in GOOD} == {}
    assert len({outcome.kind for outcome in found}) > 1, "some are read, some are not"


@pytest.mark.parametrize(
    "path", [p for name in FORMATS for p in corpus_files(name)], ids=lambda p: f"{p.parent.name}-{p.name}"
)
def test_what_failed_once_does_not_again(path: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = FORMATS[path.parent.name].run(from_corpus(path), tmp_path / "x")
    assert found.kind in GOOD, found.why


def test_the_corpus_stays_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert files and sum(path.stat().st_size for path in files) < MOST_CORPUS_BYTES


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_made_again_from_its_seed(name: str) -> None:
    assert FORMATS[name].input(11) == FORMATS[name].input(11) != FORMATS[name].input(12)


@pytest.mark.parametrize("broken", ["a reject is not counted", "a row is dropped"])
def test_a_lost_row_is_noticed(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = BlockParser.parse

    def losing(self: BlockParser, block: bytes, first_line: int) -> Block:
        found = parse(self, block, first_line)
        if broken == "a reject is not counted":
            return replace(found, rejects=[r for r in found.rejects if "columns, expected" not in r[1]])
        return replace(found, table=found.table.slice(1), lines=found.lines[1:])

    monkeypatch.setattr(BlockParser, "parse", losing)
    assert "lost" in {outcome.kind for outcome in outcomes("csv", tmp_path, 30)}
