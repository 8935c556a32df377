"""Hugging Face's client, as it is installed, against a real server."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from huggingface_hub import InferenceClient

from app.settings import Settings
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.live import listening
from tests.patience import post

CONTEXT = "yara suna wasa da Bola Tinubu a gida Kano"
ENTITIES = [("PER", "Bola Tinubu", 0, 11), ("LOC", "Kano", 26, 30)]


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    settings = Settings.read(store=str(store), threads=1)
    with pytest.MonkeyPatch.context() as patch, listening(settings, open_all(store, settings)) as server:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # else it refuses this machine too
        yield f"{server.url}/v1/ha"


def client(url: str, task: str) -> InferenceClient:
    return InferenceClient(model=f"{url}/{task}", token="hf_x")


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_entities_under_every_strategy(url: str, strategy: Literal["simple", "first", "average", "max"]) -> None:
    found = client(url, "ner").token_classification(tiny.SENTENCE, aggregation_strategy=strategy)
    assert [(entity.entity_group, entity.word, entity.start, entity.end) for entity in found] == ENTITIES
    assert all(0 < entity.score <= 1 for entity in found)


def test_words_without_aggregation(url: str) -> None:
    tags = client(url, "ner").token_classification(tiny.SENTENCE, aggregation_strategy="none")
    assert [(tag.entity, tag.word) for tag in tags] == [("B-PER", "Bola"), ("I-PER", "Tinubu"), ("B-LOC", "Kano")]


def test_entities_without_parameters_and_with_the_rest_of_them(url: str) -> None:
    ner = client(url, "ner")
    assert [entity.word for entity in ner.token_classification(tiny.SENTENCE)] == ["Bola Tinubu", "Kano"]
    assert [entity.word for entity in ner.token_classification(tiny.SENTENCE, ignore_labels=["PER"])] == [
        "ya isa birnin",
        "Kano",
        ".",
    ]
    long = " ".join([tiny.SENTENCE] * 30)
    assert len(ner.token_classification(long, stride=2)) == len(ner.token_classification(long, stride=30)) == 60


def test_text_classification(url: str) -> None:
    nli = client(url, "nli")
    found = nli.text_classification("yara suna wasa")
    assert found[0].label == "contradiction"
    assert math.fsum(label.score for label in found) == pytest.approx(1)
    (best,) = nli.text_classification("yara suna wasa", top_k=1)
    assert best == found[0]
    logits = {label.label: label.score for label in nli.text_classification("yara suna wasa", function_to_apply="none")}
    for label in nli.text_classification("yara suna wasa", function_to_apply="sigmoid"):
        assert label.score == pytest.approx(1 / (1 + math.exp(-logits[label.label])))
    assert logits["contradiction"] == 8


def test_zero_shot_classification_through_the_model_of_inference(url: str) -> None:
    zero_shot = client(url, "zero-shot")
    found = zero_shot.zero_shot_classification("yara", ["gida", "isa", "wasa"], hypothesis_template="{}")
    assert found[0].label == "isa"
    assert math.fsum(label.score for label in found) == pytest.approx(1)
    several = zero_shot.zero_shot_classification(
        "yara", ["gida", "isa", "wasa"], multi_label=True, hypothesis_template="{}"
    )
    scores = {label.label: label.score for label in several}
    assert scores["isa"] > 0.9 > 0.1 > scores["wasa"]


def test_one_answer_and_several(url: str) -> None:
    qa = client(url, "qa")
    found = qa.question_answering(question="Ina yara?", context=CONTEXT)
    assert not isinstance(found, list)
    assert found.answer == CONTEXT[found.start : found.end] == "Bola Tinubu"
    several = qa.question_answering(question="Ina yara?", context=CONTEXT, top_k=2)
    assert isinstance(several, list)
    assert len(several) == 2
    assert several[0].answer == "Bola Tinubu"


def test_every_parameter_of_question_answering(url: str) -> None:
    found = client(url, "qa").question_answering(
        question="Ina yara?",
        context=CONTEXT,
        top_k=3,
        doc_stride=4,
        max_answer_len=1,
        max_seq_len=32,
        max_question_len=20,
        handle_impossible_answer=True,
        align_to_words=True,
    )
    assert isinstance(found, list)
    assert found[0].answer == "Kano"
    assert len({(answer.start, answer.end) for answer in found}) == 3


def test_a_list_of_inputs_has_an_answer_each(url: str) -> None:
    pairs = [["yara suna wasa", "wasa"], ["yara", "isa"]]
    answer = post(f"{url}/nli", json={"inputs": pairs, "parameters": {"top_k": 1}}).json()
    assert [[label["label"] for label in labels] for labels in answer] == [["contradiction"], ["entailment"]]
    texts = [tiny.SENTENCE, "", "Kano"]
    answer = post(f"{url}/ner", json={"inputs": texts}).json()
    assert [[entity["word"] for entity in entities] for entities in answer] == [["Bola Tinubu", "Kano"], [], ["Kano"]]


def test_parts_of_speech_are_one_object_a_word(url: str) -> None:
    answer = post(f"{url}/pos", json={"inputs": "Bola Kano isa"}).json()
    assert [(word["id"], word["text"], word["upos"]) for word in answer] == [
        (1, "Bola", "PROPN"),
        (2, "Kano", "PROPN"),
        (3, "isa", "VERB"),
    ]
