"""The seam of an objective, the weighted sum of several, and what several of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from app.errors import ConfigError
from app.plugins import load
from distill import config as configuration

Batch = Mapping[str, Tensor]
Layers = Literal["all", "top"]

UNSEEN = -1e4
"""The score of a padded key: its probability is zero and no gradient is lost to infinities."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a forward pass shows the objectives, transformers' names.

    Shape: hidden_states, one more than layers, each (b, n, d), the first the embeddings; attentions, one a layer, each
    (b, heads, n, n), after the softmax; queries, keys, values, one a layer, each (b, heads, n, d / heads); logits, one
    a head, each (rows, classes), without padding; loss, against the task's gold labels, a scalar.
    """

    hidden_states: Sequence[Tensor] = ()
    attentions: Sequence[Tensor] = ()
    queries: Sequence[Tensor] = ()
    keys: Sequence[Tensor] = ()
    values: Sequence[Tensor] = ()
    logits: Sequence[Tensor] = ()
    loss: Tensor | None = None

    def detach(self) -> "Outputs":
        """The same values without their history: what supervises is not moved by whom it supervises."""
        return Outputs(
            hidden_states=_detached(self.hidden_states),
            attentions=_detached(self.attentions),
            queries=_detached(self.queries),
            keys=_detached(self.keys),
            values=_detached(self.values),
            logits=_detached(self.logits),
        )


def _detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]


class Objective(Protocol):
    """A distillation loss: a scalar, lower is better, zero gradient from padding.

    Its fields are its options in a configuration. `needs`: of "hidden_states", "attentions", "queries_keys_values",
    "logits"; and "labels" where it learns from gold and does not look at the teacher.
    """

    needs: ClassVar[frozenset[str]]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        """`layers` is the layer map: teacher layer of each student layer, counted from 0."""
        ...


@dataclass(frozen=True)
class Sum:
    """The objectives of a configuration with their weights."""

    parts: Mapping[str, tuple[float, Objective]]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Sum":
        """From `name = weight`, or `name = { weight = ..., option = ... }`.

        Raises UnknownChoice for a name that is no module of this folder, ConfigError for a wrong option and if nothing
        is left.
        """
        parts = {name: _read(name, value) for name, value in table.items()}
        chosen = {name: (weight, objective) for name, (weight, objective) in parts.items() if weight}
        if not chosen:
            raise ConfigError("no objective has a weight: name at least one in the objective table")
        return cls(chosen)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(objective.needs for _, objective in self.parts.values()))

    @property
    def reads_teacher(self) -> bool:
        """Whether anything is learnt from the teacher, and not from gold labels alone."""
        return any("labels" not in objective.needs for _, objective in self.parts.values())

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, layers: tuple[int, ...]) -> dict[str, Tensor]:
        """Each term weighted, by name."""
        return {
            name: weight * objective(student, teacher, batch, layers)
            for name, (weight, objective) in self.parts.items()
        }


def _read(name: str, value: Any) -> tuple[float, Objective]:
    options = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight = options.pop("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise ConfigError(f"objective.{name}: expected a weight or a table of options, not {value!r}")
    kind = load("distill.objectives", name).Objective
    try:
        return float(weight), configuration.read(kind, [options])
    except ConfigError as error:
        raise ConfigError(f"objective.{name}: {error}") from error


def pairs_of_layers(layers: tuple[int, ...], which: Layers) -> list[tuple[int, int]]:
    """Student layer and teacher layer, counted from 0, of those to compare."""
    pairs = list(enumerate(layers))
    return pairs if which == "all" else pairs[-1:]


def pairs_of_states(layers: tuple[int, ...], which: Layers) -> list[tuple[int, int]]:
    """Places in `hidden_states` to compare: the embeddings and every mapped layer, or the last layer alone."""
    mapped = [(i + 1, j + 1) for i, j in pairs_of_layers(layers, which)]
    return [(0, 0), *mapped] if which == "all" else mapped


def over_layers(terms: Sequence[Tensor], reduction: Literal["mean", "sum"]) -> Tensor:
    """One number for several layers' terms."""
    stacked = torch.stack(list(terms))
    return stacked.mean() if reduction == "mean" else stacked.sum()


def real_pairs(batch: Batch) -> Tensor:
    """1.0 where query and key are both no padding. Shape: (b, 1, n, n)."""
    real = batch["attention_mask"].to(torch.float32)
    return real[:, None, :, None] * real[:, None, None, :]


def mean_over_pairs(values: Tensor, pairs: Tensor) -> Tensor:
    """Mean over heads and real pairs. Shape: values (b, heads, n, n), pairs (b, 1, n, n)."""
    return (values * pairs).sum() / (pairs.sum() * values.shape[1])


def kl_of_relations(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Mean over heads and real queries of KL(softmax(teacher) || softmax(student)) over real keys.

    Shape: student, teacher (b, heads, n, n), before the softmax.
    """
    real = batch["attention_mask"].bool()
    unseen = ~real[:, None, None, :]
    learnt = functional.log_softmax(student.float().masked_fill(unseen, UNSEEN), dim=-1)
    shown = functional.log_softmax(teacher.float().masked_fill(unseen, UNSEEN), dim=-1)
    rows = functional.kl_div(learnt, shown, reduction="none", log_target=True).sum(dim=-1)
    return rows.transpose(1, 2)[real].mean()
