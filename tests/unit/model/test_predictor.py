"""Labels, intervals and flags for rows of every kind: no NaN, no lost row, no TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.model_tables import FEATURES, TINY_SHARED, fit_bundle, matrix_of, stars, table_of, tiny_bundle
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stellarml.core.errors import BundleError, InputError
from stellarml.core.quality_flags import QualityFlag, names_of
from stellarml.labelling.spark_label import features_of, label_batch, pack_bundle, predictor_of
from stellarml.model.predictor import Predictor
from stellarml.training.presets import Phase

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_bytes(*pack_bundle(tiny_bundle(TINY_SHARED)))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return matrix_of(stars(1500))


def flags_of(predictor: Predictor, row: list[float], **more: object) -> QualityFlag:
    out = predictor.label(np.array([row], dtype=np.float32), **more)  # type: ignore[arg-type]
    return QualityFlag(int(out["quality_flags"][0]))


TYPICAL = [14.0, 1.0, 0.6, 5500.0, 600.0]


def test_columns_types_and_order(predictor: Predictor, features: np.ndarray) -> None:
    out = predictor.label(features)
    assert tuple(out) == predictor.manifest.output_names()
    assert list(out) == ["teff", "teff_lo", "teff_hi", "feh", "feh_lo", "feh_hi", "quality_flags"]
    assert {v.dtype.name for k, v in out.items() if k != "quality_flags"} == {"float32"}
    assert out["quality_flags"].dtype == np.int32
    assert all(v.shape == (1500,) for v in out.values())


def test_intervals_hold_new_labels(predictor: Predictor) -> None:
    columns = stars(6000, seed=77)
    for level in (68, 90, 95):
        out = predictor.label(matrix_of(columns), level)
        for name in ("teff", "feh"):
            inside = (columns[name] >= out[f"{name}_lo"]) & (columns[name] <= out[f"{name}_hi"])
            assert inside.mean() == pytest.approx(level / 100, abs=0.09), (level, name)


def test_levels_are_nested(predictor: Predictor, features: np.ndarray) -> None:
    narrow, wide = predictor.label(features, 68), predictor.label(features, 95)
    assert (wide["teff_lo"] < narrow["teff_lo"]).all()
    assert np.array_equal(wide["teff"], narrow["teff"])


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=5, max_size=5),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_comes_in_numbers_come_out(rows: list[list[float]]) -> None:
    predictor = predictor_of(*pack_bundle(tiny_bundle(TINY_SHARED)))
    out = predictor.label(np.array(rows, dtype=np.float32))
    for name in ("teff", "feh"):
        assert np.isfinite(out[name]).all()
        assert (out[f"{name}_lo"] <= out[name]).all() and (out[name] <= out[f"{name}_hi"]).all()


def test_bits_do_not_depend_on_the_batch(predictor: Predictor, features: np.ndarray) -> None:
    whole = predictor.label(features)
    for size in (1, 7, 512, 1000):
        parts = [predictor.label(features[i : i + size]) for i in range(0, 1500, size)][: 1 + 60 // size]
        for name, values in whole.items():
            joined = np.concatenate([p[name] for p in parts])
            assert np.array_equal(joined, values[: len(joined)]), (name, size)


def test_no_rows(predictor: Predictor) -> None:
    out = predictor.label(np.empty((0, 5), dtype=np.float32))
    assert all(len(v) == 0 for v in out.values())


def test_a_star_without_features_gets_the_training_medians(predictor: Predictor) -> None:
    out = predictor.label(np.full((1, 5), np.nan, dtype=np.float32))
    train = {k: v[stars()["split"] == "train"] for k, v in stars().items()}
    assert out["teff"][0] == pytest.approx(np.median(train["teff"]), rel=1e-6)
    half = predictor.manifest.calibration.labels[0].without_features["68"]
    assert half > 700, "as wide as the labels"
    assert [out["teff_lo"][0], out["teff_hi"][0]] == pytest.approx(
        [out["teff"][0] - half, out["teff"][0] + half]
    )
    assert names_of(int(out["quality_flags"][0])) == [
        "OUTSIDE_DOMAIN",
        "MISSING_BANDS",
        "MISSING_GSPPHOT",
        "WIDE_INTERVAL",
        "THIN_CALIBRATION",
        "ALL_MISSING",
    ]


def test_an_ordinary_star_has_no_flag(predictor: Predictor) -> None:
    assert flags_of(predictor, TYPICAL, reddening_mag=np.array([0.1])) == QualityFlag(0)


def test_missing_features_are_flagged_by_kind(predictor: Predictor) -> None:
    gspphot = flags_of(predictor, [*TYPICAL[:3], np.nan, 600.0])
    assert gspphot & QualityFlag.MISSING_GSPPHOT and not gspphot & QualityFlag.MISSING_BANDS
    band = flags_of(predictor, [14.0, np.nan, *TYPICAL[2:]])
    assert band & QualityFlag.MISSING_BANDS and not band & QualityFlag.MISSING_GSPPHOT
    assert not band & QualityFlag.OUTSIDE_DOMAIN, "training stars lack it too"


def test_a_feature_that_no_training_star_lacked_is_outside_the_domain(predictor: Predictor) -> None:
    flags = flags_of(predictor, [np.nan, *TYPICAL[1:]])
    assert flags & QualityFlag.OUTSIDE_DOMAIN
    assert flags & QualityFlag.THIN_CALIBRATION


def test_a_pattern_with_too_few_calibration_stars_is_thin(predictor: Predictor) -> None:
    """Both features missing: about 3 % of the calibration stars, who share a class with no other."""
    assert predictor.manifest.calibration.patterns == ("00",)
    assert not flags_of(predictor, TYPICAL) & QualityFlag.THIN_CALIBRATION
    both = flags_of(predictor, [14.0, np.nan, 0.6, np.nan, 600.0])
    assert both & QualityFlag.THIN_CALIBRATION


def test_a_thin_calibration_flags_everything(tmp_path: Path) -> None:
    """40 calibration stars: an interval is given, the promise is not."""
    preset = dataclasses.replace(TINY_SHARED, members=1, phases=(Phase("mae", 1, 1e-2),), widths=(4,))
    few = Predictor.from_bytes(*pack_bundle(fit_bundle(tmp_path, stars(220), preset)))
    out = few.label(matrix_of(stars(50)))
    assert ((out["quality_flags"] & QualityFlag.THIN_CALIBRATION) > 0).all()
    assert (out["teff_hi"] > out["teff_lo"]).all()


def test_values_beyond_the_training_range_are_flagged(predictor: Predictor) -> None:
    for j, value in ((0, 22.0), (1, 9.0), (3, 12000.0), (4, 1e6), (4, -5.0)):
        row = list(TYPICAL)
        row[j] = value
        assert flags_of(predictor, row) & QualityFlag.OUTSIDE_DOMAIN, (j, value)


def test_reddening_beyond_training(predictor: Predictor) -> None:
    reddening = np.array([0.1, 0.31, np.nan])
    out = predictor.label(np.array([TYPICAL] * 3, dtype=np.float32), reddening_mag=reddening)
    beyond = (out["quality_flags"] & QualityFlag.REDDENING_BEYOND) > 0
    assert beyond.tolist() == [False, True, False]


def test_predictions_at_the_edge_of_the_labels(predictor: Predictor) -> None:
    columns = stars(4000, seed=8)
    out = predictor.label(matrix_of(columns))
    edge = (out["quality_flags"] & QualityFlag.LABEL_EDGE) > 0
    known = {label.name: label for label in predictor.manifest.labels}
    expected = np.zeros(4000, dtype=bool)
    for name in ("teff", "feh"):
        expected |= (out[name] <= known[name].low) | (out[name] >= known[name].high)
    assert np.array_equal(edge, expected)
    assert edge.mean() < 0.05


def test_predictions_do_not_run_away(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of a million simulated stars were given thousands of kelvin below zero."""
    run = predictor._forward.run
    monkeypatch.setattr(
        predictor._forward,
        "run",
        lambda x: dataclasses.replace(run(x), labels=np.array([[-84486.0, 9.0]], np.float32)),
    )
    out = predictor.label(np.array([TYPICAL], dtype=np.float32))
    for name, known, value in zip(("teff", "feh"), predictor.manifest.labels, (-1, 1), strict=True):
        end = known.low if value < 0 else known.high
        assert out[name][0] == pytest.approx(end + value * 0.5 * (known.high - known.low), rel=1e-6)
        assert out[f"{name}_lo"][0] <= out[name][0] <= out[f"{name}_hi"][0]
    assert QualityFlag(int(out["quality_flags"][0])) & QualityFlag.LABEL_EDGE


