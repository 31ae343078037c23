"""Columns and bits, from the schema and the enumerations."""

from __future__ import annotations

from pages.markdown import as_code, as_table, markdown
from stellarml.core import match_flags, quality_flags, schema
from stellarml.core.match_flags import MatchFlag
from stellarml.core.quality_flags import QualityFlag
from stellarml.core.shipped import shipped
from stellarml.surveys.cuts import HAS_DISTANCE, sentinels
from stellarml.surveys.descriptor import load_descriptor

ARROW_WORDS = {"float": "float32", "double": "float64"}


def columns_page() -> str:
    """Return every table that stellarml writes, column by column, from the schema."""
    paper = (("teff", "K"), ("logg", "dex"), ("feh", "dex"))
    tables = (
        ("lake/neighbourhood, lake/best_neighbour", "Pairs found by the cross-match.", schema.NEIGHBOURHOOD),
        (
            "matches",
            "What `stellarml match` writes; the columns of both catalogues follow.",
            schema.MATCHES,
        ),
        (
            "labels/<model id>",
            "A labelled catalogue, here with the three labels of the paper. The `_true_` columns are written with "
            "`label.truth_intervals`.",
            schema.label_columns(paper, truth=True),
        ),
    )
    sections = []
    for title, text, columns in tables:
        rows = [
            (
                as_code(c.name),
                as_code(ARROW_WORDS.get(str(c.type), c.type)),
                c.unit,
                as_code(c.ucd) if c.ucd else "",
                markdown(c.description),
            )
            for c in columns
        ]
        sections.append(
            f"## {title}\n\n{text}\n\n" + as_table(("column", "type", "unit", "UCD", "description"), rows)
        )
    return "\n\n".join(sections) + "\n"


def flags_page() -> str:
    """Return the bits of quality_flags and xm_flag, and those of repairs and cuts_failed for each shipped survey."""
    quality = [(str(int(f)), as_code(f.name), quality_flags.DESCRIPTIONS[f]) for f in QualityFlag]
    pairs = [(str(int(f)), as_code(f.name), match_flags.DESCRIPTIONS[f]) for f in MatchFlag]
    sections = [
        "## quality_flags\n\n" + as_table(("bit", "name", "meaning"), quality),
        "## xm_flag\n\n" + as_table(("bit", "name", "meaning"), pairs),
        "## cuts_failed\n\nOne bit a cut, in the order of the survey's descriptor; a cut that is off never sets its "
        "bit. In `lake/stars` the bit after the last cut of the astrometric survey is that of "
        f"`{HAS_DISTANCE.name}` ({HAS_DISTANCE.reason}). In matched and labelled tables the cuts of the photometric "
        "survey begin at bit 32.",
    ]
    for name in shipped("survey"):
        cuts = load_descriptor(name).cuts
        rows = [
            (
                str(1 << i),
                as_code(c.name),
                as_code(c.where),
                c.on_null,
                "on" if c.enabled else "off",
                c.reason,
            )
            for i, c in enumerate(cuts)
        ]
        if rows:
            sections.append(
                f"### {name}\n\n"
                + as_table(("bit", "cut", "a row stays where", "null", "shipped", "reason"), rows)
            )
    sections.append(
        "## repairs\n\nOne bit a column whose value was taken for missing (`null_when`), in the order of the file."
    )
    for name in shipped("survey"):
        rows = [
            (str(1 << i), as_code(column), as_code(where))
            for i, (column, where) in enumerate(sentinels(load_descriptor(name)).items())
        ]
        if rows:
            sections.append(
                f"### Repairs of {name}\n\n" + as_table(("bit", "column", "taken for missing where"), rows)
            )
    return "\n\n".join(sections) + "\n"
