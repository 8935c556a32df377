import numpy as np
import pytest

from app.errors import EngineError
from app.rows import Row, Tensors
from app.tasks.dependency_parsing import DependencyParsing, SentenceItem
from tests.app import tiny

LABELS = tiny.DP_LABELS


def codec(*, max_length: int = 64, stride: int = 8) -> DependencyParsing:
    return DependencyParsing(labels=LABELS, max_length=max_length, stride=stride, pad_id=0)


def says(row: Row, heads: dict[int, int], *, label: int = 2) -> Tensors:
    """Outputs in which piece ``i`` wants piece ``heads[i]`` and every word's best relation is ``label``."""
    n = len(row)
    arcs = np.zeros((n, n))
    for dependent, head in heads.items():
        arcs[dependent, head] = 9
    return {
        "arc_scores": arcs,
        "relation_dependents": np.tile(np.eye(len(LABELS))[label][:, np.newaxis] * 4, (n, 1, 1)),
        "relation_heads": np.ones((n, 1)),
    }


def heads_of(item: SentenceItem, rows: list[Row], outputs: list[Tensors], **lengths: int) -> list[int]:
    return [word.head for word in codec(**lengths).decode(item, rows, outputs).words]


def test_every_sentence_has_a_row_of_its_own_and_counts_the_texts_words() -> None:
    rows = codec().encode(SentenceItem("Bola ya isa. Ina Kano?"), tiny.bert())
    assert [row.words.tolist() for row in rows] == [[-1, 0, 1, 2, 3, -1], [-1, 4, 5, 6, -1]]
    known = SentenceItem("isa . Kano .", words=((0, 3), (4, 5), (6, 10), (11, 12)))
    assert [row.words.tolist() for row in codec().encode(known, tiny.bert())] == [[-1, 0, 1, 2, 3, -1]]


def test_words_are_scored_at_their_first_pieces_and_padding_is_not_looked_at() -> None:
    item = SentenceItem("xyz Kano isa", words=((0, 3), (4, 8), (9, 12)))
    (row,) = codec().encode(item, tiny.bert())
    assert row.words.tolist() == [-1, 0, 0, 0, 1, 2, -1]
    outputs = says(row, {1: 5, 2: 4, 3: 0, 4: 1, 5: 0, 0: 3, 6: 6})
    outputs["arc_scores"] = np.pad(outputs["arc_scores"], ((0, 0), (0, 4)), constant_values=50)
    found = codec().decode(item, [row], [outputs])
    assert [(word.start, word.end, word.head, word.relation) for word in found.words] == [
        *((0, 3, 3, "obj"), (4, 8, 1, "obj"), (9, 12, 0, "root"))
    ]
    # three heads to choose from; four relations beside root
    arc, relation = np.exp(9) / (np.exp(9) + 2), np.exp(4) / (np.exp(4) + 3)
    assert [word.score for word in found.words] == pytest.approx([arc * relation, arc * relation, arc])


def test_a_relation_is_scored_between_the_two_words_of_the_arc() -> None:
    item = SentenceItem("isa Kano", words=((0, 3), (4, 8)))
    (row,) = codec().encode(item, tiny.bert())
    outputs = says(row, {1: 0, 2: 1})
    generator = np.random.default_rng(0)
    dependents, heads = generator.normal(size=(4, 5, 3)), generator.normal(size=(4, 3))
    outputs |= {"relation_dependents": dependents, "relation_heads": heads}
    scores = [sum(dependents[2, label, k] * heads[1, k] for k in range(3)) for label in range(4)]
    word = codec().decode(item, [row], [outputs]).words[1]
    assert word.relation == LABELS[int(np.argmax(scores))]
    expected = np.exp(max(scores)) / sum(np.exp(scores)) * np.exp(9) / (np.exp(9) + 1)
    assert word.score == pytest.approx(expected)


def test_a_long_sentence_is_one_tree_across_its_windows() -> None:
    item = SentenceItem(" ".join(["isa"] * 10), words=tuple((4 * i, 4 * i + 3) for i in range(10)))
    lengths = {"max_length": 8, "stride": 4}
    rows = codec(**lengths).encode(item, tiny.bert())
    assert [row.words[row.words >= 0].tolist() for row in rows] == [
        *([0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8], [6, 7, 8, 9])
    ]
    # every word hangs on the one before it; the first piece of the later windows says root but is not heard
    outputs = [says(row, {i: i - 1 for i in range(1, len(row) - 1)}) for row in rows]
    assert heads_of(item, rows, outputs, **lengths) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    # every word hangs on the next, and the last one is the root
    outputs = [says(row, {i: i + 1 for i in range(1, len(row) - 2)}) for row in rows]
    outputs[-1]["arc_scores"][-2, 0] = 9
    assert heads_of(item, rows, outputs, **lengths) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 0]


def test_windows_that_share_nothing_are_joined_all_the_same() -> None:
    item = SentenceItem(" ".join(["isa"] * 9), words=tuple((4 * i, 4 * i + 3) for i in range(9)))
    lengths = {"max_length": 5, "stride": 0}
    rows = codec(**lengths).encode(item, tiny.bert())
    assert [len(row) for row in rows] == [5, 5, 5]
    heads = heads_of(item, rows, [says(row, {1: 0, 2: 1, 3: 1}) for row in rows], **lengths)
    roots = [place for place, head in enumerate(heads) if head == 0]
    assert len(roots) == 1 and roots[0] in (0, 3, 6)
    for first in (0, 3, 6):
        assert heads[first + 1 : first + 3] == [first + 1, first + 1]


def test_a_word_without_pieces_is_a_leaf() -> None:
    item = SentenceItem("\x00 Kano isa", words=((0, 1), (2, 6), (7, 10)))
    (row,) = codec().encode(item, tiny.bert())
    assert row.words.tolist() == [-1, 1, 2, -1]
    found = codec().decode(item, [row], [says(row, {1: 2, 2: 0})]).words
    assert [word.head for word in found][1:] == [3, 0] and found[0].head in (2, 3)
    assert (found[0].relation, found[0].score) == ("dep", 0.0)


def test_nothing_but_words_without_pieces_is_still_a_tree() -> None:
    item = SentenceItem("\x00 \x00", words=((0, 1), (2, 3)))
    assert codec().encode(item, tiny.bert()) == []
    found = codec().decode(item, [], [])
    assert sorted(word.head == 0 for word in found.words) == [False, True]
    assert codec().decode(SentenceItem(""), [], []).sentences == ()


def test_outputs_of_another_model_are_an_engine_error() -> None:
    item = SentenceItem("isa Kano")
    (row,) = codec().encode(item, tiny.bert())
    with pytest.raises(EngineError, match="not arc_scores"):
        codec().decode(item, [row], [{"logits": np.zeros((4, 5))}])
    outputs = says(row, {1: 0, 2: 1})
    outputs["relation_dependents"] = outputs["relation_dependents"][:, :3]
    with pytest.raises(EngineError, match="relation_dependents of shape"):
        codec().decode(item, [row], [outputs])
