from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.rows import Tensors
from tests.app import tiny

VALUES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    pytest.importorskip("openvino", reason="pip install openvino")
    from app.engines.openvino import Engine

    onnx.save(tiny.sequence_model(VALUES), str(tmp_path / "model.onnx"))
    return Engine.open(tmp_path, file="model.onnx", threads=2)


def test_texts_of_any_length_run_in_few_shapes_and_what_was_added_has_no_say(engine: Any, monkeypatch: Any) -> None:
    shapes: set[tuple[int, ...]] = set()
    infer = engine._infer

    def spy(feed: Tensors) -> Tensors:
        shapes.add(feed["input_ids"].shape)
        return infer(feed)  # type: ignore[no-any-return]

    monkeypatch.setattr(engine, "_infer", spy)
    dice = np.random.default_rng(1)
    for length in range(1, 25):
        ids = dice.integers(1, 10, size=(2, length))
        mask = np.ones_like(ids)
        mask[1, (length + 1) // 2 :] = 0
        answer = engine.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
        np.testing.assert_allclose(answer["logits"], (VALUES[ids] * mask[:, :, None]).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert shapes == {(2, 8), (2, 16), (2, 24)}
    engine.close()


def test_outputs_are_as_long_as_the_inputs(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    from app.engines.openvino import Engine

    onnx.save(tiny.token_model(VALUES), str(tmp_path / "model.onnx"))
    engine = Engine.open(tmp_path, file="model.onnx", threads=2, streams=2)
    assert engine.streams == 2
    ids = np.array([[1, 2, 3, 4, 5]])
    answer = engine.run({"input_ids": ids, "attention_mask": ids, "token_type_ids": ids})["logits"]
    np.testing.assert_array_equal(answer, VALUES[ids])
    engine.close()
