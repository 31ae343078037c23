"""Columns that files lack are said once a survey, with what follows; cuts that remove nearly everything are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stellarml.surveys.absent_columns import consequences_of_absence, files_judged
from stellarml.surveys.column_mapping import Resolved
from stellarml.surveys.cuts import severe_cuts
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files


def descriptor(**more: Any) -> Descriptor:
    return Descriptor(
        name="t",
        kind="photometry",
        files={"format": "csv", "glob": "*.csv"},
        position={
            "id": "id", "ra": "ra", "dec": "dec", "epoch": {"column": ["mjd", "epoch"], "unit": "mjd"},
            "ra_error": {"column": "e_ra", "unit": "mas", "floor": 36},
            "dec_error": {"column": "e_dec", "unit": "mas"}, "pmra": "pmra", "pmdec": "pmdec",
        },
        bands={"g": {"magnitude": "g"}},
        columns={"keep": ["blend"], "optional": ["mjd", "e_ra", "e_dec", "pmra", "pmdec", "g", "blend"],
                 "types": {"id": "long", "blend": "int"}},
        cuts=[
            {"name": "bright", "where": "g < 18", "reason": "r"},
            {"name": "alone", "where": "blend = 0", "reason": "r"},
            {"name": "off", "where": "blend < 2", "reason": "r", "enabled": False},
        ],
        **more,
    )  # fmt: skip


def settled(folder: Path, *headers: str) -> Resolved:
    for number, header in enumerate(headers):
        (folder / f"{number}.csv").write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    return settled_columns(descriptor(), find_files(descriptor(), folder))


WHOLE = "id,ra,dec,mjd,e_ra,e_dec,pmra,pmdec,g,blend"


def test_nothing_is_said_where_nothing_is_missing(tmp_path: Path) -> None:
    assert consequences_of_absence(descriptor(), settled(tmp_path, WHOLE, WHOLE)) == []


def test_each_column_has_its_consequence(tmp_path: Path) -> None:
    found = settled(tmp_path, "id,ra,dec", "id,ra,dec,blend")
    said = consequences_of_absence(descriptor(), found)
    for words in (
        "column mjd or epoch is in no file of survey 't': no epoch: stars are not moved",
        "column e_ra is in no file of survey 't': no position error: 36 mas is taken",
        "column e_dec is in no file of survey 't': no position error: no error at all is taken",
        "column pmra is in no file of survey 't': no proper motion",
        "column g is in no file of survey 't': band g counts as not measured",
        "column blend is in 1 of 2 files of survey 't': its values are missing there",
        "cut 'bright' of survey 't' is not applied: it needs g",
        "cut 'alone' of survey 't' is applied to 1 of 2 files: it needs blend",
    ):
        assert sum(line.startswith(words) for line in said) == 1, words
    assert not any("'off'" in line for line in said)
    cuts = {cut.name: files_judged(cut, found) for cut in descriptor().cuts}
    assert cuts == {"bright": [], "alone": [1], "off": [1]}


def test_the_epoch_of_skymapper_dr4_by_all_its_names() -> None:
    epoch = load_descriptor("skymapper_dr4").position.epoch
    assert epoch is not None and {"mean_epoch", "MeanEpoch", "EpMean"} <= set(epoch.column or ())


@pytest.mark.parametrize(("alone", "said"), [(100, True), (991, True), (990, False), (0, False)])
def test_a_cut_that_removes_nearly_all_is_named(alone: int, said: bool) -> None:
    rows = 100 if alone == 100 else 1000
    flow = [
        {"survey": "t", "step": 0, "cut": "all rows", "where": "", "rows_left": rows, "failed_alone": 0},
        {"survey": "t", "step": 1, "cut": "bright", "where": "g < 18", "rows_left": 1, "failed_alone": alone},
    ]
    lines = severe_cuts(flow)
    assert len(lines) == said
    if said:
        assert lines[0].startswith(
            "cut 'bright' (g < 18) removes 100 %" if rows == 100 else "cut 'bright' (g < 18) removes 99.1 %"
        )
        assert lines[0].endswith(f"of the {rows} rows of survey 't'")
