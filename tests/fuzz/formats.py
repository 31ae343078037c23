"""What is damaged and how it is read, a format at a time; an input is made again from the format's name and its seed.

An outcome is one of `OUTCOMES`. "whole", "rejects" and "refused" are what the readers promise; "foreign" is an
exception that is none of our own, an error that does not name its file, a file or host that was reached for; "lost" is
a row that is neither read nor rejected; "hang" is found by `run_fuzz`, from outside.

That the count of rows notices a lost row is shown in `tests/unit/test_fuzz.py` on readers that are broken on purpose:
one that does not count the rejects of a wrong number of columns, and one that drops the first row of a block.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from helpers.foreign_hats import Layout, field_of_stars, write_foreign
from helpers.places import CHECKOUT

from fuzz import mutations, samples
from fuzz.mutations import Lines
from stellarml.core.config import load_config
from stellarml.core.errors import StellarmlError
from stellarml.features.feature_file import load_feature_file
from stellarml.storage.hats_reader import open_catalogue, read_ranges
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.ingest_plan import settled_columns
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_readers import reader_of

OUTCOMES = ("whole", "rejects", "refused", "foreign", "lost", "hang")
GOOD = ("whole", "rejects", "refused")
CORPUS = CHECKOUT / "tests" / "fuzz" / "corpus"
_REACHED: list[str] = []
_WATCHED = ("socket.connect", "socket.getaddrinfo", "urllib.Request", "os.system")
_OUTSIDE = ("/etc/passwd", "http:", "ftp:")


@dataclass(frozen=True)
class Input:
    """One damaged file.

    place
        Where it lies in the folder of the sample that it belongs to; "" for a file on its own.
    rows
        How many rows or rejects it must give where that is known.
    """

    data: bytes
    name: str
    sample: int = 0
    place: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How one input was taken, and why, where that matters."""

    kind: str
    why: str = ""


class Format:
    """A format: its inputs by seed, and what reads them."""

    def __init__(
        self, name: str, make: Callable[[Random], Input], read: Callable[[Path, Input], tuple[int, int]]
    ):
        self.name = name
        self.make = make
        self._read = read

    def input(self, seed: int) -> Input:
        """Make the input of `seed` again."""
        return self.make(Random(f"{self.name} {seed}"))

    def run(self, given: Input, folder: Path) -> Outcome:
        """Write an input below `folder`, which is emptied, read it, and say how that went."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _REACHED.clear()
        try:
            rows, rejects = self._read(folder, given)
        except StellarmlError as error:
            if str(folder) not in str(error):
                return Outcome("foreign", f"an error that names no file: {str(error)[:200]}")
            if _REACHED:
                return Outcome("foreign", f"reached out: {_REACHED[0]}")
            return Outcome("refused", str(error)[:200])
        except Exception as error:
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "/stellarml/" in f.filename]
            place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "elsewhere"
            return Outcome("foreign", f"{type(error).__name__} in {place}: {str(error)[:120]}")
        if _REACHED:
            return Outcome("foreign", f"reached out: {_REACHED[0]}")
        if given.rows is not None and rows + rejects != given.rows:
            return Outcome("lost", f"{rows} rows and {rejects} rejects of {given.rows}")
        return Outcome("rejects" if rejects else "whole")


def watch() -> None:
    """Note from now on every connection and command that reading begins; it is not undone."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(_OUTSIDE)
        if opened or event in _WATCHED:
            _REACHED.append(f"{event} {arguments!r}"[:120])

    sys.addaudithook(hook)


@cache
def descriptor(typed: bool) -> Descriptor:
    """Return a survey that needs an id and a position and takes the rest where it is there."""
    more = [name for name in samples.table().column_names if name not in ("id", "ra", "dec")]
    types = {"id": "long", "gmag": "float", "n": "int", "good": "boolean", "name": "string"} if typed else {}
    return Descriptor(
        name="fuzz",
        kind="photometry",
        files={"format": "csv", "glob": "*"},
        position={"id": "id", "ra": "ra", "dec": "dec"},
        columns={"keep": more, "optional": more, "types": types},
    )


