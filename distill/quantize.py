"""Static int8: weights per channel, activations by calibration, embeddings by row, task head in float.

Static scales make a row's answer independent of its neighbours in the batch; dynamic quantisation does not.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
)
from onnxruntime.quantization import (
    quantize_static as _quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from app.rows import Tensors
from distill.export import scopes

HEADS = ("classifier", "qa_outputs", "parser", "pooler")
METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}


def quantize_static(
    fp32_path: Path,
    int8_path: Path,
    *,
    calibration: Sequence[Tensors],
    keep_fp32: Sequence[str] = HEADS,
    method: str = "minmax",
) -> None:
    """Write the int8 form of an exported model.

    Linear layers run in int8: uint8 activations on scales found on `calibration` (padded batches of real text), int8
    weights with one scale an output channel. Modules named in `keep_fp32` and the attention products stay in float.
    Embeddings are stored in int8 with one scale a row.
    """
    with tempfile.TemporaryDirectory(prefix="bistil-int8-") as folder:
        prepared, linear = Path(folder) / "prepared.onnx", Path(folder) / "linear.onnx"
        quant_pre_process(str(fp32_path), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        with _quiet():
            _quantize_static(
                str(prepared),
                str(linear),
                _Batches(model, calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_floats(model, keep_fp32),
                calibrate_method=METHODS[method],
                extra_options={"QuantizeBias": False, "ActivationSymmetric": False},
            )
        quantized = onnx.load(linear)
    _shrink_embeddings(quantized)
    onnx.save(quantized, int8_path)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """The calibration batches, cut to the inputs that the model declares."""

    def __init__(self, model: onnx.ModelProto, batches: Sequence[Tensors]) -> None:
        names = [value.name for value in model.graph.input]
        self._feeds: Iterator[Tensors] = iter([{name: batch[name] for name in names} for batch in batches])

    def get_next(self) -> Tensors | None:
        return next(self._feeds, None)


def _floats(model: onnx.ModelProto, keep_fp32: Sequence[str]) -> list[str]:
    """Nodes left alone: products of two activations, and whatever lies in a kept module."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = set(keep_fp32)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and (node.input[1] not in weights or kept & set(scopes(node)))
    ]


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
        values, scales = _by_row(numpy_helper.to_array(table))
        graph.initializer.remove(table)
        graph.initializer.append(numpy_helper.from_array(values, f"{table.name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{table.name}_scales"))
        stem = node.output[0]
        nodes += [
            helper.make_node(
                "Gather", [f"{table.name}_int8", node.input[1]], [f"{stem}_int8"], name=f"{stem}_rows", axis=0
            ),
            helper.make_node(
                "Gather", [f"{table.name}_scales", node.input[1]], [f"{stem}_scale"], name=f"{stem}_scales", axis=0
            ),
            helper.make_node(
                "Cast", [f"{stem}_int8"], [f"{stem}_float"], name=f"{stem}_cast", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{stem}_float", f"{stem}_scale"], [stem], name=f"{stem}_scaled"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _by_row(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape: (v, d) float32 to (v, d) int8 and (v, 1) float32."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(table / scales).astype(np.int8), scales


class _quiet:
    """Without the quantiser's advice to preprocess, which was done."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._level)
