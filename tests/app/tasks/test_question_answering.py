import numpy as np
import pytest

from app.errors import InputTooLong
from app.rows import Tensors
from app.tasks.question_answering import QuestionAnswering, QuestionItem
from tests.app import tiny

CODEC = QuestionAnswering(labels=(), max_length=32, stride=4, pad_id=0)


def spans_of(item: QuestionItem, starts: dict[int, float], ends: dict[int, float]) -> list[tuple[str, float]]:
    (row,) = CODEC.encode(item, tiny.bert())
    outputs = {"start_logits": np.full(len(row), -9.0), "end_logits": np.full(len(row), -9.0)}
    for logits, values in zip(outputs.values(), (starts, ends), strict=True):
        for place, value in values.items():
            logits[place] = value
    return [(answer.text, answer.score) for answer in CODEC.decode(item, [row], [outputs]).answers]


def test_the_best_span_wins_and_scores_sum_to_one() -> None:
    item = QuestionItem("Ina", "Bola ya isa Kano", top_k=100)
    # [CLS] Ina [SEP] Bola ya isa Kano [SEP]: the context is at 3..6
    answers = spans_of(item, {3: 2.0, 6: 1.0}, {4: 2.0, 6: 1.5})
    assert [text for text, _ in answers][:3] == ["Bola ya", "Bola ya isa Kano", "Kano"]
    assert sum(score for _, score in answers) == pytest.approx(1)
    assert answers[1][1] / answers[0][1] == pytest.approx(np.exp(-0.5))


def test_an_answer_neither_ends_before_it_starts_nor_lies_outside_the_context() -> None:
    item = QuestionItem("Ina", "Bola ya isa Kano")
    assert spans_of(item, {1: 50.0, 0: 20.0, 6: 5.0}, {3: 9.0, 7: 50.0, 6: 2.0})[0][0] == "Kano"


def test_max_answer_len_is_in_pieces() -> None:
    item = QuestionItem("Ina", "Bola ya isa Kano", max_answer_len=2)
    assert spans_of(item, {3: 9.0}, {6: 9.0, 4: 1.0})[0][0] == "Bola ya"


def test_an_answer_may_reach_over_pieces_that_stand_for_nothing() -> None:
    item = QuestionItem("Ina", "b b b b")
    (row,) = CODEC.encode(item, tiny.xlmr())
    places = np.flatnonzero(row.spans[:, 0] >= 0)
    assert places[-1] - places[0] >= len(places)  # a lone word begin lies between the letters
    starts, ends = np.full(len(row), -9.0), np.full(len(row), -9.0)
    starts[places[0]], ends[places[-1]] = 9.0, 9.0
    (best,) = CODEC.decode(item, [row], [{"start_logits": starts, "end_logits": ends}]).answers
    assert best.text == item.context


def test_a_window_that_says_not_here_loses() -> None:
    item = QuestionItem("Ina", "isa " * 40 + "Kano")
    rows = CODEC.encode(item, tiny.bert())
    outputs: list[Tensors] = []
    for index, row in enumerate(rows):
        logits = np.full(len(row), -5.0)
        logits[0] = 20.0 if index == 0 else -5.0
        logits[3 if index == 0 else len(row) - 2] = 9.0
        outputs.append({"start_logits": logits, "end_logits": logits})
    assert CODEC.decode(item, rows, outputs).answers[0].text != "isa" or len(rows) > 2
    last = CODEC.decode(item, [rows[0], rows[-1]], [outputs[0], outputs[-1]])
    assert last.answers[0].text == "Kano"


def test_a_span_in_two_windows_counts_once() -> None:
    item = QuestionItem("Ina", " ".join(["isa"] * 40), top_k=100)
    rows = CODEC.encode(item, tiny.bert())
    outputs: list[Tensors] = [{"start_logits": np.zeros(len(row)), "end_logits": np.zeros(len(row))} for row in rows]
    answers = CODEC.decode(item, rows, outputs).answers
    places = [(answer.start, answer.end) for answer in answers]
    assert len(rows) > 1
    assert len(set(places)) == len(places)


def test_answers_are_whole_graphemes_where_the_tokenizer_loses_a_mark() -> None:
    context = "Tinu\u0301bu\u0301 ya isa"
    item = QuestionItem("Ina", context)
    task = QuestionAnswering(labels=(), max_length=64, stride=4, pad_id=0)
    (row,) = task.encode(item, tiny.xlmr())
    inside = np.flatnonzero(row.spans[:, 0] >= 0)
    for first in inside:
        for last in inside[inside >= first]:
            starts, ends = np.full(len(row), -9.0), np.full(len(row), -9.0)
            starts[first] = ends[last] = 9.0
            (answer,) = task.decode(item, [row], [{"start_logits": starts, "end_logits": ends}]).answers
            assert answer.text == context[answer.start : answer.end] == answer.text.strip()
            assert not context[answer.end : answer.end + 1].startswith("\u0301")
            assert not answer.text.startswith("\u0301")


def test_a_context_of_nothing_has_no_answer() -> None:
    rows = CODEC.encode(QuestionItem("Ina", "  "), tiny.bert())
    zeros = np.zeros(len(rows[0]))
    assert CODEC.decode(QuestionItem("Ina", "  "), rows, [{"start_logits": zeros, "end_logits": zeros}]).answers == ()


def test_a_question_that_leaves_no_room_is_too_long() -> None:
    with pytest.raises(InputTooLong, match="the question has 30 pieces, more than 21"):
        CODEC.encode(QuestionItem("isa " * 30, "Kano"), tiny.bert())
