"""Survey descriptors: the contract of their keys, and which column of a file serves which of the survey."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.places import CHECKOUT

from stellarml.core.errors import ConfigError, InputError
from stellarml.core.shipped import shipped
from stellarml.crossmatch.source_columns import position_errors
from stellarml.surveys.column_mapping import convert, ddl, resolve
from stellarml.surveys.descriptor import Descriptor, load_descriptor
from stellarml.surveys.raw_files import find_files
from stellarml.surveys.raw_reader import FileColumn, Header, SourceFile

SHIPPED = tuple(sorted(shipped("survey")))


def survey(**changes: Any) -> Descriptor:
    base: dict[str, Any] = {
        "name": "t",
        "kind": "photometry",
        "files": {"format": "csv", "glob": "*.csv"},
        "position": {"id": ["object_id", "ObjectId"], "ra": "ra", "dec": "dec"},
        "columns": {"keep": ["flags", "note"], "optional": ["note"], "types": {"flags": "int"}},
    }
    return Descriptor(**{**base, **changes})


def header(*columns: FileColumn | str, name: str = "a.csv") -> Header:
    listed = tuple(FileColumn(c) if isinstance(c, str) else c for c in columns)
    return Header(SourceFile(Path(name), 1, "text", False), listed)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name: str) -> None:
    descriptor = load_descriptor(name)
    assert descriptor.name == name == shipped("survey")[name].stem
    assert descriptor.citation
    assert all(cut.reason for cut in descriptor.cuts)
    assert len({c.canonical for c in descriptor.wanted()}) == len(list(descriptor.wanted()))


@pytest.mark.parametrize("name", SHIPPED)
def test_rows_of_every_shipped_survey_are_read_by_a_test(name: str) -> None:
    """A descriptor that no test reads once had a floor of 60 arcsec."""
    tests = CHECKOUT / "tests" / "spark" / "surveys"
    assert any(f'"{name}"' in file.read_text() for file in tests.glob("test_shipped_*.py"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_column_of_a_shipped_survey_has_a_type(name: str) -> None:
    """A type that is guessed depends on which rows come first."""
    assert [c.canonical for c in load_descriptor(name).wanted() if c.spark_type is None] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_value_with_a_stated_error_is_missing_when_the_error_is_none(name: str) -> None:
    """An error of -9999 would be the smallest of all, and its row the best of its star."""
    descriptor = load_descriptor(name)
    errors = [label.error[0].lower() for label in descriptor.labels.values() if label.error]
    magnitudes = [band.magnitude[0].lower() for band in descriptor.bands.values() if band.error]
    assert {*errors, *magnitudes} <= {column.lower() for column in descriptor.columns.null_when}


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_cut_fails_every_row_of_a_file_without_an_optional_column(name: str) -> None:
    descriptor = load_descriptor(name)
    optional = "|".join(map(re.escape, descriptor.columns.optional))
    read = {cut.name for cut in descriptor.cuts if optional and re.search(rf"\b({optional})\b", cut.where)}
    assert {cut.name for cut in descriptor.cuts if cut.on_null == "drop"} & read == set()


def test_an_id_is_never_made_null() -> None:
    """A row without an id cannot be stored: a sentinel in the id needs a cut."""
    made_null = {name: load_descriptor(name).columns.null_when for name in SHIPPED}
    assert [name for name in SHIPPED if load_descriptor(name).id_column in made_null[name]] == []


def test_both_releases_of_skymapper_have_the_same_bands_errors_sentinels_and_cuts() -> None:
    """Bits follow the order of each file, so that they may differ."""
    dr2, dr4 = load_descriptor("skymapper_dr2"), load_descriptor("skymapper_dr4")
    assert {cut.name: cut for cut in dr2.cuts} == {cut.name: cut for cut in dr4.cuts}
    assert list(dr2.columns.null_when.items()) == list(dr4.columns.null_when.items())
    assert position_errors(dr2) == position_errors(dr4)
    assert {n: b.extinction for n, b in dr2.bands.items()} == {n: b.extinction for n, b in dr4.bands.items()}
    types = {column.canonical: column.spark_type for column in dr4.wanted()}
    own = {column.canonical: column.spark_type for column in dr2.wanted() if column.canonical != "prox"}
    assert own.items() <= types.items(), "what DR2 reads, DR4 reads; prox is DR4's self_dist1"


def test_unknown_survey_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown survey 'gaia_dr2'. Did you mean 'gaia_dr3'\?"):
        load_descriptor("gaia_dr2")


def test_a_users_own_file_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "surveys").mkdir()
    text = shipped("survey")["sos"].read_text()
    (tmp_path / "surveys" / "mine.toml").write_text(text.replace('name = "sos"', 'name = "mine"'))
    assert load_descriptor("surveys/mine.toml", tmp_path).name == "mine"


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        """
name = "bad"
kind = "photometri"
[files]
format = "csv"
globb = "*.csv"
[position]
ra = "ra"
dec = "dec"
epok = "x"
[bands.u]
magnitud = "u"
[[cuts]]
name = "a cut"
where = "true"
reason = "r"
"""
    )
    with pytest.raises(ConfigError) as told:
        load_descriptor("bad.toml", tmp_path)
    message = str(told.value)
    for part in (
        "bad.toml",
        "'kind' = 'photometri'",
        "unknown key 'files.globb'. Did you mean 'glob'?",
        "key 'files.glob' is missing",
        "unknown key 'position.epok'. Did you mean 'epoch'?",
        "'bands.u.magnitud'. Did you mean 'magnitude'?",
        "cuts.0.name",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"position": {"id": "i", "ra": "ra"}}, "'ra' and 'dec' go together"),
        ({"position": {}}, "needs an 'id'"),
        ({"position": {"id": "i", "epoch": {"unit": "mjd"}}}, "either 'column' or 'value'"),
        ({"columns": {"null_when": {"flagz": "true"}, "keep": ["flags"]}}, "Did you mean 'flags'"),
        ({"kind": "labels"}, "needs a table"),
        ({"cuts": [{"name": "a", "where": "true", "reason": ""}] * 2}, "'a' is defined twice"),
        ({"cuts": [{"name": f"a{i}", "where": "true", "reason": ""} for i in range(32)]}, "at most 31"),
        ({"files": {"format": "xlsx", "glob": "*"}}, "files.format|Input should be 'csv'"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], told: str) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match=told):
        survey(**changes)


def test_cuts_are_switched_by_name_and_keep_their_bits() -> None:
    cuts = load_descriptor("skymapper_dr2").active_cuts(("require_all_bands",), ("clean",))
    assert [c.name for c in cuts] == [c.name for c in load_descriptor("skymapper_dr2").cuts]
    state = {c.name: c.enabled for c in cuts}
    assert state["require_all_bands"] and not state["clean"] and state["star_like"]


def test_columns_match_without_regard_to_case_an_exact_match_first() -> None:
    resolved = resolve(survey(), [[header("OBJECTID", "RA", "Dec", "Flags", "ra")]], {})
    assert resolved.sources == (("OBJECTID", "ra", "Dec", "Flags", None),)
    assert resolved.absent == ("note",)
    assert ddl(resolved.schema) == (
        "`object_id` long, `ra` double, `dec` double, `flags` int, `note` double"
    ), "a column without any type is a double, an id is whole"


def test_types_from_descriptor_file_or_guess() -> None:
    columns = [
        FileColumn("object_id", pa.int16()), "ra", "dec", FileColumn("flags", pa.int64()),
        FileColumn("note", pa.bool_()),
    ]  # fmt: skip
    found = resolve(survey(), [[header(*columns)]], {"note": pa.string()}).schema
    assert [f.type for f in found] == [pa.int64(), pa.float64(), pa.float64(), pa.int32(), pa.bool_()]
    guessed = resolve(survey(), [[header("object_id", "ra", "dec", "flags", "note")]], {"note": pa.string()})
    assert guessed.schema.field("note").type == pa.string()


def test_all_files_problems_at_once_with_the_near_name() -> None:
    files = [
        header("object_idd", "ra", "dec", "flags", name="one.csv"),
        header(FileColumn("object_id"), FileColumn("ra", unit="mag"), "dec", "flags", name="two.csv"),
        header("object_id", "ra", "dec", FileColumn("flags", pa.string()), name="three.csv"),
    ]
    with pytest.raises(InputError) as told:
        resolve(survey(), [[file] for file in files], {})
    message = str(told.value)
    assert "one.csv: column 'object_id' or 'ObjectId' is missing" in message
    assert "of the file's 4 columns the nearest are 'object_idd', " in message
    assert "two.csv: column 'ra' is in 'mag', expected 'deg'" in message
    assert "three.csv: column 'flags' holds text, expected numbers (int)" in message


@pytest.mark.parametrize("unit", ["deg", "degree", None, "", "who knows"])
def test_units_that_are_not_refused(unit: str | None) -> None:
    columns = ["object_id", FileColumn("ra", unit=unit), "dec", "flags"]
    assert resolve(survey(), [[header(*columns)]], {}).sources[0][1] == "ra"


def test_conversion() -> None:
    assert convert(pa.array([1.5, float("nan")], pa.float64()), pa.float32()).to_pylist() == [1.5, None]
    assert convert(pa.array([1.0, None]), pa.int64()).to_pylist() == [1, None]
    assert convert(pa.array([3, 4], pa.int16()), pa.int64()).to_pylist() == [3, 4]
    assert convert(pa.array([True, None]), pa.float32()).to_pylist() == [1.0, None]
    assert convert(pa.array(["TRUE", " false"]), pa.bool_()).to_pylist() == [True, False]
    for array, kind in (
        (pa.array([1.5]), pa.int64()),
        (pa.array([300]), pa.int8()),
        (pa.array(["x"]), pa.float64()),
        (pa.array([4.7e18]), pa.int64()),
    ):
        with pytest.raises(pa.ArrowInvalid):
            convert(array, kind)


class TestFiles:
    def test_file_folder_glob(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", "c.txt"):
            (tmp_path / name).write_text("object_id\n")
        folder = [f.path.name for f in find_files(survey(), tmp_path)]
        assert folder == ["a.csv", "b.csv"]
        assert [f.path.name for f in find_files(survey(), tmp_path / "*.txt")] == ["c.txt"]
        assert [f.path.name for f in find_files(survey(), tmp_path / "c.txt")] == ["c.txt"]

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"gone.csv: no such file or folder \(survey 't'\)"):
            find_files(survey(), tmp_path / "gone.csv")
        with pytest.raises(InputError, match=r"no file matches '\*.csv'.*an empty folder"):
            find_files(survey(), tmp_path)
        (tmp_path / "x.dat").write_text("a")
        with pytest.raises(InputError, match=r"found x.dat"):
            find_files(survey(), tmp_path)
        with pytest.raises(InputError, match="no such file"):
            find_files(survey(), tmp_path / "*.fits")

    def test_the_first_bytes_decide(self, tmp_path: Path) -> None:
        import gzip

        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [1]}), tmp_path / "a.csv")
        (tmp_path / "b.csv").write_bytes(gzip.compress(b"object_id\n1\n"))
        (tmp_path / "c.csv").write_bytes(b"SIMPLE  =                    T")
        (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbf\n<?xml version='1.0'?><VOTABLE>")
        (tmp_path / "e.csv").write_bytes(b"object_id\n")
        found = [(f.family, f.gzipped) for f in find_files(survey(), tmp_path)]
        assert found == [
            ("parquet", False),
            ("text", True),
            ("fits", False),
            ("votable", False),
            ("text", False),
        ]

    @pytest.mark.parametrize("content", [b"\x00\x01\x02\x03", b"PK\x03\x04\x00\x00"])
    def test_no_known_format(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(InputError, match="neither text, FITS, VOTable nor Parquet"):
            find_files(survey(), tmp_path)

    @pytest.mark.parametrize("cut", [3, 12, 30])
    def test_damaged_at_once(self, tmp_path: Path, cut: int) -> None:
        import gzip

        content = gzip.compress(b"object_id,ra,dec\n" + bytes(range(65, 90)) * 50)
        (tmp_path / "a.csv").write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"a.csv"):
            find_files(survey(), tmp_path / "a.csv")
        broken = bytearray(content)
        broken[2] = 9
        (tmp_path / "a.csv").write_bytes(broken)
        with pytest.raises(InputError, match=r"a.csv"):
            find_files(survey(), tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            '{ column = "e", unit = "arcsec", floor = 60 }',
            r"floor = 60 is in arcsec.*60 arcsec; expected 0 to 1 arcsec",
        ),
        ('{ column = "e", unit = "mas", floor = 5000 }', r"floor = 5000 is in mas.*5 arcsec"),
        ('{ column = "e", unit = "deg", floor = 0.01 }', r"floor = 0\.01 is in deg.*36 arcsec"),
        ('{ column = "e", unit = "mas", floor = -1 }', r"floor = -1 is in mas"),
        (
            '{ value = 100, unit = "arcsec" }',
            r"value = 100 is in arcsec.*100 arcsec; expected 0 to 10 arcsec",
        ),
        ('{ column = "e", unit = "mjd" }', r"its unit is 'mjd', expected an angle \(mas, arcsec, deg\)"),
        (
            '{ column = "e", unit = "mas", floor = 50, reject_above = 20 }',
            r"reject_above = 20 is not above floor = 50",
        ),
    ],
)
def test_position_errors_that_no_survey_has_are_refused(tmp_path: Path, error: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\nkind = "photometry"\ncitation = "x"\n[files]\nformat = "csv"\nglob = "*"\n'
        f'[position]\nra = "ra"\ndec = "dec"\nra_error = {error}\ndec_error = {error}\n'
    )
    with pytest.raises(ConfigError, match=message):
        load_descriptor(str(path))


def test_floors_of_the_shipped_surveys() -> None:
    """In mas: what each descriptor says, in the unit of its column."""
    floors = {name: position_errors(load_descriptor(name)).floor_mas for name in shipped("survey")}
    assert {name: floor for name, floor in floors.items() if floor} == {
        "skymapper_dr2": 36.0,
        "skymapper_dr4": 36.0,
        "twomass": 60.0,
    }


def test_an_epoch_has_a_unit_of_time(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = 'name = "own"\nkind = "photometry"\ncitation = "x"\n[files]\nformat = "csv"\nglob = "*"\n'
    path.write_text(text + '[position]\nra = "ra"\ndec = "dec"\nepoch = { column = "t", unit = "mas" }\n')
    with pytest.raises(ConfigError, match=r"epoch: its unit is 'mas', expected a time \(mjd, jd, jyear\)"):
        load_descriptor(str(path))
