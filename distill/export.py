"""From a fine-tuned transformers model to an ONNX file with the same answers."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import PreTrainedModel

from app.errors import BistilError
from app.rows import Tensors
from distill.biaffine import OUTPUTS

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 18
_SCOPES = "pkg.torch.onnx.name_scopes"


class ExportError(BistilError):
    """An exported model that does not answer as its original does, or cannot be made."""

    type = "export-failure"
    title = "Export failure"


def input_names(model: PreTrainedModel) -> list[str]:
    """The inputs the model reads: segment ids only where it tells segments apart."""
    return list(INPUTS if getattr(model.config, "type_vocab_size", 0) > 1 else INPUTS[:2])


def output_names(model: PreTrainedModel) -> list[str]:
    """A parser's three outputs, `start_logits` and `end_logits` of a question-answering model, else `logits`."""
    if hasattr(model, "parser"):
        return list(OUTPUTS)
    return ["start_logits", "end_logits"] if hasattr(model, "qa_outputs") else ["logits"]


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write the model as fp32 ONNX, with batch and length free, and without a trace of where it was made.

    The model is left in eval mode, in fp32 on the CPU, with eager attention. Raises ExportError where torch cannot.
    """
    model.train(False).float().cpu()
    model.set_attn_implementation("eager")
    inputs, outputs = input_names(model), output_names(model)
    examples = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in inputs)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Positional(model, inputs, outputs).eval(),
                examples,
                dynamo=True,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=[tuple(free for _ in inputs)],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{type(model).__name__} cannot be exported: {error}") from error
    assert program is not None
    exported = program.model_proto
    _name_axes(exported)
    _forget_origin(exported)
    onnx.save(exported, path)


def torch_outputs(model: PreTrainedModel, tensors: Tensors) -> Tensors:
    """The model's own answer to a padded batch, by output name."""
    model.train(False)
    feed = {name: torch.from_numpy(np.asarray(tensors[name])).to(model.device) for name in input_names(model)}
    with torch.inference_mode():
        outputs = model(**feed)
    return {name: getattr(outputs, name).float().cpu().numpy() for name in output_names(model)}


def parity(model: PreTrainedModel, path: Path, batches: Sequence[Tensors]) -> float:
    """The largest difference of any logit between torch and ONNX Runtime at places that are not padding."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = output_names(model)
    worst = 0.0
    for tensors in batches:
        expected = torch_outputs(model, tensors)
        found = session.run(names, {name: tensors[name] for name in input_names(model)})
        for name, values in zip(names, found, strict=True):
            difference = np.abs(values - expected[name])
            if values.shape[:2] == tensors["attention_mask"].shape:
                difference = difference[tensors["attention_mask"].astype(bool)]
            worst = max(worst, float(difference.max(initial=0.0)))
    return worst


def scopes(node: onnx.NodeProto) -> list[str]:
    """The names of the torch modules around a node, outermost first, the last component of each."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    if not text:  # optimum's exporter writes them into the node's name
        return node.name.split("/")
    return [part.strip("[]' ").rpartition(".")[2] for part in text.split(",")]


class _Positional(torch.nn.Module):
    """The model with positional inputs and a plain tuple of outputs, whatever its own order of arguments."""

    def __init__(self, model: PreTrainedModel, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: Any = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        return tuple(outputs[name] for name in self.outputs)


def _name_axes(exported: onnx.ModelProto) -> None:
    """Call the free axes `batch` and `length`, not by torch's symbols."""
    symbols = [dimension.dim_param for dimension in exported.graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(symbols, ("batch", "length"), strict=True))
    for value in (*exported.graph.input, *exported.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)


def _forget_origin(exported: onnx.ModelProto) -> None:
    """Drop torch's stack traces, which hold the paths of the machine that exported."""
    for node in exported.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key == _SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in (*exported.graph.value_info, *exported.graph.input, *exported.graph.output):
        del value.metadata_props[:]
    for tensor in exported.graph.initializer:
        del tensor.metadata_props[:]
    del exported.graph.metadata_props[:]
    del exported.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own deprecations and its notes on absent torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            warnings.filterwarnings("ignore", "Pickle, copy, and deepcopy support will be removed", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


__all__ = ["ExportError", "export_onnx", "input_names", "output_names", "parity", "scopes", "torch_outputs"]
