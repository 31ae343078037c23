"""The feature file: Table 1 as shipped, and every mistake in a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.model_tables import FEATURES

from stellarml.core.errors import ConfigError
from stellarml.features.extinction import coefficients
from stellarml.features.feature_file import feature_differences, load_feature_file

TABLE_1 = (
    ["r_med_geo", "bp", "rp"]
    + [f"{band}abs" for band in "uvgriz"]
    + [f"{band}abs_nored" for band in "uvgriz"]
    + [f"e_{band}_psf" for band in "uvgriz"]
    + [f"{name}_gspphot" for name in ("teff", "logg", "mh")]
    + [f"{name}_gspphot_err" for name in ("teff", "logg", "mh")]
)

VALID = """
id = "star"
[[labels]]
name = "teff"
column = "t"
unit = "K"
[[features]]
name = "bp_rp"
expression = "bp - rp"
unit = "mag"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_the_papers_table_1_has_these_27_inputs() -> None:
    paper = load_feature_file("paper")
    assert list(paper.feature_names) == TABLE_1
    assert len(TABLE_1) == 27
    assert paper.id == "source_id"
    assert [(label.name, label.column, label.error, label.unit) for label in paper.labels] == [
        ("teff", "teff", "e_teff", "K"),
        ("logg", "logg", "e_logg", "dex"),
        ("feh", "feh", "e_feh", "dex"),
    ]


@pytest.mark.parametrize(
    ("band", "coefficient"),
    [("u", "4.294"), ("v", "4.026"), ("g", "2.986"), ("r", "2.288"), ("i", "1.588"), ("z", "1.206")],
)
def test_the_papers_extinction_coefficients(band: str, coefficient: str) -> None:
    paper = {f.name: f.expression for f in load_feature_file("paper").features}
    modulus = f"{band}_psf - 5 * log10(r_med_geo) + 5"
    assert paper[f"{band}abs"] == f"{modulus} - {coefficient} * ebmv_sfd"
    assert paper[f"{band}abs_nored"] == modulus


def test_gaia_g_is_not_an_input() -> None:
    assert not any("phot_g_mean_mag" in f.expression for f in load_feature_file("paper").features)


def test_an_unknown_key_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("expression", "expresion"))
    with pytest.raises(
        ConfigError, match=r"unknown key 'features\.0\.expresion'\. Did you mean 'expression'"
    ):
        load_feature_file(path)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace('unit = "K"\n', "").replace('id = "star"', 'ident = "star"'))
    with pytest.raises(ConfigError) as told:
        load_feature_file(path)
    assert "key 'labels.0.unit' is missing" in str(told.value)
    assert "key 'id' is missing" in str(told.value)
    assert "unknown key 'ident'" in str(told.value)


@pytest.mark.parametrize("name", ["TEFF", "teff_lo", "e_teff", "star", "quality_flags"])
def test_names_that_the_output_would_confuse_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="used twice"):
        load_feature_file(write(tmp_path, VALID.replace("bp_rp", name)))


