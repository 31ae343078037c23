"""Spark reads an expression as it was read when it was checked: the same plan from the given and the written text."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.expressions import HOSTILE, LEGITIMATE
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from stellarml.core.expressions import FUNCTIONS, safe_sql
from stellarml.core.shipped import shipped
from stellarml.features.feature_file import load_feature_file
from stellarml.surveys.descriptor import load_descriptor

DOUBLES = (
    "a",
    "b",
    "c",
    "g_mag",
    "distance",
    "ebv",
    "`B-V`",
    "`E(B-V)`",
    "`odd ``name`",
    "parallax",
    "pmra",
    "pmdec",
    "`select`",
    "reflectance",
    "table_flux",
)
SCHEMA = ", ".join(f"{name} double" for name in DOUBLES) + (
    ", i int, j int, repairs bigint, s string, flag boolean, xs array<double>, m map<string, double>, "
    "st struct<u: double, v: double>, t timestamp, d date"
)


@pytest.fixture(scope="module")
def frame(spark: Any) -> DataFrame:
    return spark.createDataFrame([], SCHEMA)  # type: ignore[no-any-return]


def plan(frame: DataFrame, text: str) -> Any:
    """Return the optimised plan of one expression, in Spark's canonical form."""
    chosen = frame.select(sf.expr(text).alias("x"))
    return chosen._jdf.queryExecution().optimizedPlan().canonicalized()


def test_the_written_text_means_what_was_given(frame: DataFrame) -> None:
    for expression in LEGITIMATE:
        assert plan(frame, expression).equals(plan(frame, safe_sql(expression))), safe_sql(expression)


def test_every_shipped_expression_means_what_was_given(spark: Any) -> None:
    for name in shipped("survey"):
        survey = load_descriptor(name)
        columns = {c.canonical: c.spark_type or "double" for c in survey.wanted()} | {"repairs": "long"}
        table = spark.createDataFrame([], ", ".join(f"`{n}` {kind}" for n, kind in columns.items()))
        for text in [*(cut.where for cut in survey.cuts), *survey.columns.null_when.values()]:
            assert plan(table, text).equals(plan(table, safe_sql(text))), text
    from stellarml.core.expressions import columns_of

    for name in shipped("feature file"):
        for feature in load_feature_file(name).features:
            columns_ = ", ".join(f"`{column}` double" for column in columns_of(feature.expression))
            table = spark.createDataFrame([], columns_)
            assert plan(table, feature.expression).equals(plan(table, safe_sql(feature.expression)))


def grown(rng: random.Random, depth: int, kind: str) -> str:
    """Return a random expression, a number or a condition, with few parentheses."""
    if depth == 0:
        return rng.choice(["a", "b", "c", "i", "2", "1.5", "1e2"] if kind == "number" else ["flag", "a > b"])
    inner = lambda k: grown(rng, depth - 1, k)  # noqa: E731
    if kind == "condition":
        return rng.choice(
            [
                f"{inner('condition')} and {inner('condition')}", f"{inner('condition')} or {inner('condition')}",
                f"not {inner('condition')}", f"({inner('condition')})", f"{inner('number')} < {inner('number')}",
                f"{inner('number')} is not null", f"{inner('number')} between {inner('number')} and {inner('number')}",
                f"{inner('number')} in (1, {inner('number')})", f"{inner('number')} <=> {inner('number')}",
            ]
        )  # fmt: skip
    operator = rng.choice(["+", "-", "*", "/", "%"])
    return rng.choice(
        [
            f"{inner('number')} {operator} {inner('number')}", f"{inner('number')} {operator} {inner('number')}",
            f"- {inner('number')}" if rng.random() < 0.5 else f"- ({inner('number')})", f"({inner('number')})",
            f"abs({inner('number')})", f"if({inner('condition')}, {inner('number')}, {inner('number')})",
            f"case when {inner('condition')} then {inner('number')} else {inner('number')} end",
            f"cast({inner('number')} as float)", f"coalesce({inner('number')}, {inner('number')})",
        ]
    )  # fmt: skip


def test_precedence_is_sparks_on_grown_expressions(frame: DataFrame) -> None:
    rng = random.Random(11)
    compared = 0
    for _ in range(150):
        text = grown(rng, rng.randint(1, 4), rng.choice(["number", "condition"]))
        try:
            given = plan(frame, text)
        except PySparkException:  # types that do not fit; Spark refuses the written text, too
            with pytest.raises(PySparkException):
                plan(frame, safe_sql(text))
            continue
        assert given.equals(plan(frame, safe_sql(text))), (text, safe_sql(text))
        compared += 1
    assert compared > 100


def test_what_is_written_is_one_expression_of_allowed_calls_to_spark(spark: Any) -> None:
    """Spark's own parser, on what was written of every expression that was let through."""
    parser = spark._jsparkSession.sessionState().sqlParser()
    through = 0
    for text in (*LEGITIMATE, *HOSTILE):
        try:
            written = safe_sql(text)
        except ValueError:
            continue
        through += 1
        tree = parser.parseExpression(written).toString().lower()
        for word in ("reflect(", "java_method", "subquery", "unresolvedidentifier", "passwd"):
            assert word not in tree, (text, written)
    assert through == len(LEGITIMATE) and "reflect" not in FUNCTIONS
