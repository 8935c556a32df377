"""int8: weights by output channel, activations by row, embeddings by row, task head and LayerNorms in float.

An activation's scale comes from its own row (one token) alone, so a text's answer does not depend on its neighbours
in a batch, and one loud token does not blunt the others. SmoothQuant (Xiao et al., 2023) moves what is left of the
outliers, the loud channels, into the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from app.rows import Tensors
from distill.export import scopes
from distill.smoothing import Linear, smoothing_factors

HEADS = ("classifier", "qa_outputs", "parser", "pooler")
_CONTRIB = "com.microsoft"
_ZERO_POINT = 128


def quantize(
    fp32_path: Path,
    int8_path: Path,
    *,
    calibration: Sequence[Tensors],
    keep_fp32: Sequence[str] = HEADS,
    alpha: float = 0.5,
) -> None:
    """Write the int8 form of an exported model.

    Linear layers run in int8; those in modules named in `keep_fp32` and the attention products stay in float.
    `calibration` is padded batches of real text, from which the share `alpha` of the range of each input channel is
    moved into the weights. Embeddings are stored in int8 with one scale a row.
    """
    model = onnx.load(fp32_path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    linears = [
        Linear(node.input[0], node.input[1], node.output[0], numpy_helper.to_array(weights[node.input[1]]))
        for node in model.graph.node
        if _is_linear(node, weights) and not in_modules(node, keep_fp32)
    ]
    factors = smoothing_factors(model, linears, calibration, alpha=alpha)
    _quantize_linears(model, linears, factors)
    _shrink_embeddings(model)
    _drop_unused(model)
    model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    onnx.save(model, int8_path)


def by_column(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights in int8 with one scale an output channel: no value and no sum of two neighbours goes beyond 128.

    x86 without VNNI adds the products of two neighbouring weights and uint8 activations in 16 bits, which must not
    overflow: 255 * 128 fits.

    Shape: (k, n) float32 to (k, n) int8 and (n,) float32.
    """
    k = len(weight)
    pairs = np.abs(np.pad(weight, ((0, k % 2), (0, 0)))).reshape(-1, 2, weight.shape[1]).sum(axis=1)
    scales = np.maximum(pairs.max(axis=0), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(weight / scales).astype(np.int8), scales


def by_row(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in int8 with one scale a row.

    Shape: (v, d) float32 to (v, d) int8 and (v, 1) float32.
    """
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(table / scales).astype(np.int8), scales


def in_modules(node: onnx.NodeProto, names: Sequence[str]) -> bool:
    """Whether a node of an exported graph lies in a torch module of one of these names."""
    return bool(set(names) & set(scopes(node)))


def _is_linear(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in weights and len(weights[node.input[1]].dims) == 2


@dataclass(frozen=True, slots=True)
class _Names:
    """The constants that all quantised layers share."""

    zero_point: str = "int8_zero_point"
    weight_zero_point: str = "int8_weight_zero_point"
    step: str = "int8_step"
    smallest: str = "int8_smallest"
    last_axis: str = "int8_last_axis"

    def tensors(self) -> list[onnx.TensorProto]:
        values = {
            self.zero_point: np.uint8(_ZERO_POINT),
            self.weight_zero_point: np.int8(0),
            self.step: np.float32(1 / 127),
            self.smallest: np.float32(1e-12),
            self.last_axis: np.array([-1], np.int64),
        }
        return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


_SHARED = _Names()


def _quantize_linears(model: onnx.ModelProto, linears: Sequence[Linear], factors: dict[str, np.ndarray]) -> None:
    """Replace each linear layer by integer products; layers that read the same input share its quantised form."""
    graph = model.graph
    chosen = {linear.output: linear for linear in linears}
    inputs_done: set[str] = set()
    weights_done: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    graph.initializer.extend(_SHARED.tensors())
    for node in graph.node:
        linear = chosen.get(node.output[0])
        if linear is None:
            nodes.append(node)
            continue
        factor = factors[linear.input]
        if linear.input not in inputs_done:
            inputs_done.add(linear.input)
            graph.initializer.append(numpy_helper.from_array(1 / factor, f"{linear.input}_smoothing"))
            nodes += _quantize_rows(linear.input)
        if linear.weight not in weights_done:
            weights_done.add(linear.weight)
            values, scales = by_column(linear.values * factor[:, None])
            graph.initializer.append(numpy_helper.from_array(values, f"{linear.weight}_int8"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{linear.weight}_scales"))
        nodes += _multiply(linear, like=node)
    del graph.node[:]
    graph.node.extend(nodes)


def _quantize_rows(name: str) -> list[onnx.NodeProto]:
    """`{name}_int8` = round(127 x / `{name}_peak`) + 128, where the peak is max |x| of the row; x is smoothed."""
    steps = [
        ("Mul", [name, f"{name}_smoothing"], f"{name}_smooth"),
        ("Abs", [f"{name}_smooth"], f"{name}_abs"),
        ("ReduceMax", [f"{name}_abs", _SHARED.last_axis], f"{name}_max"),
        ("Max", [f"{name}_max", _SHARED.smallest], f"{name}_peak"),
        ("Div", [f"{name}_smooth", f"{name}_peak"], f"{name}_share"),
        ("QuantizeLinear", [f"{name}_share", _SHARED.step, _SHARED.zero_point], f"{name}_int8"),
    ]
    return [helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in steps]


def _multiply(linear: Linear, *, like: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The integer product, times the steps of both and the weights' scales (in the same kernel) and the rows' peaks."""
    product = helper.make_node(
        "MatMulIntegerToFloat",
        [
            *(f"{linear.input}_int8", f"{linear.weight}_int8", _SHARED.step, f"{linear.weight}_scales"),
            *(_SHARED.zero_point, _SHARED.weight_zero_point),
        ],
        [f"{linear.output}_product"],
        name=f"{linear.output}_product",
        domain=_CONTRIB,
    )
    product.metadata_props.extend(like.metadata_props)
    scaled = helper.make_node(
        "Mul", [f"{linear.output}_product", f"{linear.input}_peak"], [linear.output], name=f"{linear.output}_scaled"
    )
    return [product, scaled]


def _shrink_embeddings(model: onnx.ModelProto) -> None:
    """Store every embedding as int8 rows and their scales: Gather the two, cast, multiply."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = tensors.get(node.input[0]) if node.op_type == "Gather" else None
        if (
            table is None
            or table.data_type != onnx.TensorProto.FLOAT
            or len(table.dims) != 2
            or uses.count(table.name) > 1
        ):
            nodes.append(node)
            continue
        values, scales = by_row(numpy_helper.to_array(table))
        graph.initializer.append(numpy_helper.from_array(values, f"{table.name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{table.name}_scales"))
        stem, ids = node.output[0], node.input[1]
        nodes += [
            helper.make_node("Gather", [f"{table.name}_int8", ids], [f"{stem}_int8"], name=f"{stem}_rows", axis=0),
            helper.make_node("Gather", [f"{table.name}_scales", ids], [f"{stem}_scale"], name=f"{stem}_scales", axis=0),
            helper.make_node(
                "Cast", [f"{stem}_int8"], [f"{stem}_float"], name=f"{stem}_cast", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{stem}_float", f"{stem}_scale"], [stem], name=f"{stem}_scaled"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
