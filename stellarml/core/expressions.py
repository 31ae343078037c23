"""SQL expressions that people send each other: parsed, checked node by node, and written anew for Spark.

Descriptors, feature files and bundles hold Spark SQL over the columns of a row. Spark's SQL can call any static method
of Java and read any file, so nothing is run that was not understood: sqlglot parses an expression in Spark's dialect,
every node must be of a kind and every function of a name that is listed here, and what Spark is given is text that
`safe_sql` writes from the checked tree. A place where the two parsers read a text differently can change a value, never
run something else; tests/spark/features/test_expressions_in_spark.py shows that they agree on what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

if TYPE_CHECKING:
    from sqlglot import exp

MOST_CHARACTERS = 20_000
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


FUNCTIONS = _words(
    "abs acos acosh asin asinh atan atan2 atanh bround cbrt ceil ceiling cos cosh cot csc degrees e exp expm1 floor",
    "greatest hypot least ln log log10 log1p log2 mod negative pi pmod positive pow power radians rint round sec sign",
    "signum sin sinh sqrt tan tanh try_add try_divide try_multiply try_subtract width_bucket",
    "bit_count bit_get getbit shiftleft shiftright shiftrightunsigned",
    "coalesce if ifnull isnan isnotnull isnull nanvl nullif nullifzero nvl nvl2 zeroifnull",
    "bigint boolean decimal double float int smallint string tinyint",
    "char_length character_length concat contains endswith instr length locate lower ltrim replace rtrim split_part",
    "startswith substr substring trim upper",
    "array_contains array_max array_min array_position cardinality element_at get size slice try_element_at",
    "aggregate array exists filter forall map reduce transform",
    "date_diff datediff day dayofmonth dayofyear hour minute month second to_date unix_seconds year",
)
"""What an expression may call: functions of the values of a row that are the same at every time and place."""
_TYPES = _words(
    "BIGINT BOOLEAN DATE DECIMAL DOUBLE FLOAT INT SMALLINT TEXT TIMESTAMP TIMESTAMPLTZ TIMESTAMPNTZ TINYINT"
)
_SPARK_TYPES = {"TEXT": "STRING", "TIMESTAMPLTZ": "TIMESTAMP", "TIMESTAMPNTZ": "TIMESTAMP_NTZ"}
_BINARY = {
    "Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%", "IntDiv": "DIV", "BitwiseAnd": "&", "BitwiseOr": "|",
    "BitwiseXor": "^", "BitwiseLeftShift": "<<", "BitwiseRightShift": ">>", "EQ": "=", "NEQ": "<>", "LT": "<",
    "LTE": "<=", "GT": ">", "GTE": ">=", "NullSafeEQ": "<=>", "NullSafeNEQ": "IS DISTINCT FROM", "And": "AND",
    "Or": "OR", "Like": "LIKE", "RegexpLike": "RLIKE",
}  # fmt: skip
_LIKE = ("Like", "RegexpLike")
_UNARY = {"Neg": "-", "BitwiseNot": "~", "Not": "NOT "}
_CONSTANTS = _words(
    "current_catalog current_database current_date current_schema current_time current_timestamp current_user",
    "grouping__id localtime localtimestamp session_user user",
)
"""Names that Spark takes for a function without parentheses where no column has them."""
_BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseLeftShift", "BitwiseRightShift")


def check_expression(expression: str) -> str:
    """Return `expression` if all it can do is compute with a row's columns.

    Raises
    ------
    ValueError
        If it is no Spark SQL, or holds anything that is not listed as allowed.
    """
    _written(expression)
    return expression


Sql = Annotated[str, AfterValidator(check_expression)]
"""A Spark SQL expression over the columns of a row, as surveys and feature files hold it."""


def safe_sql(expression: str, replacements: Mapping[str, str] | None = None) -> str:
    """Return the text for Spark that was written from the checked tree of an expression.

    Parameters
    ----------
    replacements
        From a column's name in lower case to the SQL that stands for it, itself made by this function.

    Raises
    ------
    ValueError
        As `check_expression`.

    Examples
    --------
    >>> safe_sql("log10(u) + U - t.u - 'u'", {"u": "(x)"})
    "(((log10((x)) + (x)) - `t`.`u`) - 'u')"
    """
    return _Writer(expression, dict(replacements or {})).write() if replacements else _written(expression)


def columns_of(expression: str) -> list[str]:
    """Return the columns that a SQL expression names, in their order; of a field of a column, the column.

    Raises
    ------
    ValueError
        As `check_expression`.

    Examples
    --------
    >>> columns_of("if(u > 0, log10(`B-V`), transform(xp, x -> x + 1)[0])")
    ['u', 'B-V', 'xp']
    """
    from sqlglot import exp

    _written(expression)
    found = [column.parts[0].name for column in _tree(expression).find_all(exp.Column, bfs=False)]
    return list(dict.fromkeys(found))


def quoted(name: str) -> str:
    """Return a column's name as Spark takes it whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


