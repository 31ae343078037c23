"""Configuration: which layer wins, and every mistake told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellarml.core.config import PROFILES, conf_dir, load_config
from stellarml.core.errors import ConfigError
from stellarml.core.toml_layers import merge, parse_override, read_toml


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_shipped_values_alone_are_whole() -> None:
    config = load_config(environment={})
    assert config.crossmatch.scope == "full"
    assert config.tiles.max_rows == 1_000_000
    assert config.root == Path.cwd()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_shipped_profile_loads(profile: str) -> None:
    assert load_config(profile=profile, environment={}) != load_config(environment={})


def test_base_toml_holds_every_key() -> None:
    """A key without a shipped value would be missing from the resolved configuration."""
    dumped = load_config(environment={}).model_dump(exclude={"root"})
    shipped = read_toml(conf_dir() / "base.toml")
    assert set(dumped) == set(shipped)
    assert all(set(dumped[table]) == set(shipped[table]) for table in shipped if table != "raw")


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    text = 'profile = "demo"\n'
    environment: dict[str, str] = {}
    assert load_config(written(tmp_path, text), environment=environment).tiles.max_rows == 100_000
    text += "[tiles]\nmax_rows = 7000\n"
    assert load_config(written(tmp_path, text), environment=environment).tiles.max_rows == 7000
    environment["STELLARML_TILES__MAX_ROWS"] = "8000"
    assert load_config(tmp_path / "config.toml", environment=environment).tiles.max_rows == 8000
    given_last = load_config(
        tmp_path / "config.toml",
        environment=environment,
        overrides=["tiles.max_rows=8500", "tiles.max_rows=9000"],
    )
    assert given_last.tiles.max_rows == 9000
    assert given_last.tiles.row_group_rows == 50_000, "other keys of the table keep the profile's value"


def test_a_profile_given_by_hand_wins_over_the_files_own(tmp_path: Path) -> None:
    file = written(tmp_path, 'profile = "demo"\n')
    assert load_config(file, profile="paper", environment={}).tiles.max_rows == 1_000_000
    own = tmp_path / "mine.toml"
    own.write_text("[train]\nseed = 12\n")
    assert load_config(file, profile=str(own), environment={}).train.seed == 12


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "[crossmatch]\nscop = 'full'\ngamma = 2.0\n[tile]\nmax_rows = 3\n")
    with pytest.raises(ConfigError) as told:
        load_config(file, environment={"STELLARML_TRAIN__SEED": "many"}, overrides=["split.tests=0.1"])
    message = str(told.value)
    for part in (
        "crossmatch.scop",
        "Did you mean 'scope'?",
        "crossmatch.gamma",
        "'tile'",
        "Did you mean 'tiles'?",
        "train.seed",
        "'many'",
        "split.tests",
        "Did you mean 'test'?",
        "5 problems",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ({"validation": 0.4, "test": 0.4, "calibration": 0.2}, "= 1 leave no star for training"),
        ({"validation": 0.5, "test": 0.5, "calibration": 0}, "= 1 leave no star for training"),
        ({"validation": 0.6, "test": 0.3, "calibration": 0.1}, "= 1 leave no star for training"),
        ({"validation": 0.7, "test": 0.2, "calibration": 0.3}, "= 1.2 leave no star for training"),
        ({"validation": 0}, "no epoch can be chosen. Give it a share"),
        ({"validation": 0, "calibration": 0}, "no epoch can be chosen, nor an interval calibrated"),
        ({"calibration": 10}, "'split.calibration' = 10: Input should be less than 1"),
        ({"calibration": -0.1}, "'split.calibration' = -0.1: Input should be greater than or equal to 0"),
        ({"test": 0}, "'split.test' = 0: Input should be greater than 0"),
    ],
)
def test_shares_of_the_split_that_cannot_be(shares: dict[str, float], told: str) -> None:
    """Refused with the configuration, before hours of ingest and match, and without pydantic's own words around it."""
    with pytest.raises(ConfigError) as error:
        load_config(overrides=[f"split.{key}={value}" for key, value in shares.items()], environment={})
    assert (
        told in str(error.value) and "Value error" not in str(error.value) and "salt" not in str(error.value)
    )


def test_the_paper_profile_does_what_the_paper_did() -> None:
    config = load_config(profile="paper", environment={})
    assert (config.split.validation, config.split.test, config.split.calibration) == (0.1, 0.1, 0.0)
    assert config.crossmatch.scope == "left_selected" and config.train.preset == "paper"
    assert config.cuts.enable == ("no_sentinel_magnitude",) and not config.cuts.disable


