"""Masked-language modelling, in phase 1 (Devlin et al. 2019): gold, no teacher."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from distill.objectives.base import Batch, Outputs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Mean over masked positions of -log softmax(z^S)_y; the logits' rows are where `predicted` is true."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        logits, labels = student.logits[0].float(), batch["labels"][batch["predicted"]]
        if not (labels >= 0).any():
            return logits.sum() * 0.0
        return functional.cross_entropy(logits, labels, ignore_index=-100)
