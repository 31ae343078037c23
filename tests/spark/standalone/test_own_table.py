"""Tables of a user's own, as files state them: units, ids, labels that are none, sentinels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table
from helpers.label_leaves import Configured

from stellarml.core.errors import ChangedInputError, InputError, TrainingError
from stellarml.features.feature_file import FeatureFile
from stellarml.standalone.own_table import label_table, train_on_table
from stellarml.standalone.own_table_checks import check_ids, check_labels, check_units
from stellarml.standalone.own_table_reader import open_table, read_table, refuse_changed

SPEC = FeatureFile(
    id="gaia.id",
    labels=({"name": "teff", "column": "teff", "error": "e_teff", "unit": "K"},),
    features=(
        {"name": "g", "expression": "g", "unit": "mag"},
        {"name": "colour", "expression": "u - g", "unit": "mag"},
    ),
)
TOML = """
id = "gaia.id"
labels = [{name = "teff", column = "teff", error = "e_teff", unit = "K"}]
features = [
    {name = "g", expression = "g", unit = "mag"},
    {name = "colour", expression = "u - g", unit = "mag"},
]
"""


def stars(n: int = 900, *, teff_unit: str = "K", g_unit: str = "mag", scale: float = 1.0) -> Table:
    rng = np.random.default_rng(2)
    g, colour = rng.uniform(10, 15, n), rng.uniform(1.0, 2.5, n)
    teff = (8000 - 1500 * colour + rng.normal(0, 60, n)) * scale
    columns = {"gaia.id": [f"HD {i:04d}" for i in range(n)], "g": g, "u": g + colour, "teff": teff}
    table = Table({**columns, "e_teff": np.full(n, 60.0 * scale)})
    table["teff"].unit = table["e_teff"].unit = units.Unit(teff_unit)
    table["g"].unit = units.Unit(g_unit)
    return table


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv"])
def test_a_unit_in_the_file_must_be_the_feature_files(spark: Any, tmp_path: Path, ending: str) -> None:
    kind = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv"}[ending]
    stars(20, teff_unit="kK", g_unit="mmag", scale=1e-3).write(tmp_path / f"odd.{ending}", format=kind)
    columns = open_table(tmp_path / f"odd.{ending}").columns
    with pytest.raises(InputError, match=r"column 'g' is in 'mmag'") as found:
        check_units(columns, SPEC, labels=True)
    assert "column 'teff' is in 'kK'" in str(found.value) and "'e_teff'" in str(found.value)
    with pytest.raises(InputError) as found:
        check_units(columns, SPEC)
    assert "teff" not in str(found.value)


@pytest.mark.parametrize("unit", ["", "mag", "mag(AB)", "unheard_of"])
def test_units_that_fit_or_say_nothing_are_let_pass(spark: Any, tmp_path: Path, unit: str) -> None:
    table = stars(20)
    table["g"].unit = units.Unit(unit, parse_strict="silent")
    table.write(tmp_path / "right.ecsv", format="ascii.ecsv")
    check_units(open_table(tmp_path / "right.ecsv").columns, SPEC, labels=True)


def test_text_ids_with_dots_and_gaps_come_back_as_they_were(
    labelled: Configured, spark: Any, tmp_path: Path
) -> None:
    table = stars()
    table.write(tmp_path / "STARS.FITS", format="fits")
    (tmp_path / "f.toml").write_text(TOML)
    config = labelled("train.preset=small", "train.max_epochs=2")
    model = train_on_table(
        spark, config, tmp_path / "STARS.FITS", tmp_path / "f.toml", tmp_path / "model", lambda line: None
    )
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".model")]
    for name in ("out.fits", "out.parquet"):
        label_table(spark, config, tmp_path / "STARS.FITS", model, tmp_path / name)
    assert list(Table.read(tmp_path / "out.fits")["gaia.id"]) == list(table["gaia.id"])
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["gaia.id"].to_pylist() == list(table["gaia.id"])
    assert np.isfinite(found["teff"].to_numpy()).all()


def test_ids_of_text_files_keep_their_zeros(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "padded.csv").write_text("id,g\n0007,10.5\n0008,11\n,12\n")
    assert [r["id"] for r in read_table(spark, tmp_path / "padded.csv", id_column="id").collect()] == [
        "0007",
        "0008",
        None,
    ]
    (tmp_path / "whole.csv").write_text("id,g\n7,10.5\n-8,11\n,12\n")
    assert [r["id"] for r in read_table(spark, tmp_path / "whole.csv", id_column="id").collect()] == [
        7,
        -8,
        None,
    ]


def test_rows_that_begin_with_a_comments_mark_are_rows(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# made by hand\nid,g\nA0,1\n#1,2\nA2,3\n")
    found = [tuple(row) for row in read_table(spark, tmp_path / "a.csv", id_column="id").collect()]
    assert found == [("A0", 1), ("#1", 2), ("A2", 3)]
    (tmp_path / "a.csv").write_text("id,g\nA0,1\n# half way\nA2,3\n")
    with pytest.raises(InputError, match=r"a.csv line 3: 1 columns, expected 2"):
        read_table(spark, tmp_path / "a.csv", id_column="id")


def test_units_of_several_files_must_be_one(tmp_path: Path) -> None:
    for name, unit in (("a", "mag"), ("b", "mmag")):
        schema = pa.schema([pa.field("g", pa.float64(), metadata={"unit": unit})])
        pq.write_table(pa.table({"g": [1.0]}, schema=schema), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="column 'g' is in 'mmag', in other files in 'mag'"):
        open_table(tmp_path)


def test_a_table_that_is_swapped_while_it_is_read_is_not_labelled(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,g\n1,2\n")
    table = open_table(tmp_path / "a.csv")
    before = table.fingerprints()
    refuse_changed(table, before)
    (tmp_path / "a.csv").write_text("id,g\n1,3\n")
    with pytest.raises(ChangedInputError, match=r"a.csv: replaced while it was read"):
        refuse_changed(table, before)


def test_ids_that_a_float_cannot_hold_are_refused(spark: Any, tmp_path: Path) -> None:
    for name, values in (("small", [1.0, 2.0**53 - 1]), ("large", [float("nan"), 4.4e18])):
        pq.write_table(pa.table({"gaia.id": values}), tmp_path / f"{name}.parquet")
    check_ids(read_table(spark, tmp_path / "small.parquet"), SPEC.id)
    with pytest.raises(InputError, match="as floating-point numbers"):
        check_ids(read_table(spark, tmp_path / "large.parquet"), SPEC.id)


def test_labels_that_are_text_are_refused_with_one_of_them(spark: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"teff": ["5777", "5777±60"], "e_teff": [60.0, 60.0]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="of type string, expected numbers, for example '5777±60'"):
        check_labels(read_table(spark, tmp_path / "t.parquet"), SPEC)


def test_a_sentinel_inside_the_range_of_a_label_is_refused(
    labelled: Configured, spark: Any, tmp_path: Path
) -> None:
    table = stars()
    table["teff"][::100] = 99_999.0
    table.write(tmp_path / "stars.ecsv", format="ascii.ecsv")
    (tmp_path / "f.toml").write_text(TOML)
    config = labelled("train.preset=small", "train.max_epochs=1")
    with pytest.raises(TrainingError, match=r"label 'teff' is 99999 for 9 stars.*null_when"):
        train_on_table(
            spark, config, tmp_path / "stars.ecsv", tmp_path / "f.toml", tmp_path / "model", lambda line: None
        )
    (tmp_path / "f.toml").write_text(TOML + '\n[null_when]\nteff = "teff > 90000"\n')
    train_on_table(
        spark, config, tmp_path / "stars.ecsv", tmp_path / "f.toml", tmp_path / "model", lambda line: None
    )


def test_values_that_cannot_be_are_missing_and_counted(
    labelled: Configured, spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A temperature of 824 K, sentinels and colours of 10,013: as if they were null, in training and labelling."""
    odd, null = stars(), stars()
    for table, teff, g, u in ((odd, [824.0, -9999.0], 99.0, 10_013.0), (null, [np.nan] * 2, np.nan, np.nan)):
        table["teff"][:2] = teff
        table["g"][2:5] = g
        table["u"][5:9] = u
    for name, table in (("odd", odd), ("null", null)):
        table.write(tmp_path / f"{name}.fits", format="fits")
    (tmp_path / "f.toml").write_text(TOML)
    config = labelled("train.preset=small", "train.max_epochs=2")
    told: list[str] = []
    models = [
        train_on_table(
            spark, config, tmp_path / f"{name}.fits", tmp_path / "f.toml", tmp_path / name / "m", told.append
        )
        for name in ("odd", "null")
    ]
    counts = {
        "feature g": "3 of 900 values outside -30 to 40 mag",
        "feature colour": "7 of 900 values outside -15 to 30 mag",
        "label teff": "2 of 900 values outside 2000 to 250000 K",
    }
    lines = [f"{what}: {count} are taken as missing" for what, count in counts.items()]
    assert [line for line in told if "outside" in line] == lines
    cards = [(model / "MODEL_CARD.md").read_text() for model in models]
    assert all(f"- {line}" in cards[0] for line in lines)
    assert "No value of the training table was outside" in cards[1]
    assert len({(model / "weights.npz").read_bytes() for model in models}) == 1
    labels, said = {}, {}
    for name in ("odd", "null"):
        capsys.readouterr()
        out = tmp_path / f"{name}.parquet"
        label_table(spark, config, tmp_path / f"{name}.fits", models[0], out)
        labels[name], said[name] = pq.read_table(out), "".join(capsys.readouterr())
    assert labels["odd"].equals(labels["null"])
    assert all(line in said["odd"] for line in lines[:2]) and "label teff" not in said["odd"]
    assert "outside" not in said["null"]


