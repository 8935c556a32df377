from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from transformers import PreTrainedModel

from app.rows import Tensors
from distill import biaffine
from distill.export import export_onnx, input_names, output_names, parity
from tests.distill import tiny

HEADS = ("TokenClassification", "SequenceClassification", "QuestionAnswering", "DependencyParsing")
SHAPES = ((1, 2), (1, 11), (3, 7), (2, 40))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teachers")
    for family in tiny.FAMILIES:
        tiny.tiny_teacher(family, root / family, layers=2)
    return root


def model_of(teachers: Path, family: str, head: str) -> PreTrainedModel:
    """A random model whose logits differ enough for parity to mean something."""
    torch.manual_seed(0)
    labels: dict[str, Any] = {} if head == "QuestionAnswering" else {"num_labels": 5}
    config = transformers.AutoConfig.from_pretrained(teachers / family, **labels)
    home = biaffine if head == "DependencyParsing" else transformers
    kind = getattr(home, f"AutoModelFor{head}")
    model: PreTrainedModel = kind.from_pretrained(teachers / family, config=config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1 if name.startswith("parser.") else 0.2)
    return model


def batch(model: PreTrainedModel, rows: int, length: int, *, seed: int = 0) -> Tensors:
    """Random ids; the last of several rows is padded after half its length."""
    generator = np.random.default_rng([seed, rows, length])
    ids = generator.integers(10, model.config.vocab_size - 20, (rows, length))
    mask = np.ones_like(ids)
    if rows > 1:
        mask[-1, length // 2 + 1 :] = 0
    ids[mask == 0] = model.config.pad_token_id
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_fp32_gives_torchs_logits_at_every_shape(teachers: Path, tmp_path: Path, family: str, head: str) -> None:
    model = model_of(teachers, family, head)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    for shape in SHAPES:
        assert parity(model, path, [batch(model, *shape)]) < 1e-4, shape
    exported = onnx.load(path)
    assert [value.name for value in exported.graph.input] == input_names(model)
    assert [value.name for value in exported.graph.output] == output_names(model)
    assert [axis.dim_param for axis in exported.graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]


def test_parity_notices_a_model_that_changed(teachers: Path, tmp_path: Path) -> None:
    model = model_of(teachers, "bert", "TokenClassification")
    export_onnx(model, tmp_path / "model.onnx")
    with torch.no_grad():
        classifier: Any = model.classifier
        classifier.bias += 0.5
    assert parity(model, tmp_path / "model.onnx", [batch(model, 2, 8)]) == pytest.approx(0.5, abs=1e-4)


def test_an_exported_file_holds_no_path_of_the_machine_that_made_it(teachers: Path, tmp_path: Path) -> None:
    model = model_of(teachers, "xlm-roberta", "SequenceClassification")
    export_onnx(model, tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in data and str(teachers).encode() not in data
