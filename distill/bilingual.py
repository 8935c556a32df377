"""Phase 1: the student learns the teacher's states on plain text of the source and target languages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill import processes
from distill.corpus import Batch, Blocks, Masking, MonolingualBatches, pack
from distill.distillation import Distillation
from distill.objectives.base import Outputs, Sum
from distill.observation import observe, token_logits
from distill.projection import Projection
from distill.student import Initialization, Part, freeze, with_language_model_head
from distill.teacher import load_tokenizer
from distill.training import Schedule, Trained, train

PROJECTION = "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Phase1:
    """BiStil 1.4. Languages have equal shares; every micro-batch is of one language.

    `length` multiplies the schedule's steps. `predict`: the positions whose token logits are compared, where an
    objective does so. `frozen` parts of the student stay. A `teacher_objective` lets the teacher learn too, from gold
    and from the student (co-training).
    """

    schedule: Schedule
    length: float = 1.0
    objective: dict[str, Any] = field(default_factory=lambda: {"hidden_states": 1.0, "attention": 1.0})
    teacher_objective: dict[str, Any] = field(default_factory=dict)
    frozen: tuple[Part, ...] = ()
    predict: Literal["masked", "all"] = "masked"
    sequence_length: int = 256
    batch_size: int = 8
    mask_share: float = 0.15
    heldout: float = 0.01
    heldout_batches: int = 8

    @property
    def needs(self) -> frozenset[str]:
        """What the models must show."""
        learnt = [Sum.of(table).needs for table in (self.objective, self.teacher_objective) if table]
        return frozenset().union(*learnt)


def distil(
    student: PreTrainedModel,
    teachers: Sequence[PreTrainedModel],
    *,
    phase: Phase1,
    layers: tuple[int, ...],
    text: Sequence[Path],
    languages: Sequence[str],
    folder: Path,
    packed: Path,
    tokenizer_folder: Path,
    initialization: Initialization = "teacher",
) -> Trained:
    """Train `student` in place, against masked language models.

    Checkpoints and the log live in `folder`, as does a narrow student's map to the teacher's width; the text in blocks
    in `packed`, for all that share vocabulary and text. The weights with the lowest held-out loss win; no steps leave
    the student as it is. `teachers`: one for all languages, or one for each, in their order. `layers`: the teacher
    layer that each student layer is compared with. `initialization`: whose head predicts tokens at first, the
    teacher's or a new one.
    """
    schedule = replace(phase.schedule, steps=round(phase.length * phase.schedule.steps))
    if not schedule.steps:
        return Trained(terms={}, best=None, tokens=0, seconds=0.0)
    torch.manual_seed(schedule.seed)
    freeze(student, phase.frozen)
    learner = student
    if "logits" in phase.needs:
        learner = with_language_model_head(student, teachers[0], initialization=initialization)
    distillation = Distillation(
        student=learner,
        teachers=teachers,
        objective=Sum.of(phase.objective),
        teacher_objective=Sum.of(phase.teacher_objective) if phase.teacher_objective else None,
        layers=layers,
        look=look,
        projection=Projection.between(student, teachers[0]),
    )
    tokenizer = load_tokenizer(tokenizer_folder)
    with processes.main_first(), processes.alone(packed.with_suffix(".lock")):
        for language in languages:
            pack(
                text,
                language,
                tokenizer.backend_tokenizer,
                length=phase.sequence_length,
                heldout=phase.heldout,
                out=packed / language,
            )
    mask = Masking.of(tokenizer, share=phase.mask_share)

    def batches(split: str) -> MonolingualBatches:
        blocks = [Blocks.open(packed / language, language, split) for language in languages]
        return MonolingualBatches(
            blocks, [1.0] * len(blocks), batch_size=phase.batch_size, seed=phase.schedule.seed, mask=mask
        )

    processes.place(*teachers)

    def loss(batch: Batch) -> dict[str, Tensor]:
        batch = {name: value.to(processes.device()) for name, value in batch.items()}
        chosen = batch["labels"] != -100 if phase.predict == "masked" else batch["attention_mask"].bool()
        return distillation({**batch, "predicted": chosen})

    heldout = batches("heldout")

    def score() -> float:
        terms = [loss(heldout(index)) for index in range(phase.heldout_batches)]
        return -sum(float(term) for batch_terms in terms for term in batch_terms.values()) / len(terms)

    trained = train(
        nn.ModuleDict({"student": learner, **distillation.learners}),
        loss,
        batches("train"),
        schedule=schedule,
        folder=folder,
        name="phase 1",
        score=score,
    )
    if distillation.projection is not None and processes.is_main():
        save_file(distillation.projection.state_dict(), folder / PROJECTION)
    return trained


def look(model: PreTrainedModel, batch: Mapping[str, Tensor], needs: frozenset[str]) -> Outputs:
    """What an encoder shows of a batch of text, and a masked language model where `predicted` is true."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    seen = observe(cast(PreTrainedModel, model.base_model), inputs, needs)
    if "logits" not in needs:
        return seen.shown
    logits = token_logits(model, seen.output.last_hidden_state[batch["predicted"]])
    return replace(seen.shown, logits=[logits])
