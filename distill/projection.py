"""Learned projections of a narrow student's hidden states to its teacher's width (TinyBERT's W)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.objectives.base import Outputs


class Projection(nn.Module):
    """One linear map a hidden state, embeddings included: H^S_i W_i."""

    def __init__(self, start: Tensor, *, count: int) -> None:
        """`start`: (student width, teacher width), where every W_i starts."""
        super().__init__()
        self.maps = nn.ParameterList(
            [nn.Parameter(start.clone(memory_format=torch.contiguous_format)) for _ in range(count)]
        )

    @classmethod
    def between(cls, student: PreTrainedModel, teacher: PreTrainedModel) -> "Projection | None":
        """None at equal widths. Every W_i starts as what maps the student's word embeddings to the teacher's best.

        For embeddings cut by their singular values, that is the matrix of right singular vectors.
        """
        if student.config.hidden_size == teacher.config.hidden_size:
            return None
        narrow, wide = (_words(model).detach().double() for model in (student, teacher))
        n = min(len(narrow), len(wide))
        start = torch.linalg.lstsq(narrow[:n], wide[:n]).solution
        return cls(start.to(torch.float32), count=student.config.num_hidden_layers + 1)

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Shape: (b, n, student width) -> (b, n, teacher width), each."""
        return [state @ matrix for state, matrix in zip(states, self.maps, strict=True)]

    def widen(self, shown: Outputs) -> Outputs:
        """The student's outputs with hidden states of the teacher's width."""
        return replace(shown, hidden_states=self(shown.hidden_states)) if shown.hidden_states else shown


def _words(model: PreTrainedModel) -> Tensor:
    return cast(Tensor, model.get_input_embeddings().weight)
