"""What would stop a run is said before Java starts: everything at once, by every command, and by doctor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stellarml.cli import main as cli
from stellarml.core.config import Config, load_config
from stellarml.core.errors import ConfigError
from stellarml.stages.chain import STAGES
from stellarml.stages.preflight import preflight, problems_of_run

STARS = "id,ra,dec,g,teff,e_teff\n1,10,20,15,5000,50\n2,11,21,16,6000,50\n"
SURVEY = """
name = "{name}"
kind = "{kind}"
files = {{ format = "csv", glob = "*.csv" }}
position = {{ id = "id", ra = "ra", dec = "dec" }}
columns = {{ keep = ["g"] }}
{more}
"""
FEATURES = """
id = "source_id"
labels = [{name = "teff", column = "teff", error = "e_teff", unit = "K"}]
features = [{name = "g", expression = "g", unit = "mag"}]
"""
LABELS = 'labels = { teff = { value = "teff", error = "e_teff", unit = "K" } }\n'


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: object) -> None:
        raise AssertionError("Java was started")

    monkeypatch.setattr("stellarml.run.spark_session.start_session", start)


def write(folder: Path, **changes: str) -> Path:
    """Write a run of three surveys of one's own into a folder; return its configuration."""
    for name, kind, more in (
        ("stars", "astrometry", ""),
        ("bands", "photometry", ""),
        ("spectra", "labels", LABELS),
    ):
        (folder / f"{name}.toml").write_text(
            SURVEY.format(name=name, kind=kind, more=changes.get(name, more)).replace(
                "\ncolumns", f"\n{''}columns"
            )
        )
        (folder / f"{name}.csv").write_text(changes.get(f"{name}_rows", STARS))
    (folder / "features.toml").write_text(changes.get("features", FEATURES))
    raw = changes.get("raw", 'stars = "stars.csv"\nbands = "bands.csv"\nspectra = "spectra.csv"\n')
    surveys = changes.get("surveys", "")
    (folder / "config.toml").write_text(
        'surveys = { astrometry = "stars.toml", photometry = "bands.toml", distances = "", '
        'labels = ["spectra.toml"] }\n'
        f'features = {{ file = "features.toml" }}\n{surveys}\n[raw]\n{raw}'
    )
    return folder / "config.toml"


def run(folder: Path, **changes: str) -> Config:
    return load_config(write(folder, **changes))


def test_a_good_run_passes(tmp_path: Path) -> None:
    config = run(tmp_path)
    assert problems_of_run(config, STAGES) == []
    preflight(config, STAGES)


