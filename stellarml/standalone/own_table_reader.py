"""One table of a user's own, read by its suffix, and what is checked before it teaches or is labelled.

Units that a FITS, VOTable or ECSV file states stay with the columns as Spark metadata.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellarml.core.errors import InputError, raise_gathered
from stellarml.core.files import literal
from stellarml.features.feature_file import FeatureFile
from stellarml.storage.hats_layout import is_catalogue
from stellarml.storage.hats_reader import open_catalogue
from stellarml.surveys.column_mapping import EXACT_IN_FLOAT64

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_ASTRONOMY = {
    ".fits": "fits",
    ".fits.gz": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
    ".ecsv": "ascii.ecsv",
}


def read_table(spark: SparkSession, path: Path, id_column: str = "") -> DataFrame:
    """Read a table by its suffix: Parquet (file or folder), HATS catalogue, CSV, TSV, FITS, VOTable or ECSV.

    Ids of a text file stay text unless they are whole numbers to the letter: 0007 is not 7.

    Raises
    ------
    InputError
        If it is missing, damaged, or of another format.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    suffix = ("".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix).lower()
    if path.is_dir() and is_catalogue(path):
        leaves = [literal(file) for leaf in open_catalogue(path).leaves for file in leaf.paths]
        return _spark_read(path, lambda: spark.read.parquet(*leaves))
    if path.is_dir() or suffix == ".parquet":
        return _spark_read(path, lambda: spark.read.parquet(literal(path)))
    if suffix in _TEXT:
        delimiter = "\t" if ".tsv" in suffix else ","
        reader = spark.read.option("header", "true").option("nanValue", "nan").option("sep", delimiter)
        frame = _spark_read(path, lambda: reader.option("inferSchema", "true").csv(literal(path)))
        schema = _with_ids_as_text(frame, id_column)
        if schema is not None:
            text = _spark_read(path, lambda: reader.schema(schema).csv(literal(path)))
            frame = frame if _whole_numbers(text, id_column) else text
        return _empty_as_numbers(frame)
    if suffix in _ASTRONOMY:
        return _read_astropy(spark, path, _ASTRONOMY[suffix])
    known = ", ".join((".parquet", *_TEXT, *_ASTRONOMY))
    raise InputError(f"{path}: unknown format '{suffix}'; expected one of {known}")


def _empty_as_numbers(frame: DataFrame) -> DataFrame:
    """Take columns of text without any value, as Spark reads them, for missing numbers."""
    from pyspark.sql import functions as sf

    words = [name for name, kind in frame.dtypes if kind == "string"]
    row = frame.agg(*(sf.count(sf.col(f"`{name}`")) for name in words)).first() if words else None
    empty = [name for name, count in zip(words, row or (), strict=True) if count == 0]
    return frame.withColumns({name: sf.lit(None).cast("double") for name in empty}) if empty else frame


def _spark_read(path: Path, read: Callable[[], DataFrame]) -> DataFrame:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return read()
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]})") from None


def _with_ids_as_text(frame: DataFrame, id_column: str) -> Any:
    """Return the schema with ids as text; None where there are none, or they are text anyway."""
    from pyspark.sql.types import StringType, StructField, StructType

    fields = [
        StructField(f.name, StringType()) if f.name.lower() == id_column.lower() else f for f in frame.schema
    ]
    return None if fields == list(frame.schema.fields) else StructType(fields)


def _whole_numbers(frame: DataFrame, id_column: str) -> bool:
    from pyspark.sql import functions as sf

    text = sf.col(f"`{id_column}`")
    changed = sf.coalesce(sf.expr(f"try_cast(`{id_column}` AS bigint)").cast("string") != text, sf.lit(True))
    return frame.filter(text.isNotNull() & changed).isEmpty()


def _read_astropy(spark: SparkSession, path: Path, kind: str) -> DataFrame:
    from astropy.table import Table
    from pyspark.sql import functions as sf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = Table.read(path, format=kind)
            table.convert_bytestring_to_unicode()
            units = {name: str(table[name].unit or "") for name in table.colnames}
            rows = table.to_pandas()
        except Exception as error:
            raise InputError(f"{path}: is not a readable {kind} file ({error})") from None
    return spark.createDataFrame(rows).select(
        *(sf.col(f"`{name}`").alias(name, metadata={"unit": unit}) for name, unit in units.items())
    )


def check_units(frame: DataFrame, spec: FeatureFile, *, labels: bool = False) -> None:
    """Compare the units that a file states with those of the feature file, where that names the column alone.

    Units that astropy does not know, and those of another kind (mag beside dex), are left to the user.

    Raises
    ------
    InputError
        Naming every column in another unit of the same kind: kK for K, mmag for mag.
    """
    stated = {f.name.lower(): (f.metadata or {}).get("unit", "") for f in frame.schema}
    wanted = [(f.expression.strip().strip("`"), f.unit) for f in spec.features]
    if labels:
        wanted += [(c, label.unit) for label in spec.labels for c in (label.column, label.error) if c]
    problems = [
        f"column '{column}' is in '{stated[column.lower()]}', the feature file says '{unit}'. Convert the column, or "
        "write the conversion into the feature file."
        for column, unit in wanted
        if unit and stated.get(column.lower()) and _differ(stated[column.lower()], unit)
    ]
    raise_gathered(InputError, "units", problems)


def _differ(stated: str, expected: str) -> bool:
    from astropy import units

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found, wanted = (units.Unit(text) for text in (stated, expected))
            found, wanted = (getattr(unit, "function_unit", unit) for unit in (found, wanted))
            return abs(float(found.to(wanted)) - 1.0) > 1e-9
        except (ValueError, TypeError):  # unknown to astropy, or of different kinds
            return False


def check_labels(frame: DataFrame, spec: FeatureFile) -> None:
    """Refuse labels and their errors that are not numbers; columns that are missing are reported elsewhere.

    Raises
    ------
    InputError
        Naming every such column, with a value that is none.
    """
    from pyspark.sql import functions as sf

    kinds = {name.lower(): kind for name, kind in frame.dtypes}
    problems = []
    for label in spec.labels:
        for column in (label.column, label.error):
            kind = kinds.get((column or "").lower())
            if column is None or kind not in ("string", "boolean", "binary", "date", "timestamp"):
                continue
            text = sf.col(f"`{column}`").cast("string")
            odd = frame.select(text.alias("odd")).filter(
                "odd IS NOT NULL AND try_cast(odd AS double) IS NULL"
            )
            row = odd.first()
            example = f", for example '{row['odd']}'" if row else ""
            problems.append(
                f"label '{label.name}': column '{column}' is of type {kind}, expected numbers{example}"
            )
    raise_gathered(InputError, "labels", problems)


def check_ids(frame: DataFrame, id_column: str) -> None:
    """Refuse ids that are floating-point numbers too large to be distinguished.

    Raises
    ------
    InputError
        If an id is 2^53 or more, beyond which a float stands for several whole numbers.
    """
    from pyspark.sql import functions as sf

    kind = {name.lower(): kind for name, kind in frame.dtypes}.get(id_column.lower())
    if kind not in ("double", "float"):
        return
    limit = EXACT_IN_FLOAT64 if kind == "double" else 1 << 24
    row = frame.agg(sf.max(sf.nanvl(sf.abs(sf.col(f"`{id_column}`")), sf.lit(0.0)))).first()
    if row is not None and row[0] is not None and row[0] >= limit:
        raise InputError(
            f"column '{id_column}' holds ids as floating-point numbers ({kind}) up to {row[0]:.6g}, which stands for "
            "several whole numbers: ids were lost when the table was made. Write them as 64-bit integers or text."
        )
