"""Phase 2: the student learns a task from its teacher, as a sparse fine-tuning, on source-language examples."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.bilingual import show
from distill.evaluate import evaluate, open_tokenizer, predictor_for
from distill.examples import TaskBatches
from distill.objectives.base import Outputs, Sum
from distill.sparse import Sparse, sparse_fine_tune
from distill.tasks.base import Batch, TrainingTask
from distill.teach import TaskData, Tuning, inputs, open_model


@dataclass(frozen=True, kw_only=True)
class Phase2:
    """BiStil 1.6. Gold labels choose the rows and never enter the loss."""

    tuning: Tuning
    full_epochs: float
    sparse_epochs: float
    density: float = 0.08
    freeze_layer_norm: bool = False
    copy_head: bool = False
    objective: dict[str, float] = field(default_factory=lambda: {"hidden_states": 1.0, "attention": 1.0, "logits": 1.0})


def transfer(
    student_folder: Path,
    teacher_folder: Path,
    data: TaskData,
    *,
    phase: Phase2,
    layers: tuple[int, ...],
    folder: Path,
) -> tuple[PreTrainedModel, Sparse]:
    """Full phase, mask, sparse phase against the task teacher in `teacher_folder`; dev scores choose the weights.

    Both folders must share one trimmed vocabulary: student and teacher read the same ids.
    """
    tuning, task = phase.tuning, data.task
    objective = Sum.of(phase.objective)
    attention = "eager" if "attentions" in objective.needs else "sdpa"
    student = open_model(student_folder, task, dropout=tuning.dropout, attn_implementation=attention, seed=tuning.seed)
    teacher = open_model(teacher_folder, task, dropout=0.0, attn_implementation=attention, seed=tuning.seed)
    teacher.eval().requires_grad_(False)
    if phase.copy_head:
        copy_head(teacher, student)
    tokenizer = open_tokenizer(student_folder)
    lengths = {
        "max_length": tuning.max_length,
        "stride": tuning.stride,
        "pad_id": int(student.config.pad_token_id),
    }
    batches = TaskBatches.of(task, data.train, tokenizer, batch_size=tuning.batch_size, seed=tuning.seed, **lengths)
    predictor = predictor_for(student, tokenizer, task, **lengths)

    def score() -> float:
        return evaluate(predictor, task, data.dev, progress=False)[task.main_metric]

    result = sparse_fine_tune(
        student,
        TaskDistillation(student, teacher, task, objective, layers),
        batches,
        full=tuning.schedule(batches.per_epoch, epochs=phase.full_epochs, warm=False),
        sparse=tuning.schedule(batches.per_epoch, epochs=phase.sparse_epochs, warm=False),
        density=phase.density,
        freeze_layer_norm=phase.freeze_layer_norm,
        folder=folder,
        score=score,
    )
    return student, result


class TaskDistillation:
    """The loss of phase 2."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        task: TrainingTask,
        objective: Sum,
        layers: tuple[int, ...],
    ) -> None:
        self.student, self.teacher, self.task = student, teacher, task
        self.objective, self.layers = objective, layers

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            seen = show(self.teacher, inputs(batch, self.teacher), self.objective.needs)
        answer = show(self.student, inputs(batch, self.student), self.objective.needs)
        return self.objective(
            Outputs.of(answer, logits=self.task.distilled_logits(answer, batch)),
            Outputs.of(seen, logits=self.task.distilled_logits(seen, batch)),
            batch,
            self.layers,
        )


def copy_head(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Give the student the teacher's task head, which has the same shape at equal width."""
    prefix = f"{teacher.base_model_prefix}."
    head = {name: value for name, value in teacher.state_dict().items() if not name.startswith(prefix)}
    student.load_state_dict(head, strict=False)
