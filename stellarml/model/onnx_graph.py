"""Folded networks as one ONNX graph, made from matrices in memory: nothing is read from a file.

All first layers, and the linear functions of the inputs, are one float64 product, because they subtract magnitudes that
agree to hundredths; the rest is float32. Networks of the same outputs are added up, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stellarml.model.folding import Folded

OPSET = 17
IR_VERSION = 8
INPUTS, LINEAR = "inputs", "linear"


@dataclass(frozen=True)
class Head:
    """How one folded network is read: its activation, and the column of each of its outputs among the labels.

    `scales`: after the labels come the logarithms of the half-widths down, then of those up.
    """

    activation: str
    slope: float
    columns: tuple[int, ...]
    scales: bool = False


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def dense(self, x: str, kernel: NDArray[Any], bias: NDArray[Any]) -> str:
        return self.node("Gemm", x, self.constant(kernel), self.constant(bias))

    def activate(self, x: str, head: Head) -> str:
        if head.activation == "leaky_relu":
            return self.node("LeakyRelu", x, alpha=head.slope)
        return self.node("Mul", x, self.node("Sigmoid", x))


def graph_of(
    networks: Sequence[Folded], heads: Sequence[Head], linear: NDArray[np.float64], rows: int
) -> tuple[bytes, list[tuple[str, Head]]]:
    """Return an ONNX model of all networks, and the name and the head of each of its outputs.

    Parameters
    ----------
    linear
        Shape (n_inputs, m); the output `LINEAR` has its m columns, where m > 0.
    rows
        Of the input, (rows, n_inputs) float64. Outputs are float64 sums over the networks of the same columns.
    """
    graph = _Graph()
    first = [np.asarray(f.kernels[0], np.float64) for f in networks]
    parts = _split_first(graph, networks, first, linear)
    sums: dict[Head, list[str]] = {}
    for folded, head, h in zip(networks, heads, parts, strict=True):
        if len(folded.kernels) > 1:
            h = graph.node("Cast", h, to=TensorProto.FLOAT)
        for kernel, bias in zip(folded.kernels[1:], folded.biases[1:], strict=True):
            h = graph.dense(graph.activate(h, head), kernel, bias)
        name = graph.node("Cast", h, to=TensorProto.DOUBLE)
        sums.setdefault(Head("", 0.0, head.columns, head.scales), []).append(name)
    outputs = []
    for n, (head, names) in enumerate(sums.items()):
        graph.node("Sum", *names, output=f"labels_{n}")
        outputs.append((f"labels_{n}", head))
    output_names = [name for name, _ in outputs] + ([LINEAR] if linear.shape[1] else [])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "stellarml",
            [helper.make_tensor_value_info(INPUTS, TensorProto.DOUBLE, [rows, first[0].shape[0]])],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [rows, None]) for name in output_names],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(), outputs


def _split_first(
    graph: _Graph,
    networks: Sequence[Folded],
    first: Sequence[NDArray[np.float64]],
    linear: NDArray[np.float64],
) -> list[str]:
    """Add the product of all first layers; return the name of each network's part of it."""
    kernels = [*first, *([linear] if linear.shape[1] else [])]
    biases = [*(f.biases[0] for f in networks), *([np.zeros(linear.shape[1])] if linear.shape[1] else [])]
    names = [*(f"first_{n}" for n in range(len(networks))), *([LINEAR] if linear.shape[1] else [])]
    product = graph.dense(INPUTS, np.hstack(kernels), np.concatenate(biases))
    sizes = graph.constant(np.array([k.shape[1] for k in kernels], dtype=np.int64))
    graph.nodes.append(helper.make_node("Split", [product, sizes], names, axis=1))
    return names[: len(networks)]
