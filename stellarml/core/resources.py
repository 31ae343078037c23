"""Where the package's own files are, also when it is imported from an archive, as `spark-submit --py-files` does."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import stellarml


@cache
def package_folder() -> Path:
    """Return the package's folder; of a package inside an archive, a copy that lives as long as this process.

    Raises
    ------
    FileNotFoundError
        If the package is neither in a folder nor in a zip archive.
    """
    package = Path(stellarml.__file__).parent
    if package.is_dir():
        return package
    archive = next((path for path in package.parents if path.is_file()), None)
    if archive is None:
        raise FileNotFoundError(f"{package}: is neither a folder nor inside an archive")
    copy = Path(tempfile.mkdtemp(prefix="stellarml-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    with zipfile.ZipFile(archive) as stored:
        inside = package.relative_to(archive).as_posix() + "/"
        stored.extractall(copy, [name for name in stored.namelist() if name.startswith(inside)])
    return copy / package.relative_to(archive)
