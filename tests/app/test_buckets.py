import numpy as np
import pytest

from app.buckets import BUCKETS, Bucket, cut, fill, fitting
from app.rows import Tensors


@pytest.mark.parametrize(
    ("rows", "longest", "expected"),
    [
        (1, 1, Bucket(32, 1)),
        (1, 33, Bucket(64, 1)),
        (2, 32, Bucket(32, 4)),
        (5, 200, Bucket(256, 16)),
        (64, 256, Bucket(256, 64)),
        (65, 8, None),
        (1, 257, None),
    ],
)
def test_a_micro_batch_takes_the_smallest_bucket_that_holds_it(rows: int, longest: int, expected: Bucket) -> None:
    assert fitting(rows, longest) == expected


def test_every_bucket_holds_itself() -> None:
    assert all(fitting(bucket.rows, bucket.length) == bucket for bucket in BUCKETS)


def test_filled_pieces_are_masked_and_filled_rows_repeat_the_last() -> None:
    inputs: Tensors = {"input_ids": np.array([[5, 6], [7, 1]]), "attention_mask": np.array([[1, 1], [1, 0]])}
    filled = fill(inputs, Bucket(4, 3))
    assert filled["input_ids"].tolist() == [[5, 6, 6, 6], [7, 1, 1, 1], [7, 1, 1, 1]]
    assert filled["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_cutting_undoes_filling_on_the_axes_of_rows_and_pieces_alone() -> None:
    outputs: Tensors = {"logits": np.ones((4, 32, 32)), "arcs": np.ones((4, 32, 32)), "pooled": np.ones((4, 32))}
    axes = {"logits": [True, False], "arcs": [True, True], "pooled": [False]}
    shapes = {name: values.shape for name, values in cut(outputs, rows=3, longest=7, axes=axes).items()}
    assert shapes == {"logits": (3, 7, 32), "arcs": (3, 7, 7), "pooled": (3, 32)}
