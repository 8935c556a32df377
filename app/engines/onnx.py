"""ONNX Runtime, on a CPU or on an NVIDIA GPU."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from app.errors import EngineError, MissingExtra
from app.rows import Tensors

_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Engine:
    """One inference session; its inputs are the subset of the rows' tensors that the model declares."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = {value.name: _DTYPES.get(value.type, np.int64) for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0) -> Self:
        """Load ``folder / file`` on ``cpu``, ``cuda`` or ``cuda:<n>``.

        :raises EngineError: the file cannot be loaded or the device is unknown.
        :raises MissingExtra: the installed ONNX Runtime has no CUDA.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # several sessions share the cores: a pool that spins takes them from the one that has work
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = folder / file
        try:
            session = ort.InferenceSession(str(path), sess_options=options, providers=_providers(device))
        except Exception as error:  # ONNX Runtime has an exception class per status code and no common root
            raise EngineError(f"{path} cannot be loaded: {error}") from error
        if device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
            raise EngineError(f"{path} cannot run on {device}: ONNX Runtime fell back to {session.get_providers()[0]}")
        return cls(session)

    @property
    def provider(self) -> str:
        """The execution provider in use, for example ``CPUExecutionProvider``."""
        return str(self._session.get_providers()[0])

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) integers to the model's named outputs.

        :raises EngineError: an input is missing, the model failed, or a value is not finite.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise EngineError(f"the model needs the input {missing[0]}")
        feed = {name: inputs[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}
        try:
            values = self._session.run(self._outputs, feed)
        except Exception as error:  # as above; the message may hold values, so only its kind goes on
            raise EngineError(f"the model failed: {type(error).__name__}") from error
        outputs: Tensors = dict(zip(self._outputs, values, strict=True))
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the model gave values in {name} that are not finite")
        return outputs

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _providers(device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return ["CPUExecutionProvider"]
    if kind != "cuda" or not (index == "" or index.isdecimal()):
        raise EngineError(f"unknown device {device!r}; choose from: cpu, cuda, cuda:<n>")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise MissingExtra(f"the device {device} needs ONNX Runtime with CUDA: pip install 'bistil-serve[gpu]'")
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
