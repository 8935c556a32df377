"""Every codec in ``app/tasks``: generated items round-trip through an engine of known answers, on every tokenizer."""

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from app import plugins
from app.predictor import Predictor, codec
from app.tasks.base import Task
from app.tasks.dependency_parsing import SentenceItem, TreePrediction
from app.tasks.question_answering import AnswerPrediction, QuestionItem
from app.tasks.sequence_classification import ClassPrediction, PairItem
from app.tasks.token_classification import TokenItem, TokenPrediction
from tests.app import tiny
from tests.app.test_text import TEXTS

CODECS = plugins.names("app.tasks")
ROUTES = {codec: route for route, (codec, _) in reversed(tiny.TASKS.items())}


@pytest.fixture(params=tiny.TOKENIZERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def task_named(name: str, family: str, *, max_length: int = 48, stride: int = 8) -> Task[Any, Any]:
    return codec(tiny.manifest(ROUTES[name], family=family, max_length=max_length, stride=stride))


def items(name: str) -> list[Any]:
    texts = [*TEXTS.values(), tiny.SENTENCE, " ".join([tiny.SENTENCE] * 12)]
    if name == "token_classification":
        return [TokenItem(text) for text in [*texts, "", "  "]]
    if name == "dependency_parsing":
        return [SentenceItem(text) for text in [*texts, "", "  ", "\x00", "isa " * 120, "x" * 200 + " isa"]]
    if name == "sequence_classification":
        return [PairItem(text, pair) for text, pair in zip(texts, ["Bola ya isa.", None] * len(texts), strict=False)]
    return [QuestionItem("Ina Bola?", text, top_k=3, max_answer_len=5) for text in texts]


def predictor(name: str, family: str, tokenizer: Tokenizer, *, token_budget: int = 256) -> Predictor[Any, Any]:
    task = task_named(name, family)
    n_labels = len(tiny.TASKS[ROUTES[name]][1])
    engine = tiny.FakeEngine(lambda inputs: tiny.random_outputs(inputs, codec=name, n_labels=n_labels))
    return Predictor(task, tokenizer, engine, pad_id=tiny.PAD_IDS[family], token_budget=token_budget)


def check(item: Any, prediction: Any) -> None:
    """What holds of any prediction, whatever the model says."""
    if isinstance(prediction, TokenPrediction):
        assert prediction.probabilities.shape == (len(prediction.words), len(tiny.POS_LABELS))
        np.testing.assert_allclose(prediction.probabilities.sum(axis=-1), 1)
        assert all(item.text[tag.start : tag.end].strip() for tag in prediction.words)
    elif isinstance(prediction, TreePrediction):
        assert [index for part in prediction.sentences for index in range(*part)] == [*range(len(prediction.words))]
        for first, last in prediction.sentences:
            heads = [word.head for word in prediction.words[first:last]]
            assert sum(head == 0 for head in heads) == 1
            assert all(head == 0 or first < head <= last for head in heads)
            above = set(range(first + 1, last + 1))
            for _ in heads:
                above = {heads[word - first - 1] for word in above} - {0}
            assert not above
        for word in prediction.words:
            assert (word.relation == "root") == (word.head == 0)
            assert 0 <= word.score <= 1 and item.text[word.start : word.end].strip()
    elif isinstance(prediction, ClassPrediction):
        assert sum(prediction.scores.values()) == pytest.approx(1)
    else:
        assert isinstance(prediction, AnswerPrediction)
        scores = [answer.score for answer in prediction.answers]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) <= 1 + 1e-9
        for answer in prediction.answers:
            assert item.context[answer.start : answer.end] == answer.text == answer.text.strip() != ""


def test_rows_fit_the_window_and_their_arrays_agree(name: str, family: str) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    task = task_named(name, family)
    for item in items(name):
        text = item.context if isinstance(item, QuestionItem) else item.text
        for row in task.encode(item, tokenizer):
            assert 0 < len(row) <= 48
            assert len(row.ids) == len(row.type_ids) == len(row.words) == len(row.spans)
            assert row.ids.dtype == row.type_ids.dtype == row.words.dtype == row.spans.dtype == np.int64
            placed = row.spans[row.spans[:, 0] >= 0]
            assert ((placed[:, 0] <= placed[:, 1]) & (placed[:, 1] <= len(text))).all()


def test_items_round_trip(name: str, family: str) -> None:
    found = predictor(name, family, tiny.TOKENIZERS[family]()).predict(items(name))
    for item, prediction in zip(items(name), found, strict=True):
        check(item, prediction)


def test_an_item_has_the_same_answer_alone_and_in_any_batch(name: str, family: str) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    together = predictor(name, family, tokenizer, token_budget=4096).predict(items(name))
    for item, prediction in zip(items(name), together, strict=True):
        (alone,) = predictor(name, family, tokenizer, token_budget=1).predict([item])
        if isinstance(prediction, TokenPrediction):
            np.testing.assert_allclose(prediction.probabilities, alone.probabilities, rtol=1e-9)
            assert [tag.label for tag in prediction.words] == [tag.label for tag in alone.words]
        elif isinstance(prediction, TreePrediction):
            assert [(word.head, word.relation) for word in prediction.words] == [
                (word.head, word.relation) for word in alone.words
            ]
            assert [word.score for word in prediction.words] == pytest.approx([word.score for word in alone.words])
        elif isinstance(prediction, ClassPrediction):
            assert prediction.scores == pytest.approx(alone.scores)
        else:
            assert [answer.text for answer in prediction.answers] == [answer.text for answer in alone.answers]


def test_the_probe_has_an_answer(name: str, family: str) -> None:
    task = task_named(name, family)
    (prediction,) = predictor(name, family, tiny.TOKENIZERS[family]()).predict([task.probe])
    check(task.probe, prediction)


def test_the_same_keywords_build_every_codec(name: str) -> None:
    module = plugins.load("app.tasks", name)
    kind = getattr(module, "".join(part.capitalize() for part in name.split("_")))
    built = kind(labels=("a", "b"), max_length=32, stride=4, pad_id=0)
    assert (built.labels, built.max_length, built.stride, built.pad_id) == (("a", "b"), 32, 4, 0)
    assert isinstance(built.per_token, bool)
