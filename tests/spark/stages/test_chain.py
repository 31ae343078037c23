"""The finished small chain: every table whole, valid, and equal to what an independent computation gives."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stellarml.core.config import Config
from stellarml.core.sky import healpix_29
from stellarml.run.marks import read_record
from stellarml.storage.hats_reader import open_catalogue

CATALOGUES = ("gaia_dr3", "skymapper_dr2", "stars", "neighbourhood", "best_neighbour", "matched", "training")


def leaves(root: Path) -> pd.DataFrame:
    return pd.concat(
        [pq.read_table(leaf.path, partitioning=None).to_pandas() for leaf in open_catalogue(root).leaves]
    )


def raw(folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("*.csv.gz"))
    return pd.concat(
        [
            pd.read_csv(f, comment="#", na_values=["null"], low_memory=False, float_precision="round_trip")
            for f in files
        ]
    )


@pytest.mark.parametrize("name", CATALOGUES)
def test_hats_validator_strict(small_chain: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    from hats.io.validation import is_valid_catalog

    with caplog.at_level(logging.WARNING):
        assert is_valid_catalog(str(small_chain / "lake" / name), strict=True), caplog.text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gaia_dr3", "matched"])
def test_lsdb_opens(small_chain: Path, name: str) -> None:
    lsdb = pytest.importorskip("lsdb")
    catalogue = lsdb.open_catalog(str(small_chain / "lake" / name))
    assert len(catalogue) == read_record(small_chain / "lake" / name)["rows"]["out"]


@pytest.mark.filterwarnings("ignore")
def test_lsdb_opens_labels(small_chain: Path) -> None:
    lsdb = pytest.importorskip("lsdb")
    current = json.loads((small_chain / "labels" / "current.json").read_text())["model_id"]
    frame = lsdb.open_catalog(str(small_chain / "labels" / current)).compute()
    assert len(frame) == open_catalogue(small_chain / "lake" / "matched").rows
    assert frame[["teff", "logg", "feh", "teff_lo", "teff_hi"]].notna().all().all()


@pytest.mark.parametrize("name", CATALOGUES)
def test_leaves_are_sorted_tiles(small_chain: Path, name: str) -> None:
    catalogue = open_catalogue(small_chain / "lake" / name)
    assert len(catalogue.leaves) > 3
    for leaf in catalogue.leaves:
        table = pq.read_table(leaf.path, partitioning=None)
        keys = table["_healpix_29"].to_numpy()
        low, high = leaf.tile.range
        assert (np.diff(keys) >= 0).all()
        assert low <= keys[0] and keys[-1] < high
        assert np.array_equal(
            keys, healpix_29(table[catalogue.ra].to_numpy(), table[catalogue.dec].to_numpy())
        )


@pytest.mark.parametrize("survey", ["gaia_dr3", "skymapper_dr2"])
def test_ingest_keeps_every_row_and_value(small_chain: Path, survey: str) -> None:
    key = {"gaia_dr3": "source_id", "skymapper_dr2": "object_id"}[survey]
    found = leaves(small_chain / "lake" / survey).set_index(key).sort_index()
    wanted = raw(small_chain / "raw" / survey).set_index(key).sort_index()
    assert found.index.equals(wanted.index)
    columns = {
        "gaia_dr3": ["ra", "dec", "parallax", "pmra", "ruwe", "phot_g_mean_mag", "teff_gspphot", "vbroad"],
        "skymapper_dr2": ["raj2000", "dej2000", "ebmv_sfd", "class_star", "e_raj2000"],
    }[survey]
    for column in columns:
        a, b = found[column].to_numpy(float), wanted[column].to_numpy(float)
        assert np.array_equal(a, b.astype(found[column].dtype).astype(float), equal_nan=True), column


def test_sentinels_become_null_and_are_remembered(small_chain: Path) -> None:
    found = leaves(small_chain / "lake" / "skymapper_dr2").set_index("object_id").sort_index()
    wanted = raw(small_chain / "raw" / "skymapper_dr2").set_index("object_id").sort_index()
    for bit, band in enumerate("uvgriz"):
        sentinel = (wanted[f"{band}_psf"] > 25) | (
            wanted[f"{band}_psf"].notna() & ~(wanted[f"e_{band}_psf"] > 0)
        )
        assert sentinel.sum() > 0
        assert found[f"{band}_psf"].isna().equals(wanted[f"{band}_psf"].isna() | sentinel)
        assert ((found["repairs"].to_numpy() >> bit & 1) == sentinel.to_numpy()).all()
    assert found["mean_epoch"].isna().equals(wanted["mean_epoch"] == 0)


def gaia_cuts(t: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the paper's cuts, written here from its section 2.1: True where a star stays."""
    return {
        "parallax_error": t.parallax_error <= 0.1,
        "sigma5d": t.astrometric_sigma5d_max <= 0.1,
        "single_peak": t.ipd_frac_multi_peak <= 10,
        "whole_windows": t.ipd_frac_odd_win <= 10,
        "ruwe": t.ruwe <= 1.4,
        "bright": t.phot_g_mean_mag <= 18,
        "has_bp_rp": t.phot_bp_mean_mag.notna() & t.phot_rp_mean_mag.notna(),
        "slow_rotator": ~(t.vbroad > 30),
        "not_variable": t.phot_variable_flag != "VARIABLE",
        "not_qso": ~t.in_qso_candidates.astype(bool),
        "not_galaxy": ~t.in_galaxy_candidates.astype(bool),
        "single_star": ~(t.non_single_star != 0),
        "not_hot": ~(t.teff_gspphot > 7500),
    }


