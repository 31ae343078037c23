"""Bundles: what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_tables import FEATURES, tiny_bundle

from stellarml.core.errors import BundleError, StorageError
from stellarml.model.bundle import load_bundle, pack_bundle, save_bundle, unpack_bundle
from stellarml.model.card import CARD
from stellarml.model.manifest import MANIFEST, WEIGHTS, signed

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle(), tmp_path / "m")


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.json and sign it anew: what only a closer look can refuse."""
    data = json.loads((bundle / MANIFEST).read_text())
    change(data)
    (bundle / MANIFEST).write_text(json.dumps(signed(data)))


def replace_weights(bundle: Path, content: bytes) -> None:
    """Put other weights in place with a hash that fits: what only a closer look can refuse."""
    (bundle / WEIGHTS).write_bytes(content)
    edit(bundle, lambda m: m["files"].update({WEIGHTS: hashlib.sha256(content).hexdigest()}))


def test_the_manifest_says_what_the_design_promises(bundle: Path) -> None:
    m = load_bundle(bundle, FEATURES).manifest
    assert m.features == FEATURES
    assert m.split == {"salt": "t", "validation": 0.15, "test": 0.15, "calibration": 0.2}
    assert sum(m.counts.values()) == 1500
    assert [(label.name, label.unit) for label in m.labels] == [("teff", "K"), ("feh", "dex")]
    assert [n.file for n in m.networks] == ["00_teff.keras", "01_feh.keras"]
    assert all(n.losses == ("mae", "smape") and n.widths == (12, 16, 12) for n in m.networks)
    assert set(m.files) == {WEIGHTS, CARD, "00_teff.keras", "01_feh.keras"}
    assert set(m.metrics["test"]["feh"]) == {"mean", "median", "std", "mad", "mae", "n"}
    assert set(m.metrics["coverage"]["teff"]) == {"68", "90", "95"}
    assert m.versions["tensorflow"]
    assert m.provenance == {"made": "up"}
    assert len(m.networks[0].curve.epoch) == 6
    assert 0.25 < m.reddening_high_mag <= 0.3


def test_nothing_in_a_bundle_is_a_pickle(bundle: Path) -> None:
    assert {p.suffix for p in bundle.iterdir()} == {".json", ".npz", ".keras", ".md"}
    with np.load(bundle / WEIGHTS, allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind == "f" for name in stored.files)


def test_a_changed_byte_is_refused(bundle: Path) -> None:
    for name in (WEIGHTS, "01_feh.keras"):
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
    with pytest.raises(BundleError) as told:
        load_bundle(bundle)
    assert "weights.npz is not the file that was written" in str(told.value)
    assert "01_feh.keras is not the file" in str(told.value)
    with pytest.raises(BundleError):
        pack_bundle(bundle)


def test_a_changed_number_of_the_manifest_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    mean = json.loads(text)["labels"][0]["mean"]
    assert text.count(f'"mean": {mean}') >= 1
    (bundle / MANIFEST).write_text(text.replace(f'"mean": {mean}', f'"mean": {mean + 1}', 1))
    with pytest.raises(BundleError, match="its content differs from its SHA-256"):
        load_bundle(bundle)


def test_a_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "00_teff.keras").unlink()
    with pytest.raises(BundleError, match=r"00_teff\.keras is missing"):
        load_bundle(bundle)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle\.json"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["not json", "[1, 2]", '{"model": "sklearn"}', "{}", '"x"'])
