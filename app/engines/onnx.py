"""ONNX Runtime: on a CPU, on an NVIDIA GPU, and there through TensorRT for micro-batches of common shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from app import huge_pages, tensorrt
from app.buckets import LENGTHS, cut, fill, fitting
from app.errors import EngineError, MissingExtra
from app.rows import Tensors

ort.disable_telemetry_events()  # which its wheels collect unless told not to

_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# fusions that lose: on a CPU the fused kernel takes longer than addition and LayerNormalization one after the other
_SLOWER = {"CPUExecutionProvider": ("SkipLayerNormFusion",)}
# what a thread spins for after its part of a call: the next operator's comes sooner, the next request's later
_SPIN_US = 100


class Engine:
    """One model; its inputs are the subset of the rows' tensors that the model declares.

    ``session`` takes any shape, ``by_length`` those that fit a bucket of that length.
    """

    def __init__(self, session: Any, by_length: Mapping[int, Any] | None = None, *, streams: int = 1) -> None:
        self.streams = streams
        self._session = session
        self._by_length = dict(by_length or {})
        self._inputs = {value.name: _DTYPES.get(value.type, np.int64) for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]
        length = session.get_inputs()[0].shape[-1]
        self._axes = {value.name: [axis == length for axis in value.shape[1:]] for value in session.get_outputs()}

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> Self:
        """Load ``folder / file`` on ``cpu``, ``cuda``, ``cuda:<n>``, ``tensorrt`` or ``tensorrt:<n>``.

        TensorRT's engines are built at the first start and kept beside ``folder`` in ``.tensorrt``; a shape that no
        bucket holds goes to CUDA and builds nothing. The GPU paths have been tested by their parts alone, and have one
        stream; on a CPU there are as many as are wished for, with at least as many ``threads``.

        :raises EngineError: the file cannot be loaded or the device is unknown.
        :raises MissingExtra: the installed ONNX Runtime has no CUDA or no TensorRT.
        """
        path, (kind, index) = folder / file, _device(device)
        if kind == "cpu":
            # a call computes in its own thread, too, and the others of the session help all calls
            engine = cls(_open(path, ["CPUExecutionProvider"], threads and threads - streams + 1), streams=streams)
            huge_pages.collapse()
            return engine
        cuda = [(_CUDA, {"device_id": index}), "CPUExecutionProvider"]
        if kind == "cuda":
            return cls(_open(path, cuda, threads))
        version = tensorrt.load_version()
        key = tensorrt.cache_key(path, gpu=tensorrt.gpu_name(index), tensorrt=version, onnxruntime=ort.__version__)
        cache = folder.parent / ".tensorrt" / key
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"TensorRT's engines cannot be kept in {cache}: {error}; make that folder writable"
            ) from error
        session = _open(path, cuda, threads)
        names = [value.name for value in session.get_inputs()]
        by_length = {}
        for length in LENGTHS:
            options = tensorrt.provider_options(names, length=length, index=index, cache=cache)
            by_length[length] = _open(path, [(_TENSORRT, options), *cuda], threads)
        return cls(session, by_length)

    @property
    def provider(self) -> str:
        """The execution provider in use, for example ``CPUExecutionProvider``."""
        return str(next(iter(self._by_length.values()), self._session).get_providers()[0])

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) integers to the model's named outputs.

        :raises EngineError: an input is missing, the model failed, or a value is not finite.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise EngineError(f"the model needs the input {missing[0]}")
        feed: Tensors = {name: inputs[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}
        outputs = self._run_in_bucket(feed) if self._by_length else self._run(self._session, feed)
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise EngineError(f"the model gave values in {name} that are not finite")
        return outputs

    def close(self) -> None:
        """Free the sessions."""
        self._session = None
        self._by_length.clear()

    def _run_in_bucket(self, feed: Tensors) -> Tensors:
        rows, longest = next(iter(feed.values())).shape
        bucket = fitting(rows, longest)
        if bucket is None:
            return self._run(self._session, feed)
        outputs = self._run(self._by_length[bucket.length], fill(feed, bucket))
        return cut(outputs, rows=rows, longest=longest, axes=self._axes)

    def _run(self, session: Any, feed: Tensors) -> Tensors:
        try:
            values = session.run(self._outputs, feed)
        except Exception as error:  # as in _open; the message may hold values, so only its kind goes on
            raise EngineError(f"the model failed: {type(error).__name__}") from error
        return dict(zip(self._outputs, values, strict=True))


def _device(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index and ":" not in device:
        return kind, 0
    if kind not in ("cuda", "tensorrt") or not (index == "" or index.isdecimal()):
        raise EngineError(
            f"unknown device {device!r} for ONNX Runtime; choose from: cpu, cuda, cuda:<n>, tensorrt, tensorrt:<n>"
        )
    wanted = _CUDA if kind == "cuda" else _TENSORRT
    if wanted not in ort.get_available_providers():
        extra = "gpu" if kind == "cuda" else "tensorrt"
        raise MissingExtra.of(f"the device {device} needs ONNX Runtime with {wanted}", extra=extra)
    return kind, int(index or 0)


def _open(path: Path, providers: list[Any], threads: int) -> Any:
    options = ort.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        session = ort.InferenceSession(
            str(path), sess_options=options, providers=providers, disabled_optimizers=_SLOWER.get(first, ())
        )
    except Exception as error:  # ONNX Runtime has an exception class per status code and no common root
        raise EngineError(f"{path} cannot be loaded: {error}") from error
    if (found := session.get_providers()[0]) != first:
        raise EngineError(f"{path} cannot run on {first}: ONNX Runtime fell back to {found}")
    return session
