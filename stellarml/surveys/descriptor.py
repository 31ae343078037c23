"""What the pipeline knows of a survey: one TOML file, read into a frozen model.

The keys are a contract (docs/guide/own-survey.md): a user adds a survey by writing a file, never code. Unknown
keys are refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from stellarml.core.errors import ConfigError, did_you_mean, raise_gathered
from stellarml.core.expressions import Sql
from stellarml.core.names import ROW_NUMBER
from stellarml.core.shipped import named_file
from stellarml.core.toml_layers import Section, problems_of, read_toml
from stellarml.surveys.unit_conversion import PositionUnit
from stellarml.surveys.wanted_column import WantedColumn, ingested_name

CORRELATED = ("ra", "dec", "parallax", "pmra", "pmdec")
CORRELATIONS = tuple(f"{a}_{b}" for i, a in enumerate(CORRELATED) for b in CORRELATED[i + 1 :])
SparkType = Literal["long", "int", "short", "byte", "double", "float", "boolean", "string"]


def _inside(pattern: str) -> str:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ValueError(f"'{pattern}' leaves the survey's folder; expected a pattern inside it")
    return pattern


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One column: alternatives in order of preference; the first is the name it gets (in lower case)."""


class Files(Section):
    """How the files are written."""

    format: Literal["csv", "tsv", "ecsv", "fits", "votable", "parquet", "hats"]
    glob: Annotated[str, AfterValidator(_inside)]
    null: tuple[str, ...] = ("", "null", "NaN", "nan")
    comment: str = "#"
    table: str | None = None


_TIME_UNITS = {"mjd": "d", "jd": "d", "jyear": "yr"}
_ARCSEC = {"mas": 1e-3, "arcsec": 1.0, "deg": 3600.0}
_MOST_FLOOR_ARCSEC, _MOST_ERROR_ARCSEC = 1.0, 10.0


class Quantity(Section):
    """A column with a unit, or one value for all rows."""

    column: Names | None = None
    value: float | None = None
    unit: Literal["mas", "arcsec", "deg", "mjd", "jyear", "jd"]
    floor: float | None = None
    reject_above: float | None = None
    null_when: Sql | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Quantity:
        if (self.column is None) == (self.value is None):
            raise ValueError("give either 'column' or 'value'")
        return self

    def implausible_error(self) -> str | None:
        """Return what is wrong with this as a position error: a floor or a value that no survey has, in its unit."""
        arcsec = _ARCSEC.get(self.unit)
        if arcsec is None:
            return f"its unit is '{self.unit}', expected an angle ({', '.join(_ARCSEC)})"
        for key, limit in (("floor", _MOST_FLOOR_ARCSEC), ("value", _MOST_ERROR_ARCSEC)):
            given = getattr(self, key)
            if given is not None and not 0 <= given * arcsec <= limit:
                return (
                    f"{key} = {given:g} is in {self.unit}, the unit of the column: {given * arcsec:g} arcsec; expected "
                    f"0 to {limit:g} arcsec"
                )
        least = self.floor or 0.0
        if self.reject_above is not None and self.reject_above <= least:
            return (
                f"reject_above = {self.reject_above:g} is not above floor = {least:g} (both in {self.unit})"
            )
        return None


class Correlations(Section):
    """Columns of the correlation coefficients between the five astrometric parameters."""

    ra_dec: Names | None = None
    ra_parallax: Names | None = None
    ra_pmra: Names | None = None
    ra_pmdec: Names | None = None
    dec_parallax: Names | None = None
    dec_pmra: Names | None = None
    dec_pmdec: Names | None = None
    parallax_pmra: Names | None = None
    parallax_pmdec: Names | None = None
    pmra_pmdec: Names | None = None


