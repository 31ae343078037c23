"""One table of a user's own, read by the readers that read surveys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from stellarml.core.errors import ChangedInputError, InputError, raise_gathered
from stellarml.core.expressions import quoted
from stellarml.run.fingerprint import file_fingerprint
from stellarml.run.log import get_logger
from stellarml.storage.hats_layout import is_catalogue
from stellarml.storage.hats_reader import open_catalogue
from stellarml.surveys.column_mapping import UNSIGNED_IN_SPARK, wider
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_files import describe, named_table, no_such_file
from stellarml.surveys.raw_reader import FileColumn, Header, Part
from stellarml.surveys.raw_readers import reader_of
from stellarml.surveys.text_types import scan_texts
from stellarml.surveys.unit_conversion import unit_factor

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PART_BYTES = 32 << 20
_LEAST_PART_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_SIGNED = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): UNSIGNED_IN_SPARK,
}
_WRITTEN = Files(
    format="csv",
    glob="*",
    null=(
        "",
        "null",
        "NULL",
        "Null",
        "NaN",
        "nan",
        "NAN",
        "None",
        "N/A",
        "n/a",
        "NA",
        "--",
        "---",
        "\\N",
        "<NA>",
    ),
)
_ROWS = _WRITTEN.model_copy(update={"comment": ""})
"""Comments stand above the names: a row that begins with their mark is a row."""


@dataclass(frozen=True)
class OwnTable:
    """A user's table: its files, all of the same kind of columns, read by the same readers as a survey's.

    columns
        As the files declare them; a text file declares no types.
    """

    path: Path
    headers: tuple[Header, ...]
    columns: tuple[FileColumn, ...]

    def fingerprints(self) -> list[dict[str, Any]]:
        """Return what the files are now: taken before and after they are read, they must be the same."""
        return [file_fingerprint(header.file.path) for header in self.headers]

    @property
    def names(self) -> list[str]:
        """Names of all its columns."""
        return [column.name for column in self.columns]

    def chosen(self, wanted: Iterable[str]) -> list[str]:
        """Return the columns that the words `wanted` name: the exact name, or the one that differs in case alone.

        Raises
        ------
        InputError
            If a word that is no column's exact name is several columns' in another case.
        """
        exact, by_lower = set(self.names), defaultdict(list)
        for name in self.names:
            by_lower[name.lower()].append(name)
        chosen: dict[str, str] = {}
        problems = []
        for word in dict.fromkeys(wanted):
            found = [word] if word in exact else by_lower.get(word.lower(), [])
            if len(found) > 1:
                problems.append(
                    f"'{word}' may be any of the columns {', '.join(found)}; write it as one of them"
                )
            elif found and chosen.setdefault(word.lower(), found[0]) != found[0]:
                problems.append(
                    f"both '{chosen[word.lower()]}' and '{found[0]}' are asked for, which Spark cannot tell apart; "
                    "rename one of them"
                )
        raise_gathered(InputError, str(self.path), problems)
        return [name for name in self.names if name in set(chosen.values())]


def refuse_changed(table: OwnTable, before: Sequence[dict[str, Any]]) -> None:
    """Refuse what was read of files that were replaced meanwhile.

    Raises
    ------
    ChangedInputError
        Naming them.
    """
    changed = [old["path"] for old, new in zip(before, table.fingerprints(), strict=True) if old != new]
    if changed:
        raise ChangedInputError(
            f"{', '.join(changed[:3])}: replaced while it was read. Nothing is written; run again."
        )


def open_table(path: Path, wanted: Iterable[str] = ()) -> OwnTable:
    """Look at a table before anything is started: its files and their columns.

    Parameters
    ----------
    path
        A file (Parquet, CSV, TSV, ECSV, FITS or VOTable, gzipped or not, whatever its name), a table of a file
        (``file.fits#NAME``), a folder of Parquet files, or a HATS catalogue.
    wanted
        Words that may name columns: of several tables in a file, the one that has most of them is taken.

    Raises
    ------
    InputError
        If it is missing, damaged, of no known format, or has several tables of which any could be meant.
    """
    files = [describe(file, _WRITTEN, "a table", table) for file, table in _files_of(path)]
    words = {word.lower() for word in wanted}
    headers = tuple(_chosen_header(reader_of(file).headers(file, _WRITTEN), words) for file in files)
    columns: dict[str, FileColumn] = {}
    problems = []
    for header in headers:
        for column in header.columns:
            known = columns.setdefault(column.name, column)
            if known.unit and column.unit and unit_factor(column.unit, known.unit) != 1.0:
                problems.append(
                    f"{header.place}: column '{column.name}' is in '{column.unit}', in other files in '{known.unit}'"
                )
    raise_gathered(InputError, str(path), problems)
    return OwnTable(path, headers, tuple(columns.values()))


def _files_of(path: Path) -> list[tuple[Path, str | None]]:
    if path.is_dir() and is_catalogue(path):
        return [(file, None) for leaf in open_catalogue(path).leaves for file in leaf.paths]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith((".", "_")))
        if not found:
            raise InputError(f"{path}: holds no Parquet file and is no HATS catalogue; name a file.")
        return [(file, None) for file in found]
    file, table = named_table(path)
    if not file.exists():
        raise no_such_file(path, "a table")
    return [(file, table)]


def _chosen_header(headers: Sequence[Header], words: set[str]) -> Header:
    """Return the header of the tables of a file that have most of the wanted columns.

    Raises
    ------
    InputError
        If several have as many.
    """
    counts = [len(words & {column.name.lower() for column in header.columns}) for header in headers]
    best = [header for header, count in zip(headers, counts, strict=True) if count == max(counts)]
    if len(best) > 1:
        titles = [title for header in best for title in header.titles]
        raise InputError(
            f"{best[0].file.path}: several tables with different columns could be meant: {', '.join(titles)}. "
            f"Name one, as in '{best[0].file.path}#{titles[0]}'."
        )
    return best[0]


def read_table(
    spark: SparkSession, table: OwnTable | Path, wanted: Iterable[str] | None = None, id_column: str = ""
) -> DataFrame:
    """Return the rows of a table in the order of its files; of its columns those that `wanted` names, or all.

    A text file's types are those that hold all its values; ids of a text file stay text unless they are whole numbers
    to the letter: 0007 is not 7. Units that a file states stay with the columns as Spark metadata.

    Raises
    ------
    InputError
        If the file is damaged, a line is no row, or a wanted column is of a type that cannot be read.
    """
    from pyspark.sql import functions as sf

    table = open_table(table) if isinstance(table, Path) else table
    names = table.names if wanted is None else table.chosen([*wanted, id_column])
    schema = _types(table, names, id_column)
    frame = _frame(spark, table, schema)
    units = {column.name: column.unit or "" for column in table.columns}
    return frame.select(*(sf.col(quoted(n)).alias(n, metadata={"unit": units[n]}) for n in schema.names))


def _types(table: OwnTable, names: Sequence[str], id_column: str) -> pa.Schema:
    """Return what each column is read as: a type that holds the values of all files, and that Spark knows."""
    kinds: dict[str, pa.DataType] = dict.fromkeys(names, pa.null())
    texts = [header for header in table.headers if header.file.family == "text"]
    untyped = [[c.name for c in h.columns if c.type is None and c.name in kinds] for h in texts]
    for header, scan in zip(texts, scan_texts(texts, untyped, _ROWS), strict=True):
        if scan.rejects:
            line, reason = scan.rejects[0]
            more = f", and {scan.rejected - 1} more lines" if scan.rejected > 1 else ""
            raise InputError(
                f"{header.file.path} line {line}: {reason}{more}. Correct the file: no row is left out."
            )
        for name, guess in scan.guesses.items():
            is_id = name.lower() == id_column.lower()
            kinds[name] = wider(kinds[name], guess.type(exact=is_id))
            if guess.odd and not is_id and not guess.truth:
                line, value = guess.odd
                get_logger().info(
                    f"{header.place}: column '{name}' is text, since line {line} holds '{value[:40]}'"
                )
    problems = []
    for header in table.headers:
        for column in header.columns:
            if column.name in kinds and column.type is not None:
                kind = _known_to_spark(column.type)
                if kind is None:
                    problems.append(
                        f"{header.place}: column '{column.name}' is of type {column.type}, which Spark "
                        "does not know; convert it"
                    )
                    continue
                kinds[column.name] = wider(kinds[column.name], kind)
    raise_gathered(InputError, "columns", problems)
    fields = [pa.field(n, pa.float64() if pa.types.is_null(kind) else kind) for n, kind in kinds.items()]
    return pa.schema(fields)


def _known_to_spark(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which Spark takes a column of a file, None where it has none."""
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import from_arrow_type

    if kind in _SIGNED:
        return _SIGNED[kind]
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_list(kind):
        inner = _known_to_spark(kind.value_type)
        return None if inner is None else pa.list_(inner)
    try:
        from_arrow_type(kind)
    except PySparkException:
        return None
    return kind


def _frame(spark: SparkSession, table: OwnTable, schema: pa.Schema) -> DataFrame:
    """Return the rows: FITS and VOTable are read here, the others in parts where the tasks run."""
    from pyspark.sql.pandas.types import from_arrow_schema

    parts = _parts(table, spark.sparkContext.defaultParallelism)
    if not parts:
        return spark.createDataFrame([], from_arrow_schema(schema))

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                header, part = parts[number]
                for rows in _rows(header, part, schema):
                    yield from rows.combine_chunks().to_batches()

    if all(header.file.family in ("fits", "votable") for header, _ in parts):
        rows = pa.concat_tables(
            [schema.empty_table(), *(r for header, part in parts for r in _rows(header, part, schema))]
        )
        return spark.createDataFrame(rows, from_arrow_schema(schema))
    numbers = spark.range(0, len(parts), 1, len(parts))
    return numbers.mapInArrow(read, from_arrow_schema(schema))


def _parts(table: OwnTable, cores: int) -> list[tuple[Header, Part | None]]:
    """Return the pieces that tasks read: a few for each core, none of them large."""
    size = sum(header.file.size for header in table.headers)
    part_bytes = min(_PART_BYTES, max(_LEAST_PART_BYTES, size // (2 * cores)))
    return [
        (header, part)
        for header in table.headers
        for part in reader_of(header.file).parts(header, part_bytes)
    ]


def _rows(header: Header, part: Part | None, schema: pa.Schema) -> Iterator[pa.Table]:
    known = {column.name for column in header.columns}
    names = [name if name in known else None for name in schema.names]
    for block in reader_of(header.file).blocks(header, names, schema, _ROWS, _BLOCK_BYTES, part):
        if block.rejects:
            line, reason = block.rejects[0]
            raise InputError(f"{header.place} row {line}: {reason}.")
        yield block.table
