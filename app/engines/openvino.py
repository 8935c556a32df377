"""OpenVINO on a CPU: reads ONNX, or its own format (``model.xml`` beside ``model.bin``)."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov

from app import huge_pages
from app.errors import EngineError
from app.rows import Tensors

_DTYPES = {"i64": np.int64, "i32": np.int32}
_CORE = ov.Core()


class Engine:
    """One compiled model with one request; OpenVINO's threads belong to the process, not to the model."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {port.any_name: _DTYPES.get(port.element_type.to_string(), np.int64) for port in compiled.inputs}
        self._outputs = [port.any_name for port in compiled.outputs]

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0) -> Self:
        """Load ``folder / file`` on the CPU, in the precision it was written in.

        :raises EngineError: the file cannot be loaded, or the device is another.
        """
        if device != "cpu":
            raise EngineError(f"unknown device {device!r} for OpenVINO; choose from: cpu")
        path = folder / file
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = _CORE.compile_model(_CORE.read_model(str(path)), "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeError for most and others for some
            raise EngineError(f"{path} cannot be loaded: {str(error).strip().splitlines()[-1]}") from error
        engine = cls(compiled)
        engine.run({name: np.ones((1, 2)) for name in engine._inputs})  # the first call lays the weights out
        huge_pages.collapse()
        return engine

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) integers to the model's named outputs.

        :raises EngineError: an input is missing, the model failed, or a value is not finite.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise EngineError(f"the model needs the input {missing[0]}")
        feed = {name: np.ascontiguousarray(inputs[name], dtype=dtype) for name, dtype in self._inputs.items()}
        try:
            self._request.infer(feed, share_inputs=True)
            # copies: the next call writes over the request's own tensors
            values = [self._request.get_output_tensor(place).data.copy() for place in range(len(self._outputs))]
        except Exception as error:  # the message may hold values, so only its kind goes on
            raise EngineError(f"the model failed: {type(error).__name__}") from error
        outputs: Tensors = dict(zip(self._outputs, values, strict=True))
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the model gave values in {name} that are not finite")
        return outputs

    def close(self) -> None:
        """Free the model."""
        self._request = None
