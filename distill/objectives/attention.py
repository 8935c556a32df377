"""Mean squared error of attention probabilities (BiStil phases 1 and 2; LightMBERT, 2103.06418: the top layer)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from distill.objectives.base import Batch, Layers, Outputs, mean_over_pairs, over_layers, pairs_of_layers, real_pairs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """1/L * sum over i of mean((A^S_i - A^T_{m(i)})^2) over heads and pairs of real positions.

    `padding` takes the mean over the pairs where A^T is not zero, as the published code of BiStil does: padded keys
    are out, padded queries are in.
    """

    layers: Layers = "all"
    reduction: Literal["mean", "sum"] = "mean"
    padding: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"attentions"})

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        pairs = real_pairs(batch)
        terms: list[Tensor] = []
        for i, j in pairs_of_layers(layers, self.layers):
            shown = teacher.attentions[j].float()
            squares = (student.attentions[i].float() - shown).square()
            if self.padding:
                terms.append(squares[shown != 0].mean())
            else:
                terms.append(mean_over_pairs(squares, pairs))
        return over_layers(terms, self.reduction)
