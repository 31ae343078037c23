"""How a table becomes the network's inputs: Spark column expressions from a feature file.

Expressions are written anew from their checked trees (`core.expressions`); `null_when` is laid into them by replacing
each named column with a CASE, so that one projection does everything and Spark can fuse it with the stage around it.
Results are float32; NaN, infinity and what is outside the range of its feature or label become null, which is the only
way a missing input is written. Mistakes are found by analysing the expressions, before any row is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.types import BooleanType, DataType, NullType, NumericType

from stellarml.core.errors import InputError, did_you_mean, nearest_names, raise_gathered
from stellarml.core.expressions import quoted, safe_sql
from stellarml.core.names import error_name
from stellarml.features.feature_file import FeatureFile
from stellarml.features.spark_ranges import stated_error, without_odd
from stellarml.run.spark_log import unlogged


def feature_columns(
    spec: FeatureFile, available_columns: Iterable[str], *, ranges: bool = True
) -> list[Column]:
    """Return the inputs as float32 columns, named and ordered as in `spec`; null means missing.

    Parameters
    ----------
    spec
        The feature file.
    available_columns
        Columns of the table, in any case.
    ranges
        Whether values outside the range of a feature are missing; else `spark_ranges.within_ranges` does that, and
        counts them.

    Raises
    ------
    InputError
        If `null_when` names a column that the table lacks.
    """
    masks = _masks(spec, available_columns)
    return [
        without_odd(_float32(safe_sql(f.expression, masks)), f.range if ranges else False).alias(f.name)
        for f in spec.features
    ]


def packed_features(spec: FeatureFile, available_columns: Iterable[str]) -> Column:
    """Return all inputs as one array of float32 a row, in the order of `spec`; NaN means missing.

    An array of 27 costs a third less than 27 columns on the way from the JVM to Python.

    Raises
    ------
    InputError
        If `null_when` names a column that the table lacks.
    """
    nothing = F.lit(float("nan")).cast("float")
    return F.array(*(F.coalesce(column, nothing) for column in feature_columns(spec, available_columns)))


def spark_label_columns(
    spec: FeatureFile, available_columns: Iterable[str], *, ranges: bool = True
) -> list[Column]:
    """Return the labels as float32 columns NAME, and e_NAME where `spec` names an error; null means unknown.

    An error that is not above 0 is none.

    Parameters
    ----------
    spec
        The feature file.
    available_columns
        Columns of the table, in any case.
    ranges
        Whether values outside the range of a label are unknown; else `spark_ranges.within_ranges` does that, and
        counts them.

    Raises
    ------
    InputError
        Gathering every label or error column that the table lacks.
    """
    known = list(available_columns)
    lowered = {c.lower() for c in known}
    masks = _masks(spec, known)
    problems, columns = [], []
    for label in spec.labels:
        for column, name in ((label.column, label.name), (label.error, error_name(label.name))):
            if column is None:
                continue
            if column.lower() not in lowered:
                problems.append(
                    f"label '{label.name}': no column '{column}' in the table.{did_you_mean(column, known)}"
                )
            else:
                value = _float32(safe_sql(quoted(column), masks))
                kept = (
                    without_odd(value, label.range if ranges else False)
                    if name == label.name
                    else stated_error(value)
                )
                columns.append(kept.alias(name))
    raise_gathered(InputError, "labels", problems)
    return columns


def check_features(df: DataFrame, spec: FeatureFile, known: Sequence[str] | None = None) -> None:
    """Analyse every expression against the columns of `df`, without reading a row.

    Parameters
    ----------
    known
        All columns of the table, for the messages, where `df` has some of them only.

    Raises
    ------
    InputError
        Gathering every missing column (with the nearest one and the features that need it), every syntax error and
        every expression that is not a number.
    """
    lowered = {c.lower() for c in df.columns}
    problems = list(_null_when_problems(spec, df.columns))
    masks = _masks_unchecked({c: w for c, w in spec.null_when.items() if c.lower() in lowered})
    expressions = {f.name: safe_sql(f.expression, masks) for f in spec.features}
    try:
        with unlogged():
            fields = df.select(*(F.expr(sql).alias(name) for name, sql in expressions.items())).schema.fields
        types: dict[str, DataType] = {field.name: field.dataType for field in fields}
    except AnalysisException:
        types, mistakes = _analyse_each(df, spec, expressions, known or df.columns)
        problems += mistakes
    for feature in spec.features:
        kind = types.get(feature.name)
        if kind is not None and not isinstance(kind, NumericType | BooleanType | NullType):
            problems.append(
                f"feature '{feature.name}': expression '{feature.expression}' is of type {kind.simpleString()}, "
                "expected a number"
            )
    raise_gathered(InputError, "features", problems)


def _masks(spec: FeatureFile, available: Iterable[str]) -> dict[str, str]:
    raise_gathered(InputError, "features", list(_null_when_problems(spec, available)))
    return _masks_unchecked(spec.null_when)


def _masks_unchecked(null_when: dict[str, str]) -> dict[str, str]:
    return {
        c.lower(): f"(CASE WHEN {safe_sql(where)} THEN NULL ELSE {quoted(c)} END)"
        for c, where in null_when.items()
    }


def _null_when_problems(spec: FeatureFile, available: Iterable[str]) -> Iterator[str]:
    known = list(available)
    lowered = {c.lower() for c in known}
    for column in spec.null_when:
        if column.lower() not in lowered:
            yield f"[null_when] names '{column}', which the table lacks.{did_you_mean(column, known)}"


def _float32(expression: str) -> Column:
    return F.expr(expression).cast("float")


def _analyse_each(
    df: DataFrame, spec: FeatureFile, expressions: dict[str, str], known: Sequence[str]
) -> tuple[dict[str, DataType], list[str]]:
    types: dict[str, DataType] = {}
    problems: list[str] = []
    needed_by: dict[str, list[str]] = {}
    with unlogged():
        for feature in spec.features:
            start = f"feature '{feature.name}': expression '{feature.expression}'"
            try:
                types[feature.name] = df.select(F.expr(expressions[feature.name])).schema.fields[0].dataType
            except ParseException as error:
                problems.append(f"{start} is not Spark SQL: {_first_line(error)}")
            except AnalysisException as error:
                missing = _missing_column(error)
                if missing is None:
                    problems.append(f"{start} does not fit the table: {_first_line(error)}")
                else:
                    needed_by.setdefault(missing, []).append(feature.name)
    for column, features in needed_by.items():
        problems.append(
            f"no column '{column}' in the table, needed by feature{'s' if len(features) > 1 else ''} "
            f"{', '.join(features)}; of its {len(known)} columns the nearest are {nearest_names(column, known)}."
        )
    return types, problems


def _missing_column(error: AnalysisException) -> str | None:
    if not (error.getCondition() or "").startswith("UNRESOLVED_COLUMN"):
        return None
    return (error.getMessageParameters() or {}).get("objectName", "?").replace("`", "")


def _first_line(error: AnalysisException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")
