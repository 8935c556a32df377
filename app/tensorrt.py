"""TensorRT through ONNX Runtime: its options for one bucket length, and where its engines are kept.

An engine has one profile: ONNX Runtime builds several but stays on the first at run time
(https://github.com/microsoft/onnxruntime/pull/31624). So there is an engine a length, and one profile over its rows.
"""

import hashlib
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from app.buckets import ROWS
from app.errors import EngineError, MissingExtra


def provider_options(inputs: Sequence[str], *, length: int, index: int, cache: Path) -> dict[str, Any]:
    """ONNX Runtime's options for an fp16 engine of 1 to 64 rows of ``length`` pieces, kept in ``cache``."""

    def shapes(rows: int) -> str:
        return ",".join(f"{name}:{rows}x{length}" for name in inputs)

    return {
        "device_id": index,
        "trt_fp16_enable": True,
        "trt_layer_norm_fp32_fallback": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": f"length{length}",
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": shapes(ROWS[0]),
        "trt_profile_opt_shapes": shapes(ROWS[1]),
        "trt_profile_max_shapes": shapes(ROWS[-1]),
    }


def cache_key(graph: Path, *, gpu: str, tensorrt: str, onnxruntime: str) -> str:
    """What an engine depends on, as a folder's name: another GPU, version or graph never finds it.

    :raises EngineError: the graph cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update(graph.read_bytes())
    except OSError as error:
        raise EngineError(f"{graph} cannot be loaded: {error}") from error
    for part in (gpu, tensorrt, onnxruntime):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:32]


def load_version() -> str:
    """Load TensorRT's libraries, which ONNX Runtime looks for, and say which version they are.

    :raises MissingExtra: TensorRT is not installed.
    """
    try:
        return str(import_module("tensorrt").__version__)
    except ImportError as error:
        raise MissingExtra.of("the device tensorrt needs TensorRT", extra="tensorrt") from error


def gpu_name(index: int) -> str:
    """The GPU's name and compute capability, as the driver tells them.

    :raises EngineError: there is no such GPU or no driver.
    """
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"GPU {index} cannot be asked for its name: {error}") from error
    return told.stdout.strip()
