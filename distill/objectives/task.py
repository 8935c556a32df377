"""The task's own loss against gold labels, in phase 2: no teacher."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distill.objectives.base import Batch, Outputs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Cross-entropy of the student's answers as the task defines it (`distill.tasks`)."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        if student.loss is None:
            raise ValueError("the student's outputs hold no loss")
        return student.loss
