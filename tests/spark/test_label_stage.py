"""The stage label on changed, damaged and odd tiles: what is labelled again, what is told, the same bytes always."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stellarml import catalogue
from stellarml.catalogue import label_catalogue
from stellarml.config import Config
from stellarml.errors import StellarmlError
from stellarml.flags import QualityFlag
from stellarml.label_tiles import input_tiles
from stellarml.manifest import read_record

Configured = Callable[..., Config]


def out_of(config: Config) -> Path:
    labels = config.path(config.paths.labels)
    return Path(labels / json.loads((labels / "current.json").read_text())["model_id"])


def leaves(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / "dataset").rglob("*.parquet"))}


def stamps(root: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (root / "dataset").rglob("*.parquet")}


def matched_leaves(config: Config) -> list[Path]:
    return [found.path for found in input_tiles(config.path(config.paths.lake) / "matched")]


def crossmatch_ran_again(config: Config) -> None:
    """Give matched another key, as a run of the stage crossmatch with other inputs would."""
    path = config.path(config.paths.lake) / "matched" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": hashlib.sha256(b"x").hexdigest()}))


def rewrite(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def read_leaf(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None)


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
    label_catalogue(spark, config)
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
    record = label_catalogue(spark, config)
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
    there: list[int] = []
    true = catalogue.input_tiles

    def looked(root: Path) -> Any:
        there.append(len(stamps(out)))
        return true(root)

    monkeypatch.setattr(catalogue, "input_tiles", looked)
    label_catalogue(spark, config)
    assert there == [0], "leaves of another level must not lie beside the new ones"
    after = stamps(out)
    assert set(before) == set(after) and not {n for n in before if before[n] == after[n]}


def test_from_other_raw_files_it_refuses_and_overwrite_goes_tile_by_tile(
    labelled: Configured, spark: Any
) -> None:
    from stellarml.errors import StaleOutputError

    config = labelled()
    crossmatch_ran_again(config)
    path = config.path(config.paths.lake) / "matched" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": "other"}))
    before = stamps(out_of(config))
    with pytest.raises(StaleOutputError):
        label_catalogue(spark, config)
    label_catalogue(spark, config, overwrite=True)
    assert stamps(out_of(config)) == before
    label_catalogue(spark, config, overwrite=True)
    assert not set(stamps(out_of(config)).values()) & set(before.values()), (
        "asked again, everything is made anew"
    )


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 2000 : middle] = bytes(2000)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, garble, empty, Path.unlink])
def test_a_damaged_tile_is_named_when_the_others_are_done(
    labelled: Configured, spark: Any, damage: Callable[[Path], None]
) -> None:
    config = labelled()
    out, leaf = out_of(config), matched_leaves(config)[1]
    expected = leaves(out)
    shutil.rmtree(out)
    healthy = leaf.read_bytes()
    damage(leaf)
    with pytest.raises(StellarmlError, match=rf"1 of {len(expected)} units failed.*{leaf.name}") as caught:
        label_catalogue(spark, config)
    assert caught.value.exit_status == 1
    assert leaves(out) == {name: data for name, data in expected.items() if name != leaf.name}
    assert not (out / "run.json").exists()
    with pytest.raises(StellarmlError, match=rf"1 of 1 units failed.*{leaf.name}"):
        label_catalogue(spark, config)
    leaf.write_bytes(healthy)
    before = stamps(out)
    label_catalogue(spark, config)
    assert leaves(out) == expected
    assert {name: stamps(out)[name] for name in before} == before, "what was done is not done again"
    assert not [p for p in out.rglob(".*") if p.name != ".lock"]


def test_a_tile_that_changes_under_the_job(
    labelled: Configured, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = labelled()
    out = out_of(config)
    expected = leaves(out)
    shutil.rmtree(out)
    true = catalogue.input_tiles

    def before_the_change(root: Path) -> list[Any]:
        first, *rest = true(root)
        return [replace(first, fingerprint="0" * 64), *rest]

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "input_tiles", before_the_change)
        with pytest.raises(StellarmlError, match="has changed while it was being labelled"):
            label_catalogue(spark, config)
    assert len(leaves(out)) == len(expected) - 1
    label_catalogue(spark, config)
    assert leaves(out) == expected


def test_strict_begins_no_further_tile(
    labelled: Configured, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = labelled("label.keep_going=false")
    out = out_of(config)
    expected = leaves(out)
    shutil.rmtree(out)
    true = catalogue.input_tiles
    with monkeypatch.context() as patch:
        patch.setattr(
            catalogue, "input_tiles", lambda root: [replace(f, fingerprint="0" * 64) for f in true(root)]
        )
        with pytest.raises(StellarmlError, match="has changed"):
            label_catalogue(spark, config)
    assert len(list((out / "_done").glob("*.json"))) == 0
    label_catalogue(spark, config)
    assert leaves(out) == expected


def test_strict_refuses_what_is_known_to_be_damaged(labelled: Configured, spark: Any) -> None:
    config = labelled("label.keep_going=false")
    shutil.rmtree(out_of(config))
    damaged = matched_leaves(config)[1]
    cut_off(damaged)
    with pytest.raises(StellarmlError, match=damaged.name):
        label_catalogue(spark, config)
    assert not list(config.path(config.paths.labels).rglob("*.parquet"))


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
    record = label_catalogue(spark, config)
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
    (config.path(config.paths.lake) / "matched" / "partition_info.csv").write_text("Norder,Npix\n")
    crossmatch_ran_again(config)
    record = label_catalogue(spark, config)
    assert record["rows"] == {"in": 0, "out": 0, "without_flag": 0}
    assert leaves(out_of(config)) == {}
    import lsdb

    assert len(lsdb.open_catalog(out_of(config))) == 0


def test_metrics_for_prometheus(labelled: Configured, spark: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    config = labelled()
    (out_of(config) / "run.json").unlink()
    record = label_catalogue(spark, config)
    text = (config.path(config.paths.labels) / "metrics.prom").read_text()
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
