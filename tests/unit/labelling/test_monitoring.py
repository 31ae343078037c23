"""Counts of a labelling run, and what they look like to Prometheus."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.model_tables import TINY, matrix_of, stars, tiny_bundle
from prometheus_client.parser import text_string_to_metric_families

from stellarml.core.quality_flags import QualityFlag
from stellarml.labelling.monitoring import Tally, prometheus_text, total
from stellarml.model.bundle import load_bundle

pytestmark = pytest.mark.tensorflow


def test_parts_add_up_to_the_whole() -> None:
    manifest = load_bundle(tiny_bundle(TINY)).manifest
    features = matrix_of(stars(900, seed=4))
    features[::7, 1] = np.nan
    flags = np.where(np.arange(900) % 3 == 0, np.int32(3), np.int32(0))
    whole, parts = Tally(), []
    whole.add(features, flags, manifest.scaler)
    for rows in np.split(np.arange(900), [1, 400]):
        part = Tally()
        part.add(features[rows], flags[rows], manifest.scaler)
        parts.append(json.loads(json.dumps(part.to_json())))
    found, expected = total(parts).as_record(manifest), whole.as_record(manifest)
    assert found["flags"] == expected["flags"]
    assert found["flags"]["OUTSIDE_DOMAIN"] == found["flags"]["MISSING_BANDS"] == round(1 / 3, 6)
    name = manifest.features.feature_names[1]
    assert found["features"][name]["missing"] == round(float(np.isnan(features[:, 1]).mean()), 6) > 129 / 900
    scaled = (features[:, 1] - manifest.scaler.center[1]) / manifest.scaler.scale[1]
    assert abs(found["features"][name]["drift"] - np.nanmean(np.clip(scaled, -10, 10))) < 1e-5


def test_nothing_labelled() -> None:
    manifest = load_bundle(tiny_bundle(TINY)).manifest
    record = total([]).as_record(manifest)
    assert set(record["flags"]) == {flag.name for flag in QualityFlag} and set(record["flags"].values()) == {
        None
    }
    assert record["features"] == {}


def test_names_from_a_users_file_cannot_forge_a_line() -> None:
    name = 'a"} 1\nstellarml_label_rows{model="\\'
    record = {
        "model_id": "m",
        "rows": {"out": 2, "without_flag": 1},
        "units": 1,
        "units_done": 1,
        "seconds": 1.5,
        "peak_memory_bytes": 10,
        "label": {"flags": {"X": None}, "features": {name: {"missing": 0.5, "drift": -0.25}}},
    }
    families = {f.name: f.samples for f in text_string_to_metric_families(prometheus_text(record))}
    assert len(families["stellarml_label_rows"]) == 1
    assert families["stellarml_label_feature_drift"][0].labels == {"model": "m", "feature": name}
    assert families["stellarml_label_feature_drift"][0].value == -0.25
    assert families["stellarml_label_flag_fraction"] == []