def test_all_problems_at_once(tmp_path: Path) -> None:
    config = run(
        tmp_path,
        raw='stars = "stars.csv"\nbands = "gone/*.csv"\nspektra = "spectra.csv"\n',
        stars='[[cuts]]\nname = "bright"\nwhere = "gg < 15"\nreason = "x"\n[[cuts]]\nname = "odd"\n'
        'where = "ga < 3"\nreason = "x"\n',
        features=FEATURES.replace('expression = "g"', 'expression = "gmag"'),
    )
    (tmp_path / "lake").write_text("in the way")
    with pytest.raises(ConfigError) as told:
        preflight(config, STAGES)
    message = str(told.value)
    for words in (
        "cut 'bright': 'gg < 15' names the column 'gg', which the survey does not carry; the nearest are 'g'",
        "cut 'odd': 'ga < 3' names the column 'ga'",
        "gone/*.csv: no such file or folder (survey 'bands')",
        "[raw] does not say where the files of survey 'spectra' lie",
        "no survey of the run carries the column 'gmag', needed by feature g; the nearest are 'g'",
        "paths.lake:",
    ):
        assert words in message, words
    assert "before the start, 6 problems" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"spectra_rows": "id,ra,dec,g\n1,2,3,4\n"},
            "spectra.csv: column 'teff' is missing; of the file's 4 columns",
        ),
        ({"bands_rows": ""}, "bands.csv: has no line of column names"),
        ({"spectra": 'labels = { feh = { value = "teff" } }\n'}, "label table 'spectra' has no label teff"),
        ({"features": "id = 3"}, "feature file"),
        (
            {"features": FEATURES.replace('"g", unit', '"g +", unit')},
            "key 'features.0.expression': 'g +' is not Spark SQL",
        ),
        (
            {"stars": '[[cuts]]\nname = "odd"\nwhere = "g <"\nreason = "x"\n'},
            "'cuts.0.where': 'g <' is not Spark SQL",
        ),
        ({"surveys": 'label = { model = "gone" }\n'}, "models/gone: no such model"),
        ({"surveys": 'cuts = { enable = ["brigt"] }\n'}, "cuts.enable names 'brigt'"),
    ],
)
def test_each_problem(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    problems = problems_of_run(run(tmp_path, **changes), STAGES)
    assert len(problems) == 1 and words in problems[0]


def test_the_last_survey_is_found_before_the_first_is_ingested(tmp_path: Path) -> None:
    path = write(tmp_path, raw='stars = "stars.csv"\nbands = "bands.csv"\n')
    for command in (["run"], ["ingest"], ["ingest", "--survey", str(tmp_path / "spectra.toml")]):
        assert status(*command, "--config", str(path)) == 2
    assert not (tmp_path / "lake").exists()


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run(tmp_path)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert problems_of_run(config, ["ingest"]) == [], "of a few rows nothing is guessed"
    monkeypatch.setattr("stellarml.stages.preflight._SMALL_BYTES", 0)
    (problem,) = problems_of_run(config, ["ingest"])
    assert "0.0 GiB are free" in problem and "paths.lake" in problem
    assert problems_of_run(config, ["train"]) == []


def status(*arguments: str) -> int:
    sys.argv = ["stellarml", *arguments]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_doctor_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, raw='stars = "stars.csv"\nbands = "bands.csv"\n')
    assert status("doctor", "--config", str(path)) == 2
    said = capsys.readouterr().out
    assert "[raw] does not say where the files of survey 'spectra' lie" in said
    problems = problems_of_run(load_config(path), STAGES)
    assert all(problem in said for problem in problems)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stars.csv", "gone.csv"], "gone.csv: no such file"),
        (["stars.csv", "bands.csv", "--columns", "ids,gg"], "'ids' is a column of neither"),
        (
            ["stars.csv", "bands.csv", "--columns", "left.GG"],
            "'left.GG' is a column of neither catalogue; the nearest",
        ),
        (["stars.csv", "bands.csv"], "has no position errors"),
        (["stars.csv", "bad.csv", "--radius-arcsec", "1"], "column 'dec' is missing"),
    ],
)
def test_match_looks_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    write(tmp_path)
    (tmp_path / "bad.csv").write_text("id,ra,g\n1,2,3\n")
    files = [str(tmp_path / name) for name in arguments[:2]]
    radius = (
        []
        if words == "has no position errors" or "--radius-arcsec" in arguments
        else ["--radius-arcsec", "1"]
    )
    surveys = ["--left-survey", str(tmp_path / "stars.toml"), "--right-survey", str(tmp_path / "bands.toml")]
    out = ["--out", str(tmp_path / "xm")]
    assert status("match", *files, *arguments[2:], *radius, *surveys, *out) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "xm").exists()


def test_columns_in_any_case(tmp_path: Path) -> None:
    from stellarml.crossmatch.output_columns import chosen_columns

    assert chosen_columns(["id", "g", "G"], ["ID", "teff"], "TEFF,g,Left.ID") == (["g", "id"], ["teff"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("gone.csv", "gone.csv: no such file"),
        (
            "stars.csv",
            "no column 'bp_rp' in the table, needed by feature colour; of its 6 columns the nearest are",
        ),
    ],
)
def test_a_table_is_looked_at_before_java(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, words: str
) -> None:
    write(
        tmp_path,
        features=FEATURES.replace('{name = "g", expression = "g"', '{name = "colour", expression = "bp_rp"'),
    )
    features = ["--features", str(tmp_path / "features.toml"), "--out", str(tmp_path / "model")]
    assert status("train", "--table", str(tmp_path / table), *features) == 2
    assert words in capsys.readouterr().err
