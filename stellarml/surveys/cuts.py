"""Named cuts: which rows a survey keeps, why, and how many each cut costs.

No row is dropped for a cut. Each cut of a descriptor owns one bit of ``cuts_failed`` (in the order of the file), each
repaired column one bit of ``repairs``; the cut-flow follows from counting the distinct values of ``cuts_failed``, which
takes no further pass over the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stellarml.core.config import Config
from stellarml.core.errors import ConfigError, did_you_mean, nearest_names, raise_gathered
from stellarml.core.expressions import columns_of, quoted, safe_sql
from stellarml.core.names import CUTS_FAILED, REPAIRS
from stellarml.surveys.descriptor import Cut, Descriptor, load_descriptor
from stellarml.surveys.wanted_column import ingested_name

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_SEVERE = 0.99
HAS_DISTANCE = Cut(
    name="has_distance",
    where="r_med_geo is not null",
    on_null="drop",
    reason="absolute magnitudes need a distance; Bailer-Jones et al. 2021",
)


def chosen_cuts(config: Config, descriptor: Descriptor) -> tuple[Cut, ...]:
    """Return the cuts of `descriptor`, each on or off as the configuration asks.

    Raises
    ------
    ConfigError
        If ``cuts.enable`` or ``cuts.disable`` names a cut that no survey of the configuration has.
    """
    if not (config.cuts.enable or config.cuts.disable):
        return descriptor.cuts
    surveys = [descriptor, *(load_descriptor(name, config.root) for name in config.surveys.names)]
    known = dict.fromkeys([*(cut.name for survey in surveys for cut in survey.cuts), HAS_DISTANCE.name])
    problems = [
        f"cuts.{key} names '{cut}', which no survey of this run has.{did_you_mean(cut, known)} "
        f"Known: {', '.join(known)}."
        for key, given in (("enable", config.cuts.enable), ("disable", config.cuts.disable))
        for cut in given
        if cut not in known
    ]
    raise_gathered(ConfigError, "configuration", problems)
    return descriptor.active_cuts(config.cuts.enable, config.cuts.disable)


def sentinels(descriptor: Descriptor) -> dict[str, str]:
    """Return column -> condition under which its value means "missing"; the order gives the bits of `repairs`."""
    conditions = {
        ingested_name([name]): condition for name, condition in descriptor.columns.null_when.items()
    }
    epoch = descriptor.position.epoch
    if epoch and epoch.column and epoch.null_when:
        conditions.setdefault(ingested_name(epoch.column), epoch.null_when)
    return conditions


def repair_and_cut(
    frame: DataFrame,
    descriptor: Descriptor,
    cuts: Sequence[Cut],
    judged: Mapping[str, Column] | None = None,
) -> DataFrame:
    """Add ``repairs`` and ``cuts_failed``; sentinels become null in the columns that the descriptor names.

    Parameters
    ----------
    frame
        One column for each that the descriptor names, and further ones that stay as they are.
    cuts
        The descriptor's cuts with `enabled` settled; a cut that is off never sets its bit.
    judged
        For cuts that cannot judge every row, since some file lacks a column, the condition under which they can.

    Raises
    ------
    ConfigError
        If an expression names a column that is not there, or is not SQL.
    """
    from pyspark.sql import functions as sf

    conditions = sentinels(descriptor)
    for name, condition in conditions.items():
        _check(frame, descriptor, f"null_when of '{name}'", condition)
    missing = {
        name: sf.coalesce(sf.expr(safe_sql(condition)), sf.lit(False))
        for name, condition in conditions.items()
    }
    given = {name: sf.col(quoted(name)) for name in frame.columns}
    columns = [sf.when(~missing[n], c).alias(n) if n in missing else c for n, c in given.items()]
    bits = [_bit(i, missing[n] & given[n].isNotNull()) for i, n in enumerate(conditions)]
    repaired = frame.select(*columns, _sum(bits).alias(REPAIRS))
    failed = []
    for index, cut in enumerate(cuts):
        _check(repaired, descriptor, f"cut '{cut.name}'", cut.where)
        if cut.enabled:
            fails = ~sf.coalesce(sf.expr(safe_sql(cut.where)), sf.lit(cut.on_null == "keep"))
            failed.append(_bit(index, fails & (judged or {}).get(cut.name, sf.lit(True))))
    return repaired.withColumn(CUTS_FAILED, _sum(failed))


def _bit(index: int, condition: Column) -> Column:
    from pyspark.sql import functions as sf

    return sf.when(condition, sf.lit(1 << index)).otherwise(sf.lit(0)).cast("long")


def _sum(bits: Sequence[Column]) -> Column:
    from pyspark.sql import functions as sf

    total = sf.lit(0).cast("long")
    for bit in bits:
        total = total + bit
    return total


def _check(frame: DataFrame, descriptor: Descriptor, what: str, expression: str) -> None:
    from pyspark.errors import AnalysisException, ParseException
    from pyspark.sql import functions as sf

    from stellarml.run.spark_log import unlogged

    where = f"survey '{descriptor.name}', {what}: '{expression}'"
    try:
        with unlogged():
            kind = frame.select(sf.expr(safe_sql(expression)).alias("x")).schema["x"].dataType.simpleString()
    except ParseException as error:
        raise ConfigError(f"{where} is not a Spark SQL expression: {error.getMessage()}") from None
    except AnalysisException as error:
        name = str((error.getMessageParameters() or {}).get("objectName", "")).strip("`")
        if "UNRESOLVED_COLUMN" in (error.getCondition() or ""):
            known = [c for c in frame.columns if not c.startswith("_")]
            raise ConfigError(
                f"{where} names the column '{name}', which the survey does not carry.{did_you_mean(name, known)} "
                "Add it to columns.keep."
            ) from None
        raise ConfigError(f"{where} cannot be evaluated: {error.getMessage()}") from None
    if kind != "boolean":
        raise ConfigError(f"{where} gives {kind}, expected a condition that is true or false.")


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


def severe_cuts(flow: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each cut of a cut-flow that alone removes more than 99 % of a survey's rows."""
    rows = {step["survey"]: step["rows_left"] for step in flow if step["step"] == 0}
    return [
        f"cut '{step['cut']}' ({step['where']}) removes {100 * step['failed_alone'] / rows[step['survey']]:.4g} % of "
        f"the {rows[step['survey']]} rows of survey '{step['survey']}'"
        for step in flow
        if step["step"] > 0 and step["failed_alone"] > _SEVERE * rows.get(step["survey"], 0) > 0
    ]


