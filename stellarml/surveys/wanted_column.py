"""A column that a descriptor names, and what is known of it before any file is opened."""

from __future__ import annotations

from collections.abc import Sequence


def ingested_name(names: Sequence[str]) -> str:
    """Return the name that a column gets in the ingested table, of its alternatives in the files.

    The first one in lower case; a dot becomes an underscore, since Spark takes it for a field of a column.

    Examples
    --------
    >>> ingested_name(["RA(ICRS)", "ra"]), ingested_name(["coord.ra"])
    ('ra(icrs)', 'coord_ra')
    """
    return names[0].lower().replace(".", "_")


class WantedColumn:
    """A column a descriptor names: alternatives, Spark type if known, expected unit, and whether it may be absent.

    `stated_unit` is a unit that the descriptor says the files have, where it is not the expected one; a `fixed_unit`
    (of an epoch) cannot be converted.
    """

    __slots__ = ("canonical", "fixed_unit", "names", "optional", "spark_type", "stated_unit", "unit")

    def __init__(
        self, names: tuple[str, ...], spark_type: str | None, unit: str | None, optional: bool
    ) -> None:
        self.names = names
        self.canonical = ingested_name(names)
        self.spark_type = spark_type
        self.unit = unit
        self.optional = optional
        self.stated_unit: str | None = None
        self.fixed_unit = False

    @property
    def sexagesimal(self) -> bool:
        """Whether the files hold it as text of hours or degrees, minutes and seconds."""
        return self.stated_unit is not None and self.stated_unit.startswith("sexagesimal")
