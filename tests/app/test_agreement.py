from typing import Any

import pytest

from app.agreement import FOUND_BY_CODEC, Found, agreement
from app.plugins import names
from app.tasks.question_answering import Answer, AnswerPrediction, QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import Tag, TokenItem, TokenPrediction

PER, LOC = Found(0, 11, "PER"), Found(26, 30, "LOC")


@pytest.mark.parametrize(
    ("student", "outcomes"),
    [
        ([PER, LOC], {"match": 2}),
        ([PER], {"match": 1, "missed": 1}),
        ([PER, Found(26, 30, "ORG")], {"match": 1, "label": 1}),
        ([Found(5, 11, "PER"), LOC], {"match": 1, "boundary": 1}),
        ([Found(0, 4, "PER"), Found(5, 11, "PER"), LOC], {"match": 1, "boundary": 1, "extra": 1}),
        ([PER, LOC, Found(12, 14, "ORG")], {"match": 2, "extra": 1}),
        ([], {"missed": 2}),
        ([Found(11, 26, "PER")], {"missed": 2, "extra": 1}),
    ],
)
def test_every_kind_of_difference_has_its_name(student: list[Found], outcomes: dict[str, int]) -> None:
    assert agreement([PER, LOC], student) == outcomes


def test_nothing_found_by_either_is_no_outcome() -> None:
    assert agreement([], []) == {}


def test_every_codec_says_what_its_predictions_point_at() -> None:
    assert set(FOUND_BY_CODEC) == set(names("app.tasks")) - {"base"}


def prediction(*tags: tuple[int, int, str]) -> Any:
    return TokenPrediction(tuple(Tag(start, end, label, 1.0) for start, end, label in tags), None)  # type: ignore[arg-type]


def test_entities_are_compared_where_there_is_an_outside_and_words_where_not() -> None:
    find = FOUND_BY_CODEC["token_classification"]
    item = TokenItem("Bola Tinubu ya isa")
    tagged = prediction((0, 4, "B-PER"), (5, 11, "I-PER"), (12, 14, "O"), (15, 18, "O"))
    assert find(item, tagged) == [Found(0, 11, "PER")]
    assert find(item, prediction((0, 4, "PROPN"), (5, 11, "PROPN"))) == [Found(0, 4, "PROPN"), Found(5, 11, "PROPN")]


def test_an_answer_and_a_label_are_findings_too() -> None:
    answer = AnswerPrediction((Answer("Kano", 3, 7, 0.9), Answer("Bola", 8, 12, 0.1)))
    assert FOUND_BY_CODEC["question_answering"](QuestionItem("Ina?", "ta Kano"), answer) == [Found(3, 7, "")]
    assert FOUND_BY_CODEC["question_answering"](QuestionItem("Ina?", "ta"), AnswerPrediction(())) == []

    class Said:
        label = "neutral"

    assert FOUND_BY_CODEC["sequence_classification"](PairItem("ab", "c"), Said()) == [Found(0, 2, "neutral")]
