"""Mean squared error of hidden states (TinyBERT, 1909.10351; BiStil; of the top layer: LightMBERT, 2103.06418)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from distill.objectives.base import Batch, Layers, Outputs, over_layers, pairs_of_states


@dataclass(frozen=True, kw_only=True)
class Objective:
    """1/(L+1) * sum over i of mean((H^S_i - H^T_{m(i)})^2) over real positions and channels, i = 0 the embeddings.

    A student of another width comes here projected to the teacher's. `padding` counts padded positions too, as the
    published code of BiStil does.
    """

    layers: Layers = "all"
    reduction: Literal["mean", "sum"] = "mean"
    padding: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        real = batch["attention_mask"].to(torch.float32)
        terms = []
        for i, j in pairs_of_states(layers, self.layers):
            squares = (student.hidden_states[i].float() - teacher.hidden_states[j].float()).square().mean(dim=-1)
            terms.append(squares.mean() if self.padding else (squares * real).sum() / real.sum())
        return over_layers(terms, self.reduction)
