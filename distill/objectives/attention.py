"""Mean squared error of attention probabilities (BiStil phase 1 and 2)."""

import torch
from torch import Tensor

from distill.objectives.base import Batch, Outputs


class Objective:
    """1/L * sum over i of mean((A^S_i - A^T_{m(i)})^2) over heads and pairs of real positions."""

    needs = frozenset({"attentions"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        real = batch["attention_mask"].to(torch.float32)
        pairs = real[:, None, :, None] * real[:, None, None, :]
        terms = []
        for i, j in enumerate(layers):
            squares = (student.attentions[i].float() - teacher.attentions[j].float()).square()
            terms.append((squares * pairs).sum() / (pairs.sum() * squares.shape[1]))
        return torch.stack(terms).mean()
