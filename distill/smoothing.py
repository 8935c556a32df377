"""SmoothQuant: how much of each input channel's range to move from activations into the weights that read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from app.rows import Tensors


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """One product `output = input @ weight` of a graph, by its tensors' names. Shape of `values`: (k, n) float32."""

    input: str
    weight: str
    output: str
    values: np.ndarray


def smoothing_factors(
    model: onnx.ModelProto, linears: Sequence[Linear], calibration: Sequence[Tensors], *, alpha: float
) -> dict[str, np.ndarray]:
    """For each input of the layers a (k,) factor to divide it by and to multiply its weights' rows by.

    s_j = max |x_j| ** alpha / max |w_j| ** (1 - alpha) (Xiao et al., 2023, equation 4), where the maxima run over all
    inputs and weights that share a factor because they meet in a layer. A silent or unread channel has factor 1.
    """
    inputs = channel_maxima(model, sorted({linear.input for linear in linears}), calibration)
    factors: dict[str, np.ndarray] = {}
    for group in _groups(linears):
        loud = np.max([inputs[name] for name in {linear.input for linear in group}], axis=0)
        read = np.max([np.abs(linear.values).max(axis=1) for linear in group], axis=0)
        alive = (loud > 0) & (read > 0)
        factor = np.ones_like(loud)
        factor[alive] = loud[alive] ** alpha / read[alive] ** (1 - alpha)
        factors |= {linear.input: factor for linear in group}
    return factors


def channel_maxima(
    model: onnx.ModelProto, names: Sequence[str], calibration: Sequence[Tensors]
) -> dict[str, np.ndarray]:
    """max |x_j| of each named tensor's channels over the calibration batches, padding left out. Shape: (k,) each."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    declared = [value.name for value in model.graph.input]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    found: dict[str, np.ndarray] = {}
    with TemporaryDirectory(prefix="bistil-smoothing-") as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save(probe, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for batch in calibration:
            real = batch["attention_mask"].astype(bool)
            values = session.run(list(names), {name: batch[name] for name in declared})
            for name, value in zip(names, values, strict=True):
                rows = value[real] if value.ndim > 2 and value.shape[:2] == real.shape else value
                loud = np.abs(rows).reshape(-1, value.shape[-1]).max(axis=0)
                found[name] = np.maximum(found[name], loud) if name in found else loud
    return found


def _groups(linears: Sequence[Linear]) -> list[list[Linear]]:
    """Layers connected by a shared input or a shared weight."""
    groups: list[list[Linear]] = []
    for linear in linears:
        names = {linear.input, linear.weight}
        met = [group for group in groups if any(names & {other.input, other.weight} for other in group)]
        groups = [group for group in groups if group not in met]
        groups.append([linear, *(other for group in met for other in group)])
    return groups
