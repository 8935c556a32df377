"""The engine `torch` on a CPU, against transformers' own forward pass; its GPU path by its parts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import EngineError
from app.rows import Tensors

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
transformers = pytest.importorskip("transformers", reason="pip install '.[torch]'")

HEADS = ("TokenClassification", "SequenceClassification", "QuestionAnswering")
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 300,
}
INPUTS: Tensors = {
    "input_ids": np.array([[5, 6, 7, 8], [9, 10, 1, 1]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
    "token_type_ids": np.array([[0, 0, 1, 1], [0, 0, 0, 0]]),
}


def write(folder: Path, head: str = "TokenClassification", *, family: str = "Bert") -> Any:
    torch.manual_seed(0)
    own = (
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
        if family == "DebertaV2"
        else {}
    )
    config = getattr(transformers, f"{family}Config")(**SIZES, **own, type_vocab_size=2 if family == "Bert" else 1)
    model = getattr(transformers, f"{family}For{head}")(config).eval()
    model.save_pretrained(folder)
    return model


def engine(folder: Path, **values: Any) -> Any:
    from app.engines.torch import Engine

    return Engine.open(folder, file="model.safetensors", threads=1, **values)


RECORDING = """
import sys
from pathlib import Path
from unittest.mock import patch
import torch
from app.engines.torch import Engine
from tests.accelerator import Accelerator, begin
from tests.app.engines.test_torch import INPUTS
begin()
with Accelerator() as on, patch("transformers.utils.import_utils.is_cuda_stream_capturing", lambda: True):
    opened = Engine.open(Path(sys.argv[1]), file="model.safetensors")
    opened._model.to("pretend")
    engine = Engine(opened._model, torch.device("pretend"))
    feed = engine._move(INPUTS)
    del on.exchanges[:]
    with torch.no_grad():
        engine._model(**{name: feed[name] for name in engine._inputs})
    print(sorted(set(on.exchanges)))
print(Engine(opened._model, torch.device("cuda"))._in_graphs)
"""


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "DebertaV2"])
def test_only_a_pass_that_takes_nothing_from_the_cpu_is_recorded_as_a_graph(tmp_path: Path, family: str) -> None:
    """On an accelerator that only pretends; a GPU refuses to record what waits for the CPU."""
    write(tmp_path, family=family)
    done = subprocess.run([sys.executable, "-c", RECORDING, tmp_path], capture_output=True, text=True)
    exchanges, in_graphs = done.stdout.splitlines()[-2:]
    assert (exchanges == "[]") == (in_graphs == "True"), done.stderr
    assert in_graphs == str(family != "DebertaV2")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["Bert", "XLMRoberta"])
def test_it_answers_as_the_model_does(tmp_path: Path, head: str, family: str) -> None:
    model = write(tmp_path, head, family=family)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if family == "Bert" else [])]
    with torch.no_grad():
        expected = model(**{name: torch.tensor(INPUTS[name]) for name in names})
    opened = engine(tmp_path)
    outputs = opened.run(INPUTS)
    assert set(outputs) == ({"start_logits", "end_logits"} if head == "QuestionAnswering" else {"logits"})
    for name, values in outputs.items():
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5)
    opened.close()


@pytest.mark.parametrize("head", HEADS)
def test_a_bucket_cut_back_holds_the_same_answer(tmp_path: Path, head: str, monkeypatch: Any) -> None:
    from app.engines import torch as module

    class Recorded:
        def __init__(self, model: Any, inputs: dict[str, Any]) -> None:
            self.model, self.shape = model, inputs["input_ids"].shape

        def replay(self, inputs: dict[str, Any]) -> Any:
            assert inputs["input_ids"].shape == self.shape == (4, 32)
            return self.model(**inputs)

    monkeypatch.setattr(module, "_Graph", Recorded)
    write(tmp_path, head)
    opened = engine(tmp_path)
    with torch.inference_mode():
        found = opened._run_in_bucket(INPUTS)
        again = opened._run_in_bucket(INPUTS)
    for name, values in opened.run(INPUTS).items():
        assert found[name].shape == values.shape
        real = INPUTS["attention_mask"].astype(bool) if values.shape[:2] == (2, 4) else slice(None)
        np.testing.assert_allclose(found[name][real], values[real], atol=1e-5)
        np.testing.assert_array_equal(found[name], again[name])
    assert len(opened._graphs) == 1
    opened.close()


def test_what_cannot_be_run_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be loaded"):
        engine(tmp_path)
    model = write(tmp_path)
    with pytest.raises(EngineError, match="needs the input attention_mask"):
        engine(tmp_path).run({"input_ids": INPUTS["input_ids"]})
    with pytest.raises(EngineError, match="the model failed"):
        engine(tmp_path).run({**INPUTS, "input_ids": INPUTS["input_ids"] + 1000})
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="not finite"):
        engine(tmp_path).run(INPUTS)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EngineError, match="cannot be loaded"):
        engine(tmp_path)
    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="no outputs for BertModel"):
        engine(tmp_path)


@pytest.mark.parametrize("device", ["tpu", "cpu:1", "cuda:x", "cuda:"])
def test_an_unknown_device_is_an_engine_error(tmp_path: Path, device: str) -> None:
    with pytest.raises(EngineError, match="choose from: cpu, cuda, cuda:<n>"):
        engine(tmp_path, device=device)