@lru_cache(maxsize=4096)
def _written(expression: str) -> str:
    return _Writer(expression, {}).write()


@lru_cache(maxsize=4096)
def _tree(expression: str) -> exp.Expression:
    """Parse one expression; functions keep the names they are written with."""
    from sqlglot.errors import SqlglotError

    if len(expression) > MOST_CHARACTERS:
        raise ValueError(
            f"an expression of {len(expression)} characters; at most {MOST_CHARACTERS} are taken"
        )
    try:
        trees = _parse(expression)
    except SqlglotError as error:
        raise ValueError(f"'{expression}' is not Spark SQL: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("an expression that is nested too deeply") from None
    except Exception as error:  # a parser's own fault on odd text must not end a run
        raise ValueError(f"'{expression}' is not Spark SQL ({type(error).__name__})") from None
    if len(trees) != 1 or trees[0] is None:
        raise ValueError(f"'{expression}' is not one expression")
    tree: exp.Expression = trees[0]
    return tree


def _parse(expression: str) -> list[Any]:
    dialect, parser = _dialect()
    return list(parser(dialect=dialect).parse(dialect.tokenize(expression), expression))


@lru_cache(maxsize=1)
def _dialect() -> tuple[Any, Any]:
    from sqlglot.dialects.spark import Spark
    from sqlglot.parsers.spark import SparkParser

    allowed = {name: SparkParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST")}
    case = {"CASE": SparkParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}
    names = {
        "FUNCTIONS": {},
        "FUNCTION_PARSERS": allowed,
        "NO_PAREN_FUNCTIONS": {},
        "NO_PAREN_FUNCTION_PARSERS": case,
    }
    return Spark(), type("Parser", (SparkParser,), names)


class _Writer:
    """Writes Spark SQL from a tree, and refuses what is not listed."""

    def __init__(self, expression: str, replacements: dict[str, str]) -> None:
        self._expression = expression
        self._replacements = replacements
        self._bound: list[str] = []

    def write(self) -> str:
        try:
            return self._sql(_tree(self._expression))
        except RecursionError:
            raise ValueError("an expression that is nested too deeply") from None

    def _refuse(self, what: str) -> ValueError:
        shown = self._expression if len(self._expression) <= 200 else f"{self._expression[:200]}..."
        return ValueError(f"'{shown}' holds {what}; expected an expression over the columns of a row")

    def _sql(self, node: Any) -> str:
        kind = type(node).__name__
        if kind in _BINARY:
            return self._binary(node, kind)
        if kind in _UNARY:
            return self._unary(node, kind)
        writer: Callable[[Any], str] | None = getattr(self, f"_{kind.lower()}", None)
        if writer is None or kind not in _WRITTEN:
            raise self._refuse(_WORDS.get(kind, f"what is not allowed ({kind})"))
        return writer(node)

    def _only(self, node: Any, *allowed: str) -> None:
        """Refuse a node that has more parts than are written."""
        odd = [k for k, v in node.args.items() if v not in (None, False, []) and k not in (*allowed, "_type")]
        if odd:
            raise self._refuse(f"{type(node).__name__} with {', '.join(odd)}")

    def _binary(self, node: Any, kind: str) -> str:
        self._only(node, "this", "expression", "typed", "safe", *(("negate",) if kind in _LIKE else ()))
        if kind in _BITS:
            inner = [type(side).__name__ for side in (node.this, node.expression)]
            if any(name in _BITS and name != kind for name in inner):
                raise self._refuse("different bit operators side by side, without parentheses")
        operator = f"NOT {_BINARY[kind]}" if node.args.get("negate") else _BINARY[kind]
        return f"({self._sql(node.this)} {operator} {self._sql(node.expression)})"

    def _unary(self, node: Any, kind: str) -> str:
        self._only(node, "this")
        inner = node.this
        if kind == "Not" and type(inner).__name__ == "Is" and type(inner.expression).__name__ == "Null":
            return f"({self._sql(inner.this)} IS NOT NULL)"
        return f"({_UNARY[kind]}{self._sql(inner)})"

    def _paren(self, node: Any) -> str:
        self._only(node, "this")
        return f"({self._sql(node.this)})"

    def _is(self, node: Any) -> str:
        self._only(node, "this", "expression")
        if type(node.expression).__name__ not in ("Null", "Boolean"):
            raise self._refuse("IS with neither NULL nor a truth value")
        return f"({self._sql(node.this)} IS {self._sql(node.expression)})"

    def _null(self, node: Any) -> str:
        return "NULL"

    def _boolean(self, node: Any) -> str:
        return "TRUE" if node.this else "FALSE"

    def _literal(self, node: Any) -> str:
        if node.is_string:
            return _text(node.this)
        if not _NUMBER.fullmatch(node.this):
            raise self._refuse(f"the number '{node.this}'")
        return str(node.this)

    def _rawstring(self, node: Any) -> str:
        return _text(node.this)

    def _column(self, node: Any) -> str:
        names = [part.name for part in node.parts]
        if not all(type(part).__name__ == "Identifier" for part in node.parts):
            raise self._refuse("a star or a part of a name that is none")
        if len(names) == 1 and names[0].lower() in _CONSTANTS:
            raise self._refuse(f"the name '{names[0]}', which Spark may take for a function")
        if len(names) == 1 and names[0].lower() in self._replacements and names[0].lower() not in self._bound:
            return self._replacements[names[0].lower()]
        return ".".join(map(quoted, names))

    def _identifier(self, node: Any) -> str:
        if node.this.lower() not in self._bound:
            raise self._refuse(f"the name '{node.this}' where no column is expected")
        return quoted(node.this)

    def _lambda(self, node: Any) -> str:
        self._only(node, "this", "expressions")
        names = [part.name for part in node.expressions]
        self._bound += [name.lower() for name in names]  # in any case, as Spark has it
        try:
            bound = quoted(names[0]) if len(names) == 1 else f"({', '.join(map(quoted, names))})"
            return f"{bound} -> {self._sql(node.this)}"
        finally:
            del self._bound[len(self._bound) - len(names) :]

    def _anonymous(self, node: Any) -> str:
        self._only(node, "this", "expressions")
        name = node.this if isinstance(node.this, str) else ""
        if name.lower() not in FUNCTIONS:
            raise self._refuse(f"the function '{name or node.this}', which is not among those allowed")
        return f"{name.lower()}({', '.join(map(self._sql, node.expressions))})"

    def _case(self, node: Any) -> str:
        self._only(node, "this", "ifs", "default")
        parts = ["CASE"] + ([self._sql(node.this)] if node.this is not None else [])
        for branch in node.args["ifs"]:
            self._only(branch, "this", "true")
            parts.append(f"WHEN {self._sql(branch.this)} THEN {self._sql(branch.args['true'])}")
        default = node.args.get("default")
        parts += [f"ELSE {self._sql(default)}"] if default is not None else []
        return f"({' '.join(parts)} END)"

    def _between(self, node: Any) -> str:
        self._only(node, "this", "low", "high")
        low, high = self._sql(node.args["low"]), self._sql(node.args["high"])
        return f"({self._sql(node.this)} BETWEEN {low} AND {high})"

    def _in(self, node: Any) -> str:
        self._only(node, "this", "expressions")
        return f"({self._sql(node.this)} IN ({', '.join(map(self._sql, node.expressions))}))"

    def _bracket(self, node: Any) -> str:
        self._only(node, "this", "expressions", "offset")
        if len(node.expressions) != 1:
            raise self._refuse("brackets with more than one index")
        return f"{self._sql(node.this)}[{self._sql(node.expressions[0])}]"

    def _cast(self, node: Any) -> str:
        self._only(node, "this", "to", "safe")
        word = "TRY_CAST" if node.args.get("safe") else "CAST"
        return f"{word}({self._sql(node.this)} AS {self._type(node.args['to'])})"

    _trycast = _cast

    def _type(self, node: Any) -> str:
        name = getattr(getattr(node, "this", None), "name", "")
        if name not in _TYPES or node.args.get("nested"):
            raise self._refuse(f"the type '{node.sql()}'")
        sizes = [size.this.this for size in node.expressions]
        if not all(isinstance(size, str) and size.isdigit() for size in sizes) or (
            sizes and name != "DECIMAL"
        ):
            raise self._refuse(f"the type '{node.sql()}'")
        return _SPARK_TYPES.get(name, name) + (f"({', '.join(sizes)})" if sizes else "")


_WRITTEN = _words(
    "Paren Is Null Boolean Literal RawString Column Identifier Lambda Anonymous Case Between In Bracket Cast",
    "TryCast",
)
"""Kinds of nodes that are written; the operators are in `_BINARY` and `_UNARY`."""
_WORDS = {
    "Subquery": "a query",
    "Select": "a query",
    "Exists": "a query",
    "Star": "a star",
    "Window": "a window",
    "Concat": "two texts side by side: write \\' for a quote in a text",
    "DPipe": "'||': write concat",
    "Array": "an array with brackets right behind it: write element_at",
}


def _text(value: str) -> str:
    """Return a text as Spark reads it back, whatever it holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped + "'"
