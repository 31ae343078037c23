"""Nothing runs that was not understood: hostile expressions are refused, those that people write are not."""

from __future__ import annotations

import random
import re

import pytest
from helpers.expressions import HOSTILE, LEGITIMATE

from stellarml.core.expressions import FUNCTIONS, check_expression, columns_of, safe_sql
from stellarml.core.shipped import shipped
from stellarml.features.feature_file import load_feature_file
from stellarml.surveys.descriptor import load_descriptor

_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*\(")
_QUOTED = re.compile(r"`(?:[^`]|``)*`|'(?:[^'\\]|\\.)*'")
SYNTAX = {"CAST", "TRY_CAST", "IN", "AND", "OR", "NOT", "WHEN", "THEN", "ELSE", "BETWEEN", "CASE", "DECIMAL", "DIV",
          "LIKE", "RLIKE", "FROM", "IS"}  # fmt: skip


def calls(text: str) -> set[str]:
    """Return what a written text calls, outside quotes."""
    return {name for name in _CALL.findall(_QUOTED.sub("q", text)) if name.upper() not in SYNTAX}


def test_there_are_enough_of_both() -> None:
    assert len(set(HOSTILE)) >= 500 and len(set(LEGITIMATE)) >= 130


def test_what_people_write_is_allowed() -> None:
    for expression in LEGITIMATE:
        assert check_expression(expression) == expression
        assert calls(safe_sql(expression)) <= FUNCTIONS
        assert safe_sql(safe_sql(expression)), "what is written is itself allowed"


def test_every_shipped_expression_is_allowed() -> None:
    texts = [f.expression for name in shipped("feature file") for f in load_feature_file(name).features]
    for name in shipped("survey"):
        survey = load_descriptor(name)
        texts += [cut.where for cut in survey.cuts] + list(survey.columns.null_when.values())
    assert len(texts) > 90
    for text in texts:
        assert calls(safe_sql(text)) <= FUNCTIONS and columns_of(text)


def test_what_is_hostile_is_refused() -> None:
    for expression in HOSTILE:
        with pytest.raises(ValueError, match=r"holds|is not"):
            check_expression(expression)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("reflect('a', 'b')", "the function 'reflect', which is not among those allowed"),
        ("g > (select 1)", "a query"),
        ("a & b | c", "different bit operators side by side, without parentheses"),
        ("a +", "is not Spark SQL"),
        ("", "is not one expression"),
        ("a; b", "is not"),
        ("(" * 5000 + "a" + ")" * 5000, "nested too deeply|is not Spark SQL"),
        ("a" + " + a" * 10_000, "at most 20000 are taken"),
        ("array(1, 2)[0]", "element_at"),
        ("a || b", "write concat"),
        ("s = 'it''s'", "two texts side by side"),
    ],
)
def test_the_reason_is_said(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_expression(expression)


def test_a_fuzzed_expression_is_refused_or_calls_what_is_allowed() -> None:
    """Pieces of good and bad expressions put together at random: no other error, and no other call, comes out."""
    rng = random.Random(7)
    words = [word for text in (*LEGITIMATE, *HOSTILE) for word in re.findall(r"\w+|\W", text)]
    accepted = 0
    for _ in range(3000):
        text = "".join(rng.choice(words) for _ in range(rng.randint(1, 12)))
        try:
            written = safe_sql(text)
        except ValueError:
            continue
        accepted += 1
        assert calls(written) <= FUNCTIONS, (text, written)
    assert accepted > 100


def test_columns_are_replaced_but_not_what_a_lambda_binds() -> None:
    masks = {"a": "(M)", "x": "(X)"}
    assert safe_sql("A + `a` + t.a + 'a'", masks) == "((((M) + (M)) + `t`.`a`) + 'a')"
    assert safe_sql("transform(a, x -> x + a)", masks) == "transform((M), `x` -> (`x` + (M)))"
    assert safe_sql("transform(a, X -> x + 1)", masks) == "transform((M), `X` -> (`x` + 1))"
    assert safe_sql("abs(x)", masks) == "abs((X))"


@pytest.mark.parametrize("text", ["it's", "a\\b", "a\\' or 1", "\\", "'", "\n", "é☆", "--", "/*"])
def test_texts_are_written_as_they_were(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    assert safe_sql(f"s = '{escaped}'") == f"(`s` = '{escaped}')"
