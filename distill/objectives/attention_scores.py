"""Mean squared error of attention scores, before the softmax (TinyBERT, 1909.10351, L_attn)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from distill.objectives.base import Batch, Layers, Outputs, mean_over_pairs, over_layers, pairs_of_layers, real_pairs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Sum over i of mean((S^S_i - S^T_{m(i)})^2) over heads and pairs of real positions, S = Q K^T / sqrt(d_k).

    DeBERTa's scores have terms of relative positions besides, which are not compared.
    """

    layers: Layers = "all"
    reduction: Literal["mean", "sum"] = "sum"
    needs: ClassVar[frozenset[str]] = frozenset({"queries_keys_values"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        pairs = real_pairs(batch)
        terms = [
            mean_over_pairs((_scores(student, i) - _scores(teacher, j)).square(), pairs)
            for i, j in pairs_of_layers(layers, self.layers)
        ]
        return over_layers(terms, self.reduction)


def _scores(outputs: Outputs, layer: int) -> Tensor:
    queries, keys = outputs.queries[layer].float(), outputs.keys[layer].float()
    return queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
