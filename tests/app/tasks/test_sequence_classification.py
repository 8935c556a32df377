import numpy as np
import pytest

from app.errors import InputTooLong
from app.tasks.sequence_classification import PairItem, SequenceClassification
from tests.app import tiny

CODEC = SequenceClassification(labels=("yes", "no"), max_length=16, stride=4, pad_id=0)


def test_windows_average_their_log_probabilities() -> None:
    item = PairItem("isa " * 30, "Kano")
    rows = CODEC.encode(item, tiny.bert())
    assert len(rows) > 1
    outputs = [{"logits": np.array([2.0, 0.0])}, *({"logits": np.array([0.0, 0.0])} for _ in rows[1:])]
    yes, no = np.array([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])
    n = len(rows)
    means = np.exp([(np.log(yes) + (n - 1) * np.log(0.5)) / n, (np.log(no) + (n - 1) * np.log(0.5)) / n])
    prediction = CODEC.decode(item, rows, outputs)
    assert prediction.scores == pytest.approx({"yes": means[0] / means.sum(), "no": means[1] / means.sum()})
    assert prediction.label == "yes"


def test_every_window_holds_the_whole_second_text() -> None:
    tokenizer = tiny.bert()
    kano = tokenizer.token_to_id("Kano")
    for row in CODEC.encode(PairItem("isa " * 30, "Kano"), tokenizer):
        assert row.ids.tolist().count(kano) == 1
        assert row.type_ids[row.ids == kano].tolist() == [1]


def test_a_text_alone_is_framed_alone() -> None:
    (row,) = CODEC.encode(PairItem("isa"), tiny.bert())
    assert row.ids.tolist() == tiny.bert().encode("isa").ids


def test_an_empty_text_is_a_row() -> None:
    assert [len(row) for row in CODEC.encode(PairItem("", ""), tiny.xlmr())] == [4]


def test_a_second_text_that_leaves_no_room_is_too_long() -> None:
    with pytest.raises(InputTooLong) as caught:
        CODEC.encode(PairItem("isa", "Kano " * 10), tiny.bert())
    assert caught.value.extensions == {"limit": 9, "actual": 10}