def cut_flow(survey: str, cuts: Sequence[Cut], counts: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return rows left after each cut in turn, and rows that each cut alone fails.

    Parameters
    ----------
    counts
        Rows by value of `cuts_failed`.
    """
    total = sum(counts.values())
    flow: list[dict[str, Any]] = [
        {
            "survey": survey,
            "step": 0,
            "cut": "all rows",
            "where": "",
            "reason": "",
            "rows_left": total,
            "failed_alone": 0,
        }
    ]
    applied = 0
    for index, cut in enumerate(cuts):
        if not cut.enabled:
            continue
        applied |= 1 << index
        flow.append(
            {
                "survey": survey,
                "step": len(flow),
                "cut": cut.name,
                "where": cut.where,
                "reason": cut.reason,
                "rows_left": sum(n for mask, n in counts.items() if not mask & applied),
                "failed_alone": sum(n for mask, n in counts.items() if mask & (1 << index)),
            }
        )
    return flow


def merge_counts(parts: Sequence[Mapping[str, int]]) -> dict[int, int]:
    """Add up counts by `cuts_failed` that tiles reported (JSON keys are strings)."""
    total: dict[int, int] = {}
    for part in parts:
        for mask, rows in part.items():
            total[int(mask)] = total.get(int(mask), 0) + rows
    return dict(sorted(total.items()))
