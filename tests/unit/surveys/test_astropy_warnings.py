"""What astropy warns of: harmless deviations of form are not repeated to users, everything else is, with the file."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from astropy.io.votable.exceptions import W01, W03, W06, W10, W22, W27, W41, W42, W49, W50

from stellarml.surveys.astropy_warnings import HARMLESS, told
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_files import describe
from stellarml.surveys.raw_readers import reader_of

WRITTEN = Files(format="votable", glob="*")
ROWS = "<TR><TD>1</TD><TD>10.5</TD></TR><TR><TD>2</TD><TD>11.5</TD></TR>"


XMLNS = ' xmlns="http://www.ivoa.net/xml/VOTable/v1.3"'
ID = '<FIELD ID="id" name="id" datatype="long"/>'
X = '<FIELD ID="x" name="x" datatype="double"/>'
FRAME = '<COOSYS ID="a" equinox="J2000" epoch="J2000" system="eq_FK5"/>'
OLD = {"version": 'version="1.2"', "xmlns": ' xmlns="http://www.ivoa.net/xml/VOTable/v1.2"'}


def document(
    *,
    version: str = 'version="1.4"',
    xmlns: str = XMLNS,
    before: str = "",
    id_field: str = ID,
    x_field: str = X,
    rows: str = ROWS,
) -> str:
    return (
        f'<?xml version="1.0"?><VOTABLE {version}{xmlns}>{before}<RESOURCE type="results"><TABLE>{id_field}{x_field}'
        f"<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )


def values(path: Path) -> list[tuple[object, ...]]:
    """Return the rows of a file, as every command reads them."""
    file = describe(path, WRITTEN, "test")
    (header,) = reader_of(file).headers(file, WRITTEN)
    names = [column.name for column in header.columns]
    import pyarrow as pa

    schema = pa.schema([pa.field(column.name, column.type) for column in header.columns])
    blocks = reader_of(file).blocks(header, names, schema, WRITTEN, 1 << 20)
    return [tuple(row.values()) for block in blocks for row in block.table.to_pylist()]


@pytest.mark.parametrize(
    ("code", "content"),
    [
        (W03, document(id_field='<FIELD name="i d" datatype="long"/>')),
        (W06, document(x_field='<FIELD ID="x" name="x" datatype="double" ucd="not a ucd;;"/>')),
        (W10, document(before="<ODD/>")),
        (W22, document(before=f"<DEFINITIONS>{FRAME}</DEFINITIONS>")),
        (W27, document(**OLD, before=FRAME)),
        (W41, document(xmlns=' xmlns="http://example.org/other"')),
        (W42, document(xmlns="")),
        (W50, document(x_field=X.replace("/>", ' unit="log(cm.s**-2)"/>'))),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_harmless_deviation_changes_no_value_and_is_not_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: type[Warning], content: str
) -> None:
    (tmp_path / "a.vot").write_text(content)
    assert code.__name__ in HARMLESS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from astropy.io import votable

        votable.parse(str(tmp_path / "a.vot"), verify="warn").get_first_table().to_table(
            use_names_over_ids=True
        )
    assert any(issubclass(item.category, code) for item in caught), [str(item.message) for item in caught]
    capsys.readouterr()
    assert values(tmp_path / "a.vot") == [(1, 10.5), (2, 11.5)]
    assert "astropy says" not in "".join(capsys.readouterr())


def test_what_may_change_a_value_is_said_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.vot").write_text(document(rows=ROWS.replace("<TD>2</TD>", "<TD></TD>")))
    assert "W49" not in HARMLESS and W49 is not None
    values(tmp_path / "a.vot")
    (tmp_path / "b.vot").write_text(document(x_field='<FIELD ID="x" name="x" datatype="short"/>'))
    with pytest.raises(Exception, match=r"b.vot"):
        values(tmp_path / "b.vot")


def test_warnings_are_said_once_a_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with told(tmp_path / "a.vot"):
        for _ in range(9):
            warnings.warn("rows were lost", UserWarning, stacklevel=1)
        for number in range(9):
            warnings.warn(W01((), None, (number, 0)), stacklevel=1)
        warnings.warn(W42((), None, (1, 0)), stacklevel=1)
    said = "".join(capsys.readouterr())
    assert said.count("rows were lost") == 1 and f"{tmp_path / 'a.vot'}: astropy says" in said
    assert "W42" not in said and said.count("W01") == 1
    with told(None):
        warnings.warn("rows were lost", UserWarning, stacklevel=1)
    assert "".join(capsys.readouterr()) == ""