def _read_file(folder: Path, given: Input) -> tuple[int, int]:
    """Read a file as an ingest does; return its rows and rejects."""
    path = folder / given.name
    path.write_bytes(given.data)
    typed, block_bytes = bool(given.sample & 1), 64 if given.sample & 2 else 1 << 20
    survey = descriptor(typed)
    found = settled_columns(survey, find_files(survey, path))
    counts = []
    for parts in (False, True):
        rows = rejects = 0
        for number, header in enumerate(found.headers):
            reader, names, schema = (
                reader_of(header.file),
                list(found.sources[number]),
                found.read_schema(number),
            )
            for part in reader.parts(header, 300) if parts else [None]:
                for block in reader.blocks(header, names, schema, survey.files, block_bytes, part):
                    assert block.table.num_rows == len(block.lines)
                    for column, conversion in found.conversions[number].items():
                        conversion(block.table.column(column).combine_chunks())
                    rows, rejects = rows + block.table.num_rows, rejects + len(block.rejects)
        counts.append((rows, rejects))
    assert counts[0] == counts[1], f"{counts[0]} rows and rejects of the whole file, {counts[1]} of its parts"
    return counts[0]


def _lines_format(
    name: str, suffix: str, made: Callable[[], list[tuple[bytes, Lines]]], zipped: bool
) -> Format:
    def make(random: Random) -> Input:
        found = made()
        data, lines = random.choice(found)
        others = [other for other, _ in found] + _foreign_heads()
        how, rows = random.random(), None
        if how < 0.4:
            data = mutations.damaged_fields(random, data, lines)
            rows = lines.rows(data)
        elif how < 0.7 or not zipped:
            data = mutations.damaged(random, data, others)
        if zipped:
            data = mutations.zipped(random, data)
        if how >= 0.7 and zipped:
            data = mutations.damaged(random, data, [mutations.zipped(random, other) for other in others])
        return Input(data, f"x{suffix}{'.gz' if zipped else ''}", random.randrange(4), rows=rows)

    return Format(name, make, _read_file)


def _whole_format(
    name: str,
    suffix: str,
    made: Callable[[], Sequence[bytes]],
    inside: Callable[[Random, bytes], bytes] | None = None,
) -> Format:
    def make(random: Random) -> Input:
        found = made()
        data = random.choice(found)
        if inside is not None and random.random() < 0.6:
            data = inside(random, data)
        else:
            data = mutations.damaged(random, data, [*found, *_foreign_heads()])
        if random.random() < 0.1:
            return Input(mutations.zipped(random, data), f"x{suffix}.gz", random.randrange(4))
        return Input(data, f"x{suffix}", random.randrange(4))

    return Format(name, make, _read_file)


@cache
def _foreign_heads() -> list[bytes]:
    return [samples.parquet()[0], samples.fits()[0], samples.votable()["tabledata"][0], samples.ecsv()[0][0]]


def _toml_format(name: str, folder: Path, load: Callable[[Path], Any]) -> Format:
    paths = sorted(folder.glob("*.toml"))

    def make(random: Random) -> Input:
        found = [path.read_bytes() for path in paths]
        return Input(mutations.damaged(random, random.choice(found), found), "x.toml")

    def read(folder: Path, given: Input) -> tuple[int, int]:
        (folder / given.name).write_bytes(given.data)
        load(folder / given.name)
        return 0, 0

    return Format(name, make, read)


_HATS = (
    Layout(),
    Layout(suffix="/", files=2, partitions="metadata"),
    Layout(index="hpx", order=12, partitions="folders", statistics=False),
)


@cache
def _hats_samples() -> list[dict[str, bytes]]:
    """Return the files of each catalogue by their places; the last is a collection with a margin."""
    import tempfile

    found = []
    with tempfile.TemporaryDirectory() as folder:
        stars = field_of_stars(60).drop_columns(["field", "note", "lightcurve"])
        for number, layout in enumerate(_HATS):
            write_foreign(Path(folder, str(number)), stars, layout)
        collection = Path(folder, str(len(_HATS)))
        write_foreign(collection / "main", stars, Layout())
        told = {"dataproduct_type": "margin", "hats_margin_threshold": "10", "hats_primary_table_url": "main"}
        write_foreign(collection / "rim", stars, Layout(told=told))
        (collection / "collection.properties").write_text(
            "obs_collection=c\nhats_primary_table_url=main\nall_margins=rim\ndefault_margin=rim\n"
        )
        for number in range(len(_HATS) + 1):
            root = Path(folder, str(number))
            paths = [
                p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith((".crc", ".fits"))
            ]
            found.append({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})
    return found


