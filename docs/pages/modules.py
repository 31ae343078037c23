"""Stages, packages and modules, from their docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence

import stellarml
from pages.markdown import as_table, markdown

STAGE_MODULES = {
    "ingest": "stellarml.stages.ingest",
    "select": "stellarml.stages.select",
    "crossmatch": "stellarml.stages.crossmatch",
    "features": "stellarml.stages.features",
    "train": "stellarml.stages.train",
    "label": "stellarml.stages.label",
    "report": "stellarml.stages.report",
}


# Their order on the page; a package that is not named here comes last.
LAYERS = (
    "cli",
    "standalone",
    "stages",
    "report",
    "labelling",
    "training",
    "crossmatch",
    "model",
    "surveys",
    "intervals",
    "storage",
    "features",
    "simulate",
    "run",
    "core",
)


# Importing it is its work: it compiles and allocates for the workers that are forked from it.
NOT_IMPORTED = ("stellarml.cli.worker_daemon",)


def stages_page() -> str:
    """Return what each stage's module says of itself."""
    sections = []
    for stage, name in STAGE_MODULES.items():
        text = markdown(inspect.getdoc(importlib.import_module(name)) or "")
        sections.append(f"## {stage}\n\nModule `{name}`.\n\n{text}")
    return "\n\n".join(sections) + "\n"


def api_pages() -> dict[str, str]:
    """Return a page a package: its own docstring, then each of its modules."""
    return {package: _package_page(package, modules) for package, modules in packages().items()}


def api_index_page() -> str:
    """Return the packages in the order of their layers, from the top, with the first line of each."""
    rows = []
    for package in packages():
        doc = inspect.getdoc(importlib.import_module(package)) or ""
        rows.append((f"[{package}](_generated/{package}.md)", markdown(doc.partition("\n")[0])))
    return as_table(("package", "what it answers"), rows) + "\n"


def packages() -> dict[str, list[str]]:
    """Return every package with the modules that lie directly in it, in the order of the layers."""
    found: dict[str, list[str]] = {stellarml.__name__: []}
    for module in pkgutil.walk_packages(stellarml.__path__, f"{stellarml.__name__}."):
        if module.ispkg:
            found.setdefault(module.name, [])
        elif module.name not in NOT_IMPORTED and not module.name.endswith("__main__"):
            found.setdefault(module.name.rpartition(".")[0], []).append(module.name)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(package: str) -> tuple[int, str]:
    below = package.split(".")[1:]
    if not below:
        return -1, package
    return (LAYERS.index(below[0]) if below[0] in LAYERS else len(LAYERS)), package


def _package_page(package: str, modules: Sequence[str]) -> str:
    lines = [f"# {package}", "```{eval-rst}", f".. automodule:: {package}", "```"]
    for name in modules:
        lines += [f"## {name.removeprefix(package + '.')}", "```{eval-rst}", f".. automodule:: {name}"]
        lines += ["   :members:", "```"]
    text = "\n".join(f"\n{line}\n" if line.startswith("#") else line for line in lines)
    return text.lstrip() + "\n"
