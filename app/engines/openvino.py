"""OpenVINO on a CPU: reads ONNX, or its own format (``model.xml`` beside ``model.bin``)."""

from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
import openvino as ov

from app import huge_pages
from app.buckets import Bucket, cut, fill
from app.errors import EngineError
from app.rows import Tensors

_DTYPES = {"i64": np.int64, "i32": np.int32}
_CORE = ov.Core()
# kernels are made for a shape when it first comes, which takes longer than running them, so texts are this many pieces
# long, or twice as many, or thrice ...; tables of positions are, too
_STEP = 8


class Engine:
    """One compiled model with a request a stream; OpenVINO's threads belong to the process, not to the model."""

    def __init__(self, compiled: Any, streams: int = 1) -> None:
        self.streams = streams
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())
        self._inputs = {port.any_name: _DTYPES.get(port.element_type.to_string(), np.int64) for port in compiled.inputs}
        self._outputs = [port.any_name for port in compiled.outputs]
        self._axes = self._find_axes()

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> Self:
        """Load ``folder / file`` on the CPU, in the precision it was written in.

        :raises EngineError: the file cannot be loaded, or the device is another.
        """
        if device != "cpu":
            raise EngineError(f"unknown device {device!r} for OpenVINO; choose from: cpu")
        path = folder / file
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            engine = cls(_CORE.compile_model(_CORE.read_model(str(path)), "CPU", options), streams)
        except Exception as error:  # OpenVINO raises RuntimeError for most and others for some
            raise EngineError(f"{path} cannot be loaded: {str(error).strip().splitlines()[-1]}") from error
        huge_pages.collapse()
        return engine

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) integers to the model's named outputs.

        :raises EngineError: an input is missing, the model failed, or a value is not finite.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise EngineError(f"the model needs the input {missing[0]}")
        feed = {name: np.asarray(inputs[name], dtype=dtype) for name, dtype in self._inputs.items()}
        try:
            rows, longest = next(iter(feed.values())).shape
            bucket = Bucket(length=-(-longest // _STEP) * _STEP, rows=rows)
            outputs = cut(self._infer(fill(feed, bucket)), rows=rows, longest=longest, axes=self._axes)
        except Exception as error:  # the message may hold values, so only its kind goes on
            raise EngineError(f"the model failed: {type(error).__name__}") from error
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the model gave values in {name} that are not finite")
        return outputs

    def close(self) -> None:
        """Free the model."""
        while not self._requests.empty():
            self._requests.get()

    def _find_axes(self) -> dict[str, list[bool]]:
        """Which axes of each output but the first run over pieces, from two calls, which lay the weights out, too."""
        shorter, longer = (
            self._infer({name: np.ones((1, length), dtype) for name, dtype in self._inputs.items()})
            for length in (_STEP, 2 * _STEP)
        )
        return {
            name: [one != other for one, other in zip(shorter[name].shape[1:], longer[name].shape[1:], strict=True)]
            for name in self._outputs
        }

    def _infer(self, feed: Tensors) -> Tensors:
        request = self._requests.get()
        try:
            request.infer(feed, share_inputs=True)
            # copies: the next call writes over the request's own tensors
            values = [request.get_output_tensor(place).data.copy() for place in range(len(self._outputs))]
        finally:
            self._requests.put(request)
        return dict(zip(self._outputs, values, strict=True))