def test_wide_intervals_are_flagged(predictor: Predictor, features: np.ndarray) -> None:
    out = predictor.label(features)
    limits = {t.label: t.wide["68"] for t in predictor.manifest.calibration.labels}
    wide = np.zeros(len(features), dtype=bool)
    for name, limit in limits.items():
        wide |= (out[f"{name}_hi"].astype(float) - out[f"{name}_lo"]) / 2 > limit * (1 + 1e-5)
    flagged = (out["quality_flags"] & QualityFlag.WIDE_INTERVAL) > 0
    assert (wide & ~flagged).sum() == 0
    assert flagged.mean() < 0.2


def test_wrong_shapes_and_levels_are_refused(predictor: Predictor) -> None:
    with pytest.raises(InputError, match=r"shape \(2, 4\), this model needs \(n, 5\): g, u_g"):
        predictor.label(np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(InputError, match="level 80 is not calibrated"):
        predictor.label(np.zeros((2, 5), dtype=np.float32), 80)


def test_arrow_columns_of_any_number_type_with_nulls() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "a": pa.array([1.5, None], pa.float64()),
            "b": pa.array([None, 7], pa.int16()),
            "c": pa.array([np.nan, 2.0], pa.float32()),
        }
    )
    found = features_of(batch, ["c", "b", "a"])
    assert found.dtype == np.float32
    assert np.array_equal(found, [[np.nan, np.nan, 1.5], [2.0, 7.0, np.nan]], equal_nan=True)
    with pytest.raises(InputError, match=r"'bb'\. Did you mean 'b'"):
        features_of(batch, ["a", "bb"])


