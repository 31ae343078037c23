"""The stage label where something is damaged, foreign or killed: what is told, what stays, the same bytes after."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.label_leaves import (
    Configured,
    cut_off,
    leaves,
    matched_leaves,
    out_of,
    read_leaf,
    rewrite,
    stamps,
    waiting,
)

from stellarml.core.errors import StellarmlError, UserError
from stellarml.labelling.incremental import input_tiles
from stellarml.labelling.versions import versions_of
from stellarml.stages import label
from stellarml.stages import label as catalogue


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
        label.run(spark, config)
    assert caught.value.exit_status == 1
    assert waiting(out) == {name: data for name, data in expected.items() if name != leaf.name}
    assert not (out / "run.json").exists() and not leaves(out)
    with pytest.raises(StellarmlError, match=rf"1 of 1 units failed.*{leaf.name}"):
        label.run(spark, config)
    leaf.write_bytes(healthy)
    before = stamps(out / "_work")
    label.run(spark, config)
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
            label.run(spark, config)
    assert len(waiting(out)) == len(expected) - 1
    label.run(spark, config)
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
            label.run(spark, config)
    assert len(list((out / "_done").glob("*.json"))) == 0
    label.run(spark, config)
    assert leaves(out) == expected


def test_strict_refuses_what_is_known_to_be_damaged(labelled: Configured, spark: Any) -> None:
    config = labelled("label.keep_going=false")
    shutil.rmtree(out_of(config))
    damaged = matched_leaves(config)[1]
    cut_off(damaged)
    with pytest.raises(StellarmlError, match=damaged.name):
        label.run(spark, config)
    assert not list(config.labels_folder.rglob("*.parquet"))


def test_strict_ends_with_pages_that_cannot_be_read(labelled: Configured, spark: Any) -> None:
    config = labelled("label.keep_going=false")
    out = out_of(config)
    expected = leaves(out)
    shutil.rmtree(out)
    damaged = matched_leaves(config)[1]
    healthy = damaged.read_bytes()
    garble(damaged)
    with pytest.raises(
        StellarmlError, match=rf"1 of {len(expected)} units failed.*{damaged.name}: cannot be read"
    ):
        label.run(spark, config)
    assert not (out / "run.json").exists() and not leaves(out)
    damaged.write_bytes(healthy)
    label.run(spark, config)
    assert leaves(out) == expected
    assert not [p for p in out.rglob(".*") if p.name != ".lock"]


def test_strict_fails_though_the_attempt_that_failed_is_lost(
    labelled: Configured, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor that dies after it has told the others to stop tells the driver nothing."""
    config = labelled("label.keep_going=false", "label.level=95")
    out = out_of(config)
    before = stamps(out)
    told = json.dumps({"unit": "Norder=1_Npix=2", "error": "Npix=2.parquet: is damaged"})

    def known(_: int) -> str:
        (out / ".stop.0.tmp").write_text(told)
        return "0"

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.secrets, "token_hex", known)
        with pytest.raises(StellarmlError, match=r"units failed.*Npix=2\.parquet: is damaged"):
            label.run(spark, config)
    assert stamps(out) == before and not list(out.glob(".stop*"))
    label.run(spark, config)
    assert len(versions_of(config.labels_folder)) == 1 and not set(stamps(out).values()) & set(
        before.values()
    )


def test_a_failed_rerun_leaves_the_published_catalogue(labelled: Configured, spark: Any) -> None:
    config = labelled("label.level=90")
    out = out_of(config)
    before, published = stamps(out), versions_of(config.labels_folder)
    healthy = matched_leaves(config)[1].read_bytes()
    cut_off(matched_leaves(config)[1])
    with pytest.raises(StellarmlError, match="units failed"):
        label.run(spark, config)
    assert stamps(out) == before
    assert versions_of(config.labels_folder) == published and published[0].current
    assert len(waiting(out)) == len(before) - 1
    matched_leaves(config)[1].write_bytes(healthy)
    label.run(spark, config)
    assert versions_of(config.labels_folder)[0].level == 90 and not (out / "_work").exists()


