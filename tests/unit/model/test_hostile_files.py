"""Files that people send each other must not be able to run code, or to read or write outside their place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.model_tables import tiny_bundle

from stellarml.core.config import conf_dir, load_config
from stellarml.core.errors import BundleError, ConfigError, InputError
from stellarml.core.shipped import shipped
from stellarml.features.feature_file import load_feature_file
from stellarml.labelling.model_registry import chosen_model
from stellarml.labelling.versions import current_model
from stellarml.surveys.descriptor import load_descriptor


def test_every_shipped_expression_passes() -> None:
    assert [load_feature_file(name).features for name in shipped("feature file")]
    assert [load_descriptor(path.stem).cuts for path in sorted((conf_dir() / "surveys").glob("*.toml"))]


FEATURES = """
id = "star_id"
[[labels]]
name = "teff"
column = "teff"
unit = "K"
[[features]]
name = "g"
expression = "EXPRESSION"
unit = "mag"
[null_when]
g = "CONDITION"
"""


@pytest.mark.parametrize(
    ("expression", "condition"), [("java_method('a', 'b')", "g > 9"), ("g", "g > (select 1)")]
)
def test_feature_files_are_checked(tmp_path: Path, expression: str, condition: str) -> None:
    path = tmp_path / "features.toml"
    path.write_text(FEATURES.replace("EXPRESSION", expression).replace("CONDITION", condition))
    with pytest.raises(ConfigError, match="expected an expression over the columns of a row"):
        load_feature_file(path)


SURVEY = """
name = "s"
kind = "photometry"
[files]
format = "csv"
glob = "GLOB"
[position]
id = "i"
ra = "ra"
dec = "dec"
epoch = { column = "t", unit = "mjd", null_when = "EPOCH" }
[columns]
keep = ["x"]
null_when = { x = "NULL" }
[[cuts]]
name = "c"
where = "WHERE"
reason = "r"
"""


@pytest.mark.parametrize(
    "place", [{"EPOCH": "(select 1) = 1"}, {"NULL": "reflect('a', 'b') = 1"}, {"WHERE": "exists(select 1)"}]
)
def test_descriptors_are_checked(tmp_path: Path, place: dict[str, str]) -> None:
    text = SURVEY
    for name, fallback in {"GLOB": "*.csv", "EPOCH": "t = 0", "NULL": "x > 9", "WHERE": "x > 1"}.items():
        text = text.replace(name, place.get(name, fallback))
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected an expression over the columns of a row"):
        load_descriptor(str(path))


@pytest.mark.parametrize("glob", ["../*.csv", "/etc/*", "a/../../b"])
def test_patterns_stay_in_the_surveys_folder(tmp_path: Path, glob: str) -> None:
    text = SURVEY
    for name, value in {"GLOB": glob, "EPOCH": "t = 0", "NULL": "x > 9", "WHERE": "x > 1"}.items():
        text = text.replace(name, value)
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="leaves the survey's folder"):
        load_descriptor(str(path))


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b", ".."])
def test_models_are_named_not_pathed(tmp_path: Path, name: str) -> None:
    config = load_config(overrides=[f"label.model='{name}'", f"paths.models={tmp_path}"], environment={})
    with pytest.raises(BundleError, match="is a path"):
        chosen_model(config.models_folder, config.label.model)


@pytest.mark.tensorflow
def test_a_model_that_cannot_be_read_keeps_no_other_from_labelling(tmp_path: Path) -> None:
    config = load_config(overrides=[f"paths.models={tmp_path}"], environment={})
    shutil.copytree(tiny_bundle(), tmp_path / "good")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "bundle.json").write_text('{"format": "stellarml model bundle", "format_version": 1}')
    for name in ("good", "old"):
        (tmp_path / name / "run.json").write_text("{}")
    assert chosen_model(config.models_folder, config.label.model)[0] == tmp_path / "good"
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(InputError, match="holds no finished model"):
        chosen_model(config.models_folder, config.label.model)


def test_the_pointer_names_a_version_not_a_path(tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text('{"model_id": "../../elsewhere"}')
    with pytest.raises(BundleError, match="is a path"):
        current_model(tmp_path)


def test_secrets_do_not_reach_the_record(tmp_path: Path) -> None:
    import json

    from stellarml.run.stage_run import Recipe, stage_run

    hidden = {
        "spark.hadoop.fs.s3a.secret.key": "hunter2",
        "spark.hadoop.fs.s3a.access.key": "hunter2",
        "spark.ssl.keyPassword": "hunter2",
        "spark.kubernetes.authenticate.oauthToken": "hunter2",
    }
    config = load_config(environment={})
    options = hidden | {"spark.executor.memory": "8g"}
    config = config.model_copy(update={"spark": config.spark.model_copy(update={"options": options})})
    with stage_run(Recipe("copy", "stellarml.run.stage_run", {}), tmp_path / "out", config) as run:
        run.finish({})
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or "hunter2" not in path.read_text()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["config"]["spark"]["options"] == dict.fromkeys(hidden, "***") | {
        "spark.executor.memory": "8g"
    }


def test_parquet_metadata_cannot_point_outside_its_catalogue(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stellarml.storage.hats_layout import leaf_files

    (tmp_path / "dataset").mkdir()
    table = pa.table({"a": [1]})
    collected: list[pq.FileMetaData] = []
    pq.write_table(table, tmp_path / "leaf.parquet", metadata_collector=collected)
    collected[0].set_file_path("../../Norder=1/Dir=0/Npix=3.parquet")
    pq.write_metadata(table.schema, tmp_path / "dataset" / "_metadata", metadata_collector=collected)
    with pytest.raises(InputError, match="outside its catalogue"):
        leaf_files(tmp_path, ".parquet")
