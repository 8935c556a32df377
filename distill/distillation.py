"""The loss of both phases: student and teacher look at one batch, and objectives compare what they show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.objectives.base import Batch, Outputs, Sum
from distill.projection import Projection

Look = Callable[[PreTrainedModel, Batch, frozenset[str]], Outputs]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Student against teacher, by `objective`. `teachers`: one, or one for each of the languages that batches name.

    With `teacher_objective` the teacher learns too, from gold and from the student (co-training, Lee et al. 2023,
    2311.02849); neither moves the other through what it is compared with. `look` runs a model on a batch.
    """

    student: PreTrainedModel
    teachers: Sequence[PreTrainedModel]
    objective: Sum
    layers: tuple[int, ...]
    look: Look
    projection: Projection | None = None
    teacher_objective: Sum | None = None

    def __post_init__(self) -> None:
        depth = self.teachers[0].config.num_hidden_layers
        if len(self.layers) != self.student.config.num_hidden_layers or not set(self.layers) <= set(range(depth)):
            raise ValueError(f"layer map {self.layers} does not fit student and teacher")
        for teacher in self.teachers:
            teacher.train(self.teacher_objective is not None).requires_grad_(self.teacher_objective is not None)

    @property
    def learners(self) -> nn.ModuleDict:
        """What learns beside the student: projections, and teachers in co-training."""
        beside: dict[str, nn.Module] = {}
        if self.projection is not None:
            beside["projection"] = self.projection
        if self.teacher_objective is not None:
            beside["teachers"] = nn.ModuleList(self.teachers)
        return nn.ModuleDict(beside)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Each term weighted, by name; the teacher's own begin with `teacher`."""
        needs = self.objective.needs
        if self.teacher_objective is not None:
            needs |= self.teacher_objective.needs
        teacher = self.teachers[int(batch["language"]) if len(self.teachers) > 1 else 0]
        shown = Outputs()
        if self.teacher_objective is not None:
            shown = self.look(teacher, batch, needs)
        elif self.objective.reads_teacher:
            with torch.no_grad():
                shown = self.look(teacher, batch, needs - {"labels"})
        learnt = self.look(self.student, batch, needs)
        if self.projection is not None:
            learnt = self.projection.widen(learnt)
        terms = self.objective(learnt, shown.detach(), batch, self.layers)
        if self.teacher_objective is not None:
            back = self.teacher_objective(shown, learnt.detach(), batch, self.layers)
            terms |= {f"teacher {name}": term for name, term in back.items()}
        return terms
