"""What is checked of a user's own table before it teaches or is labelled: units, labels, ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stellarml.core.errors import InputError, raise_gathered
from stellarml.core.expressions import quoted
from stellarml.features.feature_file import FeatureFile
from stellarml.surveys.column_mapping import EXACT_IN_FLOAT64
from stellarml.surveys.raw_reader import FileColumn
from stellarml.surveys.unit_conversion import unit_factor

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def check_units(columns: Sequence[FileColumn], spec: FeatureFile, *, labels: bool = False) -> None:
    """Compare the units that a file states with those of the feature file, where that names the column alone.

    Units that are not known, and mag beside dex, are left to the user.

    Raises
    ------
    InputError
        Naming every column in another unit: kK for K, mmag or Jy for mag.
    """
    stated = {column.name.lower(): column.unit or "" for column in columns}
    wanted = [(f.expression.strip().strip("`"), f.unit) for f in spec.features]
    if labels:
        wanted += [(c, label.unit) for label in spec.labels for c in (label.column, label.error) if c]
    problems = [
        f"column '{column}' is in '{stated[column.lower()]}', the feature file says '{unit}'. Convert the column, or "
        "write the conversion into the feature file."
        for column, unit in wanted
        if unit and stated.get(column.lower()) and unit_factor(stated[column.lower()], unit) != 1.0
    ]
    raise_gathered(InputError, "units", problems)


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
            text = sf.col(quoted(column)).cast("string")
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
    row = frame.agg(sf.max(sf.nanvl(sf.abs(sf.col(quoted(id_column))), sf.lit(0.0)))).first()
    if row is not None and row[0] is not None and row[0] >= limit:
        raise InputError(
            f"column '{id_column}' holds ids as floating-point numbers ({kind}) up to {row[0]:.6g}, which stands for "
            "several whole numbers: ids were lost when the table was made. Write them as 64-bit integers or text."
        )