def test_cut_flow_against_pandas(small_chain: Path) -> None:
    record = read_record(small_chain / "lake" / "stars")
    flow = {row["cut"]: row for row in record["cut_flow"] if row["survey"] == "gaia_dr3"}
    table = raw(small_chain / "raw" / "gaia_dr3").astype(
        dict.fromkeys(
            ("parallax_error", "astrometric_sigma5d_max", "ruwe", "phot_g_mean_mag", "vbroad"), np.float32
        )
    )
    distances = raw(small_chain / "raw" / "gaia_distances")
    kept = pd.Series(True, index=table.index)
    cuts = gaia_cuts(table)
    cuts["has_distance"] = table.source_id.isin(distances.source_id[distances.r_med_geo.notna()])
    assert set(flow) == {"all rows", *cuts}
    for name, stays in cuts.items():
        kept &= stays
        assert 0 < (~stays).sum() < len(stays), f"{name}: no row on one side"
        assert flow[name]["failed_alone"] == (~stays).sum(), name
        assert flow[name]["rows_left"] == kept.sum(), name


def test_stars_carry_the_distances(small_chain: Path) -> None:
    stars = leaves(small_chain / "lake" / "stars").set_index("source_id")
    distances = raw(small_chain / "raw" / "gaia_distances").set_index("source_id")
    assert len(stars) == read_record(small_chain / "lake" / "gaia_dr3")["rows"]["out"]
    wanted = distances.r_med_geo.reindex(stars.index).to_numpy(np.float32)
    assert np.array_equal(stars.r_med_geo.to_numpy(), wanted, equal_nan=True)


def test_match_finds_the_true_counterparts(small_chain: Path) -> None:
    truth = pd.read_parquet(small_chain / "truth" / "skymapper_truth.parquet").set_index("object_id")
    matched = leaves(small_chain / "lake" / "matched")
    right = truth.source_id.reindex(matched.original_ext_source_id).to_numpy()
    assert (right == matched.source_id.to_numpy()).mean() > 0.99
    assert len(matched) > 0.9 * truth.source_id.notna().sum()
    assert not matched.source_id.duplicated().any()
    assert not matched.original_ext_source_id.duplicated().any()