def test_unknown_profile_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown profile 'papr'. Did you mean 'paper'\?"):
        load_config(profile="papr", environment={})


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a = ", "not valid TOML"), (b"a = '\xff'", "not UTF-8"), (None, "no such file")],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as error:
        load_config(path, environment={})
    assert str(path) in str(error.value)
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path, environment={})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("crossmatch.scope=full", {"crossmatch": {"scope": "full"}}),
        ("tiles.max_rows = 5_000", {"tiles": {"max_rows": 5000}}),
        ("surveys.labels=['sos', 'galah_dr3']", {"surveys": {"labels": ["sos", "galah_dr3"]}}),
        ("raw.gaia=a=b.csv", {"raw": {"gaia": "a=b.csv"}}),
        ("report.title=Stars, and more", {"report": {"title": "Stars, and more"}}),
        (
            'spark.options."spark.executor.memory"=8g',
            {"spark": {"options": {"spark.executor.memory": "8g"}}},
        ),
    ],
)
def test_overrides(text: str, wanted: object) -> None:
    assert parse_override(text) == wanted


@pytest.mark.parametrize("text", ["crossmatch.scope", "=3", "a..b=1", ".a=1", "a b=1", "a=1\nb=2 = 3"])
def test_overrides_that_say_nothing(text: str) -> None:
    if text.startswith("a=1"):
        assert parse_override(text) == {"a": "1\nb=2 = 3"}, "one key, never two"
        return
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override(text)


def test_a_number_does_for_a_salt() -> None:
    assert load_config(overrides=["split.salt=7"], environment={}).split.salt == "7"


def test_environment_needs_prefix_and_table(tmp_path: Path) -> None:
    environment = {"STELLARML_HOME": "x", "TILES__MAX_ROWS": "9000", "STELLARML_SPLIT__SALT": "a"}
    config = load_config(environment=environment)
    assert config.split.salt == "a" and config.tiles.max_rows == 1_000_000


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, '[raw]\ngaia_dr3 = "in/gaia"\nsos = "/data/sos"\n'), environment={}
    )
    assert config.lake_folder == tmp_path / "lake"
    assert config.raw_path("gaia_dr3") == tmp_path / "in" / "gaia"
    assert config.raw_path("sos") == Path("/data/sos")
    with pytest.raises(ConfigError, match=r"survey 'twomass' lie; it names \['gaia_dr3', 'sos'\]"):
        config.raw_path("twomass")


def test_a_resolved_configuration_is_frozen() -> None:
    from pydantic import ValidationError

    config = load_config(environment={})
    with pytest.raises(ValidationError):
        config.train.seed = 3  # type: ignore[misc]


_tables = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
_layers = st.dictionaries(st.sampled_from("abc"), _tables, max_size=3)


@given(_layers, _layers)
def test_merge_lays_one_table_on_another(base: dict[str, object], over: dict[str, object]) -> None:
    merged = merge(base, over)
    assert set(merged) == set(base) | set(over)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base and merge({}, over) == over
    for key, value in over.items():
        if not isinstance(value, dict):
            assert merged[key] == value


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("STELLARML_CROSSMATCH_SCOPE", "STELLARML_CROSSMATCH__SCOPE"),
        ("STELLARML_FOO", "STELLARML_SECTION__KEY"),
    ],
)
def test_variables_that_would_be_ignored_are_refused(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: two underscores.*{meant}"):
        load_config(environment={name: "full"})
    assert load_config(environment={"STELLARML_HOME": "/opt", "STELLARML_CROSSMATCH__SCOPE": "selected"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a." * 3000 + "b = 1", "nest deeper than 32"),
        ("a = " + "[" * 5000 + "]" * 5000, "nest deeper than 32"),
        ("a = " + "{b=" * 40 + "1" + "}" * 40, "nest deeper than 32"),
        ("[" + ".".join("a" * 500) + "]", "nest deeper than 32"),
        ("[tiles]\nmax_rows = " + "9" * 5000, "Exceeds the limit"),
        ("[tiles]\nmax_rows = 0x" + "f" * 5000, "an integer of more than 64 bits"),
        ("[split]\nsalt = 18446744073709551616", "an integer of more than 64 bits"),
        ("profile = 3", "key 'profile' is no text"),
    ],
)
def test_nests_and_numbers_that_no_file_of_ours_has(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    assert str(path) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    "override", ["a." * 3000 + "b=1", "tiles.max_rows=0x" + "f" * 5000, "log.level=" + "[" * 5000]
)
def test_overrides_that_nest(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(overrides=[override], environment={})


@pytest.mark.parametrize("name", ["x" * 5000 + ".toml", "a\0b.toml"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load_config(tmp_path / name, environment={})
