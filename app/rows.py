"""Row, the unit of batching, and the two things done with rows: pad and split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[np.generic]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tokenised sequence of ``n`` pieces, special tokens included.

    Shape: ``ids``, ``type_ids``, ``words`` (n,) int64; ``spans`` (n, 2) int64.

    ``words`` is the index of the item's word a piece belongs to, -1 for special tokens and where words mean nothing.
    ``spans`` are half-open code points of the item's (context) text, (-1, -1) where a piece has none.
    """

    ids: Ints
    type_ids: Ints
    words: Ints
    spans: Ints

    def __len__(self) -> int:
        return len(self.ids)


def pad(rows: Sequence[Row], *, pad_id: int) -> dict[str, Ints]:
    """Stack rows, padded to the longest.

    Shape: ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (rows, longest) int64.
    """
    longest = max((len(row) for row in rows), default=0)
    input_ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), longest), dtype=np.int64)
    token_type_ids = np.zeros((len(rows), longest), dtype=np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row.ids
        attention_mask[index, : len(row)] = 1
        token_type_ids[index, : len(row)] = row.type_ids
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


def split(outputs: Tensors, rows: Sequence[Row], *, per_token: bool) -> list[Tensors]:
    """Undo the batch axis, and the padding where outputs are per token.

    Shape: (rows, longest, ...) to (n, ...) each when ``per_token``, else (rows, ...) to (...) each.
    """
    return [
        {name: values[index, : len(row)] if per_token else values[index] for name, values in outputs.items()}
        for index, row in enumerate(rows)
    ]