def test_match_statistics_add_up(small_chain: Path) -> None:
    match = read_record(small_chain / "lake" / "matched")["match"]
    neighbourhood = leaves(small_chain / "lake" / "neighbourhood")
    best = leaves(small_chain / "lake" / "best_neighbour")
    assert match["left_with_neighbours"] + match["left_without"] == match["left_rows"]
    assert len(neighbourhood) == match["pairs"] and len(best) == match["best"]
    assert neighbourhood.source_id.nunique() == len(best)
    assert (1 / (best.number_of_mates + 1)).sum() == pytest.approx(best.original_ext_source_id.nunique())
    degree = neighbourhood.groupby("original_ext_source_id").size()
    wanted = degree.reindex(neighbourhood.original_ext_source_id).to_numpy()
    assert (neighbourhood.number_of_reverse_neighbours.to_numpy() == wanted).all()


def test_training_rows_pass_every_cut(small_chain: Path, small_config: object) -> None:
    training = leaves(small_chain / "lake" / "training").set_index("source_id")
    matched = leaves(small_chain / "lake" / "matched").set_index("source_id")
    assert len(training) > 1000
    rows = matched.loc[training.index]
    assert (rows.cuts_failed_gaia_dr3 == 0).all() and (rows.cuts_failed_skymapper_dr2 == 0).all()
    assert set(training.split) == {"train", "validation", "calibration", "test"}
    u = rows.u_psf - 5 * np.log10(rows.r_med_geo) + 5 - 4.294 * rows.ebmv_sfd
    assert np.allclose(training.uabs, u, atol=1e-3, equal_nan=True)
    names = [n for n in training.columns if n not in ("ra", "dec")]
    features = names[names.index("r_med_geo") : names.index("missing_mask")]
    assert len(features) == 27
    bits = sum(training[f].isna().to_numpy().astype(np.int64) << i for i, f in enumerate(features))
    assert (training.missing_mask.to_numpy() == bits).all()


def test_labels_are_resolved_by_the_stated_rule(small_chain: Path) -> None:
    sos = raw(small_chain / "raw" / "sos")
    sos = sos[(sos.flag == 0) & sos[["teff", "logg", "feh"]].notna().all(axis=1)]
    spread = sos.groupby("source_id")[["teff", "logg", "feh"]].agg(lambda x: x.max() - x.min())
    conflicting = spread[(spread.teff > 300) | (spread.logg > 0.5) | (spread.feh > 0.5)].index
    assert len(conflicting) > 0
    training = leaves(small_chain / "lake" / "training").set_index("source_id")
    assert not training.index.isin(conflicting).any()
    assert read_record(small_chain / "lake" / "training")["rows"]["conflicting_stars"] == len(conflicting)
    several = sos[sos.source_id.isin(training.index) & sos.source_id.duplicated(keep=False)]
    assert len(several) > 0
    first = several.sort_values("e_teff", kind="stable").groupby("source_id").first()
    assert np.allclose(training.teff.loc[first.index], first.teff, atol=0.01)
    pairs = several.groupby("source_id").filter(lambda rows: len(rows) == 2).groupby("source_id")
    combined = pairs.e_feh.agg(lambda e: np.sqrt((e**2).sum()))
    expected = pairs.feh.agg(lambda v: v.max() - v.min())
    assert np.allclose(training.e_repeat_feh.loc[combined.index], combined, rtol=1e-4)
    assert np.allclose(training.repeat_feh.loc[expected.index], expected, rtol=1e-4, atol=1e-4)
    assert training.repeat_feh.drop(several.source_id.unique()).isna().all()


def test_every_matched_row_is_labelled(small_chain: Path) -> None:
    current = json.loads((small_chain / "labels" / "current.json").read_text())["model_id"]
    labels = leaves(small_chain / "labels" / current)
    matched = leaves(small_chain / "lake" / "matched")
    assert np.array_equal(labels.source_id, matched.source_id)
    assert list(labels.columns) == [
        "source_id", "ra", "dec", "teff", "teff_lo", "teff_hi", "logg", "logg_lo", "logg_hi", "feh", "feh_lo",
        "feh_hi", "quality_flags", "cuts_failed", "model_id", "_healpix_29",
    ]  # fmt: skip
    for name in ("teff", "logg", "feh"):
        assert (labels[f"{name}_lo"] < labels[name]).all() and (labels[name] < labels[f"{name}_hi"]).all()
    failed = matched.cuts_failed_gaia_dr3.to_numpy() | matched.cuts_failed_skymapper_dr2.to_numpy() << 32
    assert (labels.cuts_failed.to_numpy() == failed).all()
    assert ((labels.quality_flags.to_numpy() & 128 != 0) == (failed != 0)).all()
    assert set(labels.model_id) == {current}


