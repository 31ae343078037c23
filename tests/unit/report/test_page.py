"""The page and metrics.json: whole, offline, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from stellarml.core.errors import StorageError
from stellarml.core.histograms import Histogram, fill, integer_axis
from stellarml.report import chapters as report_sections
from stellarml.report.accuracy import Label, Metrics, number
from stellarml.report.blocks import (
    Card,
    Chapter,
    Note,
    Picture,
    ReportContent,
    Table,
    flattened,
    measured,
    percent,
    plain_json,
    shown,
)
from stellarml.report.page import Measurements, ReportInputs, metrics_json, render_report, write_report
from stellarml.report.plot_style import new_figure, png

LABELS = [{"name": "teff", "unit": "K"}, {"name": "logg", "unit": "dex"}, {"name": "feh", "unit": "dex"}]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects tags, ids, links and text, and insists that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        self.sources += [found["src"] or ""] if "src" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def small_png() -> bytes:
    figure: Figure = new_figure(1, 1)
    return png(figure)


def content() -> ReportContent:
    picture = Picture("kiel", small_png(), 'a "caption" <i>', "alt")
    table = Table(
        "caption", ("name", "n", "paper"), [("<script>alert(1)</script>", "1", "2")], quiet=frozenset({2})
    )
    return ReportContent(
        "A & B",
        "summary",
        [Card("stars", "5")],
        [Chapter("First", [picture, table]), Chapter("Test set", [Note("no", warning=True)])],
    )


def test_the_page_needs_no_network_and_embeds_its_figures(tmp_path: Path) -> None:
    text = render_report(tmp_path, content()).read_text()
    page = Page(text)
    assert page.links == ["#first", "#test-set"]
    assert {"first", "test-set"} <= set(page.ids)
    assert not re.search(r"(?:src|href)\s*=\s*\"(?!#|data:)|url\(|@import|https?://", text)
    (source,) = page.sources
    embedded = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    assert embedded == (tmp_path / "kiel.png").read_bytes() == content().pictures[0].png


def test_what_data_says_is_never_markup(tmp_path: Path) -> None:
    text = render_report(tmp_path, content()).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<title>A &amp; B" in text


def test_figures_of_an_earlier_run_go_and_foreign_files_stay(tmp_path: Path) -> None:
    for name in ("sky.png", "my_own.png"):
        (tmp_path / name).write_bytes(b"old")
    render_report(tmp_path, content())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kiel.png", "my_own.png", "report.html"]


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_report(tmp_path, content())
    old = (tmp_path / "report.html").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        render_report(tmp_path, ReportContent("new", "new"))
    assert (tmp_path / "report.html").read_bytes() == old
    assert not list(tmp_path.glob(".*tmp"))


def test_an_empty_run_gives_a_page_that_says_so(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report", ReportInputs(labels=LABELS))
    page = Page(path.read_text())
    for sentence in (
        "No cut-flow",
        "No match statistics",
        "No training curve",
        "nothing can be measured",
        "No star has been labelled",
        "No model",
    ):
        assert sentence in page.text
    assert "img" not in page.tags
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert set(numbers["test"]) == {"teff", "logg", "feh"}
    assert numbers["test"]["teff"] == {"mean": None, "median": None, "std": None, "mad": None, "n": 0}
    assert (numbers["by_bin"], numbers["cut_flow"], numbers["match"]) == ([], [], {})


def test_metrics_json_holds_what_the_contract_names_without_nan() -> None:
    passing = fill(Histogram("passing", (integer_axis("p", 2),)), {"p": np.array([0.0, 1.0, 1.0])})
    counted = Measurements(Metrics.nothing([Label("teff", "K")], 90), {"passing": passing}, {}, None)
    inputs = ReportInputs(
        labels=LABELS[:1],
        level=90,
        cut_flow=[{"survey": "gaia_dr3", "cut": "all rows", "rows_left": np.int64(7), "failed_alone": None}],
        match={"pairs": np.int32(5), "median_separation_arcsec": float("nan"), "n": {1: 2}},
        bundle={"id": "m1"},
    )
    numbers = metrics_json(inputs, counted)
    assert list(numbers)[:5] == ["test", "by_bin", "coverage", "cut_flow", "match"]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["match"] == {"pairs": 5, "median_separation_arcsec": None, "n": {"1": 2}}
    assert numbers["coverage"]["level"] == 0.9
    assert numbers["catalogue"] == {"rows": 3, "passing_cuts": 2, "flags": {}}
    assert numbers["cut_flow"][0]["rows_left"] == 7
    assert numbers["model"] == "m1"


def summary(**values: Any) -> dict[str, Any]:
    return {"mean": 1.0, "median": 2.0, "std": 90.123, "mad": 71.0, "n": 1200} | values


def test_table_2_stands_beside_the_papers() -> None:
    labels = [Label("teff", "K"), Label("age", "Gyr")]
    metrics = {"test": {"teff": summary(mean=-12.345), "age": summary()}, "by_bin": [], "regression": []}
    table = next(b for b in report_sections.accuracy(metrics, labels, {}).blocks if isinstance(b, Table))
    assert list(table.head) == [
        "label",
        "unit",
        "mean",
        "paper",
        "median",
        "paper",
        "st. dev.",
        "paper",
        "MAD",
        "paper",
        "stars",
    ]
    assert list(table.rows[0])[1:] == [
        "K",
        "−12.3",
        "−6.8",
        "2.00",
        "−5.0",
        "90.1",
        "85.0",
        "71.0",
        "70.5",
        "1,200",
    ]
    assert [table.rows[1][i] for i in sorted(table.quiet)] == ["–"] * 4
    assert {table.head[i] for i in table.quiet} == {"paper"}
    assert "its test part, a tenth (about 62,441) of 624,410 stars" in str(table.caption)


def test_published_numbers_are_the_papers() -> None:
    assert report_sections.published_std() == {"teff": 85.0, "logg": 0.14, "feh": 0.12}
    assert report_sections.PUBLISHED["teff"] == {
        "mean": "−6.8",
        "median": "−5.0",
        "std": "85.0",
        "mad": "70.5",
    }
    assert report_sections.PUBLISHED["logg"]["mad"] == "0.086"
    assert report_sections.PUBLISHED["feh"] == {
        "mean": "0.016",
        "median": "0.0097",
        "std": "0.12",
        "mad": "0.083",
    }


def test_cut_flow_table_has_one_part_a_survey() -> None:
    rows = [
        {"survey": "gaia_dr3", "step": 0, "cut": "all rows", "rows_left": 200, "failed_alone": None},
        {
            "survey": "gaia_dr3",
            "step": 1,
            "cut": "ruwe",
            "where": "ruwe <= 1.4",
            "reason": "binaries",
            "rows_left": 150,
            "failed_alone": 60,
        },
        {"survey": "skymapper_dr2", "step": 0, "cut": "all rows", "rows_left": 0},
    ]
    gaia, skymapper = (b for b in report_sections.cut_flow(rows, None).blocks if isinstance(b, Table))
    assert list(gaia.rows[1]) == ["ruwe", "ruwe <= 1.4", "binaries", "150", "75.0%", "60"]
    assert list(skymapper.rows[0]) == ["all rows", "", "", "0", "–", "–"]


def test_flags_are_explained() -> None:
    metrics = {"catalogue": {"rows": 10, "flags": {"7": 0.25, "15": 0.1}}}
    (table,) = report_sections.catalogue(metrics, {}).blocks
    assert isinstance(table, Table)
    assert list(table.rows[0]) == [
        "CUT_FAILED",
        "128",
        "the star fails a selection cut; cuts_failed tells which",
        "25.00%",
    ]
    assert list(table.rows[1]) == ["bit 15", "32768", "", "10.00%"]


def test_the_model_card_shows_the_bundle_and_folds_the_rest() -> None:
    chapter = report_sections.model_chapter(
        {"id": "m1", "widths": [80, 96], "sha256": {"weights.npz": "ab"}}, [Label("teff", "K")]
    )
    first, rest = (b for b in chapter.blocks if isinstance(b, Table))
    assert list(first.rows) == [("id", "m1"), ("widths", "80, 96")] and not first.folded
    assert list(rest.rows) == [("sha256 › weights.npz", "ab")] and rest.folded


def test_provenance_shows_missing_measurements_as_a_dash() -> None:
    chapter = report_sections.provenance(
        [{"stage": "match", "rows_in": 10, "rows_out": None, "seconds": 1.25, "peak_memory_bytes": 2e9}], {}
    )
    (table,) = chapter.blocks
    assert isinstance(table, Table)
    assert list(table.rows[0]) == ["match", "10", "–", "1.2", "2.00"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"), (True, "yes"), (1234567, "1,234,567"), (np.int64(-5), "−5"), (0.123456, "0.1235"),
        (float("nan"), "–"), (123456.7, "123,457"), ([1, 2], "1, 2"), ([], "–"),
        ({"a": 1.5}, "a: 1.5"), ("x", "x"), (-3.0, "−3"),
    ],
)  # fmt: skip
def test_values_are_shown_as_a_reader_wants_them(value: object, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.11, "0.110"),
        (-125.04, "−125"),
        (79.84, "79.8"),
        (1234.5, "1234"),
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.00"),
    ],
)
def test_measurements_have_three_significant_digits(value: float | None, expected: str) -> None:
    assert measured(value) == expected


def test_completeness_keeps_its_digits() -> None:
    rows = report_sections.cross_match({"gamma": 0.9999994267}, None).blocks[0]
    assert isinstance(rows, Table) and rows.rows[0][1] == "0.9999994267"
    assert percent(None) == "–" and percent(0.6826) == "68.3%"


def test_nested_data_becomes_rows() -> None:
    nested = {"a": {"b": {"c": 1}}, "list": [{"x": 1}, 2], "plain": [1, 2], "none": {}}
    assert list(flattened(nested)) == [
        ("a › b › c", 1),
        ("list › 1 › x", 1),
        ("list › 2", 2),
        ("plain", [1, 2]),
        ("none", {}),
    ]


def test_json_has_only_what_json_knows() -> None:
    found = plain_json(
        {1: np.float32(0.5), "p": Path("a/b"), "s": {2, 1}, "a": np.array([1.0, np.inf]), "b": np.bool_(True)}
    )
    assert found == {"1": 0.5, "p": "a/b", "s": [1, 2], "a": [1.0, None], "b": True}


def test_numbers_do_not_show_the_order_of_sums() -> None:
    assert number(0.1 + 0.2) == number(0.3) == 0.3
    assert number(float("nan")) is None and number(None) is None and number(-6.83719284) == -6.837193
