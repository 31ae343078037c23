"""The documents: links lead somewhere, examples load, the map is of this house, and the build has no warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import CHECKOUT

from stellarml.core.config import conf_dir, load_config
from stellarml.features.feature_file import load_feature_file
from stellarml.surveys.descriptor import load_descriptor

DOCS = CHECKOUT / "docs"
EXAMPLES = DOCS / "guide" / "examples"
WRITTEN = sorted(
    path
    for path in (*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md"))
    if not {"_build", "_generated"} & set(path.relative_to(CHECKOUT).parts)
)


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [t for t in targets if "://" not in t and "_generated" not in t and not t.startswith("mailto:")]
    assert [t for t in local if not (page.parent / t).exists()] == []


def test_every_decision_is_in_the_list() -> None:
    pages = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
    index = (DOCS / "decisions" / "index.md").read_text()
    assert [name[:4] for name in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for name in pages:
        assert f"]({name})" in index
        assert re.search(r"^\*\d{4}-\d{2}-\d{2}\b.*\*$", (DOCS / "decisions" / name).read_text(), re.M), name


def test_the_map_names_what_is_there() -> None:
    """CONTRIBUTING: every package of the house has a line, and every file of the ten changes exists."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    packages = {path.parent.name for path in (CHECKOUT / "stellarml").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    changes = text.split("## Ten typical changes")[1].split("##")[0]
    rows = [line for line in changes.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    for row in rows:
        files = re.findall(r"`((?:stellarml|tests|conf)/[^`]*)`", row)
        assert 1 <= len([f for f in files if not f.startswith("tests/")]) <= 3, row
        assert [f for f in files if "<" not in f and not (CHECKOUT / f).is_file()] == []


def test_the_examples_load() -> None:
    survey = load_descriptor(str(EXAMPLES / "my_survey.toml"))
    features = load_feature_file(EXAMPLES / "my_features.toml")
    assert survey.has_positions and len(survey.bands) == 2 and len(survey.cuts) == 1
    assert features.label_names == ("teff", "logg", "feh")
    assert all("{" not in feature.expression for feature in features.features)


def test_every_key_of_the_configuration_has_a_comment() -> None:
    lines = (conf_dir() / "base.toml").read_text().splitlines()
    keys = [line for line in lines if re.match(r"\w+ = ", line)]
    assert len(keys) > 50
    assert [line for line in keys if "#" not in line.partition(" = ")[2]] == []


def test_the_reference_is_made_from_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    pages = {name: make() for name, make in generate.PAGES.items()}
    assert all(len(text) > 500 for text in pages.values())
    for table, section in load_config(environment={}).model_dump().items():
        assert table == "root" or f"[{table}]" in pages["configuration"], section
    assert all(f"## {name}" in pages["command-line"] for name in ("demo", "match", "label", "doctor"))
    assert "| `COVARIANCE_PARTIAL` |" in pages["flags"] and "| `THIN_CALIBRATION` |" in pages["flags"]


@pytest.mark.slow
def test_the_build_has_no_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documents' tools are not installed: make docs, or make test")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "reference/flags", "guide/match", "decisions/index", "api/index"):
        assert (tmp_path / f"{page}.html").is_file()