def test_a_batch_keeps_its_rows_and_its_id(predictor: Predictor) -> None:
    columns = stars(300, seed=3)
    (batch,) = table_of(columns).combine_chunks().to_batches()
    labelled = label_batch(predictor, batch, "star_id", 90)
    assert labelled.schema.names == ["star_id", *predictor.manifest.output_names()]
    assert labelled.column("star_id").equals(batch.column("star_id"))
    expected = predictor.label(matrix_of(columns), 90, columns["ebmv_sfd"])
    for name, values in expected.items():
        assert np.array_equal(labelled.column(name).to_numpy(), values)
        assert labelled.column(name).null_count == 0


def test_the_predictor_is_built_once_a_process() -> None:
    blob, sha256 = pack_bundle(tiny_bundle(TINY_SHARED))
    assert predictor_of(blob, sha256) is predictor_of(b"not looked at", sha256)
    with pytest.raises(BundleError, match="changed on their way"):
        predictor_of(blob, "0" * 64)


def test_labelling_does_not_load_tensorflow() -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; import stellarml.labelling.spark_label as i;"
        f"blob, sha = i.pack_bundle(Path({str(tiny_bundle(TINY_SHARED))!r}));"
        "out = i.predictor_of(blob, sha).label(np.zeros((3, 5), np.float32));"
        "assert len(out['teff']) == 3;"
        "sys.exit(any(m.split('.')[0] in ('tensorflow', 'keras') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_feature_file_travels_in_the_bundle(predictor: Predictor) -> None:
    assert predictor.manifest.features == FEATURES
