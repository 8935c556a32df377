"""The seam of an objective, and the weighted sum of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from app.errors import ConfigError
from app.plugins import load

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a forward pass shows the objectives, transformers' names.

    Shape: hidden_states, one more than layers, each (b, n, d), the first the embeddings; attentions, one a layer, each
    (b, heads, n, n), after the softmax; logits, one a head, each (rows, classes), without padding.
    """

    hidden_states: Sequence[Tensor] = ()
    attentions: Sequence[Tensor] = ()
    logits: Sequence[Tensor] = ()

    @classmethod
    def of(cls, outputs: Any, *, logits: Sequence[Tensor] = ()) -> "Outputs":
        """From a transformers model's output."""
        return cls(hidden_states=outputs.hidden_states or (), attentions=outputs.attentions or (), logits=logits)


class Objective(Protocol):
    """A distillation loss: a scalar, lower is better, zero gradient from padding."""

    needs: frozenset[str]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        """`layers` is the layer map: teacher layer of each student layer, counted from 0."""
        ...


@dataclass(frozen=True)
class Sum:
    """The objectives of a configuration with their weights."""

    parts: Mapping[str, tuple[float, Objective]]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> "Sum":
        """Raises UnknownChoice for a name that is no module of this folder, ConfigError if nothing is left."""
        parts = {name: (w, load("distill.objectives", name).Objective()) for name, w in weights.items()}
        chosen = {name: (weight, objective) for name, (weight, objective) in parts.items() if weight}
        if not chosen:
            raise ConfigError("no objective has a weight: name at least one in the objective table")
        return cls(chosen)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(objective.needs for _, objective in self.parts.values()))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> dict[str, Tensor]:
        """Each term weighted, by name."""
        return {
            name: weight * objective(student, teacher, batch, layers)
            for name, (weight, objective) in self.parts.items()
        }
