"""Which code made an output: the sources that its stage's own imports reach, and no others.

A changed caption of the report must not read Gaia again, nor give a model another name; a changed cross-match must be
redone. So the digest of a stage is over its own module and everything of stellarml that it imports, directly or not,
lazily or not, and the data files beside those modules (templates). Imports for type checkers alone do not count, and
neither does the package's own ``__init__``: it offers names to users and is part of no stage.
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import stellarml
from stellarml.core.resources import package_folder

_ROOT = "stellarml"
_NO_DATA = (".py", ".pyc", ".nbi", ".nbc")  # sources by their imports; the rest is made by Python and numba


@cache
def code_identity(module: str) -> dict[str, str]:
    """Return version, commit (where the package is a git checkout) and the digest of what `module` reaches."""
    package = package_folder()
    return {
        "version": stellarml.__version__,
        "commit": _commit(package.parent),
        "digest": code_digest(module, package),
    }


@cache
def code_digest(module: str, package: Path) -> str:
    """Return the digest of the sources that `module` reaches, and of the data files beside them.

    Parameters
    ----------
    module
        Dotted name, such as ``stellarml.stages.ingest``.
    package
        The folder of stellarml.
    """
    sources = reached(module, package)
    folders = {path.parent for path in sources} - {package}
    data = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix not in _NO_DATA
        if _home(path) in folders
    }
    hasher = hashlib.sha256()
    for path in sorted(sources | data):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        hasher.update(f"{path.relative_to(package).as_posix()}:{content}\0".encode())
    return hasher.hexdigest()


def reached(module: str, package: Path) -> set[Path]:
    """Return the source files that `module` reaches by its imports, its own and its packages' included.

    Raises
    ------
    FileNotFoundError
        If there is no such module.
    """
    start = _file_of(module, package)
    if start is None:
        raise FileNotFoundError(f"{module}: is no module below {package}")
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in found or path == package / "__init__.py":
            continue
        found.add(path)
        packages = [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(package)]
        names = [name for name in _imports(path) if name.split(".")[0] == _ROOT]
        waiting += [file for name in names if (file := _file_of(name, package)) is not None]
        waiting += [init for init in packages if init.is_file()]
    return found


def _home(path: Path) -> Path:
    """Return the nearest folder above a data file that is a package."""
    return next(folder for folder in path.parents if (folder / "__init__.py").is_file())


def _file_of(name: str, package: Path) -> Path | None:
    """Return the file of a module; None where `name` is something inside of one."""
    base = package.joinpath(*name.split(".")[1:])
    if base.with_suffix(".py").is_file() and base != package:
        return base.with_suffix(".py")
    return base / "__init__.py" if (base / "__init__.py").is_file() else None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return every dotted name that a file imports when it runs."""
    return tuple(_imported(ast.parse(path.read_bytes())))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        for other in node.orelse:
            yield from _imported(other)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def _commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
