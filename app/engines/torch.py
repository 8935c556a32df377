"""PyTorch: transformers' own model out of the bundle's safetensors; on an NVIDIA GPU in bfloat16 with CUDA graphs.

The GPU path has not been run: buckets and their cutting are tested, and the model itself on a CPU.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import transformers
from safetensors import SafetensorError

from app.buckets import Bucket, cut, fill, fitting
from app.errors import EngineError
from app.rows import Tensors

_WEIGHTS = "model.safetensors"
# makes tensors on the CPU as it goes, and what comes from there no graph can record
_UNRECORDABLE = ("deberta-v2",)
# the outputs of each kind of model, and which of their axes but the first run over pieces
_OUTPUTS: dict[str, dict[str, tuple[bool, ...]]] = {
    "ForTokenClassification": {"logits": (True, False)},
    "ForSequenceClassification": {"logits": (False,)},
    "ForQuestionAnswering": {"start_logits": (True,), "end_logits": (True,)},
}


class Engine:
    """One model on one device; on a GPU a CUDA graph a bucket, recorded when the bucket is first used.

    DeBERTa runs without graphs.
    """

    streams = 1

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._inputs = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0) > 1:
            self._inputs.append("token_type_ids")
        self._axes = _axes(type(model).__name__)
        self._in_graphs = device.type == "cuda" and model.config.model_type not in _UNRECORDABLE
        self._graphs: dict[Bucket, _Graph] = {}

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> Self:
        """Load ``folder / model.safetensors`` and its ``config.json`` on ``cpu``, ``cuda`` or ``cuda:<n>``.

        All models of the process share torch's threads.

        :raises EngineError: the files cannot be loaded, transformers does not know the model, or the device is not
            there.
        """
        place = _device(device)
        if file != _WEIGHTS or not (folder / file).is_file():
            raise EngineError(f"{folder / file} cannot be loaded: expected an existing {_WEIGHTS}")
        if threads:
            torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            name = (config.architectures or ["no model"])[0]
            _axes(name)
            if (kind := getattr(transformers, name, None)) is None:
                raise EngineError(f"{folder} holds a {name}, which transformers does not have")
            model = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                dtype=torch.bfloat16 if place.type == "cuda" else torch.float32,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise EngineError(f"{folder / file} cannot be loaded: {error}") from error
        return cls(model.eval().to(place), place)

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) integers to the model's named outputs, in float32.

        :raises EngineError: an input is missing, the model failed, or a value is not finite.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise EngineError(f"the model needs the input {missing[0]}")
        feed: Tensors = {name: inputs[name] for name in self._inputs}
        try:
            with torch.inference_mode():
                outputs = self._run_in_bucket(feed) if self._in_graphs else self._forward(self._move(feed))
        except (RuntimeError, IndexError, ValueError) as error:  # the message may hold values, so only its kind goes on
            raise EngineError(f"the model failed: {type(error).__name__}") from error
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the model gave values in {name} that are not finite")
        return outputs

    def close(self) -> None:
        """Free the model and its graphs."""
        self._graphs.clear()
        self._model = None

    def _run_in_bucket(self, feed: Tensors) -> Tensors:
        rows, longest = feed["input_ids"].shape
        bucket = fitting(rows, longest)
        if bucket is None:
            return self._forward(self._move(feed))
        filled = self._move(fill(feed, bucket))
        if bucket not in self._graphs:
            self._graphs[bucket] = _Graph(self._model, filled)
        return cut(self._numpy(self._graphs[bucket].replay(filled)), rows=rows, longest=longest, axes=self._axes)

    def _forward(self, feed: dict[str, torch.Tensor]) -> Tensors:
        return self._numpy(self._model(**feed))

    def _move(self, feed: Tensors) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.asarray(values, np.int64)).to(self._device) for name, values in feed.items()}

    def _numpy(self, outputs: Any) -> Tensors:
        return {name: outputs[name].float().cpu().numpy() for name in self._axes}


class _Graph:
    """The forward pass at one shape, recorded once and replayed on the same memory."""

    def __init__(self, model: Any, inputs: dict[str, torch.Tensor]) -> None:
        self._inputs = {name: values.clone() for name, values in inputs.items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels are chosen and memory is taken before recording
            model(**self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = model(**self._inputs)

    def replay(self, inputs: dict[str, torch.Tensor]) -> Any:
        for name, values in inputs.items():
            self._inputs[name].copy_(values)
        self._graph.replay()
        return self._outputs


def _axes(architecture: str) -> dict[str, tuple[bool, ...]]:
    for ending, outputs in _OUTPUTS.items():
        if architecture.endswith(ending):
            return outputs
    raise EngineError(f"the engine torch has no outputs for {architecture}; it runs: {', '.join(_OUTPUTS)}")


def _device(device: str) -> torch.device:
    kind, colon, index = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (colon and not index.isdecimal())):
        raise EngineError(f"unknown device {device!r} for PyTorch; choose from: cpu, cuda, cuda:<n>")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"the device {device} is not there: this PyTorch sees no NVIDIA GPU")
    return torch.device(device)
