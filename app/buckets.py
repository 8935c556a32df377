"""The shapes that an engine is built or remembers for: which one a micro-batch takes, how it is filled and cut back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.rows import Tensors

LENGTHS = (32, 64, 128, 256)
ROWS = (1, 4, 16, 64)


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """``rows`` by ``length`` pieces."""

    length: int
    rows: int


BUCKETS = tuple(Bucket(length, rows) for length in LENGTHS for rows in ROWS)


def fitting(rows: int, longest: int, buckets: Sequence[Bucket] = BUCKETS) -> Bucket | None:
    """The smallest bucket by area that holds the micro-batch, or None where none does."""
    holding = [bucket for bucket in buckets if bucket.rows >= rows and bucket.length >= longest]
    return min(holding, key=lambda bucket: (bucket.rows * bucket.length, bucket), default=None)


def fill(inputs: Tensors, bucket: Bucket) -> Tensors:
    """The (rows, longest) inputs at the bucket's shape: the last row and piece again, the pieces hidden by the mask."""
    filled = {}
    for name, values in inputs.items():
        rows, longest = values.shape
        wider = filled[name] = np.empty((bucket.rows, bucket.length), values.dtype)
        wider[:rows, :longest] = values
        wider[:rows, longest:] = 0 if name == "attention_mask" else values[:, -1:]
        wider[rows:] = wider[rows - 1]
    return filled


def cut(outputs: Tensors, *, rows: int, longest: int, axes: Mapping[str, Sequence[bool]]) -> Tensors:
    """The outputs without what ``fill`` added; ``axes`` says which axes but the first run over pieces."""
    return {
        name: values[(slice(rows), *(slice(longest) if piece else slice(None) for piece in axes[name]))]
        for name, values in outputs.items()
    }
