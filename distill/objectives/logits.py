"""Divergence of softened predictions (Hinton et al. 2015; BiStil phase 2): tokens in phase 1, labels in phase 2."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from distill.objectives.base import Batch, Outputs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Sum over heads of the mean over rows of D(softmax(z^T / t), softmax(z^S / t)), t the temperature.

    D is KL(teacher || student), or the cross-entropy -p^T . log p^S of the published code of BiStil, which has the same
    gradient and the teacher's entropy for a floor. `squared` multiplies by t^2, so that the gradient keeps its size
    whatever the temperature.
    """

    temperature: float = 2.0
    divergence: Literal["cross_entropy", "kl"] = "cross_entropy"
    squared: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        terms = []
        for learnt, shown in zip(student.logits, teacher.logits, strict=True):
            if not len(learnt):
                terms.append(learnt.float().sum())
                continue
            log_p = functional.log_softmax(learnt.float() / self.temperature, dim=-1)
            log_q = functional.log_softmax(shown.float() / self.temperature, dim=-1)
            if self.divergence == "kl":
                terms.append(functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True))
            else:
                terms.append(-(log_q.exp() * log_p).sum(dim=-1).mean())
        return torch.stack(terms).sum() * (self.temperature**2 if self.squared else 1.0)
