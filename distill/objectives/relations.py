"""Self-attention relations of the top layer (MiniLM, 2002.10957: of values; MiniLMv2, 2012.15828: of all three)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from app.errors import ConfigError
from distill.objectives.base import Batch, Outputs, kl_of_relations

Kind = Literal["queries", "keys", "values"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Sum over X in `of` of 1/(A_r |x|) * sum over heads a and real positions t of KL(R^T_{X,a,t} || R^S_{X,a,t}).

    R_X = softmax(X X^T / sqrt(d_r)), X cut anew into A_r = `heads` relation heads, so that student and teacher may have
    other widths and numbers of heads; 0 means the teacher's attention heads. `teacher_layer` counts from 0, or from the
    top where negative.
    """

    of: tuple[Kind, ...] = ("queries", "keys", "values")
    heads: int = 0
    teacher_layer: int = -1
    needs: ClassVar[frozenset[str]] = frozenset({"queries_keys_values"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        heads = self.heads or teacher.values[self.teacher_layer].shape[1]
        terms = []
        for kind in self.of:
            learnt, shown = getattr(student, kind)[-1], getattr(teacher, kind)[self.teacher_layer]
            terms.append(kl_of_relations(_relation(learnt, heads), _relation(shown, heads), batch))
        return torch.stack(terms).sum()


def _relation(vectors: Tensor, heads: int) -> Tensor:
    """X X^T / sqrt(d_r). Shape: (b, attention heads, n, d_k) -> (b, relation heads, n, n)."""
    whole = vectors.float().transpose(1, 2).flatten(2)
    if whole.shape[2] % heads:
        raise ConfigError(f"objective.relations: heads = {heads} does not divide the width {whole.shape[2]}")
    parts: Tensor = whole.unflatten(2, (heads, -1)).transpose(1, 2)
    return parts @ parts.transpose(2, 3) / math.sqrt(parts.shape[-1])
