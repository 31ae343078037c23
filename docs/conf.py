"""Configuration of Sphinx; `generate.py` writes the reference from the code before the pages are read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "stellarml"
author = "The stellarml developers"
copyright = "The stellarml developers, BSD-3-Clause"
version = release = generate.VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**/_generated/*_page.md"]
root_doc = "index"

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

add_module_names = False
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Docstrings write `name` for code, as in Markdown.
default_role = "code"

html_theme = "furo"
html_title = f"stellarml {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def _generate(app: Sphinx) -> None:
    generate.write_pages(Path(app.srcdir))


def _bars_are_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep ``|b|`` of a docstring from being taken for a substitution of reStructuredText."""
    lines[:] = [re.sub(r"(``.*?``|`.*?`)|\|", lambda m: m[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Write the generated pages as soon as a builder is known."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-process-docstring", _bars_are_bars)
