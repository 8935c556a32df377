from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app.schemas import NerRequest, NliRequest, PosRequest, QaRequest
from app.tasks.question_answering import Answer, AnswerPrediction, QuestionItem
from app.tasks.sequence_classification import ClassPrediction, PairItem
from app.tasks.token_classification import Tag, TokenItem, TokenPrediction

NONE: Any = None
TEXT = "Bola Tinubu ya."
TAGGED = TokenPrediction(
    (Tag(0, 4, "B-PER", 0.9), Tag(5, 11, "I-PER", 0.7), Tag(12, 14, "O", 0.8), Tag(14, 15, "O", 0.6)), NONE
)
CLASSES = ClassPrediction({"yes": 0.2, "no": 0.7, "maybe": 0.1})
ANSWERS = AnswerPrediction((Answer("Kano", 3, 7, 0.6), Answer("isa", 0, 3, 0.1)))
QUESTION = {"question": "Ina?", "context": "isaKano"}


def test_entities_are_flat_for_one_text_and_nested_for_several() -> None:
    entity = {"entity_group": "PER", "score": pytest.approx(0.8), "word": "Bola Tinubu", "start": 0, "end": 11}
    assert NerRequest(inputs=TEXT).answer([TAGGED]) == [entity]
    assert NerRequest(inputs=[TEXT, TEXT]).answer([TAGGED, TAGGED]) == [[entity], [entity]]


def test_no_aggregation_gives_tags_and_ignored_labels_are_left_out() -> None:
    request = NerRequest.model_validate({"inputs": TEXT, "parameters": {"aggregation_strategy": "none"}})
    assert request.answer([TAGGED])[1] == {"entity": "I-PER", "score": 0.7, "word": "Tinubu", "start": 5, "end": 11}
    assert len(request.answer([TAGGED])) == 2
    parameters = {"aggregation_strategy": "none", "ignore_labels": ["B-PER"]}
    request = NerRequest.model_validate({"inputs": TEXT, "parameters": parameters})
    assert [tag["entity"] for tag in request.answer([TAGGED])] == ["I-PER", "O", "O"]


def test_words_have_ids_and_offsets() -> None:
    (first, *rest) = PosRequest(inputs=TEXT).answer([TAGGED])
    assert first == {"id": 1, "text": "Bola", "upos": "B-PER", "score": 0.9, "start": 0, "end": 4}
    assert [word["text"] for word in rest] == ["Tinubu", "ya", "."]


@pytest.mark.parametrize(
    ("inputs", "items"),
    [
        ("a", [PairItem("a")]),
        ({"text": "a", "text_pair": "b"}, [PairItem("a", "b")]),
        ([["a", "b"]], [PairItem("a", "b")]),
        (["a", {"text": "b"}, ["c", "d"]], [PairItem("a"), PairItem("b"), PairItem("c", "d")]),
    ],
)
def test_pairs_come_in_four_shapes(inputs: Any, items: list[PairItem]) -> None:
    request = NliRequest.model_validate({"inputs": inputs})
    assert request.items() == items
    assert request.answer([CLASSES] * len(items))[0][0] == {"label": "no", "score": 0.7}


def test_top_k_cuts_labels() -> None:
    request = NliRequest.model_validate({"inputs": "a", "parameters": {"top_k": 2}})
    assert [label["label"] for label in request.answer([CLASSES])[0]] == ["no", "yes"]


def test_one_answer_is_an_object_and_several_are_a_list() -> None:
    best = {"answer": "Kano", "start": 3, "end": 7, "score": 0.6}
    assert QaRequest.model_validate({"inputs": QUESTION}).answer([ANSWERS]) == best
    several = QaRequest.model_validate({"inputs": QUESTION, "parameters": {"top_k": 2, "max_answer_len": 7}})
    assert [answer["answer"] for answer in several.answer([ANSWERS])] == ["Kano", "isa"]
    assert several.items() == [QuestionItem("Ina?", "isaKano", top_k=2, max_answer_len=7)]
    assert QaRequest.model_validate({"inputs": [QUESTION]}).answer([ANSWERS]) == [best]
    nothing = QaRequest.model_validate({"inputs": QUESTION}).answer([AnswerPrediction(())])
    assert nothing == {"answer": "", "score": 0.0, "start": 0, "end": 0}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (NerRequest, {"inputs": "a", "parameter": {}}),
        (NerRequest, {"inputs": "a", "parameters": {"aggregation_stratgy": "none"}}),
        (NerRequest, {"inputs": "a", "parameters": {"aggregation_strategy": "last"}}),
        (NerRequest, {"inputs": []}),
        (NerRequest, {"inputs": 3}),
        (NerRequest, {"inputs": "\ud800"}),
        (PosRequest, {}),
        (NliRequest, {"inputs": [["a", "b", "c"]]}),
        (NliRequest, {"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}),
        (QaRequest, {"inputs": "a"}),
        (QaRequest, {"inputs": {"question": "", "context": "a"}}),
        (QaRequest, {"inputs": QUESTION, "parameters": {"top_k": 0}}),
        (QaRequest, {"inputs": QUESTION, "parameters": {"handle_impossible_answer": True}}),
    ],
)
def test_what_cannot_be_honoured_is_refused(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(body)


def test_texts_are_every_text() -> None:
    assert list(NliRequest.model_validate({"inputs": [["a", "b"], "c"]}).texts()) == ["a", "b", "c"]
    assert list(QaRequest.model_validate({"inputs": QUESTION}).texts()) == ["Ina?", "isaKano"]
    assert NerRequest(inputs=["a", "b"]).items() == [TokenItem("a"), TokenItem("b")]
