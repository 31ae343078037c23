"""Folded NumPy inference says what the trained Keras network says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_tables import TINY, TINY_SCALES, TINY_SHARED, fit_bundle, matrix_of, stars, tiny_bundle

from stellarml.model.bundle import Bundle, load_bundle
from stellarml.model.forward import BLOCK_ROWS, TILE_ROWS, Forward
from stellarml.model.onnx_graph import Head
from stellarml.model.scaling import design, network_inputs
from stellarml.training.network import Trainer, keras
from stellarml.training.presets import PRESETS, Phase, Preset

pytestmark = pytest.mark.tensorflow


def keras_answers(folder: Path, features: np.ndarray) -> tuple[Bundle, np.ndarray]:
    """Labels by the .keras files alone, with TensorFlow; then the logarithms of their widths, if there are any."""
    bundle = load_bundle(folder)
    m = bundle.manifest
    inputs = network_inputs(design(features, m.scaler, bundle.inputs.gaussian), bundle.inputs.rotation)
    names = [label.name for label in m.labels]
    parts = 3 if m.networks[0].scales else 1
    total, members = np.zeros((len(features), parts * len(names))), np.zeros(parts * len(names))
    for network in m.networks:
        answer = np.asarray(keras().models.load_model(folder / network.file)(inputs), dtype=np.float64)
        for i in range(answer.shape[1]):
            part, which = divmod(i, len(network.outputs))
            j = names.index(network.outputs[which])
            label = m.labels[j]
            in_units = (
                answer[:, i] * label.std + label.mean if part == 0 else answer[:, i] + np.log(label.std)
            )
            total[:, part * len(names) + j] += in_units
            members[part * len(names) + j] += 1
    return bundle, total / members


def forward_of(bundle: Bundle) -> Forward:
    m = bundle.manifest
    names = [label.name for label in m.labels]
    heads = [
        Head(n.activation, n.slope, tuple(names.index(o) for o in n.outputs), n.scales) for n in m.networks
    ]
    return Forward(m.scaler, bundle.inputs.gaussian, bundle.networks, heads, len(names))


@pytest.mark.parametrize("preset", [TINY, TINY_SHARED, TINY_SCALES], ids=lambda p: p.name)
def test_folded_equals_keras_on_a_trained_network(preset: Preset) -> None:
    features = matrix_of(stars(1200, seed=99))
    bundle, expected = keras_answers(tiny_bundle(preset), features)
    answer = forward_of(bundle).run(features)
    found = answer.labels
    if answer.log_widths is not None:
        found = np.hstack([found, answer.log_widths.reshape(len(features), -1)])
    assert found.shape == expected.shape
    assert (np.abs(found - expected).max(axis=0) <= 1e-5 * expected.std(axis=0)).all()
    assert expected.std(axis=0)[0] > 300, "the network must have learnt something, or the comparison is idle"


def test_batch_normalisation_has_left_its_initial_state() -> None:
    """Folding a fresh network would be the identity and prove nothing."""
    bundle = load_bundle(tiny_bundle(TINY))
    model = keras().models.load_model(tiny_bundle(TINY) / bundle.manifest.networks[0].file)
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    assert len(norms) == 3
    for norm in norms:
        gamma, beta, mean, variance = norm.get_weights()
        assert np.abs(mean).max() > 0.05
        assert np.abs(variance - 1).max() > 0.1
        assert np.abs(gamma - 1).max() > 1e-3
        assert np.abs(beta).max() > 1e-3


def exactly(model: Any, inputs: np.ndarray) -> np.ndarray:
    """Evaluate a Keras model layer by layer in float64."""
    h = inputs.astype(np.float64)
    for layer in model.layers:
        weights = [np.asarray(w, dtype=np.float64) for w in layer.get_weights()]
        if type(layer).__name__ == "Dense":
            h = h @ weights[0] + weights[1]
        elif type(layer).__name__ == "LeakyReLU":
            h = np.where(h > 0, h, layer.negative_slope * h)
        elif type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = weights
            h = (h - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    return h


def test_the_papers_18_layers_fold_as_exactly_as_keras_computes_them(tmp_path: Path) -> None:
    """Float32 rounding grows with depth: Keras itself is 1e-5 to 3e-5 from the exact answer, and so are we."""
    paper = dataclasses.replace(
        PRESETS["paper"], phases=(Phase("mae", 5, 1e-3),), per_label=False, batch_rows=32
    )
    folder = fit_bundle(tmp_path, stars(600), paper)
    features = matrix_of(stars(700, seed=4))
    bundle, by_keras = keras_answers(folder, features)
    found = forward_of(bundle).run(features).labels
    (network,) = bundle.manifest.networks
    assert len(network.widths) == 18
    model = keras().models.load_model(folder / network.file)
    scaled = design(features, bundle.manifest.scaler, bundle.inputs.gaussian)
    exact = exactly(model, network_inputs(scaled, bundle.inputs.rotation))
    exact = exact * [label.std for label in bundle.manifest.labels] + [m.mean for m in bundle.manifest.labels]
    deviation = exact.std(axis=0)
    ours, keras_own = np.abs(found - exact) / deviation, np.abs(by_keras - exact) / deviation
    assert ours.max() < 1e-4
    assert np.sqrt((ours**2).mean()) < 2 * np.sqrt((keras_own**2).mean()) + 1e-6


def test_the_paper_preset_is_the_papers() -> None:
    paper = PRESETS["paper"]
    assert len(paper.widths) == 18
    assert (min(paper.widths), max(paper.widths)) == (80, 160)
    assert paper.widths == paper.widths[::-1], "a diamond"
    assert list(paper.widths[:9]) == sorted(paper.widths[:9])
    assert paper.per_label and paper.batch_norm and paper.dropout > 0 and paper.activation == "leaky_relu"
    assert [phase.loss for phase in paper.phases] == ["mae", "smape"]
    layers = [type(layer).__name__ for layer in Trainer(paper, 30, 1)._model.layers]
    assert layers[1:5] == ["Dense", "LeakyReLU", "BatchNormalization", "Dropout"]
    assert layers == ["InputLayer", *layers[1:5] * 18, "Dense"]


@pytest.mark.parametrize("preset", [TINY, TINY_SHARED], ids=lambda p: p.name)
def test_a_row_does_not_depend_on_its_batch(preset: Preset) -> None:
    features = matrix_of(stars(2 * TILE_ROWS + 77, seed=5))
    forward = forward_of(load_bundle(tiny_bundle(preset)))
    whole = forward.run(features).labels
    for start, stop in ((0, 1), (3, 4), (500, 520), (1, TILE_ROWS + 1), (13, 2 * TILE_ROWS + 60)):
        assert np.array_equal(forward.run(features[start:stop]).labels, whole[start:stop]), (start, stop)
    shuffled = np.random.default_rng(1).permutation(len(features))
    assert np.array_equal(forward.run(features[shuffled]).labels, whole[shuffled])


def test_blocks_do_not_show() -> None:
    features = np.tile(matrix_of(stars(1000, seed=6)), (BLOCK_ROWS // 1000 + 2, 1))
    forward = forward_of(load_bundle(tiny_bundle(TINY_SHARED)))
    labels = forward.run(features).labels
    assert np.array_equal(labels[:1000], labels[-1000:])


def test_no_rows_give_no_rows() -> None:
    labels = forward_of(load_bundle(tiny_bundle())).run(np.empty((0, 5), dtype=np.float32)).labels
    assert labels.shape == (0, 2)
