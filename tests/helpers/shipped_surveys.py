"""Rows as an archive writes them, ingested with the descriptor that the project ships for that archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stellarml.core.config import load_config
from stellarml.crossmatch.kernel.settings import Sources
from stellarml.crossmatch.source_columns import to_sources
from stellarml.stages.ingest import ingest_survey
from stellarml.surveys.cuts import sentinels
from stellarml.surveys.descriptor import Descriptor, load_descriptor

Row = Mapping[str, str]
Changes = Mapping[str, tuple[str, Row]]
"""What is wrong with a row -> the cuts that it must fail, and the values that differ from a good row's."""


@dataclass(frozen=True)
class Ingested:
    """A table of the lake: its descriptor, its rows in the order of their ids, and its run.json."""

    descriptor: Descriptor
    table: pa.Table
    record: dict[str, Any]

    @property
    def ids(self) -> list[Any]:
        """The ids, ascending."""
        found: list[Any] = self.table[self.descriptor.id_column].to_pylist()
        return found

    def row(self, key: int | str) -> dict[str, Any]:
        """Return the row of an id."""
        rows = self.table.slice(self.ids.index(key), 1).to_pylist()
        found: dict[str, Any] = rows[0]
        return found

    def failed(self, key: int | str) -> set[str]:
        """Names of the cuts that the row fails."""
        bits = self.row(key)["cuts_failed"]
        return {cut.name for bit, cut in enumerate(self.descriptor.cuts) if bits >> bit & 1}

    def repaired(self, key: int | str) -> set[str]:
        """Columns of the row whose value became null."""
        bits = self.row(key)["repairs"]
        return {column for bit, column in enumerate(sentinels(self.descriptor)) if bits >> bit & 1}

    def sources(self) -> Sources:
        """What the match kernel is given of the rows, in their order."""
        return to_sources(self.table, self.descriptor)


def ingested(spark: Any, folder: Path, survey: str, file: Path, *enable: str) -> Ingested:
    """Ingest one raw file with a shipped descriptor; a row that cannot be read is an error.

    Parameters
    ----------
    enable
        Cuts that are off in the descriptor.
    """
    out = folder / f"lake-{file.stem}"
    (folder / "config.toml").write_text(f'[raw]\n{survey} = "{file}"\n[surveys]\nphotometry = "{survey}"\n')
    overrides = [f"paths.lake='{out}'", "ingest.max_rejected_fraction=0.0", f"cuts.enable={list(enable)}"]
    config = load_config(folder / "config.toml", overrides=overrides, environment={})
    record = ingest_survey(spark, config, survey)
    paths = [p for p in (out / survey / "dataset").rglob("*.parquet") if not p.name.startswith("_")]
    table = pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths])
    descriptor = load_descriptor(survey)
    return Ingested(descriptor, table.sort_by(descriptor.id_column), record)


def write_text(path: Path, rows: Sequence[Row], *, before: str = "", separator: str = ",") -> Path:
    """Write the line of names and the rows as text, every value as it is given."""
    names = list(rows[0])
    lines = [separator.join(names), *(separator.join(row[name] for name in names) for row in rows)]
    path.write_text(before + "\n".join(lines) + "\n")
    return path


def variants(good: Row, key: str, first: int, changes: Changes) -> tuple[list[Row], dict[str, int]]:
    """Return `good` and one copy a change, with ids from `first` on, and the id of each change."""
    ids = {what: first + number for number, what in enumerate(changes, 1)}
    copies = [{**good, **change, key: str(ids[what])} for what, (_, change) in changes.items()]
    return [{**good, key: str(first)}, *copies], ids


def check_cuts(found: Ingested, first: int, ids: Mapping[str, int], changes: Changes) -> None:
    """Check that the first row fails no cut, each change those that it is to fail, and that every cut has a change."""
    assert found.failed(first) == set()
    wanted = {what: set(cuts.split()) for what, (cuts, _) in changes.items()}
    assert {what: found.failed(ids[what]) for what in changes} == wanted
    assert set().union(*wanted.values()) == {cut.name for cut in found.descriptor.cuts}
