"""The stage label on changed and odd tiles: what is labelled again, the same bytes always, what is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.label_leaves import (
    Configured,
    crossmatch_ran_again,
    leaves,
    matched_leaves,
    out_of,
    read_leaf,
    rewrite,
    stamps,
    waiting,
)

from stellarml.core.config import conf_dir
from stellarml.core.quality_flags import QualityFlag
from stellarml.labelling.compare import compare
from stellarml.labelling.versions import versions_of
from stellarml.run.marks import read_record
from stellarml.stages import label
from stellarml.stages import label as catalogue
from stellarml.standalone.own_table_reader import read_table


@pytest.mark.parametrize("batch", [1, 37, 1000, 100_000])
def test_same_bytes_for_every_batch_size(labelled: Configured, spark: Any, batch: int) -> None:
    config = labelled(f"label.batch_rows={batch}")
    expected = leaves(out_of(config))
    assert len(expected) > 3
    if batch == 1:  # slow: one leaf will do
        chosen = sorted(expected)[0]
        next((out_of(config) / "dataset").rglob(chosen)).unlink()
    else:
        shutil.rmtree(out_of(config))
    label.run(spark, config)
    assert leaves(out_of(config)) == expected


def test_only_changed_tiles_are_labelled_again(labelled: Configured, spark: Any) -> None:
    config = labelled()
    out, matched = out_of(config), matched_leaves(config)
    before, rows = stamps(out), read_record(out)["rows"]["out"]
    lessened, gone = matched[0], matched[1]
    table = read_leaf(lessened)
    rewrite(lessened, table.slice(1))
    listed = lessened.parents[3] / "partition_info.csv"
    order, pixel = gone.parents[1].name[7:], gone.stem[5:]
    lines = [line for line in listed.read_text().splitlines() if line != f"{order},{pixel}"]
    assert len(lines) == len(matched)
    listed.write_text("\n".join(lines) + "\n")
    missing = read_leaf(gone).num_rows
    gone.unlink()
    crossmatch_ran_again(config)
    record = label.run(spark, config)
    after = stamps(out)
    assert set(before) - set(after) == {gone.name}
    assert {name for name in after if after[name] != before[name]} == {lessened.name}
    assert record["rows"]["out"] == rows - 1 - missing
    assert record["units"] == len(matched) - 1
    import lsdb

    assert len(lsdb.open_catalog(out)) == record["rows"]["out"]


def test_another_level_labels_everything_again(
    labelled: Configured, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = labelled("label.level=95")
    out = out_of(config)
    before = stamps(out)
    seen = []
    true = catalogue.put_in_place

    def looked(*given: Any) -> None:
        seen.append((stamps(out), len(waiting(out))))
        true(*given)

    monkeypatch.setattr(catalogue, "put_in_place", looked)
    label.run(spark, config)
    assert seen == [(before, len(before))], "the older catalogue stays until the new one is whole"
    after = stamps(out)
    assert set(before) == set(after) and not {n for n in before if before[n] == after[n]}


def test_from_other_raw_files_it_goes_tile_by_tile(labelled: Configured, spark: Any) -> None:
    config = labelled()
    crossmatch_ran_again(config)
    path = config.lake_folder / "matched" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": "other"}))
    before = stamps(out_of(config))
    label.run(spark, config)
    assert stamps(out_of(config)) == before
    label.run(spark, config, overwrite=True)
    assert not set(stamps(out_of(config)).values()) & set(before.values()), (
        "asked again, everything is made anew"
    )


def test_the_order_of_the_configured_features_does_not_matter(
    labelled: Configured, spark: Any, tmp_path: Path
) -> None:
    """They are told apart by name, and the model has an order of its own."""
    head, *blocks = re.split(
        r"(?=^\[\[features\]\])", (conf_dir() / "features/paper.toml").read_text(), flags=re.M
    )
    reordered = tmp_path / "reordered.toml"
    reordered.write_text(head + "".join(block.rstrip() + "\n" for block in reversed(blocks)))
    config = labelled(f"features.file={reordered}")
    expected = leaves(out_of(config))
    shutil.rmtree(out_of(config))
    label.run(spark, config)
    assert leaves(out_of(config)) == expected


def test_folders_may_be_named_like_patterns(
    labelled_in: Callable[..., Configured], spark: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run [1] {a,b}*?"
    config = labelled_in(folder)()
    out = out_of(config)
    expected = leaves(out)
    shutil.rmtree(out)
    label.run(spark, config)
    assert leaves(out) == expected
    (version,) = versions_of(config.labels_folder)
    assert compare(spark, version, version).both == version.record["rows"]["out"]
    table = next((folder / "lake" / "training").rglob("*.parquet"))
    assert read_table(spark, table).count() == read_leaf(table).num_rows


def test_one_row_and_nothing_but_missing_bands(labelled: Configured, spark: Any) -> None:
    config = labelled()
    matched = matched_leaves(config)
    single = read_leaf(matched[0]).slice(5, 1)
    rewrite(matched[0], single)
    table = read_leaf(matched[1])
    for name in table.column_names:
        if pa.types.is_floating(table[name].type) and name not in ("ra", "dec"):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, pa.nulls(table.num_rows, table[name].type))
    rewrite(matched[1], table)
    crossmatch_ran_again(config)
    record = label.run(spark, config)
    found = {p.name: read_leaf(p) for p in (out_of(config) / "dataset").rglob("*.parquet")}
    assert found[matched[0].name]["source_id"].to_pylist() == single["source_id"].to_pylist()
    blind = found[matched[1].name]
    assert blind.num_rows == table.num_rows
    for name in ("teff", "teff_lo", "teff_hi", "feh", "feh_lo", "feh_hi"):
        assert np.isfinite(blind[name].to_numpy()).all()
    assert (blind["quality_flags"].to_numpy() & QualityFlag.ALL_MISSING != 0).all()
    assert record["rows"]["out"] == record["rows"]["in"]


def test_an_empty_catalogue(labelled: Configured, spark: Any) -> None:
    config = labelled()
    for leaf in matched_leaves(config):
        leaf.unlink()
    (config.lake_folder / "matched" / "partition_info.csv").write_text("Norder,Npix\n")
    crossmatch_ran_again(config)
    record = label.run(spark, config)
    assert record["rows"] == {"in": 0, "out": 0, "without_flag": 0}
    assert leaves(out_of(config)) == {}
    import lsdb

    assert len(lsdb.open_catalog(out_of(config))) == 0


def test_metrics_for_prometheus(labelled: Configured, spark: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    config = labelled()
    (out_of(config) / "run.json").unlink()
    record = label.run(spark, config)
    text = (config.labels_folder / "metrics.prom").read_text()
    found = {family.name: family.samples for family in text_string_to_metric_families(text)}
    assert found["stellarml_label_rows"][0].value == record["rows"]["out"]
    assert found["stellarml_label_rows"][0].labels == {"model": record["model_id"]}
    assert found["stellarml_label_tiles_labelled"][0].value == 0
    assert {s.labels["flag"] for s in found["stellarml_label_flag_fraction"]} == {f.name for f in QualityFlag}
    drift = {s.labels["feature"]: s.value for s in found["stellarml_label_feature_drift"]}
    assert drift == pytest.approx({n: f["drift"] for n, f in record["label"]["features"].items()})


def test_the_record_tells_flags_and_drift(labelled: Configured) -> None:
    config = labelled()
    told = read_record(out_of(config))["label"]
    tables = [
        read_leaf(p)["quality_flags"].to_numpy() for p in (out_of(config) / "dataset").rglob("*.parquet")
    ]
    flags = np.concatenate(tables)
    for flag in QualityFlag:
        assert told["flags"][flag.name] == pytest.approx(np.mean(flags & flag != 0), abs=1e-6)
    assert set(told["features"]["uabs"]) == {"missing", "drift"}
    assert all(abs(f["drift"]) < 3 for f in told["features"].values())
