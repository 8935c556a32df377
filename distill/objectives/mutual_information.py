"""MI-alpha (Distiller, 2109.11105): a lower bound of the mutual information of student's and teacher's features."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from distill.objectives.base import Batch, Layers, Outputs, over_layers, pairs_of_states


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Mean over layers of -I_alpha, the interpolated bound of Poole et al. (ICML 2019, eq. 11).

    I_alpha = 1 + E[log(e^{f(x_i, y_i)} / m_i)] - E[e^{f(x_j, y_i)} / m'_i], over K pairs of student feature x and
    teacher feature y, with m_i = alpha * mean_j e^{f(x_j, y_i)} + (1 - alpha) q and m'_i the same without j = i, as the
    second expectation is over independent x and y. alpha = 1 is InfoNCE, at most log K; alpha = 0 is the bound of
    Nguyen, Wainwright and Jordan. Features are hidden states at up to `samples` real positions, evenly spaced. The
    critic is the cosine over `temperature`, and q = 1: choices made here, as are the defaults.
    """

    alpha: float = 0.9
    temperature: float = 0.1
    samples: int = 256
    layers: Layers = "all"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        places = batch["attention_mask"].flatten().nonzero().squeeze(1)
        places = places[:: max(1, math.ceil(len(places) / self.samples))]
        terms = []
        for i, j in pairs_of_states(layers, self.layers):
            learnt = functional.normalize(student.hidden_states[i].flatten(0, 1)[places].float(), dim=-1)
            shown = functional.normalize(teacher.hidden_states[j].flatten(0, 1)[places].float(), dim=-1)
            terms.append(-bound(shown @ learnt.T / self.temperature, alpha=self.alpha))
        return over_layers(terms, "mean")


def bound(scores: Tensor, *, alpha: float) -> Tensor:
    """I_alpha of a critic's scores. Shape: (K, K), row i of teacher feature y_i, column j of student feature x_j."""
    k = len(scores)
    others = scores.masked_fill(torch.eye(k, dtype=torch.bool, device=scores.device), -math.inf)
    among_all = scores.logsumexp(dim=1) - math.log(k)
    among_others = others.logsumexp(dim=1) - math.log(k - 1)
    joint = (scores.diagonal() - _interpolate(among_all, alpha)).mean()
    apart = (among_others - _interpolate(among_others, alpha)).exp().mean()
    return 1.0 + joint - apart


def _interpolate(log_mean: Tensor, alpha: float) -> Tensor:
    """log(alpha e^log_mean + (1 - alpha))."""
    if alpha == 1.0:
        return log_mean
    if alpha == 0.0:
        return torch.zeros_like(log_mean)
    return torch.logaddexp(log_mean + math.log(alpha), torch.full_like(log_mean, math.log1p(-alpha)))
