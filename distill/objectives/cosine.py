"""Angle between the last hidden states (DistilBERT, 1910.01108)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from distill.objectives.base import Batch, Outputs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Mean over real positions of 1 - cos(H^S_last, H^T_last)."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        real = batch["attention_mask"].bool()
        learnt, shown = student.hidden_states[-1][real], teacher.hidden_states[-1][real]
        return (1.0 - functional.cosine_similarity(learnt.float(), shown.float(), dim=-1)).mean()
