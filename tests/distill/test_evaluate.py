from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from app.errors import DataError
from app.tasks.sequence_classification import ClassPrediction, PairItem
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined
from distill.evaluate import evaluate, interval, open_tokenizer, predictions, predictor_for
from distill.tasks.base import Example, collate, training_task
from tests.distill import tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_teacher("xlm-roberta", tmp_path_factory.mktemp("teacher"), layers=1)


def load(kind: Any, folder: Path, labels: int) -> Any:
    torch.manual_seed(0)
    return kind.from_pretrained(folder, num_labels=labels)


def tagged_examples() -> list[Example]:
    found = []
    for text in tiny.HAUSA:
        joined_text, spans = joined(text.split())
        found.append(Example(TokenItem(joined_text, spans), ("NOUN",) * len(spans)))
    return found


def test_scores_are_those_of_the_model_run_alone_on_each_item(teacher: Path) -> None:
    task = training_task("pos")
    model = load(AutoModelForTokenClassification, teacher, len(task.labels))
    tokenizer = open_tokenizer(teacher)
    lengths = {"max_length": 60, "stride": 8, "pad_id": model.config.pad_token_id}
    examples = tagged_examples()
    hits = words = 0
    for example in examples:
        rows = task.codec_for(**lengths).encode(example.item, tokenizer)
        batch = collate(rows, task.targets(example, rows), pad_id=lengths["pad_id"])
        assert len(rows) == 1
        with torch.no_grad():
            logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        chosen = batch["labels"] >= 0
        hits += int((logits.argmax(-1) == batch["labels"])[chosen].sum())
        words += int(chosen.sum())
    assert words == sum(len(example.gold) for example in examples)
    found = evaluate(predictor_for(model, tokenizer, task, **lengths), task, examples, progress=False)
    assert found["accuracy"] == pytest.approx(100 * hits / words)


def test_an_item_too_long_for_the_model_has_no_prediction_and_costs_the_others_nothing(teacher: Path) -> None:
    task = training_task("nli")
    model = load(AutoModelForSequenceClassification, teacher, 3)
    predictor = predictor_for(model, open_tokenizer(teacher), task, max_length=32, stride=8, pad_id=1)
    examples = [Example(PairItem("Ruwa", pair), "neutral") for pair in ("Kano", " ".join(tiny.HAUSA), "Gida")]
    found = predictions(predictor, examples, progress=False)
    assert [prediction is None for prediction in found] == [False, True, False]
    assert evaluate(predictor, task, examples, progress=False)["accuracy"] <= 100 * 2 / 3 + 1e-9


def test_no_examples_is_an_error(teacher: Path) -> None:
    task = training_task("nli")
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(None, task, [])  # type: ignore[arg-type]


def test_a_folder_without_a_fast_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json is missing"):
        open_tokenizer(tmp_path)


def test_the_interval_holds_the_score_and_narrows_as_one_over_root_n() -> None:
    class Counted:
        def terms(self, gold: list[int], predictions: list[int]) -> np.ndarray:
            return np.asarray([(one == other, 1) for one, other in zip(gold, predictions, strict=True)], float)

    task: Any = Counted()
    widths = []
    for n in (100, 10000):
        gold, guess = [1] * n, [1] * (n // 2) + [0] * (n // 2)
        low, high = interval(task, gold, guess, seed=0, n=1000)
        assert low < 50 < high
        widths.append(high - low)
    # a binomial proportion of 1/2: 2 * 1.96 * sqrt(1/4 / n)
    assert widths == pytest.approx([19.6, 1.96], rel=0.15)
    assert interval(task, [1, 1], [1, 0], seed=3) == interval(task, [1, 1], [1, 0], seed=3)


def test_the_interval_of_a_perfect_score_is_that_score() -> None:
    task = training_task("nli")
    right = ClassPrediction({"neutral": 1.0})
    assert interval(task, ["neutral"] * 5, [right] * 5, seed=0) == (100.0, 100.0)