def test_killed_while_leaves_are_put_in_place(
    labelled: Configured, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = labelled("label.level=90")
    out = out_of(config)
    renamed = []
    true = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if "_work" in self.parts and self.suffix == ".parquet" and not self.name.startswith("."):
            renamed.append(self)
            if len(renamed) == 3:
                raise KeyboardInterrupt
        return true(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            label.run(spark, config)
    assert len(waiting(out)) == len(leaves(out)) - 2 and not versions_of(config.labels_folder)
    record = label.run(spark, config)
    assert record["units_done"] == 0, "nothing is labelled twice"
    resumed = leaves(out)
    shutil.rmtree(out)
    label.run(spark, config)
    assert leaves(out) == resumed


def cut_list(root: Path) -> str:
    lines = (root / "partition_info.csv").read_text().splitlines()
    (root / "partition_info.csv").write_text("\n".join(lines[:2]) + "\n")
    return "run.json beside it says"


def no_pixels(root: Path) -> str:
    (root / "partition_info.csv").write_text("Norder,Npix\n99,-3\n")
    return "names the tile Norder=99_Npix=-3, which is not on the sky"


def no_rows(root: Path) -> str:
    leaf = input_tiles(root)[0].path
    rewrite(leaf, read_leaf(leaf).slice(0, 0))
    return "run.json beside it says"


def no_column(root: Path) -> str:
    leaf = input_tiles(root)[0].path
    rewrite(leaf, read_leaf(leaf).drop_columns(["phot_bp_mean_mag"]))
    return f"{leaf.name}: its columns are not the catalogue's: phot_bp_mean_mag is missing"


def other_type(root: Path) -> str:
    leaf = input_tiles(root)[0].path
    table = read_leaf(leaf)
    at = table.schema.get_field_index("phot_bp_mean_mag")
    rewrite(leaf, table.set_column(at, "phot_bp_mean_mag", pa.array(["19.1"] * table.num_rows)))
    return "phot_bp_mean_mag is string"


def unsorted_rows(root: Path) -> str:
    leaf = input_tiles(root)[0].path
    table = read_leaf(leaf)
    rewrite(leaf, table.take(np.arange(table.num_rows)[::-1]))
    return f"{leaf.name}: its rows are not in the order of the sky"


def null_positions(root: Path) -> str:
    leaf = input_tiles(root)[0].path
    table = read_leaf(leaf)
    values = pa.array([None, *table["ra"].to_pylist()[1:]], pa.float64())
    rewrite(leaf, table.set_column(table.schema.get_field_index("ra"), "ra", values))
    return f"{leaf.name}: has rows without ra"


@pytest.mark.parametrize(
    "damage", [cut_list, no_pixels, no_rows, no_column, other_type, unsorted_rows, null_positions]
)
def test_damage_that_loses_stars_or_values_is_refused(
    labelled: Configured, spark: Any, damage: Callable[[Path], str]
) -> None:
    config = labelled()
    out = out_of(config)
    before = stamps(out)
    for mark in (out / "_done").glob("Norder=*"):
        mark.unlink()
    told = damage(config.lake_folder / "matched")
    with pytest.raises(StellarmlError, match=re.escape(told)):
        label.run(spark, config)
    assert stamps(out) == before


def test_what_a_user_has_put_among_the_leaves_stays(labelled: Configured, spark: Any) -> None:
    config = labelled("label.level=95")
    out = out_of(config)
    stray = out / "dataset" / "mine.parquet"
    stray.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"mine\.parquet: was not made by stellarml"):
        label.run(spark, config)
    moved = stray.rename(out.parent / "mine.parquet")
    elsewhere = (out / "dataset").rename(out.parent / "elsewhere")
    (out / "dataset").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link"):
        label.run(spark, config)
    assert moved.exists() and len(list(elsewhere.rglob("*.parquet"))) > 3


@pytest.mark.parametrize("name", ["partition_info.csv", "dataset/_metadata", "hats.properties"])
def test_a_catalogue_without_its_lists_is_mended(labelled: Configured, spark: Any, name: str) -> None:
    config = labelled()
    out = out_of(config)
    before, content = stamps(out), (out / name).read_bytes()
    (out / name).unlink()
    label.run(spark, config)
    assert (out / name).read_bytes() == content and stamps(out) == before
