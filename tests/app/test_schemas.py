import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app.schemas.base import TaskRequest
from app.schemas.ner import NerRequest
from app.schemas.nli import NliRequest
from app.schemas.pos import PosRequest
from app.schemas.qa import QaRequest
from app.schemas.zero_shot import ZeroShotRequest
from app.tasks.question_answering import Answer, AnswerPrediction, QuestionItem
from app.tasks.sequence_classification import ClassPrediction, PairItem
from app.tasks.token_classification import Tag, TokenItem, TokenPrediction

NONE: Any = None
TEXT = "Bola Tinubu ya."
TAGGED = TokenPrediction(
    (Tag(0, 4, "B-PER", 0.9), Tag(5, 11, "I-PER", 0.7), Tag(12, 14, "O", 0.8), Tag(14, 15, "O", 0.6)), NONE
)
CLASSES = ClassPrediction({"yes": math.log(0.2), "no": math.log(0.7), "maybe": math.log(0.1)})
ANSWERS = AnswerPrediction((Answer("Kano", 3, 7, 0.6), Answer("isa", 0, 3, 0.1)))
QUESTION = {"question": "Ina?", "context": "isaKano"}


def texts(request: TaskRequest) -> list[str]:
    return [text for value in request.values for text in request.texts_of(value)]


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
    assert request.answer([CLASSES] * len(items))[0][0] == {"label": "no", "score": pytest.approx(0.7)}


def test_top_k_cuts_labels() -> None:
    request = NliRequest.model_validate({"inputs": "a", "parameters": {"top_k": 2}})
    assert [label["label"] for label in request.answer([CLASSES])[0]] == ["no", "yes"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [("softmax", [0.7, 0.2, 0.1]), ("sigmoid", [0.7 / 1.7, 0.2 / 1.2, 0.1 / 1.1]), ("none", [-0.3567, -1.609, -2.303])],
)
def test_a_function_is_applied_to_the_logits(function: str, expected: list[float]) -> None:
    request = NliRequest.model_validate({"inputs": "a", "parameters": {"function_to_apply": function}})
    assert [label["score"] for label in request.answer([CLASSES])[0]] == pytest.approx(expected, rel=1e-3)


def test_zero_shot_asks_about_each_label_and_ranks_them_by_entailment() -> None:
    parameters = {"candidate_labels": ["x", "y"], "hypothesis_template": "It is {}."}
    request = ZeroShotRequest.model_validate({"inputs": ["a", "b"], "parameters": parameters})
    assert request.items() == [PairItem(text, f"It is {label}.") for text in "ab" for label in "xy"]
    assert texts(request) == ["a", "It is x.", "It is y.", "b", "It is x.", "It is y."]
    said = [
        ClassPrediction({"entailment": math.log(entailed), "contradiction": math.log(denied), "neutral": 5})
        for entailed, denied in ((1, 1), (3, 1), (4, 6), (1, 3))
    ]
    first, second = request.answer(said)
    assert first == [{"label": "y", "score": pytest.approx(0.75)}, {"label": "x", "score": pytest.approx(0.25)}]
    assert second == [{"label": "x", "score": pytest.approx(0.8)}, {"label": "y", "score": pytest.approx(0.2)}]
    request = ZeroShotRequest.model_validate({"inputs": "a", "parameters": parameters | {"candidate_labels": ["x"]}})
    assert request.answer(said[2:3]) == [{"label": "x", "score": pytest.approx(0.4)}]
    request = ZeroShotRequest.model_validate({"inputs": "a", "parameters": parameters | {"multi_label": True}})
    assert request.answer(said[2:]) == [
        {"label": "x", "score": pytest.approx(0.4)},
        {"label": "y", "score": pytest.approx(0.25)},
    ]


def test_one_answer_is_an_object_and_several_are_a_list() -> None:
    best = {"answer": "Kano", "start": 3, "end": 7, "score": 0.6}
    assert QaRequest.model_validate({"inputs": QUESTION}).answer([ANSWERS]) == best
    parameters = {"top_k": 2, "max_answer_len": 7, "handle_impossible_answer": True, "align_to_words": True}
    several = QaRequest.model_validate({"inputs": QUESTION, "parameters": parameters})
    assert [answer["answer"] for answer in several.answer([ANSWERS])] == ["Kano", "isa"]
    assert several.items() == [
        QuestionItem("Ina?", "isaKano", top_k=2, max_answer_len=7, may_be_impossible=True, whole_words=True)
    ]
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
        (NerRequest, {"inputs": "a", "parameters": {"stride": "3"}}),
        (NerRequest, {"inputs": "a", "parameters": {"offset_unit": "byte"}}),
        (NliRequest, {"inputs": "a", "parameters": {"function_to_apply": "relu"}}),
        (ZeroShotRequest, {"inputs": "a"}),
        (ZeroShotRequest, {"inputs": "a", "parameters": {"candidate_labels": []}}),
        (ZeroShotRequest, {"inputs": "a", "parameters": {"candidate_labels": ["a", "a"]}}),
        (ZeroShotRequest, {"inputs": "a", "parameters": {"candidate_labels": ["a"], "hypothesis_template": "no"}}),
        (QaRequest, {"inputs": "a"}),
        (QaRequest, {"inputs": {"question": "", "context": "a"}}),
        (QaRequest, {"inputs": QUESTION, "parameters": {"top_k": 0}}),
        (QaRequest, {"inputs": QUESTION, "parameters": {"handle_impossible_answer": 1}}),
    ],
)
def test_what_cannot_be_honoured_is_refused(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(body)


def test_a_whole_number_may_have_a_point() -> None:
    request = QaRequest.model_validate({"inputs": QUESTION, "parameters": {"top_k": 2.0, "doc_stride": 8.0}})
    assert (request.parameters.top_k, request.parameters.doc_stride) == (2, 8)
    with pytest.raises(ValidationError):
        QaRequest.model_validate({"inputs": QUESTION, "parameters": {"top_k": 2.5}})


def test_texts_are_every_text() -> None:
    assert texts(NliRequest.model_validate({"inputs": [["a", "b"], "c"]})) == ["a", "b", "c"]
    assert texts(QaRequest.model_validate({"inputs": QUESTION})) == ["Ina?", "isaKano"]
    assert NerRequest(inputs=["a", "b"]).items() == [TokenItem("a"), TokenItem("b")]
