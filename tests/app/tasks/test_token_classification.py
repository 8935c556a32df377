import numpy as np
import pytest

from app.rows import Tensors
from app.tasks.token_classification import Pooling, Tag, TokenClassification, TokenItem, TokenPrediction, entities
from tests.app import tiny

LABELS = tiny.NER_LABELS


def codec(*, max_length: int = 64, stride: int = 8, labels: tuple[str, ...] = LABELS) -> TokenClassification:
    return TokenClassification(labels=labels, max_length=max_length, stride=stride, pad_id=0)


def one_hot(n: int, label: int) -> Tensors:
    return {"logits": np.eye(len(LABELS))[np.full(n, label)] * 9}


def tags(*labels: str, scores: tuple[float, ...] = ()) -> TokenPrediction:
    spans = [(2 * index, 2 * index + 1) for index in range(len(labels))]
    given = scores or (0.5,) * len(labels)
    words = tuple(
        Tag(start, end, label, score) for (start, end), label, score in zip(spans, labels, given, strict=True)
    )
    return TokenPrediction(words, np.zeros((len(labels), len(LABELS))))


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_every_piece_names_its_word_and_lies_inside_it(family: str) -> None:
    text = "Tinu\u0301bu\u0301 ya isa birnin Kano."
    item = TokenItem(text, words=((0, 8), (9, 11), (12, 15), (16, 22), (23, 27), (27, 28)))
    (row,) = codec().encode(item, tiny.TOKENIZERS[family]())
    inside = row.words >= 0
    assert sorted(set(row.words[inside].tolist())) == [0, 1, 2, 3, 4, 5]
    assert item.words is not None
    for word, (start, end) in zip(row.words[inside], row.spans[inside], strict=True):
        assert item.words[word][0] <= start <= end <= item.words[word][1]


def test_a_word_is_scored_at_its_first_piece() -> None:
    item = TokenItem("xyz Kano", words=((0, 3), (4, 8)))
    (row,) = codec().encode(item, tiny.bert())
    assert row.words.tolist() == [-1, 0, 0, 0, 1, -1]
    logits = np.zeros((6, len(LABELS)))
    logits[1, 1] = logits[2, 2] = logits[3, 3] = logits[4, 3] = 5
    prediction = codec().decode(item, [row], [{"logits": logits}])
    assert [tag.label for tag in prediction.words] == ["B-PER", "B-LOC"]
    expected = np.exp(5) / (np.exp(5) + 4)
    assert prediction.words[0].score == pytest.approx(expected)


def test_a_word_without_pieces_is_outside() -> None:
    item = TokenItem("\u200b Kano", words=((0, 1), (2, 6)))
    tokenizer = tiny.bert()
    tokenizer.normalizer = None
    rows = codec().encode(TokenItem("\x00 Kano", words=((0, 1), (2, 6))), tiny.bert())
    assert rows[0].words.tolist() == [-1, 1, -1]
    prediction = codec().decode(item, rows, [one_hot(3, 3)])
    assert [tag.label for tag in prediction.words] == ["O", "B-LOC"]


def test_a_word_without_pieces_is_x_where_there_is_no_o() -> None:
    labels = ("NOUN", "VERB", "X")
    item = TokenItem("\x00 Kano", words=((0, 1), (2, 6)))
    rows = codec(labels=labels).encode(item, tiny.bert())
    prediction = codec(labels=labels).decode(item, rows, [{"logits": np.eye(3)[[0, 1, 0]]}])
    assert [tag.label for tag in prediction.words] == ["X", "VERB"]
    assert prediction.words[0].score == pytest.approx(1 / 3)


def test_no_words_need_no_rows() -> None:
    assert codec().encode(TokenItem(" \n"), tiny.xlmr()) == []
    assert codec().decode(TokenItem(" \n"), [], []).words == ()


def test_a_word_in_two_windows_is_answered_where_it_has_most_context() -> None:
    item = TokenItem(" ".join(["isa"] * 10))
    task = codec(max_length=8, stride=3)
    rows = task.encode(item, tiny.bert())
    assert [(row.words.max(), row.words[row.words >= 0].min()) for row in rows] == [(5, 0), (8, 3), (9, 6)]
    prediction = task.decode(item, rows, [one_hot(len(row), index) for index, row in enumerate(rows)])
    assert [LABELS.index(tag.label) for tag in prediction.words] == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_a_word_of_many_windows_is_answered_once() -> None:
    item = TokenItem("isa " + "x" * 100 + " Kano")
    task = codec(max_length=10, stride=4)
    rows = task.encode(item, tiny.bert())
    prediction = task.decode(item, rows, [one_hot(len(row), 1) for row in rows])
    assert [(tag.start, tag.end) for tag in prediction.words] == [(0, 3), (4, 104), (105, 109)]
    assert all(tag.label == "B-PER" for tag in prediction.words)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("B-PER", "I-PER", "O"), [("PER", 0, 3)]),
        (("I-PER", "I-PER"), [("PER", 0, 3)]),
        (("B-PER", "B-PER"), [("PER", 0, 1), ("PER", 2, 3)]),
        (("B-PER", "I-LOC", "O", "I-LOC"), [("PER", 0, 1), ("LOC", 2, 3), ("LOC", 6, 7)]),
        (("O", "O"), []),
        ((), []),
    ],
)
def test_entities_by_hand(labels: tuple[str, ...], expected: list[tuple[str, int, int]]) -> None:
    found = entities("a b c d", tags(*labels))
    assert [(entity.label, entity.start, entity.end) for entity in found] == expected


def test_an_entity_has_the_mean_score_of_its_words() -> None:
    (entity,) = entities("a b c", tags("B-PER", "I-PER", "I-PER", scores=(0.2, 0.9, 0.4)))
    assert entity.score == pytest.approx(0.5)


def test_kinds_to_ignore_are_the_callers_choice() -> None:
    found = entities("a b c d", tags("O", "O", "B-PER", "B-LOC"), ignore=("PER",))
    assert [(entity.label, entity.start, entity.end) for entity in found] == [("O", 0, 3), ("LOC", 6, 7)]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("first", (0.6, 0.3, 0.1)), ("average", (0.35, 0.5, 0.15)), ("max", (0.1, 0.7, 0.2))],
)
def test_a_word_is_read_at_its_first_piece_at_all_or_at_the_surest(
    pooling: Pooling, expected: tuple[float, float, float]
) -> None:
    item = TokenItem("ab Kano", words=((0, 2), (3, 7)))
    task = TokenClassification(labels=("O", "A", "B"), max_length=64, stride=8, pad_id=0, pooling=pooling)
    (row,) = task.encode(item, tiny.bert())
    assert row.words.tolist() == [-1, 0, 0, 1, -1]
    chances = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])
    prediction = task.decode(item, [row], [{"logits": np.log(chances)}])
    np.testing.assert_allclose(prediction.probabilities, [expected, (0.2, 0.3, 0.5)])
    assert [tag.label for tag in prediction.words] == [("O", "A", "B")[int(np.argmax(expected))], "B"]
