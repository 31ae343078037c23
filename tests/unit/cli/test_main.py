"""The command line's contract: commands, examples, exit status, one message and no traceback."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from stellarml import __version__
from stellarml.cli import main as cli
from stellarml.core.errors import (
    BundleError,
    ConfigError,
    InputError,
    OutputBusyError,
    PlatformError,
    StaleOutputError,
    StellarmlError,
    StorageError,
    TrainingError,
    UserError,
)

CHAIN = ("run", "ingest", "select", "crossmatch", "features", "train", "label", "report")
COMMANDS = ("demo", "simulate", *CHAIN, "doctor")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stellarml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; return status, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stellarml", *map(str, arguments)])
        try:
            cli.main()
            status: object = 0
        except SystemExit as end:
            status = end.code
        told = capsys.readouterr()
        return int(status or 0) if isinstance(status, int | None) else 1, told.out, told.err

    return run


def test_every_command_of_the_contract_is_there() -> None:
    assert set(COMMANDS) <= set(get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(stellarml: Run, command: str) -> None:
    status, out, err = stellarml(command, "--help")
    assert status == 0 and not err
    assert re.search(rf"Example: stellarml {command} --", out), out
    if command in CHAIN:
        assert all(option in out for option in ("--config", "--profile", "--set", "--overwrite"))


def test_version(stellarml: Run) -> None:
    assert stellarml("--version") == (0, f"{__version__}\n", "")


def test_nothing_said_shows_the_help(stellarml: Run) -> None:
    status, out, err = stellarml()
    assert status in (0, 2) and all(command in out + err for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ingesst"], "ingesst"),
        (["run"], "--config"),
        (["run", "--config"], "--config"),
        (["run", "--config", "gone.toml"], "gone.toml: no such file"),
        (["run", "--config", "{}", "--profile", "clouster"], "Did you mean 'cluster'?"),
        (["run", "--config", "{}", "--set", "tiles.maxrows=9"], "Did you mean 'max_rows'?"),
        (["run", "--config", "{}", "--set", "tiles"], "expected key=value"),
        (["train"], "give --config FILE, or --table FILE"),
        (["train", "--table", "t.csv"], "--features TOML and --out DIR"),
        (["train", "--config", "{}", "--features", "f.toml"], "--features and --out go with --table"),
        (
            ["label", "--table", "t", "--model", "m", "--out", "o.csv", "--strict"],
            "a --table is labelled whole",
        ),
        (["train", "--preset", "papers", "--table", "t"], "train.preset"),
        (["label"], "give --config FILE, or --table FILE"),
        (["label", "--table", "t.csv"], "--model DIR and --out FILE"),
        (["label", "--level", "50", "--table", "t.csv"], "label.level"),
        (["simulate", "--out", "x", "--stars", "0"], "stars"),
        (["simulate", "--out", "x", "--stars", "many"], "valid integer"),
    ],
)
def test_a_users_mistake_ends_with_2(
    stellarml: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("")
    status, out, err = stellarml(*(a.replace("{}", "c.toml") for a in arguments))
    assert status == 2
    assert told in err and "Traceback" not in err and not out
    assert [p.name for p in tmp_path.iterdir()] == ["c.toml"], "a mistake writes nothing"


def test_a_folder_of_somebody_else_is_not_simulated_into(stellarml: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x")
    status, _, err = stellarml("simulate", "--out", tmp_path, "--stars", "2000")
    assert status == 2 and "is not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


JAVA = "An error occurred while calling o7.x.\n: a.B: lost\n\tat c\nCaused by: d.E: no memory\n\tat f"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("u"), 2),
        (ConfigError("c"), 2),
        (InputError("i"), 2),
        (BundleError("b"), 2),
        (TrainingError("t"), 2),
        (StaleOutputError("s"), 2),
        (PlatformError("p"), 2),
        (OutputBusyError("o"), 75),
        (StorageError("d"), 1),
        (StellarmlError("e"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (PermissionError(errno.EACCES, "Permission denied", "lake"), 1),
        (RuntimeError("first\nsecond"), 1),
        (RuntimeError(JAVA), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status(
    stellarml: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, status: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_run_chain", fail)
    monkeypatch.setattr("stellarml.cli.exit_status.stop_spark_quietly", lambda: None)  # that of all the tests
    (tmp_path / "c.toml").write_text("")
    found, out, err = stellarml("run", "--config", tmp_path / "c.toml")
    assert found == status
    assert err.startswith("stellarml: ") and err.count("stellarml: ") == 1 and "Traceback" not in err
    assert not out
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        assert "disk is full" in err and "kept" in err
    if isinstance(error, RuntimeError):
        told = "d.E: no memory" if "Caused by" in str(error) else "first"
        assert err.splitlines()[0] == f"stellarml: unexpected RuntimeError: {told}"
    if isinstance(error, KeyboardInterrupt):
        assert "what was finished is kept" in err


def test_debug_shows_the_traceback(stellarml: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("deep")

    monkeypatch.setattr(cli, "_run_chain", fail)
    monkeypatch.setenv("STELLARML_LOG__LEVEL", "debug")
    (tmp_path / "c.toml").write_text("")
    assert "Traceback" in stellarml("run", "--config", tmp_path / "c.toml")[2]


class TestDoctor:
    def test_a_whole_machine(self, stellarml: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from stellarml.cli import doctor
        from stellarml.run.spark_session import Java

        monkeypatch.setattr(doctor, "find_java", lambda: Java(Path("/jvm"), 21, "PATH"))
        status, out, err = stellarml("doctor", "--set", "spark.min_free_memory=1m")
        assert status == 0, out
        assert "21 in /jvm (from PATH)" in out and "raw." not in out and "NO " not in out and not err

    def test_what_is_missing_and_how_to_get_it(
        self, stellarml: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from stellarml.cli import doctor

        def none() -> None:
            raise PlatformError("Install one, for example openjdk-17-jre-headless")

        monkeypatch.setattr(doctor, "find_java", none)
        monkeypatch.setattr(doctor, "available_bytes", lambda: 1 << 20)
        (tmp_path / "c.toml").write_text('[raw]\ngaia_dr3 = "raw/gone/*.csv"\n')
        status, out, _ = stellarml("doctor", "--config", tmp_path / "c.toml")
        assert status == 2
        bad = [line.split()[1] for line in out.splitlines() if line.startswith("NO ")]
        assert bad == ["Java", "memory", "run", "run", "run", "run"], "and each survey's files"
        assert "openjdk-17-jre-headless" in out and "spark.min_free_memory" in out and "[raw]" in out