def test_kilokelvin_are_told_from_kelvin(
    labelled: Configured, spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = stars()
    table["teff"] = np.asarray(table["teff"]) / 1000
    table.write(tmp_path / "stars.fits", format="fits")
    (tmp_path / "f.toml").write_text(TOML)
    with pytest.raises(TrainingError, match="0 labelled stars in all"):
        train_on_table(spark, labelled(), tmp_path / "stars.fits", tmp_path / "f.toml", tmp_path / "m")
    said = "".join(capsys.readouterr())
    assert "label teff: 100 % of the values are outside 2000 to 250000 K, their median is 5." in said


def test_a_training_that_was_interrupted_goes_on(labelled: Configured, spark: Any, tmp_path: Path) -> None:
    stars().write(tmp_path / "stars.fits", format="fits")
    (tmp_path / "f.toml").write_text(TOML)
    config = labelled("train.preset=small", "train.max_epochs=4")

    def train(name: str, stop_at: str) -> list[str]:
        told: list[str] = []

        def tell(line: str) -> None:
            if stop_at and stop_at in line:
                raise KeyboardInterrupt
            told.append(line)

        train_on_table(spark, config, tmp_path / "stars.fits", tmp_path / "f.toml", tmp_path / name, tell)
        return [line for line in told if "epoch" in line]

    with pytest.raises(KeyboardInterrupt):
        train("model", "epoch 2/4")
    assert not (tmp_path / "model").exists()
    assert [line.split(": ")[1].split()[1] for line in train("model", "")] == ["3/4", "4/4"]
    assert not (tmp_path / ".model-checkpoints").exists()
    assert len(train("whole", "")) == 4
    weights = [(tmp_path / name / "weights.npz").read_bytes() for name in ("model", "whole")]
    assert weights[0] == weights[1]
