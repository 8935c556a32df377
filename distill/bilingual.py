"""Phase 1: the student learns the teacher's states on plain text of the source and target languages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.corpus import Batch, Blocks, Masking, MonolingualBatches, pack
from distill.objectives.base import Outputs, Sum
from distill.student import layer_map
from distill.teacher import load_tokenizer
from distill.training import Schedule, Trained, train


@dataclass(frozen=True, kw_only=True)
class Phase1:
    """BiStil 1.4. Languages have equal shares; every micro-batch is of one language."""

    schedule: Schedule
    objective: dict[str, float] = field(default_factory=lambda: {"hidden_states": 1.0, "attention": 1.0})
    sequence_length: int = 256
    batch_size: int = 8
    mask_share: float = 0.15
    heldout: float = 0.01
    heldout_batches: int = 8


def distil(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    *,
    phase: Phase1,
    layers: tuple[int, ...],
    text: Sequence[Path],
    languages: Sequence[str],
    folder: Path,
    tokenizer_folder: Path,
) -> Trained:
    """Train `student` in place; packed text, checkpoints and the log live in `folder`.

    The weights with the lowest held-out loss win. `layers` must be the map that the student was made with.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    for language in languages:
        pack(
            text,
            language,
            tokenizer.backend_tokenizer,
            length=phase.sequence_length,
            heldout=phase.heldout,
            out=folder / "packed" / language,
        )
    mask = Masking.of(tokenizer, share=phase.mask_share)

    def batches(split: str) -> MonolingualBatches:
        blocks = [Blocks.open(folder / "packed" / language, language, split) for language in languages]
        return MonolingualBatches(
            blocks, [1.0] * len(blocks), batch_size=phase.batch_size, seed=phase.schedule.seed, mask=mask
        )

    heldout = batches("heldout")
    loss = Distillation(student, teacher, Sum.of(phase.objective), layers)

    def score() -> float:
        terms = [loss(heldout(index)) for index in range(phase.heldout_batches)]
        return -sum(float(term) for batch_terms in terms for term in batch_terms.values()) / len(terms)

    return train(student, loss, batches("train"), schedule=phase.schedule, folder=folder, name="phase 1", score=score)


class Distillation:
    """The loss of phase 1: both encoders read the same ids, the teacher without gradient."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, objective: Sum, layers: tuple[int, ...]
    ) -> None:
        expected = layer_map(teacher.config.num_hidden_layers, 1)
        if len(layers) != student.config.num_hidden_layers or not set(layers) <= set(expected):
            raise ValueError(f"layer map {layers} does not fit student and teacher")
        self.student, self.objective, self.layers = student, objective, layers
        self.teacher = teacher.eval().requires_grad_(False)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        with torch.no_grad():
            seen = show(self.teacher, inputs, self.objective.needs)
        return self.objective(
            Outputs.of(show(self.student, inputs, self.objective.needs)), Outputs.of(seen), batch, self.layers
        )


def show(model: PreTrainedModel, inputs: Batch, needs: frozenset[str]) -> object:
    """One forward pass that returns what the objectives need."""
    return model(**inputs, output_hidden_states="hidden_states" in needs, output_attentions="attentions" in needs)