class Position(Section):
    """Identity, position, its errors, epoch and motion."""

    id: Names | None = None
    ra: Names | None = None
    dec: Names | None = None
    ra_unit: PositionUnit = "deg"
    dec_unit: Literal["deg", "rad", "sexagesimal"] = "deg"
    ra_error: Quantity | None = None
    dec_error: Quantity | None = None
    systematic_error_mas: Annotated[float, Field(ge=0)] = 0.0
    epoch: Quantity | None = None
    parallax: Names | None = None
    parallax_error: Names | None = None
    pmra: Names | None = None
    pmra_error: Names | None = None
    pmdec: Names | None = None
    pmdec_error: Names | None = None
    correlations: Correlations = Correlations()

    @model_validator(mode="before")
    @classmethod
    def _units(cls, given: Any) -> Any:
        """Take ``ra = { column = "RAhms", unit = "hourangle" }`` apart."""
        given = dict(given) if isinstance(given, dict) else given
        for name in ("ra", "dec"):
            value = given.get(name) if isinstance(given, dict) else None
            if isinstance(value, dict):
                if set(value) - {"column", "unit"} or "column" not in value:
                    raise ValueError(
                        f"{name}: expected {{ column = ..., unit = ... }}, got the keys {', '.join(value)}"
                    )
                given |= {name: value["column"], f"{name}_unit": value.get("unit", "deg")}
        return given

    @model_validator(mode="after")
    def _pairs(self) -> Position:
        for a, b in (("ra", "dec"), ("ra_error", "dec_error"), ("pmra", "pmdec")):
            if (getattr(self, a) is None) != (getattr(self, b) is None):
                raise ValueError(f"'{a}' and '{b}' go together")
        if self.epoch is not None and self.epoch.unit not in _TIME_UNITS:
            raise ValueError(
                f"epoch: its unit is '{self.epoch.unit}', expected a time ({', '.join(_TIME_UNITS)})"
            )
        errors = {name: getattr(self, name) for name in ("ra_error", "dec_error")}
        problems = {n: q.implausible_error() for n, q in errors.items() if q is not None}
        if any(problems.values()):
            raise ValueError("; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem))
        if self.ra is None and self.id is None:
            raise ValueError("a table without 'ra' and 'dec' needs an 'id': the source_id of its rows")
        return self


class Band(Section):
    """One photometric band."""

    magnitude: Names
    error: Names | None = None
    extinction: float | None = None


class LabelColumn(Section):
    """One spectroscopic parameter."""

    value: Names
    error: Names | None = None
    unit: str = ""


class Columns(Section):
    """Further columns to carry, and which values mean "missing"."""

    keep: tuple[Names, ...] = ()
    null_when: dict[str, Sql] = Field(default_factory=dict)
    optional: tuple[str, ...] = ()
    types: dict[str, SparkType] = Field(default_factory=dict)


class Cut(Section):
    """A named rule: a row stays where `where` is true."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    where: Sql
    on_null: Literal["drop", "keep"] = "drop"
    reason: str
    enabled: bool = True


class Descriptor(Section):
    """One survey."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    kind: Literal["astrometry", "photometry", "distances", "labels"]
    citation: str = ""
    files: Files
    position: Position
    bands: dict[str, Band] = Field(default_factory=dict)
    labels: dict[str, LabelColumn] = Field(default_factory=dict)
    columns: Columns = Columns()
    cuts: tuple[Cut, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Descriptor:
        known = {c.canonical for c in self.wanted()}
        problems = [
            f"columns.null_when names '{name}', which nothing else names.{did_you_mean(name, known)}"
            for name in self.columns.null_when
            if ingested_name([name]) not in known
        ]
        if self.id_column in {ingested_name([name]) for name in self.columns.null_when}:
            problems.append(
                f"columns.null_when names the id '{self.id_column}': a row cannot be without one. Use a cut instead"
            )
        names = [cut.name for cut in self.cuts]
        problems += [
            f"the cut '{n}' is defined twice" for n in sorted({n for n in names if names.count(n) > 1})
        ]
        if len(names) > 31:
            problems.append(f"{len(names)} cuts, at most 31 fit into cuts_failed")
        if self.kind == "labels" and not self.labels:
            problems.append("kind = 'labels' needs a table [labels.NAME] with the column of each label")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def has_positions(self) -> bool:
        """Whether rows carry ra and dec (and are stored as a HATS catalogue)."""
        return self.position.ra is not None

    @property
    def id_column(self) -> str:
        """Name of the id in the ingested table."""
        return ingested_name(self.position.id) if self.position.id else ROW_NUMBER

    def active_cuts(self, enable: tuple[str, ...], disable: tuple[str, ...]) -> tuple[Cut, ...]:
        """Return all cuts, `enabled` as the configuration asks; order (and so bits) never changes."""
        return tuple(
            cut.model_copy(
                update={"enabled": (cut.enabled or cut.name in enable) and cut.name not in disable}
            )
            for cut in self.cuts
        )

    def wanted(self) -> Iterator[WantedColumn]:
        """Yield every column to read once, in a fixed order."""
        seen: set[str] = set()
        for column in self._all_wanted():
            if column.canonical not in seen:
                seen.add(column.canonical)
                yield column

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns whose meaning the descriptor gives, by their name in lower case."""
        found = {wanted.canonical: wanted.unit for wanted in self._all_wanted() if wanted.unit}
        if self.position.epoch and self.position.epoch.column:
            found[ingested_name(self.position.epoch.column)] = _TIME_UNITS[self.position.epoch.unit]
        for label in self.labels.values():
            found |= {
                ingested_name(names): label.unit
                for names in (label.value, label.error)
                if names and label.unit
            }
        return found

    def _all_wanted(self) -> Iterator[WantedColumn]:
        p = self.position
        optional = {ingested_name([name]) for name in self.columns.optional}
        types = {ingested_name([name]): kind for name, kind in self.columns.types.items()}

        def column(names: Names | None, kind: str | None, unit: str | None = None) -> Iterator[WantedColumn]:
            if names:
                canonical = ingested_name(names)
                yield WantedColumn(names, types.get(canonical, kind), unit, canonical in optional)

        def quantity(q: Quantity | None, kind: str) -> Iterator[WantedColumn]:
            if q and q.column:
                unit = _TIME_UNITS.get(q.unit, q.unit)
                for wanted in column(q.column, kind, unit):
                    wanted.fixed_unit = q.unit in _TIME_UNITS
                    yield wanted

        def coordinate(names: Names | None, unit: str, text: str) -> Iterator[WantedColumn]:
            for wanted in column(names, "double", "deg"):
                stated = text if unit == "sexagesimal" else unit
                wanted.stated_unit = stated if stated != "deg" else None
                yield wanted

        yield from column(p.id, None)
        yield from coordinate(p.ra, p.ra_unit, "sexagesimal")
        yield from coordinate(p.dec, p.dec_unit, "sexagesimal_deg")
        yield from quantity(p.ra_error, "float")
        yield from quantity(p.dec_error, "float")
        yield from quantity(p.epoch, "double")
        yield from column(p.parallax, "double", "mas")
        yield from column(p.parallax_error, "float", "mas")
        yield from column(p.pmra, "double", "mas/yr")
        yield from column(p.pmra_error, "float", "mas/yr")
        yield from column(p.pmdec, "double", "mas/yr")
        yield from column(p.pmdec_error, "float", "mas/yr")
        for name in CORRELATIONS:
            yield from column(getattr(p.correlations, name), "float")
        for band in self.bands.values():
            yield from column(band.magnitude, "float", "mag")
            yield from column(band.error, "float", "mag")
        for label in self.labels.values():
            yield from column(label.value, "float", label.unit or None)
            yield from column(label.error, "float", label.unit or None)
        for names in self.columns.keep:
            yield from column(names, None)


def load_descriptor(name_or_path: str, root: Path = Path()) -> Descriptor:
    """Read a shipped descriptor by name, or a user's by path (relative to `root`).

    Raises
    ------
    ConfigError
        If there is none of that name, or the file breaks the contract; all problems at once.
    """
    path = named_file("survey", name_or_path, root)
    try:
        return Descriptor(**read_toml(path))
    except ValidationError as error:
        raise_gathered(ConfigError, "survey descriptor", problems_of(error, Descriptor, str(path)))
        raise


def position_columns(descriptor: Descriptor) -> tuple[str, str]:
    """Return the ingested names of right ascension and declination."""
    ra, dec = descriptor.position.ra, descriptor.position.dec
    if ra is None or dec is None:
        raise ValueError(f"survey '{descriptor.name}' has no positions")
    return ingested_name(ra), ingested_name(dec)
