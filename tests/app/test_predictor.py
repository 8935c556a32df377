from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle import Variant
from app.errors import BundleError
from app.predictor import Predictor
from app.tasks.dependency_parsing import SentenceItem
from app.tasks.question_answering import QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import TokenClassification, TokenItem, entities
from tests.app import tiny


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_a_bundle_answers_by_its_rules(family: str, tmp_path: Path) -> None:
    folders = {
        task: tiny.write_bundle(tmp_path / "store", task, staged=tmp_path / task, family=family).folder
        for task in tiny.TASKS
    }
    opened: list[Predictor[Any, Any]] = [
        Predictor.open(folders[task], threads=1) for task in ("ner", "pos", "nli", "qa", "dp")
    ]
    ner, pos, nli, qa, dp = opened
    text = tiny.SENTENCE
    (tagged,) = ner.predict([TokenItem(text)])
    assert [(text[e.start : e.end], e.label) for e in entities(text, tagged)] == [
        ("Bola Tinubu", "PER"),
        ("Kano", "LOC"),
    ]
    (words,) = pos.predict([TokenItem("Bola isa.")])
    assert [word.label for word in words.words] == ["PROPN", "VERB", "PUNCT"]
    assert [found.label for found in nli.predict([PairItem("isa", "isa"), PairItem("wasa", "wasa")])] == [
        "entailment",
        "contradiction",
    ]
    (found,) = qa.predict([QuestionItem("Ina?", "ya isa Bola Tinubu da yara")])
    assert found.answers[0].text == "Bola Tinubu"
    (tree,) = dp.predict([SentenceItem("Bola isa Kano.")])
    assert [(word.head, word.relation) for word in tree.words] == [
        *((2, "nsubj"), (0, "root"), (2, "obj"), (2, "punct"))
    ]
    for predictor in opened:
        predictor.close()


def test_answers_keep_the_order_of_items_and_batches_the_budget() -> None:
    tokenizer = tiny.bert()
    values = tiny.table(tokenizer, tiny.NER_LABELS, tiny.NER_RULES)
    engine = tiny.FakeEngine(lambda inputs: {"logits": values[inputs["input_ids"].astype(int)]})
    task = TokenClassification(labels=tiny.NER_LABELS, max_length=32, stride=4, pad_id=0)
    predictor = Predictor(task, tokenizer, engine, pad_id=0, token_budget=64)
    texts = ["isa " * (index % 7) + "Kano" for index in range(40)]
    found = predictor.predict([TokenItem(text) for text in texts])
    assert [len(prediction.words) for prediction in found] == [index % 7 + 1 for index in range(40)]
    assert all(prediction.words[-1].label == "B-LOC" for prediction in found)
    assert all(np.prod(shape) <= 64 for shape in engine.batches)
    assert len(engine.batches) < 10
    assert predictor.predict([]) == []


def test_an_engine_this_version_does_not_have_is_a_bundle_error(tmp_path: Path) -> None:
    variants = (Variant(name="x", file="model.onnx", engine="abacus"),)
    bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged", variants=variants)
    with pytest.raises(BundleError, match="needs the engine 'abacus'"):
        Predictor.open(bundle.folder)