def _make_hats(random: Random) -> Input:
    sample = random.randrange(len(_hats_samples()))
    files = _hats_samples()[sample]
    leading = [name for name in files if not name.endswith(".parquet")]
    place = random.choice(leading if random.random() < 0.7 else list(files))
    data = mutations.damaged(random, files[place], list(files.values()))
    return Input(data, "x", sample, place)


def _read_hats(folder: Path, given: Input) -> tuple[int, int]:
    for name, data in _hats_samples()[given.sample].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(given.data if name == given.place else data)
    catalogue = open_catalogue(folder)
    everything = np.array([[0, 12 << 58]])
    table = read_ranges(catalogue.leaves, everything, catalogue.schema.names, catalogue.schema)
    for margin in catalogue.margins:
        read_ranges(margin.leaves, everything, ["mag"], catalogue.schema)
    assert table.num_rows == catalogue.rows, f"{table.num_rows} rows read of {catalogue.rows}"
    return table.num_rows, 0


@cache
def _bundle_files() -> dict[str, bytes]:
    from helpers.model_tables import tiny_bundle

    return {path.name: path.read_bytes() for path in sorted(tiny_bundle().iterdir()) if path.is_file()}


def _make_bundle(random: Random) -> Input:
    files = _bundle_files()
    place = random.choice([*files, "bundle.json", "weights.npz"])
    data = mutations.damaged(random, files[place], list(files.values()))
    return Input(data, "x", random.randrange(3), place)


def _read_bundle(folder: Path, given: Input) -> tuple[int, int]:
    """Load a bundle; two times of three its hashes are made to fit, so that what lies behind them is read."""
    import json

    from stellarml.model.bundle import load_bundle
    from stellarml.model.manifest import sha256_of, signed

    files = _bundle_files() | {given.place: given.data}
    if given.sample:
        try:
            manifest = json.loads(files["bundle.json"])
            manifest["files"] = {name: sha256_of(files[name]) for name in manifest["files"]}
            files["bundle.json"] = json.dumps(signed(manifest)).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
    for name, data in files.items():
        (folder / name).write_bytes(data)
    load_bundle(folder)
    return 0, 0


def _votable(kind: str) -> list[bytes]:
    return samples.votable()[kind]


def _load_config(path: Path) -> None:
    load_config(path, environment={})


def _load_descriptor(path: Path) -> None:
    load_descriptor(str(path))


FORMATS = {
    found.name: found
    for found in (
        _lines_format("csv", ".csv", samples.csv, False),
        _lines_format("csv.gz", ".csv", samples.csv, True),
        _lines_format("tsv", ".tsv", samples.tsv, False),
        _lines_format("ecsv", ".ecsv", samples.ecsv, False),
        _lines_format("ecsv.gz", ".ecsv", samples.ecsv, True),
        _whole_format("fits", ".fits", samples.fits, mutations.damaged_cards),
        *(
            _whole_format(f"votable-{kind}", ".vot", partial(_votable, kind), mutations.damaged_xml)
            for kind in ("tabledata", "binary", "binary2")
        ),
        _whole_format("parquet", ".parquet", samples.parquet),
        _toml_format("config", CHECKOUT / "conf", _load_config),
        _toml_format("descriptor", CHECKOUT / "conf" / "surveys", _load_descriptor),
        _toml_format("features", CHECKOUT / "conf" / "features", load_feature_file),
        Format("hats", _make_hats, _read_hats),
        Format("bundle", _make_bundle, _read_bundle),
    )
}
"""Every format by its name; "bundle" trains a small network first, which takes TensorFlow."""


def corpus_files(name: str) -> list[Path]:
    """Return the inputs of a format that failed once."""
    folder = CORPUS / name
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def keep_in_corpus(name: str, seed: int) -> Path:
    """Write the input of a seed where the tests find it."""
    given = FORMATS[name].input(seed)
    place = given.place.replace("/", "~") or given.name
    rows = "" if given.rows is None else str(given.rows)
    path = CORPUS / name / f"{seed}@{given.sample}@{rows}@{place}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(given.data)
    return path


def from_corpus(path: Path) -> Input:
    """Return what `keep_in_corpus` wrote."""
    _, sample, rows, place = path.name.split("@", 3)
    expected = int(rows) if rows else None
    if path.parent.name in ("hats", "bundle"):
        return Input(path.read_bytes(), "x", int(sample), place.replace("~", "/"), expected)
    return Input(path.read_bytes(), place, int(sample), "", expected)
