"""Mean squared error of hidden states, embeddings included (BiStil phase 1 and 2)."""

import torch
from torch import Tensor

from distill.objectives.base import Batch, Outputs


class Objective:
    """1/(L+1) * sum over i of mean((H^S_i - H^T_{m(i)})^2) over the real positions and the channels."""

    needs = frozenset({"hidden_states"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        real = batch["attention_mask"].bool()
        pairs = [(0, 0), *((i + 1, layer + 1) for i, layer in enumerate(layers))]
        terms = [
            (student.hidden_states[i].float()[real] - teacher.hidden_states[j].float()[real]).square().mean()
            for i, j in pairs
        ]
        return torch.stack(terms).mean()
