"""What every task shares in training: the example, the batch, the seam, and the table of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch

from app.errors import UnknownChoice
from app.plugins import load
from app.rows import Row, pad
from app.tasks.base import Task

Targets = dict[str, np.ndarray]
Batch = dict[str, torch.Tensor]

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """An item with its gold answer: a tag or an arc a word, a label, or the acceptable spans."""

    item: Any
    gold: Any


@dataclass(frozen=True, slots=True)
class Span:
    """A gold answer in the context, in code points; `start` is -1 where the context does not hold the text."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Arc:
    """A word's gold head, counted from 1 and 0 for the root, and its relation to it."""

    head: int
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One row of the table of tasks; `codec` is a module of `app.tasks` and of `distill.tasks`."""

    name: str
    codec: str
    main_metric: str
    labels: tuple[str, ...]


NER_LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
UD_RELATIONS = (
    *("acl", "advcl", "advmod", "amod", "appos", "aux", "case", "cc", "ccomp", "clf", "compound", "conj", "cop"),
    *("csubj", "dep", "det", "discourse", "dislocated", "expl", "fixed", "flat", "goeswith", "iobj", "list", "mark"),
    *("nmod", "nsubj", "nummod", "obj", "obl", "orphan", "parataxis", "punct", "reparandum", "root", "vocative"),
    "xcomp",
)
"""The universal relations, without the subtypes that treebanks add: a target's may never occur in the source's."""

NLI_LABELS = ("entailment", "neutral", "contradiction")

TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(name="ner", codec="token_classification", main_metric="f1", labels=NER_LABELS),
        TaskSpec(name="pos", codec="token_classification", main_metric="accuracy", labels=UPOS),
        TaskSpec(name="nli", codec="sequence_classification", main_metric="accuracy", labels=NLI_LABELS),
        TaskSpec(name="qa", codec="question_answering", main_metric="f1", labels=()),
        TaskSpec(name="dp", codec="dependency_parsing", main_metric="las", labels=UD_RELATIONS),
    )
}


def task_named(name: str) -> TaskSpec:
    """The task of that name. Raises UnknownChoice, which lists the choices."""
    if name not in TASKS:
        raise UnknownChoice("task", name, TASKS)
    return TASKS[name]


class TrainingTask(Protocol):
    """Targets, loss and score of one task; the text side is the codec that serves it."""

    codec: ClassVar[str]
    auto_model: ClassVar[Any]  # what `from_pretrained` makes the model
    baseline_rule: ClassVar[str]  # what `baseline` does, for the card
    name: str
    labels: tuple[str, ...]
    main_metric: str

    def __init__(self, name: str, labels: tuple[str, ...]) -> None: ...

    def codec_for(self, *, max_length: int, stride: int, pad_id: int) -> Task[Any, Any]:
        """The codec of `app.tasks` with this task's labels."""
        ...

    def items(self, texts: Sequence[str]) -> list[Any]:
        """Unlabelled items made of plain texts, to calibrate and to time on."""
        ...

    def targets(self, example: Example, rows: Sequence[Row]) -> list[Targets]:
        """The gold answer laid over the example's rows, one dict a row."""
        ...

    def as_gold(self, prediction: Any) -> Any:
        """The gold answer of an item that a teacher answered so."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Cross-entropy against gold: a scalar, 0 where the batch holds no target."""
        ...

    def distilled_logits(self, outputs: Any, batch: Batch) -> list[torch.Tensor]:
        """The logits that phase 2 compares, without padding. Shape: each (rows, classes)."""
        ...

    def baseline(self, train: Sequence[Example], items: Sequence[Any]) -> list[Any]:
        """What can be said without a model, from the labels of `train` alone: a prediction an item."""
        ...

    def score(self, gold: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        """The task's metrics in 0..100, the main one among them; a prediction of None, no answer, is a wrong one."""
        ...

    def terms(self, gold: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
        """What each item adds to the main metric, which is 100 * sum(numerators) / sum(denominators).

        Shape: (items, 2): numerator, denominator.
        """
        ...


def training_task(name: str, labels: tuple[str, ...] | None = None) -> TrainingTask:
    """The training half of the named task, with its own labels unless others are given. Raises UnknownChoice."""
    spec = task_named(name)
    module = load("distill.tasks", spec.codec)
    return cast(TrainingTask, module.TrainingTask(name, spec.labels if labels is None else labels))


def collate(rows: Sequence[Row], targets: Sequence[Mapping[str, np.ndarray]], *, pad_id: int) -> Batch:
    """A micro-batch: rows padded to the longest beside their targets.

    Shape: input_ids, attention_mask, token_type_ids (b, n); targets per token (b, n), targets per row (b,).
    Targets per token are padded with -100, those of a mask (their name ends in `_mask`) with 0.
    """
    batch = {name: torch.from_numpy(values) for name, values in pad(rows, pad_id=pad_id).items()}
    longest = batch["input_ids"].shape[1]
    for name in targets[0] if targets else ():
        filler = 0 if name.endswith("_mask") else IGNORED
        columns = [np.asarray(target[name], dtype=np.int64) for target in targets]
        if columns[0].ndim == 1:
            columns = [np.pad(column, (0, longest - len(column)), constant_values=filler) for column in columns]
        batch[name] = torch.from_numpy(np.stack(columns))
    return batch