def test_true_parameters_have_columns_of_their_own(
    small_chain: Path, small_config: object, spark: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stellarml.core.errors import InputError
    from stellarml.intervals import true_parameters as truth_intervals
    from stellarml.stages import label, train

    own = [f"paths.{name}={tmp_path / name}" for name in ("models", "labels")]
    config: Config = small_config(*own, "label.truth_intervals=true", "train.max_epochs=4")  # type: ignore[operator]
    monkeypatch.setattr(truth_intervals, "MIN_ROWS", 10**6)
    train.run(spark, config)
    with pytest.raises(InputError, match="no intervals for true parameters"):
        label.run(spark, config)  # type: ignore[arg-type]
    monkeypatch.setattr(truth_intervals, "MIN_ROWS", 40)
    train.run(spark, config, overwrite=True)
    record = label.run(spark, config)  # type: ignore[arg-type]
    labels = leaves(tmp_path / "labels" / record["model_id"])
    assert list(labels.columns)[12:19] == [
        "quality_flags", "teff_true_lo", "teff_true_hi", "logg_true_lo", "logg_true_hi", "feh_true_lo", "feh_true_hi",
    ]  # fmt: skip
    assert (labels.teff_true_lo < labels.teff).all() and (labels.teff < labels.teff_true_hi).all()


def test_metrics_and_report(small_chain: Path) -> None:
    metrics = json.loads((small_chain / "report" / "metrics.json").read_text())
    assert set(metrics["test"]) == {"teff", "logg", "feh"}
    for found in metrics["test"].values():
        assert set(found) >= {"mean", "median", "std", "mad", "n"}
        assert found["n"] > 50
    assert metrics["test"]["teff"]["mad"] < 250
    assert {"by_bin", "coverage", "cut_flow", "match"} <= set(metrics)
    page = (small_chain / "report" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<img" in page
    assert len(list((small_chain / "report").glob("*.png"))) >= 8


def test_run_json_of_every_stage(small_chain: Path, small_config: object) -> None:
    folders = [small_chain / "lake" / name for name in CATALOGUES] + [small_chain / "report"]
    folders += [p for p in (small_chain / "models").iterdir() if p.is_dir()]
    for folder in folders:
        record = read_record(folder)
        assert {
            "stage",
            "config",
            "code",
            "inputs",
            "rows",
            "seconds",
            "peak_memory_bytes",
            "versions",
        } <= set(record)
        assert {"version", "commit"} <= set(record["code"])
        assert all({"path", "bytes", "fingerprint"} <= set(entry) for entry in record["inputs"])
        assert {"in", "out"} <= set(record["rows"])
        assert record["peak_memory_bytes"] > 0


def test_nothing_temporary_is_left(small_chain: Path) -> None:
    left = [p for p in small_chain.rglob("*") if p.name.endswith(".tmp") or p.name == "_work"]
    assert left == []


def test_unchanged_run_does_nothing(small_chain: Path, spark: object, small_config: object) -> None:
    from stellarml.stages.chain import run_all

    def stamps() -> dict[Path, int]:
        told_each_time = (".lock", "metrics.prom")
        files = (p for p in small_chain.rglob("*") if p.is_file() and p.name not in told_each_time)
        return {p: p.stat().st_mtime_ns for p in files}

    before = stamps()
    config: Config = small_config()  # type: ignore[operator]
    run_all(spark, config)  # type: ignore[arg-type]
    assert stamps() == before
