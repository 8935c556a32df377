"""Divergence of attention distributions (MiniLM, 2002.10957, L_AT: the top layer alone)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distill.objectives.base import Batch, Layers, Outputs, over_layers, pairs_of_layers, real_pairs

_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Mean over layers of 1/(A |x|) * sum over heads a and real positions t of KL(A^T_{a,t} || A^S_{a,t})."""

    layers: Layers = "all"
    needs: ClassVar[frozenset[str]] = frozenset({"attentions"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        pairs, n_real = real_pairs(batch), batch["attention_mask"].sum()
        terms = []
        for i, j in pairs_of_layers(layers, self.layers):
            shown = teacher.attentions[j].float() * pairs
            learnt = student.attentions[i].float().clamp_min(_LEAST).log()
            divergence = (torch.xlogy(shown, shown) - shown * learnt).sum()
            terms.append(divergence / (n_real * shown.shape[1]))
        return over_layers(terms, "mean")
