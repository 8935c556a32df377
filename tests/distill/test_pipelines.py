"""The server's answers beside those of transformers' pipelines, of the same models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    pipeline,
)

from app.schemas.base import TaskRequest
from app.schemas.ner import NerRequest
from app.schemas.nli import NliRequest
from app.schemas.zero_shot import ZeroShotRequest
from distill.evaluate import open_tokenizer, predictor_for
from distill.tasks.base import training_task
from tests.distill import tiny

PREMISE, HYPOTHESIS = tiny.HAUSA[:2]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_teacher("bert", tmp_path_factory.mktemp("teacher"), layers=1)


def model_of(teacher: Path, kind: Any, task: str) -> PreTrainedModel:
    """A random model with opinions: its logits are some units apart."""
    torch.manual_seed(0)
    labels = dict(enumerate(training_task(task).labels))
    config = AutoConfig.from_pretrained(teacher, id2label=labels, label2id={name: k for k, name in labels.items()})
    model: PreTrainedModel = kind.from_pretrained(teacher, config=config)
    with torch.no_grad():
        model.get_parameter("classifier.weight").mul_(60)
    model.eval()
    return model


def answer(model: PreTrainedModel, teacher: Path, task: str, request: TaskRequest) -> Any:
    predictor = predictor_for(
        model, open_tokenizer(teacher), training_task(task), max_length=64, stride=8, pad_id=model.config.pad_token_id
    )
    predictor.task = request.adjust(predictor.task)
    return request.answer(predictor.predict(request.items()))


@pytest.mark.parametrize("strategy", ["first", "average", "max"])
def test_entities_are_those_of_the_pipeline(teacher: Path, strategy: str) -> None:
    model = model_of(teacher, AutoModelForTokenClassification, "ner")
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    theirs = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
    n_entities = 0
    for text in tiny.HAUSA:
        parameters = {"aggregation_strategy": strategy, "ignore_labels": []}
        ours = answer(model, teacher, "ner", NerRequest.model_validate({"inputs": text, "parameters": parameters}))
        expected = theirs(text, ignore_labels=[])
        assert [(e["entity_group"], e["start"], e["end"]) for e in ours] == [
            (e["entity_group"], e["start"], e["end"]) for e in expected
        ]
        assert [e["score"] for e in ours] == pytest.approx([float(e["score"]) for e in expected], abs=1e-5)
        n_entities += len(ours)
    assert n_entities > 2 * len(tiny.HAUSA)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_labels_are_those_of_the_pipeline(teacher: Path, function: str) -> None:
    model = model_of(teacher, AutoModelForSequenceClassification, "nli")
    theirs = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(teacher))
    inputs = {"text": PREMISE, "text_pair": HYPOTHESIS}
    request = NliRequest.model_validate({"inputs": inputs, "parameters": {"function_to_apply": function}})
    (ours,) = answer(model, teacher, "nli", request)
    expected = theirs(inputs, top_k=None, function_to_apply=function)
    assert [e["label"] for e in ours] == [e["label"] for e in expected]
    assert [e["score"] for e in ours] == pytest.approx([e["score"] for e in expected], abs=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot_is_that_of_the_pipeline(teacher: Path, multi_label: bool) -> None:
    model = model_of(teacher, AutoModelForSequenceClassification, "nli")
    theirs = pipeline("zero-shot-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(teacher))
    parameters = {"candidate_labels": ["noma", "makaranta", "kasuwa"], "multi_label": multi_label}
    parameters |= {"hypothesis_template": "Wannan game da {} ne."}
    ours = answer(model, teacher, "nli", ZeroShotRequest.model_validate({"inputs": PREMISE, "parameters": parameters}))
    expected = theirs(PREMISE, **parameters)
    assert [e["label"] for e in ours] == expected["labels"]
    assert [e["score"] for e in ours] == pytest.approx(expected["scores"], abs=1e-4)
