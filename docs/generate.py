"""Reference pages as Markdown, made from the code, so that they cannot say something else than the code does.

One pure function a page, in `pages`; `write_pages` puts what they return below ``_generated``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pages.columns import columns_page, flags_page
from pages.command_line import command_line_page
from pages.configuration import configuration_page
from pages.file_keys import feature_files_page, functions_page, survey_files_page
from pages.modules import api_index_page, api_pages, stages_page

import stellarml

VERSION = stellarml.__version__


def write_pages(docs: Path) -> None:
    """Write every generated page below `docs`; a page that would not change is not touched."""
    pages = {docs / "reference" / "_generated" / f"{name}_page.md": make() for name, make in PAGES.items()}
    api = docs / "api" / "_generated"
    pages |= {api / f"{name}.md": text for name, text in api_pages().items()}
    pages[api / "packages_page.md"] = api_index_page()
    for stale in (*api.glob("*.md"), *(docs / "reference" / "_generated").glob("*.md")):
        if stale not in pages:
            stale.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "command-line": command_line_page,
    "configuration": configuration_page,
    "columns": columns_page,
    "flags": flags_page,
    "survey-files": survey_files_page,
    "functions": functions_page,
    "feature-files": feature_files_page,
    "stages": stages_page,
}
