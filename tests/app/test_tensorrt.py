"""What can be checked without a GPU: the options, the cache's key, and which session a micro-batch goes to."""

import subprocess
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from app import tensorrt
from app.errors import EngineError


def test_an_engine_has_one_profile_over_rows_at_one_length() -> None:
    options = tensorrt.provider_options(["input_ids", "attention_mask"], length=64, index=1, cache=Path("/c"))
    assert options["trt_profile_min_shapes"] == "input_ids:1x64,attention_mask:1x64"
    assert options["trt_profile_opt_shapes"] == "input_ids:4x64,attention_mask:4x64"
    assert options["trt_profile_max_shapes"] == "input_ids:64x64,attention_mask:64x64"
    assert options["device_id"] == 1 and options["trt_engine_cache_path"] == "/c"
    other = tensorrt.provider_options(["input_ids"], length=128, index=1, cache=Path("/c"))
    assert other["trt_engine_cache_prefix"] != options["trt_engine_cache_prefix"]


def test_an_engine_is_kept_by_graph_gpu_and_versions(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"graph")
    known = {"gpu": "H100, 9.0", "tensorrt": "10.9", "onnxruntime": "1.32"}
    key = tensorrt.cache_key(graph, **known)
    assert key == tensorrt.cache_key(graph, **known)
    others = [tensorrt.cache_key(graph, **(known | {name: "other"})) for name in known]
    graph.write_bytes(b"another")
    assert len({key, *others, tensorrt.cache_key(graph, **known)}) == 5
    with pytest.raises(EngineError, match="cannot be loaded"):
        tensorrt.cache_key(tmp_path / "absent.onnx", **known)


def test_the_gpu_is_asked_for_by_number_and_its_absence_is_an_engine_error(monkeypatch: Any) -> None:
    asked: list[list[str]] = []

    def told(command: list[str], **_: object) -> Any:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "NVIDIA H100, 9.0\n", "")

    monkeypatch.setattr(subprocess, "run", told)
    assert tensorrt.gpu_name(3) == "NVIDIA H100, 9.0" and "--id=3" in asked[0]

    def absent(command: list[str], **_: object) -> Any:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(EngineError, match="GPU 0 cannot be asked"):
        tensorrt.gpu_name(0)


@pytest.mark.skipif("TensorrtExecutionProvider" in ort.get_available_providers(), reason="it is installed here")
def test_a_runtime_without_tensorrt_names_what_to_install(tmp_path: Path) -> None:
    from app.engines.onnx import Engine
    from app.errors import MissingExtra

    with pytest.raises(MissingExtra, match=r"pip install .\.\[tensorrt\]"):
        Engine.open(tmp_path, file="model.onnx", device="tensorrt:1")