def test_a_name_must_be_a_plain_word(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.0\.name"):
        load_feature_file(write(tmp_path, VALID.replace("bp_rp", "bp rp")))


def test_an_unknown_shipped_file_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown feature file 'papr'\. Did you mean 'paper'"):
        load_feature_file("papr")
    with pytest.raises(ConfigError, match="no such file"):
        load_feature_file("./nowhere.toml")


def changed(**changes: object) -> object:
    return FEATURES.model_copy(update=changes)


def test_differences_name_what_changed() -> None:
    g, u_g, *rest = FEATURES.features
    renamed = FEATURES.model_copy(update={"features": (g, u_g.model_copy(update={"name": "ug"}), *rest[:-1])})
    told = feature_differences(FEATURES, renamed)
    assert told == [
        "feature 'u_g' is missing. Was it renamed to 'ug'?",
        "feature 'distance' is missing.",
        "feature 'ug' is unknown to the model",
    ]


def test_differences_of_units_expressions_and_null_rules() -> None:
    g, *rest = FEATURES.features
    other = FEATURES.model_copy(
        update={
            "features": (g.model_copy(update={"unit": "mmag", "expression": "g_psf * 1000"}), *rest),
            "labels": (FEATURES.labels[0].model_copy(update={"unit": "eV"}), FEATURES.labels[1]),
            "null_when": {"g_psf": "g_psf > 25"},
        }
    )
    assert feature_differences(FEATURES, other) == [
        "feature 'g' has unit 'mmag', the model was trained with 'mag'",
        "feature 'g' has expression 'g_psf * 1000', the model was trained with 'g_psf'",
        "label 'teff' has unit 'eV', the model was trained with 'K'",
        "[null_when] differs for g_psf",
    ]


def test_order_and_spaces_are_no_difference() -> None:
    spaced = [f.model_copy(update={"expression": f.expression.replace(" ", "")}) for f in FEATURES.features]
    assert feature_differences(FEATURES, FEATURES.model_copy(update={"features": tuple(spaced[::-1])})) == []


OWN = """
id = "id"
extinction_from = ["twomass", "own.toml"]
[[labels]]
name = "teff"
column = "t"
unit = "K"
[[features]]
name = "k_0"
expression = "k - {A_Ks} * ebv - { A_u } * 0"
unit = "mag"
"""


def test_coefficients_come_from_the_descriptors(tmp_path: Path) -> None:
    survey, spec = tmp_path / "own.toml", tmp_path / "f.toml"
    survey.write_text('[bands.u]\nmagnitude = "u"\nextinction = 4.5\n[bands.x]\nmagnitude = "x"\n')
    spec.write_text(OWN)
    found = load_feature_file(spec)
    assert found.features[0].expression == "k - 0.31 * ebv - 4.5 * 0"
    assert "extinction_from" not in found.model_dump()
    assert found == load_feature_file(spec)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{A_Ks}",
            "{A_x}",
            r"f\.toml: feature 'k_0': \{A_x\} is no extinction coefficient\..*Known: A_J, A_H, A_Ks, A_u",
        ),
        (
            'extinction_from = ["twomass", "own.toml"]\n',
            "",
            r'Name the surveys: extinction_from = \["\.\.\."\]',
        ),
        ('"own.toml"', '"gone.toml"', r"gone\.toml"),
        ("{ A_u }", "{A-u}", r"holds a brace that is no \{A_X\}"),
        ("{ A_u }", "{A_u", r"holds a brace that is no \{A_X\}"),
        ('["twomass", "own.toml"]', "3", r"f\.toml: extinction_from is 3, expected names of surveys"),
        ('"own.toml"', '"two_mass"', r"unknown survey 'two_mass'\. Did you mean 'twomass'"),
        ('"twomass"', '"skymapper_dr2"', r"A_u is 4\.294 in 'skymapper_dr2' and 4\.5 in 'own\.toml'"),
    ],
)
def test_mistakes_with_coefficients(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "own.toml").write_text('[bands.u]\nmagnitude = "u"\nextinction = 4.5\n')
    assert old in OWN
    (tmp_path / "f.toml").write_text(OWN.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_feature_file(tmp_path / "f.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[bands.u]\nextinction = "much"\n', r"bands\.u\.extinction is 'much', expected a number"),
        ("[bands.u]\nextinction = nan\n", r"bands\.u\.extinction is nan, expected a number"),
        ("bands = 3\n", r"\[bands\] is no table of tables"),
        ("[bands]\ng = 3\n", r"\[bands\] is no table of tables"),
    ],
)
def test_a_coefficient_must_be_a_number(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        coefficients(["own.toml"], tmp_path)


def test_features_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    for features in ("features = 3\n", 'features = ["x"]\n'):
        text = 'id = "i"\n' + features + '[[labels]]\nname = "t"\ncolumn = "t"\nunit = "K"\n'
        (tmp_path / "f.toml").write_text(text)
        with pytest.raises(ConfigError, match="features"):
            load_feature_file(tmp_path / "f.toml")


def test_shipped_coefficients_are_the_published_ones() -> None:
    """Gaia: Casagrande et al. 2021 at (BP - RP)_0 = 0.8. SkyMapper: the same in both releases, and in Table 1."""
    x = 0.8
    assert coefficients(["gaia_dr3"], Path()) == pytest.approx(
        {
            "A_G": 2.609 - 0.475 * x + 0.053 * x**2,
            "A_BP": 2.998 - 0.140 * x - 0.175 * x**2 + 0.062 * x**3,
            "A_RP": 1.689 - 0.059 * x,
        },
        abs=6e-4,
    )
    skymapper = {"A_u": 4.294, "A_v": 4.026, "A_g": 2.986, "A_r": 2.288, "A_i": 1.588, "A_z": 1.206}
    assert coefficients(["skymapper_dr2"], Path()) == coefficients(["skymapper_dr4"], Path()) == skymapper
    expressions = {f.name: f.expression for f in load_feature_file("paper").features}
    assert expressions["vabs"] == "v_psf - 5 * log10(r_med_geo) + 5 - 4.026 * ebmv_sfd"
