"""Every engine that reads ONNX and is installed: it gives what numpy gives on a model made by hand.

The engine `torch` reads transformers' folders instead: tests/app/engines/test_torch.py.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from app import plugins
from app.errors import EngineError, MissingExtra
from app.rows import Tensors
from tests.app import tiny

VALUES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
INPUTS: Tensors = {
    "input_ids": np.array([[1, 2, 3], [4, 5, 0]]),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
    "token_type_ids": np.zeros((2, 3), dtype=np.int64),
}


@pytest.fixture(params=[name for name in plugins.names("app.engines") if name != "torch"])
def kind(request: pytest.FixtureRequest) -> Any:
    try:
        return plugins.load("app.engines", request.param).Engine
    except MissingExtra as error:
        pytest.skip(str(error))


def write(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def test_gathering_is_indexing(kind: Any, tmp_path: Path) -> None:
    engine = kind.open(write(tmp_path, tiny.token_model(VALUES)), file="model.onnx", threads=1)
    np.testing.assert_array_equal(engine.run(INPUTS)["logits"], VALUES[INPUTS["input_ids"].astype(int)])
    engine.close()


def test_padding_is_masked(kind: Any, tmp_path: Path) -> None:
    engine = kind.open(write(tmp_path, tiny.sequence_model(VALUES)), file="model.onnx", threads=1)
    mask = INPUTS["attention_mask"].astype(np.float32)[:, :, np.newaxis]
    expected = (VALUES[INPUTS["input_ids"].astype(int)] * mask).sum(axis=1)
    np.testing.assert_allclose(engine.run(INPUTS)["logits"], expected, rtol=1e-5)
    engine.close()


def test_several_outputs_keep_their_names(kind: Any, tmp_path: Path) -> None:
    engine = kind.open(write(tmp_path, tiny.span_model(VALUES[:, 0], VALUES[:, 1])), file="model.onnx", threads=1)
    outputs = engine.run(INPUTS)
    np.testing.assert_array_equal(outputs["start_logits"], VALUES[INPUTS["input_ids"].astype(int), 0])
    np.testing.assert_array_equal(outputs["end_logits"], VALUES[INPUTS["input_ids"].astype(int), 1])
    engine.close()


def test_calls_at_once_are_answered_as_one_after_the_other(kind: Any, tmp_path: Path) -> None:
    engine = kind.open(write(tmp_path, tiny.token_model(VALUES)), file="model.onnx", threads=4, streams=2)
    assert engine.streams in (1, 2)
    ids = np.random.default_rng(1).integers(0, 10, size=(200, 3, 5))
    asked: list[Tensors] = [
        {"input_ids": one, "attention_mask": np.ones_like(one), "token_type_ids": np.zeros_like(one)} for one in ids
    ]
    with ThreadPoolExecutor(engine.streams) as callers:
        for one, answer in zip(ids, callers.map(engine.run, asked), strict=True):
            np.testing.assert_array_equal(answer["logits"], VALUES[one])
    engine.close()


def test_int32_inputs_are_cast(kind: Any, tmp_path: Path) -> None:
    model = tiny.token_model(VALUES)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    engine = kind.open(write(tmp_path, model), file="model.onnx", threads=1)
    assert engine.run(INPUTS)["logits"].shape == (2, 3, 3)
    engine.close()


def test_values_that_are_not_finite_are_an_error(kind: Any, tmp_path: Path) -> None:
    values = VALUES.copy()
    values[5, 1] = np.nan
    engine = kind.open(write(tmp_path, tiny.token_model(values)), file="model.onnx", threads=1)
    with pytest.raises(EngineError, match="not finite"):
        engine.run(INPUTS)
    engine.close()


def test_a_model_that_fails_is_an_engine_error(kind: Any, tmp_path: Path) -> None:
    engine = kind.open(write(tmp_path, tiny.token_model(VALUES)), file="model.onnx", threads=1)
    with pytest.raises(EngineError, match="the model failed"):
        engine.run({"input_ids": np.array([1, 2])})
    with pytest.raises(EngineError, match="needs the input input_ids"):
        engine.run({"attention_mask": np.array([[1]])})
    engine.close()


def test_a_file_that_is_no_model_is_an_engine_error(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"model\.onnx cannot be loaded"):
        kind.open(tmp_path, file="model.onnx")
    with pytest.raises(EngineError, match="cannot be loaded"):
        kind.open(tmp_path, file="absent.onnx")


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "cuda:x"])
def test_an_unknown_device_is_an_engine_error(kind: Any, tmp_path: Path, device: str) -> None:
    folder = write(tmp_path, tiny.token_model(VALUES))
    with pytest.raises(EngineError, match="choose from"):
        kind.open(folder, file="model.onnx", device=device)
