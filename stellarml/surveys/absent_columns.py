"""What a descriptor names and the files lack, and what follows from it: said once a survey, never passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stellarml.core.expressions import columns_of
from stellarml.surveys.column_mapping import Resolved
from stellarml.surveys.descriptor import Cut, Descriptor, Names, Quantity
from stellarml.surveys.wanted_column import ingested_name


def consequences_of_absence(descriptor: Descriptor, resolved: Resolved) -> list[str]:
    """Return a sentence for each column that some file lacks: where it is missing, and what that does."""
    files, lines = len(resolved.headers), []
    meant = dict(_consequences(descriptor))
    alternatives = {column.canonical: column.names for column in descriptor.wanted()}
    for name in resolved.schema.names:
        there = len(resolved.files_with(name))
        if there == files:
            continue
        columns = " or ".join(alternatives[name])
        where = "no file" if there == 0 else f"{there} of {files} files"
        consequence = meant.get(name, "its values are missing there")
        lines.append(f"column {columns} is in {where} of survey '{descriptor.name}': {consequence}")
    for cut in descriptor.cuts:
        absent = [name for name in cut_columns(cut, resolved.schema.names) if not _everywhere(name, resolved)]
        if absent and cut.enabled:
            judged = files_judged(cut, resolved)
            applied = "is not applied" if not judged else f"is applied to {len(judged)} of {files} files"
            lines.append(
                f"cut '{cut.name}' of survey '{descriptor.name}' {applied}: it needs {', '.join(absent)}"
            )
    return lines


def cut_columns(cut: Cut, names: Sequence[str]) -> list[str]:
    """Return which of the columns `names` the rule of a cut mentions."""
    named = {column.lower() for column in columns_of(cut.where)}
    return [name for name in names if name in named]


def files_judged(cut: Cut, resolved: Resolved) -> list[int]:
    """Return the numbers of the files that have every column of a cut; of the others it can say nothing."""
    judged = set(range(len(resolved.headers)))
    for name in cut_columns(cut, resolved.schema.names):
        judged &= set(resolved.files_with(name))
    return sorted(judged)


def _everywhere(name: str, resolved: Resolved) -> bool:
    return len(resolved.files_with(name)) == len(resolved.headers)


def _consequences(descriptor: Descriptor) -> Iterator[tuple[str, str]]:
    p = descriptor.position

    def of(names: Names | None, words: str) -> Iterator[tuple[str, str]]:
        if names:
            yield ingested_name(names), words

    def of_quantity(quantity: Quantity | None, words: str) -> Iterator[tuple[str, str]]:
        yield from of(quantity.column if quantity else None, words)

    yield from of_quantity(
        p.epoch,
        "no epoch: stars are not moved to the date of its positions, fast ones may be lost",
    )
    for error in (p.ra_error, p.dec_error):
        floor = f"{error.floor:g} {error.unit}" if error and error.floor else "no error at all"
        yield from of_quantity(error, f"no position error: {floor} is taken")
    for motion in (p.pmra, p.pmdec):
        yield from of(motion, "no proper motion: positions are compared as they are, with the errors widened")
    for band, columns in descriptor.bands.items():
        yield from of(columns.magnitude, f"band {band} counts as not measured")
    for label, value in descriptor.labels.items():
        yield from of(value.value, f"no label {label} from it")
