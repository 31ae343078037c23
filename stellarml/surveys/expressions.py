"""A descriptor's SQL, checked without Spark: that it parses, and that the columns it names are there."""

from __future__ import annotations

from collections.abc import Iterator

from stellarml.core.errors import nearest_names
from stellarml.core.expressions import columns_of
from stellarml.core.names import REPAIRS
from stellarml.surveys.descriptor import Descriptor


def problems_of_expressions(survey: Descriptor) -> Iterator[str]:
    """Say which of a survey's expressions are no SQL, or name a column that the survey does not carry."""
    carried = [column.canonical for column in survey.wanted()]
    texts = [(f"null_when of '{name}'", text) for name, text in survey.columns.null_when.items()]
    texts += [(f"cut '{cut.name}'", cut.where) for cut in survey.cuts]
    for what, text in texts:
        where = f"survey '{survey.name}', {what}"
        try:
            named = columns_of(text)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        for name in named:
            if name.lower() not in (*carried, REPAIRS):
                near = nearest_names(name, carried)
                yield (
                    f"{where}: '{text}' names the column '{name}', which the survey does not carry; the nearest are "
                    f"{near}. Add it to columns.keep."
                )
