import numpy as np

from app.rows import Row, pad, split


def row(*ids: int) -> Row:
    n = len(ids)
    return Row(
        ids=np.array(ids),
        type_ids=np.arange(n) % 2,
        words=np.full(n, -1),
        spans=np.full((n, 2), -1),
    )


def test_pad_fills_to_the_longest_row() -> None:
    padded = pad([row(5, 6, 7), row(8)], pad_id=1)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded["token_type_ids"].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert all(values.dtype == np.int64 for values in padded.values())


def test_split_undoes_pad() -> None:
    rows = [row(5, 6, 7), row(8)]
    padded = pad(rows, pad_id=1)
    assert [part["input_ids"].tolist() for part in split({**padded}, rows, per_token=True)] == [[5, 6, 7], [8]]


def test_split_keeps_whole_vectors_where_outputs_are_per_row() -> None:
    outputs = split({"logits": np.array([[1.0, 2.0], [3.0, 4.0]])}, [row(5, 6, 7), row(8)], per_token=False)
    assert [part["logits"].tolist() for part in outputs] == [[1.0, 2.0], [3.0, 4.0]]
