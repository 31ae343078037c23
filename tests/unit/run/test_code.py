"""Which code counts for which stage: a changed plot reads no survey again, a changed kernel does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stellarml.core.resources import package_folder
from stellarml.run.code import code_digest, code_identity, reached
from stellarml.stages.chain import STAGES

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    return Path(shutil.copytree(package_folder(), tmp_path / "stellarml", ignore=ignored))


def digests(package: Path) -> dict[str, str]:
    code_digest.cache_clear()
    reached.__globals__["_imports"].cache_clear()
    return {stage: code_digest(f"stellarml.stages.{stage}", package) for stage in STAGES}


def changed_by(package: Path, *planted: str) -> set[str]:
    """Return the stages whose digest a further line in each of `planted` changes."""
    before = digests(package)
    for name in planted:
        with (package / name).open("a") as stream:
            stream.write("\nPLANTED = 1\n")
    after = digests(package)
    return {stage for stage in STAGES if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("planted", "stages"),
    [
        ("report/plot_sky.py", {"report"}),
        ("report/templates/report.html.j2", {"report"}),
        ("crossmatch/kernel/pairs.py", {"crossmatch", "features"}),
        ("training/optimiser.py", {"train"}),
        ("labelling/label_leaf.py", {"label"}),
        ("surveys/text_parser.py", {"ingest"}),
        ("stages/ingest.py", {"ingest"}),
        ("simulate/dust.py", set()),
        ("cli/summary.py", set()),
        ("stages/chain.py", set()),
        ("__init__.py", set()),
        ("core/errors.py", set(STAGES)),
    ],
)
def test_a_change_counts_where_imports_lead_to_it(package: Path, planted: str, stages: set[str]) -> None:
    assert (package / planted).is_file()
    assert changed_by(package, planted) == stages


def test_a_moved_file_counts(package: Path) -> None:
    before = digests(package)
    source = package / "report" / "plot_sky.py"
    source.write_text(
        source.read_text().replace("from stellarml.report.plot_style", "from stellarml.report.style")
    )
    (package / "report" / "plot_style.py").rename(package / "report" / "style.py")
    assert digests(package)["report"] != before["report"]


def test_lazy_imports_count_and_those_of_type_checkers_do_not(tmp_path: Path) -> None:
    package = tmp_path / "stellarml"
    for folder in (package, package / "a"):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (package / "a" / "start.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import stellarml\n"
        "if TYPE_CHECKING:\n    from stellarml.a import typed\n"
        "else:\n    import stellarml.a.other\n"
        "def f():\n    try:\n        from stellarml.a.lazy import g\n    except ImportError:\n        pass\n"
        "    return g\n"
    )
    for name in ("typed", "other", "lazy", "deep", "alone"):
        (package / "a" / f"{name}.py").write_text("")
    (package / "a" / "lazy.py").write_text(
        "from stellarml.a import deep\nfrom stellarml.a.start import f\ng = 1\n"
    )
    names = {path.name for path in reached("stellarml.a.start", package)}
    assert names == {"start.py", "other.py", "lazy.py", "deep.py", "__init__.py"}
    assert package / "__init__.py" not in reached("stellarml.a.start", package)
    with pytest.raises(FileNotFoundError, match=r"stellarml\.a\.gone"):
        reached("stellarml.a.gone", package)


def test_identity_of_this_checkout() -> None:
    found = code_identity("stellarml.stages.label")
    assert len(found["digest"]) == 64 and found["version"]
    assert found["digest"] == code_digest("stellarml.stages.label", package_folder())
    assert found["digest"] != code_identity("stellarml.stages.ingest")["digest"]
