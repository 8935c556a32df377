"""Phase 2: the student learns a task from its teacher, as a sparse fine-tuning, on source-language examples."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.errors import ConfigError, DataError
from distill import processes
from distill.delta import SparseDelta
from distill.distillation import Distillation
from distill.evaluate import evaluate, open_tokenizer, predictor_for
from distill.examples import TaskBatches
from distill.objectives.base import Batch, Outputs, Sum
from distill.observation import attention_to_show, observe
from distill.projection import Projection
from distill.sparse import Sparse, sparse_fine_tune
from distill.student import Part, freeze, source_name
from distill.teach import TaskData, Tuning, inputs, open_model
from distill.teacher import load_teacher
from distill.training import train
from distill.unlabelled import Interleaved, label


@dataclass(frozen=True, kw_only=True)
class Phase2:
    """BiStil 1.6. Gold labels choose the rows, and enter the loss by the objective `task` alone.

    `start`: the bilingual student as it is; with the task teacher's layers in place of its own, those that were copied
    for it; or with what tuning changed in those added to its own. A density of 1 tunes everything, in one phase of
    `sparse_epochs`. `intermediate` objectives, where there are any, come before all for `full_epochs` (TinyBERT). Of
    the micro-batches `unlabelled_share` are target-language text that the teacher labels.
    """

    tuning: Tuning
    full_epochs: float
    sparse_epochs: float
    density: float = 0.08
    start: Literal["student", "task_teacher", "task_change"] = "student"
    frozen: tuple[Part, ...] = ()
    copy_head: bool = False
    unlabelled_share: float = 0.0
    objective: dict[str, Any] = field(default_factory=lambda: {"hidden_states": 1.0, "attention": 1.0, "logits": 1.0})
    teacher_objective: dict[str, Any] = field(default_factory=dict)
    intermediate: dict[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> frozenset[str]:
        """What the models must show."""
        tables = (self.objective, self.teacher_objective, self.intermediate)
        return frozenset().union(*(Sum.of(table).needs for table in tables if table))


def transfer(
    student_folder: Path,
    teacher_folder: Path,
    data: TaskData,
    *,
    phase: Phase2,
    layers: tuple[int, ...],
    copied: tuple[int, ...],
    folder: Path,
    texts: Sequence[str] = (),
    untuned: Path,
    sfts: Sequence[SparseDelta] = (),
    projection: Path | None = None,
) -> tuple[PreTrainedModel, Sparse]:
    """Full phase, mask, sparse phase against the task teacher in `teacher_folder`; dev scores choose the weights.

    All folders must share one trimmed vocabulary: student and teacher read the same ids. `texts` are the unlabelled
    ones; more than the share of an epoch are not read. `layers`: the teacher layer that each student layer is compared
    with; `copied`: the one that was copied for it. `untuned`, with `sfts` added to it: the model that the task teacher
    was tuned from; `projection`: where phase 1 left a narrow student's map to the teacher's width, if any. Raises
    DataError where unlabelled texts are wanted and there are none.
    """
    tuning, task = phase.tuning, data.task
    attention = attention_to_show(phase.needs)
    student = open_model(
        student_folder,
        task,
        dropout=tuning.dropout,
        attention_dropout=0.0 if "attentions" in phase.needs else tuning.dropout,
        attn_implementation=attention,
        seed=tuning.seed,
    )
    teacher = open_model(teacher_folder, task, dropout=0.0, attn_implementation=attention, seed=tuning.seed)
    processes.place(teacher, student)
    begin(student, teacher, phase.start, copied=copied, untuned=untuned, sfts=sfts)
    if phase.copy_head:
        copy_head(teacher, student)
    freeze(student, phase.frozen)
    tokenizer = open_tokenizer(student_folder)
    lengths = {
        "max_length": tuning.max_length,
        "stride": tuning.stride,
        "pad_id": int(student.config.pad_token_id),
    }
    sampling = {"batch_size": tuning.batch_size, "seed": tuning.seed, **lengths}
    labelled = TaskBatches.of(task, data.train, tokenizer, **sampling)
    batches: TaskBatches | Interleaved = labelled
    if phase.unlabelled_share:
        if not texts:
            raise DataError(
                "unlabelled_share: the target's text has no sentence of four words, which phase 2 would read"
            )
        examples = label(predictor_for(teacher, tokenizer, task, **lengths), task, texts)
        unlabelled = TaskBatches.of(task, examples, tokenizer, **sampling)
        batches = Interleaved(labelled, unlabelled, share=phase.unlabelled_share)
    predictor = predictor_for(student, tokenizer, task, **lengths)

    def look(model: PreTrainedModel, batch: Batch, needs: frozenset[str]) -> Outputs:
        seen = observe(model, inputs(dict(batch), model), needs)
        logits = task.distilled_logits(seen.output, dict(batch)) if "logits" in needs else ()
        loss = task.loss(seen.output, dict(batch)) if "labels" in needs else None
        return replace(seen.shown, logits=logits, loss=loss)

    widening = Projection.between(student, teacher)
    if widening is not None and projection is not None and projection.is_file():
        widening.load_state_dict(load_file(projection))
    distillation = Distillation(
        student=student,
        teachers=(teacher,),
        objective=Sum.of(phase.objective),
        teacher_objective=Sum.of(phase.teacher_objective) if phase.teacher_objective else None,
        layers=layers,
        look=look,
        projection=widening,
    )

    def score() -> float:
        return evaluate(predictor, task, data.dev, progress=False)[task.main_metric]

    intermediate = None
    if phase.intermediate:
        intermediate = train(
            nn.ModuleDict({"student": student, **distillation.learners}),
            replace(distillation, objective=Sum.of(phase.intermediate), teacher_objective=None),
            batches,
            schedule=tuning.schedule(batches.per_epoch, epochs=phase.full_epochs, warm=False),
            folder=folder / "intermediate",
            name="phase 2, intermediate",
        )
    result = sparse_fine_tune(
        student,
        distillation,
        batches,
        full=tuning.schedule(batches.per_epoch, epochs=phase.full_epochs, warm=False),
        sparse=tuning.schedule(batches.per_epoch, epochs=phase.sparse_epochs, warm=False),
        density=phase.density,
        folder=folder,
        score=score,
        name="phase 2",
        beside=distillation.learners,
    )
    return student, replace(result, intermediate=intermediate)


@torch.no_grad()
def begin(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    start: str,
    *,
    copied: tuple[int, ...],
    untuned: Path,
    sfts: Sequence[SparseDelta] = (),
) -> None:
    """Set the student's encoder to where phase 2 starts (see `Phase2`). `sfts` are in the task teacher and no tuning.

    A pooler, which the untuned model lacks, is the task teacher's. Raises ConfigError at unequal widths.
    """
    if start == "student":
        return
    if student.config.hidden_size != teacher.config.hidden_size:
        raise ConfigError(f"start = {start!r} copies the task teacher's weights, so the student must be of its width")
    tuned = cast(PreTrainedModel, teacher.base_model).state_dict()
    original: dict[str, Tensor] = {}
    if start == "task_change":
        before, _ = load_teacher(untuned)
        for delta in sfts:
            delta.apply(before)
        original = cast(PreTrainedModel, before.base_model).state_dict()
    for name, value in cast(PreTrainedModel, student.base_model).state_dict().items():
        source = source_name(name, copied)
        moved = tuned[source].to(value.device)
        value.copy_(value + moved - original[source].to(value.device) if source in original else moved)


def copy_head(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Give the student the teacher's task head, which has the same shape at equal width, and the pooler it reads."""
    prefix = f"{teacher.base_model_prefix}."
    head = {
        name: value
        for name, value in teacher.state_dict().items()
        if not name.startswith(prefix) or name.startswith(f"{prefix}pooler.")
    }
    student.load_state_dict(head, strict=False)
