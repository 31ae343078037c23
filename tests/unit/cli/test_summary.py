"""What a command prints when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stellarml.cli import main as cli
from stellarml.cli.summary import model_table, show_next, show_summary, stage_table
from stellarml.core.config import load_config
from stellarml.run.log import UNCHANGED

STAGES = [
    {"stage": name, "rows_in": 10, "rows_out": 9, "seconds": seconds, "peak_memory_bytes": 2**30}
    for name, seconds in (("ingest gaia", 100.0), ("ingest sky", 200.0), ("select", 3.0))
]
METRICS: dict[str, Any] = {
    "stages": STAGES,
    "cut_flow": [],
    "labels": [{"name": "teff", "unit": "K"}],
    "test": {},
    "model": "small-1",
}
MODEL = {
    "test": {"teff": {"n": 1234, "mean": -1.26, "mae": 61.02, "std": 85.5, "mad": 70.0, "median": 0.0}},
    "coverage": {"teff": {"68": 0.681, "90": 0.905, "95": 0.9512}},
}


def shown(*what: object, width: int = 100) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    for item in what:
        console.print(item)
    console.file.close()
    return console.export_text()


def row_of(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if name in line)
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_accuracy_of_a_model_on_its_test_part() -> None:
    text = shown(model_table([("teff", "K"), ("feh", "dex")], MODEL))
    assert row_of(text, "teff") == ["teff (K)", "1,234", "-1.3", "61.0", "85.5", "68.1 %", "90.5 %", "95.1 %"]
    assert row_of(text, "feh") == ["feh (dex)", "0", "-", "-", "-", "-", "-", "-"], "no test star has it"
    assert all(name in text for name in ("MAE", "std", "in 68 %", "in 90 %", "in 95 %"))


def test_a_model_without_test_stars_has_a_table_too() -> None:
    assert row_of(shown(model_table([("teff", "K")], {})), "teff")[1] == "0"


def test_seconds_are_those_of_this_run() -> None:
    records: dict[str, dict[str, Any]] = {
        "ingest": {
            "stage": "ingest", "seconds": 200.0,
            "surveys": {
                "gaia": {"stage": "ingest gaia", "seconds": 100.0, UNCHANGED: True},
                "sky": {"stage": "ingest sky", "seconds": 200.0},
            },
        },
        "select": {"stage": "select", "seconds": 3.0, UNCHANGED: True},
        "report": {"stage": "report", "seconds": 40.5},
    }  # fmt: skip
    text = shown(stage_table(STAGES, records))
    assert row_of(text, "ingest gaia")[3] == "unchanged" and row_of(text, "select")[3] == "unchanged"
    assert row_of(text, "ingest sky")[3] == "200.0"
    assert row_of(text, "this run")[3] == "240.5"


def test_what_earlier_runs_took_is_shown_where_nothing_ran() -> None:
    text = shown(stage_table(STAGES, {}))
    assert row_of(text, "ingest gaia")[3] == "100.0" and "this run" not in text


def test_a_summary_ends_with_where_everything_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("")
    config = load_config(tmp_path / "c.toml", environment={})
    show_summary(Console(width=60), METRICS, config)
    show_next(Console(width=60), METRICS, config)
    lines = capsys.readouterr().out.splitlines()
    for what, path in (
        ("Catalogue", config.labels_folder / "small-1"),
        ("Model", config.models_folder / "small-1"),
        ("Report", config.report_folder / "report.html"),
    ):
        assert any(line.startswith(f"{what}:") and line.endswith(str(path)) for line in lines)
    command = lines[-1].split()
    assert command[:2] == ["stellarml", "label"]
    assert command[command.index("--model") + 1] == str(config.models_folder / "small-1")


def test_train_on_a_table_ends_with_the_accuracy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Named:
        def __init__(self, name: str, unit: str) -> None:
            self.name, self.unit = name, unit

    class Bundle:
        class manifest:  # noqa: N801
            labels = (Named("teff", "K"),)
            metrics = MODEL

    monkeypatch.setattr("stellarml.run.spark_session.start_session", lambda settings: None)
    monkeypatch.setattr("stellarml.standalone.own_table_plan.plan_learning", lambda *_: None)
    monkeypatch.setattr("stellarml.standalone.own_table.learn_planned", lambda *_: tmp_path / "model")
    monkeypatch.setattr("stellarml.model.bundle.load_bundle", lambda path: Bundle)
    arguments = ["train", "--table", "t.csv", "--features", "f.toml", "--out", str(tmp_path / "model")]
    monkeypatch.setattr("sys.argv", ["stellarml", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr().out
    assert not end.value.code
    assert row_of(told, "teff")[1:4] == ["1,234", "-1.3", "61.0"]
    assert told.splitlines()[-1] == f"model: {tmp_path / 'model'}"