def test_foreign_json_is_refused(bundle: Path, content: str) -> None:
    (bundle / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(bundle)


def test_another_format_version_is_refused(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(format_version=99))
    with pytest.raises(BundleError, match="format version 99"):
        load_bundle(bundle)


def test_a_manifest_with_a_key_missing_or_unknown_is_refused(bundle: Path) -> None:
    def change(m: dict[str, Any]) -> None:
        del m["scaler"]
        m["scalar"] = 1

    edit(bundle, change)
    with pytest.raises(BundleError) as told:
        load_bundle(bundle)
    assert "key 'scaler' is missing" in str(told.value)
    assert "unknown key 'scalar'. Did you mean 'scaler'" in str(told.value)


def test_other_features_are_refused_with_the_difference(bundle: Path) -> None:
    g, _, *rest = FEATURES.features
    other = FEATURES.model_copy(update={"features": (g.model_copy(update={"unit": "nmgy"}), *rest)})
    with pytest.raises(BundleError) as told:
        load_bundle(bundle, other)
    assert "feature 'g' has unit 'nmgy', the model was trained with 'mag'" in str(told.value)
    assert "feature 'u_g' is missing" in str(told.value)


@pytest.mark.parametrize("name", ["../evil.keras", "/etc/passwd", "a/b.keras", "..", ".hidden", ""])
def test_file_names_that_leave_the_folder_are_refused(bundle: Path, name: str) -> None:
    edit(bundle, lambda m: m["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="unsafe file names"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b", "..", ""])
def test_an_id_that_leaves_the_folder_of_labels_is_refused(bundle: Path, name: str) -> None:
    edit(bundle, lambda m: m.update({"id": name}))
    with pytest.raises(BundleError, match="unsafe file names"):
        load_bundle(bundle)


def test_a_bundle_from_before_ranges_behaves_as_it_did(bundle: Path, tmp_path: Path) -> None:
    """Version 3, whose bundle.json has neither `range` nor `outside_range`: no ranges, the same digest, any file."""
    assert "range" not in json.loads((bundle / MANIFEST).read_text())["features"]["features"][0]

    def older(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = 3
        del manifest["outside_range"]

    edit(bundle, older)
    manifest = load_bundle(bundle).manifest
    assert {entry.range for entry in (*manifest.features.features, *manifest.features.labels)} == {None}
    text = manifest.model_dump_json(include={"features"})
    assert "range" not in text
    ranged = {"range": (-30.0, 40.0)}
    given = FEATURES.model_copy(
        update={"features": tuple(f.model_copy(update=ranged) for f in FEATURES.features)}
    )
    assert load_bundle(bundle, given).manifest == manifest


def test_a_bundle_refuses_another_range(bundle: Path) -> None:
    edit(bundle, lambda m: m["features"]["features"][0].update(range=[-30, 40]))
    ranged = load_bundle(bundle).manifest.features
    assert load_bundle(bundle, ranged).manifest.features.features[0].range == (-30.0, 40.0)
    with pytest.raises(
        BundleError, match="feature 'g' has the range none, the model was trained with -30 to 40"
    ):
        load_bundle(bundle, FEATURES)


def test_counts_of_values_outside_are_no_part_of_the_behaviour(bundle: Path) -> None:
    before = load_bundle(bundle).manifest
    counts = {
        "kind": "label",
        "name": "teff",
        "unit": "K",
        "low": 2000,
        "high": 9000,
        "outside": 1,
        "values": 9,
    }
    edit(bundle, lambda m: m.update(outside_range=[{**counts, "median": 5000}]))
    after = load_bundle(bundle).manifest
    assert after.outside_range[0].outside == 1
    assert after.behaviour() == before.behaviour()


def test_archive_members_that_leave_the_folder_are_refused(bundle: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../network0_kernel00.npy", b"")
    replace_weights(bundle, stream.getvalue())
    with pytest.raises(BundleError, match="unsafe archive members"):
        load_bundle(bundle)


def test_pickled_arrays_are_refused(bundle: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, network0_kernel00=np.array([{"a": 1}], dtype=object))
    replace_weights(bundle, stream.getvalue())
    with pytest.raises(BundleError, match="not an archive of plain arrays"):
        load_bundle(bundle)


def test_something_else_than_an_archive_is_refused(bundle: Path) -> None:
    replace_weights(bundle, b"\x80\x04K\x01.")
    with pytest.raises(BundleError, match="not an archive of plain arrays"):
        load_bundle(bundle)


@pytest.mark.parametrize("fault", ["shape", "nan", "missing", "text"])
def test_arrays_that_do_not_fit_are_refused(bundle: Path, fault: str) -> None:
    with np.load(bundle / WEIGHTS) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if fault == "shape":
        arrays["network1_kernel01"] = arrays["network1_kernel01"][:-1]
    elif fault == "nan":
        arrays["network1_bias01"][0] = np.nan
    elif fault == "missing":
        del arrays["network1_bias03"]
    else:
        arrays["network1_bias01"] = np.array(["a"])
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    replace_weights(bundle, stream.getvalue())
    with pytest.raises(BundleError, match="network"):
        load_bundle(bundle)


def test_packed_bytes_are_stable_and_verified(bundle: Path) -> None:
    blob, sha256 = pack_bundle(bundle)
    assert (blob, sha256) == pack_bundle(bundle)
    again = unpack_bundle(blob, sha256)
    assert again.manifest == load_bundle(bundle).manifest
    spoilt = bytearray(blob)
    spoilt[100] ^= 1
    with pytest.raises(BundleError, match="changed on their way"):
        unpack_bundle(bytes(spoilt), sha256)


def test_a_bundle_replaces_an_older_one_whole(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    record = {k: v for k, v in loaded.manifest if k not in ("format", "format_version", "files")}
    (bundle / "leftover").write_text("x")
    save_bundle(bundle, {**record, "networks": ()}, dataclasses.replace(loaded, networks=()), {}, {})
    assert {p.name for p in bundle.iterdir()} == {MANIFEST, WEIGHTS}
    assert [p.name for p in bundle.parent.iterdir()] == ["m"]


def test_a_disk_that_fills_up_leaves_the_old_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_bundle(bundle)
    record = {k: v for k, v in loaded.manifest if k not in ("format", "format_version", "files")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_bundle(bundle, record, loaded, {}, {})
    monkeypatch.undo()
    assert load_bundle(bundle).manifest == loaded.manifest
    assert [p.name for p in bundle.parent.iterdir()] == ["m"]


def test_the_card_tells_what_the_manifest_says(bundle: Path) -> None:
    manifest, card = load_bundle(bundle).manifest, (bundle / CARD).read_text()
    found = manifest.metrics["test"]["teff"]
    assert f"| teff | {found['mean']:.4g} | {found['median']:.4g} |" in card
    assert f"| train | {manifest.counts['train']:,} |" in card
    assert "`u_psf - g_psf`" in card
    bins = [b for b in manifest.metrics["by_bin"] if b["by"] == "predicted" and b["label"] == "feh"]
    assert sum(b["n"] for b in bins) == manifest.metrics["test"]["feh"]["n"]
    assert card.count("| feh [dex] |") == len(bins) == 8


@pytest.mark.tensorflow
def test_a_network_file_does_not_tell_where_it_lay_in_memory(tmp_path: Path) -> None:
    """The same training, the same bytes: Keras writes addresses of shared objects and the moment of saving."""
    from stellarml.model.bundle import _settle_archive
    from stellarml.training.network import keras

    (network,) = sorted(tiny_bundle().glob("*.keras"))[:1]
    settled = network.read_bytes()
    with zipfile.ZipFile(network) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    assert '"shared_object_id": 1' in members["config.json"].decode()
    moved = members["config.json"].decode().replace('"shared_object_id": ', '"shared_object_id": 1397795219')
    later = json.dumps(json.loads(members["metadata.json"]) | {"date_saved": "2030-01-01@00:00:00"})
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (
            members | {"config.json": moved.encode(), "metadata.json": later.encode()}
        ).items():
            archive.writestr(name, data)
    _settle_archive(path)
    assert path.read_bytes() == settled and config
    assert keras().models.load_model(path, compile=False).count_params() > 0
