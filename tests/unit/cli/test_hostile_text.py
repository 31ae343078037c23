"""Names and messages of others cannot act on a terminal, forge a line, or break a page, a card, a figure or a log."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table

from stellarml.cli.exit_status import run_to_the_end
from stellarml.cli.progress_bar import fitted
from stellarml.cli.screen import Screen, say
from stellarml.cli.summary import cut_flow_table, model_table, stage_table
from stellarml.core.config import load_config
from stellarml.core.errors import InputError, raise_gathered
from stellarml.core.progress import Status
from stellarml.core.visible_text import visible
from stellarml.labelling.monitoring import prometheus_text
from stellarml.model.card import card_text
from stellarml.report.blocks import Chapter, Note, ReportContent
from stellarml.report.blocks import Table as PageTable
from stellarml.report.page import render_report
from stellarml.report.plot_run import cut_flow, training_curves
from stellarml.report.plot_style import axis_label, new_figure, png
from stellarml.run.log import configure_logging, get_logger
from stellarml.run.progress_lines import log_status

EVIL = (
    "gaia\x1b[2J\x1b]0;owned\x07\r\nstellarml: done\u202e\u200b\x9b31m[bold]x[/] [/nope] :smile: "
    "<script>alert(1)</script> $x"
)
SHOWN = r"gaia\x1b[2J\x1b]0;owned\x07\r\nstellarml: done\u202e\u200b\x9b31m[bold]x[/] [/nope] :smile:"
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    assert not UNSEEN.search(text), repr(text)
    return text


def test_what_is_printed_is_seen() -> None:
    for code in range(0x110000):
        shown = visible(chr(code))
        assert shown.isprintable() and (shown == chr(code)) == chr(code).isprintable()
    harmless(visible(EVIL))


def told_by(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit):
        run_to_the_end(fail)
    return harmless(capsys.readouterr().err)


def gathered() -> Exception:
    try:
        raise_gathered(InputError, EVIL, [EVIL, EVIL])
    except InputError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "make", [lambda: InputError(EVIL), gathered, lambda: OSError(2, EVIL, EVIL), lambda: RuntimeError(EVIL)]
)
def test_one_failure_is_one_message(
    make: Callable[[], Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_by(make(), capsys)
    assert "gaia\\x1b[2J" in told
    assert [line.startswith("stellarml: ") for line in told.splitlines()].count(True) == 1
    assert all(line.startswith((" ", "stellarml: ")) for line in told.splitlines() if line)
    monkeypatch.setenv("STELLARML_LOG__LEVEL", "debug")
    assert "Traceback" in told_by(RuntimeError(EVIL), capsys)


def screen() -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(file=stream, width=300, force_terminal=False), stream


def test_lines_and_tables_take_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    assert SHOWN in harmless(capsys.readouterr().out)
    console, stream = screen()
    console.print(EVIL, soft_wrap=True)
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    stage = {"stage": EVIL, "rows_in": 1, "rows_out": 1, "seconds": 1.0, "peak_memory_bytes": 1}
    console.print(stage_table([stage], {}))
    console.print(cut_flow_table([{"survey": EVIL, "cut": EVIL, "rows_left": 1, "failed_alone": 0}]))
    console.print(model_table([(EVIL, EVIL)], {}))
    text = harmless(stream.getvalue())
    assert "[bold]x[/] [/nope] :smile:" in text and "gaia\\x1b[2J" in text


def log_lines(format_: str, capsys: pytest.CaptureFixture[str], write: Callable[[], None]) -> list[str]:
    usual = load_config(environment={}).log
    configure_logging(usual.model_copy(update={"format": format_, "level": "debug"}))
    try:
        capsys.readouterr()
        write()
        return harmless(capsys.readouterr().err).splitlines()
    finally:
        configure_logging(usual)


def status(name: str) -> Status:
    return Status(name, name, 1, 2, "rows", 1, 1.0, 1.0, remarks=(name,))


@pytest.mark.parametrize("format_", ["text", "json"])
def test_one_record_is_one_line(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = "gaia\x1b[2J\u202e"

    def write() -> None:
        get_logger().warning(EVIL, survey=EVIL, column=plain, more=[EVIL], **{"key\x1b": 1})
        log_status(status(EVIL))
        try:
            raise ValueError(EVIL)
        except ValueError as error:
            get_logger().error("failed", reason=str(error), cause=error)

    lines = log_lines(format_, capsys, write)
    assert len(lines) == 3
    if format_ == "json":
        assert json.loads(lines[0])["survey"] == EVIL
    else:
        assert "column=gaia\\x1b[2J\\u202e" in lines[0]


def test_the_bar_shows_one_line() -> None:
    name, _, text = fitted(400, status(EVIL))
    assert "\n" not in harmless(name) + harmless(text)


def test_metrics_escape_their_labels() -> None:
    record = {
        "model_id": 'a"b\\c\nd\x1b\ud800',
        "rows": {"out": 1, "without_flag": 1},
        "units": 1,
        "units_done": 1,
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "label": {"flags": {EVIL: 0.5}, "features": {EVIL: {"missing": 0.1, "drift": None}}},
    }
    text = harmless(prometheus_text(record))
    text.encode()
    assert 'stellarml_label_rows{model="a\\"b\\\\c\\nd\\\\x1b\\\\ud800"} 1' in text.splitlines()
    line = re.compile(r'(# .*|[a-z_]+\{([a-z]+="([^"\\\n]|\\["\\n])*",?)*\} [-0-9.e]+)')
    assert all(line.fullmatch(one) for one in text.splitlines())


def test_a_page_shows_names_as_text(tmp_path: Any) -> None:
    chapter = Chapter(EVIL, [PageTable(EVIL, [EVIL], [[EVIL]]), Note(EVIL)])
    page = render_report(tmp_path, ReportContent(EVIL, EVIL, [], [chapter])).read_text(encoding="utf-8")
    harmless(page)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_figures_show_names_as_text() -> None:
    curve = {
        "label": EVIL,
        "unit": EVIL,
        "epochs": [1, 2],
        "loss": [2, 1],
        "val_loss": [2, 1],
        "phase": [EVIL, EVIL],
    }
    assert png(training_curves([curve]))
    assert png(cut_flow([{"survey": EVIL, "cut": EVIL, "rows_left": n} for n in (3, 2)]))
    for text in ("$", "a$b$c", r"\frac$", "${", "$^$", EVIL):
        figure = new_figure(3, 2)
        figure.subplots().set_xlabel(axis_label(text, text))
        assert png(figure)


def card(**changes: Any) -> str:
    entry = SimpleNamespace(name=EVIL, unit=EVIL, low=1.0, high=2.0, median=1.5, rows=3)
    feature = SimpleNamespace(name=EVIL, unit=EVIL, range=False, expression=f"`a` {EVIL}")
    manifest = SimpleNamespace(
        id=EVIL,
        preset=EVIL,
        seed=1,
        versions={"stellarml": EVIL, "tensorflow": EVIL},
        networks=[SimpleNamespace(widths=(3,))],
        counts={EVIL: 3},
        calibration=SimpleNamespace(part="calibration", method=EVIL, labels=()),
        provenance={EVIL: {"path": EVIL}, "table": EVIL},
        labels=[entry],
        features=SimpleNamespace(features=[feature]),
        outside_range=(),
        metrics={},
        truth=(),
        warnings=(EVIL,),
    )
    return card_text(manifest)  # type: ignore[arg-type]


def test_a_card_shows_names_as_text() -> None:
    text = harmless(card())
    outside_code = re.sub(r"(`+).+?\1", "", text)
    assert "<script>" not in outside_code and "&lt;script&gt;" in outside_code
    assert not [line for line in text.splitlines() if line.startswith("stellarml: done")]
