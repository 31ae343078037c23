"""Functions fit on a screen: at most 60 lines and 7 parameters, or a reason.

Two kinds have one for all of their members: compiled functions take arrays one by one (`crossmatch.kernel.compiled`
says why), and a command's parameters are its options.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from helpers.places import CHECKOUT

MOST_LINES, MOST_PARAMETERS, MOST_MODULE_LINES = 60, 7, 350
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def excused(path: Path, function: Function) -> bool:
    compiled = any(getattr(decorator, "id", "") == "compiled" for decorator in function.decorator_list)
    return compiled or path.parent.name == "cli"


def parameters(function: Function) -> int:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_fit_on_a_screen() -> None:
    long = []
    for path in sorted((CHECKOUT / "stellarml").rglob("*.py")):
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if excused(path, function):
                continue
            if lines > MOST_LINES or parameters(function) > MOST_PARAMETERS:
                long.append(
                    f"{path.relative_to(CHECKOUT)}: {function.name}: {lines} lines, {parameters(function)}"
                )
    assert not long


def test_modules_fit_on_few_screens() -> None:
    sizes = {p: len(p.read_text().splitlines()) for p in (CHECKOUT / "stellarml").rglob("*.py")}
    assert len(sizes) > 100
    assert {str(p.relative_to(CHECKOUT)): n for p, n in sizes.items() if n > MOST_MODULE_LINES} == {}
