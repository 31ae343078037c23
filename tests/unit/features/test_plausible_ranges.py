"""Ranges of labels and features: defaults, what is refused at load, what a message says, what a model keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stellarml.core.errors import ConfigError
from stellarml.features.feature_file import FeatureFile, feature_differences, load_feature_file
from stellarml.features.plausible_ranges import OutsideRange, default_feature_range, default_label_range, told

SENTINELS = (99.0, -99.0, -99.99, 999.0, -999.0, 9999.0, -9999.0, 10_013.2, 1e20)


def file(tmp_path: Path, label: str = "", feature: str = "", expression: str = "bp - rp") -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        f'id = "star"\n[[labels]]\nname = "teff"\ncolumn = "t"\nunit = "K"\n{label}\n'
        f'[[features]]\nname = "f"\nexpression = "{expression}"\nunit = "mag"\n{feature}\n'
    )
    return path


def is_in(value: float, limits: object) -> bool:
    assert isinstance(limits, tuple)
    return bool(limits[0] <= value <= limits[1])


@pytest.mark.parametrize(
    ("name", "unit", "impossible", "possible"),
    [
        ("teff", "K", (824.0, 1059.0, 0.0, 5.7), (2_300.0, 5_777.0, 200_000.0, 9_999.0)),
        ("logg", "dex", (9.9, 9.9169, -9.99), (-0.5, 4.44, 9.4)),
        ("feh", "dex", (-9.99, 5.0), (-7.1, -5.779, 0.5, 1.0)),
    ],
)
def test_labels_that_cannot_be_are_outside_and_real_stars_inside(
    name: str, unit: str, impossible: tuple[float, ...], possible: tuple[float, ...]
) -> None:
    limits = default_label_range(name, unit)
    sentinels = [v for v in SENTINELS if not (name == "teff" and v == 9999.0) and v != 10_013.2]
    assert not any(is_in(value, limits) for value in (*impossible, *sentinels))
    assert all(is_in(value, limits) for value in possible)


@pytest.mark.parametrize("expression", ["g", "g - r", "( `g` - r )", "g - 5 * log10(d) + 5 - 2.9 * ebv"])
def test_sentinels_are_outside_for_magnitudes_and_colours(expression: str) -> None:
    limits = default_feature_range(expression, "mag")
    one_of_two_is_a_sentinel = [sign * (s - m) for s in SENTINELS for m in (8.0, 22.0) for sign in (1, -1)]
    assert not any(is_in(value, limits) for value in (*SENTINELS, *one_of_two_is_a_sentinel))
    assert all(is_in(value, limits) for value in (-12.0, -0.6, 0.0, 2.5, 15.0, 22.0))


def test_a_difference_of_columns_has_the_range_of_colours() -> None:
    assert default_feature_range("bp - rp", "mag") == (-15.0, 30.0)
    assert default_feature_range("`a b`-c", " MAG ") == (-15.0, 30.0)
    assert (
        default_feature_range("bp - 2 * rp", "mag")
        == default_feature_range("bp_rp", "mag(AB)")
        == (-30.0, 40.0)
    )


@pytest.mark.parametrize(
    ("name", "unit"), [("teff", "kK"), ("logg", "m/s2"), ("age", "Gyr"), ("teff", "dex"), ("mass", "dex")]
)
def test_other_names_and_units_have_no_default(name: str, unit: str) -> None:
    assert default_label_range(name, unit) is False
    assert default_feature_range("x", unit) is False


def test_defaults_are_written_into_what_a_model_keeps(tmp_path: Path) -> None:
    spec = load_feature_file(file(tmp_path))
    assert (spec.labels[0].range, spec.features[0].range) == ((2_000.0, 250_000.0), (-15.0, 30.0))
    kept = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert kept["labels"][0]["range"] == [2_000.0, 250_000.0]
    assert FeatureFile(**kept) == spec


def test_a_range_of_the_file_and_none_at_all(tmp_path: Path) -> None:
    spec = load_feature_file(file(tmp_path, "range = [3000, 50000]", "range = false"))
    assert (spec.labels[0].range, spec.features[0].range) == ((3000.0, 50_000.0), False)
    kept = FeatureFile(**json.loads(spec.model_dump_json()))
    assert (kept.labels[0].range, kept.features[0].range) == ((3000.0, 50_000.0), False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[5, 5]", "5 is not below 5"),
        ("[50000, 3000]", "50000 is not below 3000"),
        ("[nan, 3]", "finite"),
        ("[0, inf]", "finite"),
        ("[-1e39, 3]", "finite"),
        ("[3000]", "two numbers"),
        ("[1, 2, 3]", "two numbers"),
        ("[]", "two numbers"),
        ('["3000", "50000"]', "two numbers"),
        ("[false, true]", "two numbers"),
        ("true", "two numbers"),
        ("0", "two numbers"),
        ('"3000..50000"', "two numbers"),
    ],
)
@pytest.mark.parametrize("where", ["label", "feature"])
def test_what_is_no_range_is_refused_in_words(tmp_path: Path, where: str, given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"key '{where}s\.0\.range'.*{words}"):
        load_feature_file(file(tmp_path, **{where: f"range = {given}"}))


def test_a_changed_range_of_a_feature_is_a_difference(tmp_path: Path) -> None:
    model = load_feature_file(file(tmp_path))
    narrow = load_feature_file(file(tmp_path, feature="range = [-1, 5.5]"))
    none = load_feature_file(file(tmp_path, feature="range = false"))
    start = "feature 'f' has the range"
    assert feature_differences(model, narrow) == [f"{start} -1 to 5.5, the model was trained with -15 to 30"]
    assert feature_differences(model, none) == [f"{start} none, the model was trained with -15 to 30"]
    assert feature_differences(none, model) == [f"{start} -15 to 30, the model was trained with none"]
    assert feature_differences(narrow, narrow) == []


def test_a_changed_range_of_a_label_leaves_the_model_usable(tmp_path: Path) -> None:
    narrow = load_feature_file(file(tmp_path, "range = [3000, 50000]"))
    assert feature_differences(load_feature_file(file(tmp_path)), narrow) == []


def test_a_model_from_before_ranges_takes_any_file(tmp_path: Path) -> None:
    given = load_feature_file(file(tmp_path))
    old = json.loads(given.model_dump_json())
    for entry in (*old["labels"], *old["features"]):
        del entry["range"]
    model = FeatureFile(**old)
    assert (model.labels[0].range, model.features[0].range) == (None, None)
    assert feature_differences(model, given) == []
    assert json.loads(model.model_dump_json()) == old, "what is not in the bundle is not in its digest"


def counted(outside: int, values: int, median: float = 5700.0, **more: str) -> OutsideRange:
    return OutsideRange(
        kind="label",
        name="teff",
        unit="K",
        low=2000,
        high=100_000,
        outside=outside,
        values=values,
        median=median,
        **more,
    )


def test_the_message_counts() -> None:
    messages, warnings = told([counted(12, 4321), counted(5, 10, table="galah_dr3")])
    assert messages == [
        "label teff: 12 of 4,321 values outside 2000 to 100000 K are taken as missing",
        "label teff of galah_dr3: 5 of 10 values outside 2000 to 100000 K are taken as missing",
    ]
    assert warnings == [], "half is not most"


def test_a_wrong_unit_is_warned_of_with_median_and_range() -> None:
    _, warnings = told([counted(6, 10, 5.7)])
    assert len(warnings) == 1
    assert "label teff: 60 % of the values are outside 2000 to 100000 K, their median is 5.7" in warnings[0]
    assert "probably not K" in warnings[0]


def test_the_papers_file_states_what_the_defaults_are() -> None:
    paper = load_feature_file("paper")
    assert [x.range for x in paper.labels] == [default_label_range(x.name, x.unit) for x in paper.labels]
    assert all(f.range for f in paper.features)


def real_columns(real: Path) -> dict[str, tuple[object, np.ndarray]]:
    """Every label, magnitude and colour of the real rows: its range, and its values."""
    lamost = pd.read_parquet(real / "labels" / "lamost_13band_train.parquet")
    segue = pd.read_csv(real / "labels" / "segue_dr17_ugriz_feh.csv")
    southern = pd.read_csv(real / "labels" / "skymapper_galah_rave.csv")
    galah = pd.read_csv(real / "labels" / "galah_dr3_allstar_m67_lite.csv")
    dr4 = pd.read_csv(real / "skymapper_dr4" / "NGC1097_SMSS.csv")
    gaia = pd.read_parquet(real / "gaia_dr3" / "cone_ra45_dec0_full_columns.parquet")
    limits = {"teff": "K", "logg": "dex", "feh": "dex", "fe_h": "dex"}
    found: dict[str, tuple[object, np.ndarray]] = {}
    tables = {
        "lamost": lamost,
        "segue": segue,
        "southern": southern,
        "galah": galah,
        "dr4": dr4,
        "gaia": gaia,
    }
    for table, rows in tables.items():
        for name in rows.columns:
            low = name.lower()
            if low in limits:
                found[f"{table} {name}"] = default_label_range(low, limits[low]), rows[name].to_numpy()
            elif (
                low.endswith(("psf", "_mean_mag"))
                or low in ("ug", "gr", "ri", "iz")
                or low[-2:] in ("_g", "_r")
            ):
                found[f"{table} {name}"] = default_feature_range(name, "mag"), rows[name].to_numpy()
    for a, b in ("uv", "vg", "gr", "ri", "iz"):
        found[f"southern {a} - {b}"] = (
            default_feature_range("a - b", "mag"),
            (southern[f"{a}_psf"] - southern[f"{b}_psf"]).to_numpy(),
        )
    paper = {f.name: f.range for f in load_feature_file("paper").features}
    for name in ("teff_gspphot", "logg_gspphot", "mh_gspphot"):
        found[f"gaia {name}"] = paper[name], gaia[name].to_numpy()
        half = (gaia[f"{name}_upper"] - gaia[f"{name}_lower"]) / 2
        found[f"gaia {name}_err"] = paper[f"{name}_err"], half.to_numpy()
    return found


def test_of_real_rows_only_what_cannot_be_is_lost(real_data: Path) -> None:
    """Two temperatures and one gravity of LAMOST, one star's r-i and i-z of SEGUE; all else stays."""
    lost, seen = {}, 0
    for name, (limits, values) in real_columns(real_data).items():
        values = values.astype(float)[np.isfinite(values.astype(float))]
        seen += len(values)
        assert len(values), name
        odd = [round(float(v), 1) for v in values if not is_in(v, limits)]
        if odd:
            lost[name] = sorted(odd)
    assert seen > 200_000
    assert lost == {
        "lamost teff": [824.2, 1059.2],
        "lamost logg": [9.9],
        "segue ri": [10_013.2],
        "segue iz": [-10_013.3],
    }
