"""Dependency trees: heads and relations on each word's first piece; UAS and LAS over all words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from app.rows import Row
from app.tasks.base import first_pieces
from app.tasks.dependency_parsing import ROOT, DependencyParsing, Dependent, SentenceItem, TreePrediction
from distill.biaffine import AutoModelForDependencyParsing
from distill.tasks.base import IGNORED, Arc, Batch, Example, Targets, task_named

IMPOSSIBLE = -1e4


class TrainingTask:
    """Gold is a tuple of arcs, one a word."""

    codec: ClassVar[str] = "dependency_parsing"
    auto_model: ClassVar[Any] = AutoModelForDependencyParsing
    baseline_rule: ClassVar[str] = (
        "each word hangs on the word before it, by the most frequent relation of the training data"
    )

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.name, self.labels = name, labels
        self.main_metric = task_named(name).main_metric
        self._ids = {label: index for index, label in enumerate(labels)}

    def codec_for(self, *, max_length: int, stride: int, pad_id: int) -> DependencyParsing:
        """The codec that serves these relations."""
        return DependencyParsing(labels=self.labels, max_length=max_length, stride=stride, pad_id=pad_id)

    def items(self, texts: Sequence[str]) -> list[SentenceItem]:
        """One item a text, of as many sentences as it has."""
        return [SentenceItem(text) for text in texts]

    def targets(self, example: Example, rows: Sequence[Row]) -> list[Targets]:
        """Shape: arcs, relations, head_mask (n,).

        `arcs` is, on the first piece of each word whose head is in the row, the place of that head's first piece, 0 for
        the root, and -100 elsewhere, as are `relations`. `head_mask` is 1 where a head may be.
        Raises KeyError on a relation there is none of.
        """
        heads = np.asarray([arc.head for arc in example.gold], dtype=np.int64)
        relations = np.asarray([self._ids[arc.relation] for arc in example.gold], dtype=np.int64)
        return [_targets(heads, relations, row) for row in rows]

    def as_gold(self, prediction: TreePrediction) -> tuple[Arc, ...]:
        """The tree's arcs."""
        return tuple(Arc(word.head, word.relation) for word in prediction.words)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Cross-entropy of the heads plus that of the relations under the gold heads, each a mean over words."""
        arcs, relations = self.distilled_logits(outputs, batch)
        if not len(arcs):
            return arcs.sum() + relations.sum()
        chosen = batch["arcs"] != IGNORED
        return cross_entropy(arcs.float(), batch["arcs"][chosen]) + cross_entropy(
            relations.float(), batch["relations"][chosen]
        )

    def distilled_logits(self, outputs: Any, batch: Batch) -> list[Tensor]:
        """Shape: (words in the batch, n) of heads, -1e4 where none may be; (words, labels) under the gold heads."""
        row, place = (batch["arcs"] != IGNORED).nonzero(as_tuple=True)
        possible = batch["head_mask"][row].bool()
        possible[torch.arange(len(place), device=place.device), place] = False
        arcs = outputs.arc_scores[row, place].masked_fill(~possible, IMPOSSIBLE)
        heads = outputs.relation_heads[row, batch["arcs"][row, place]]
        relations = (outputs.relation_dependents[row, place] @ heads.unsqueeze(2)).squeeze(2)
        return [arcs, relations]

    def baseline(self, train: Sequence[Example], items: Sequence[SentenceItem]) -> list[TreePrediction]:
        """Each word under the one before it, by the most frequent relation of `train`; the first is the root."""
        usual = Counter(arc.relation for example in train for arc in example.gold if arc.head).most_common(1)[0][0]
        return [_chain(item, usual) for item in items]

    def score(self, gold: Sequence[Sequence[Arc]], predictions: Sequence[TreePrediction]) -> dict[str, float]:
        """las and uas over all words, punctuation and the root's among them, in 0..100."""
        right = np.concatenate([_right(arcs, said) for arcs, said in zip(gold, predictions, strict=True)])
        return {"las": 100 * float(right.all(axis=1).mean()), "uas": 100 * float(right[:, 0].mean())}

    def terms(self, gold: Sequence[Sequence[Arc]], predictions: Sequence[TreePrediction]) -> np.ndarray:
        """Shape: (items, 2): words with the right head and relation, and words."""
        pairs = [_right(arcs, said) for arcs, said in zip(gold, predictions, strict=True)]
        return np.asarray([(right.all(axis=1).sum(), len(right)) for right in pairs], dtype=np.float64)


def _targets(heads: np.ndarray, relations: np.ndarray, row: Row) -> Targets:
    places, _ = first_pieces(row, opens=True, closes=True)
    words = row.words[places]
    place_of = np.full(len(heads) + 1, IGNORED)
    place_of[0] = 0
    place_of[words + 1] = places
    arcs, labels, mask = np.full(len(row), IGNORED), np.full(len(row), IGNORED), np.zeros(len(row), dtype=np.int64)
    arcs[places] = place_of[heads[words]]
    labels[places] = np.where(arcs[places] == IGNORED, IGNORED, relations[words])
    mask[[0, *places]] = 1
    return {"arcs": arcs, "relations": labels, "head_mask": mask}


def _chain(item: SentenceItem, relation: str) -> TreePrediction:
    spans, ranges = item.layout
    roots = {first for first, _ in ranges}
    arcs = [(0, ROOT) if place in roots else (place, relation) for place in range(len(spans))]
    words = tuple(Dependent(*span, *arc, 1.0) for span, arc in zip(spans, arcs, strict=True))
    return TreePrediction(words, tuple(ranges))


def _right(gold: Sequence[Arc], prediction: TreePrediction) -> np.ndarray:
    """Whether head and relation of each word are right. Shape: (words, 2) bool."""
    pairs = zip(gold, prediction.words, strict=True)
    return np.asarray([(arc.head == word.head, arc.relation == word.relation) for arc, word in pairs], bool)
