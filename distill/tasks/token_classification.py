"""Word labels (NER, POS): targets on each word's first piece; entity F1, or accuracy and macro F1."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from app.rows import Row
from app.tasks.token_classification import Tag, TokenClassification, TokenItem, TokenPrediction
from distill.tasks.base import IGNORED, Batch, Example, Targets, task_named


class TrainingTask:
    """Gold is a tuple of labels, one a word."""

    codec: ClassVar[str] = "token_classification"
    auto_model: ClassVar[Any] = AutoModelForTokenClassification
    baseline_rule: ClassVar[str] = (
        "each word has its most frequent label in the training data, an unseen word the most frequent of all"
    )

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.name, self.labels = name, labels
        self.main_metric = task_named(name).main_metric
        self._ids = {label: index for index, label in enumerate(labels)}

    def codec_for(self, *, max_length: int, stride: int, pad_id: int) -> TokenClassification:
        """The codec that serves these labels."""
        return TokenClassification(labels=self.labels, max_length=max_length, stride=stride, pad_id=pad_id)

    def items(self, texts: Sequence[str]) -> list[TokenItem]:
        """One item a text."""
        return [TokenItem(text) for text in texts]

    def targets(self, example: Example, rows: Sequence[Row]) -> list[Targets]:
        """Shape: labels (n,), -100 but on the first piece of each word. Raises KeyError on a label there is none of."""
        gold = np.asarray([self._ids[label] for label in example.gold], dtype=np.int64)
        return [{"labels": np.where(first_pieces(row), gold[row.words], IGNORED)} for row in rows]

    def as_gold(self, prediction: TokenPrediction) -> tuple[str, ...]:
        """The words' labels."""
        return tuple(word.label for word in prediction.words)

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the batch's words; 0 where it has none."""
        chosen = batch["labels"] != IGNORED
        logits: torch.Tensor = outputs.logits[chosen].float()
        if not len(logits):
            return logits.sum()
        return cross_entropy(logits, batch["labels"][chosen])

    def distilled_logits(self, outputs: Any, batch: Batch) -> list[torch.Tensor]:
        """Shape: one tensor (words in the batch, labels)."""
        return [outputs.logits[batch["labels"] != IGNORED]]

    def baseline(self, train: Sequence[Example], items: Sequence[TokenItem]) -> list[TokenPrediction]:
        """Each word, by its letters alone, with its most frequent label in `train`, else the most frequent of all."""
        seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for example in train:
            for word, label in zip(_words(example.item), example.gold, strict=True):
                seen[word][label] += 1
        usual = Counter(label for example in train for label in example.gold).most_common(1)[0][0]
        label_of = {word: labels.most_common(1)[0][0] for word, labels in seen.items()}
        return [self._certain(item, [label_of.get(word, usual) for word in _words(item)]) for item in items]

    def score(self, gold: Sequence[Sequence[str]], predictions: Sequence[TokenPrediction]) -> dict[str, float]:
        """NER: f1, precision, recall of entities (seqeval); POS: accuracy and macro_f1 over words. In 0..100."""
        truth = [list(labels) for labels in gold]
        guess = [[word.label for word in prediction.words] for prediction in predictions]
        if self._tags_entities:
            return {
                "f1": 100 * float(f1_score(truth, guess, zero_division=0)),
                "precision": 100 * float(precision_score(truth, guess, zero_division=0)),
                "recall": 100 * float(recall_score(truth, guess, zero_division=0)),
            }
        return _word_scores(
            np.asarray([label for labels in truth for label in labels]),
            np.asarray([label for labels in guess for label in labels]),
        )

    def terms(self, gold: Sequence[Sequence[str]], predictions: Sequence[TokenPrediction]) -> np.ndarray:
        """Shape: (items, 2): entities twice found and entities there and said, or right words and words."""
        pairs = [
            (list(labels), [word.label for word in prediction.words])
            for labels, prediction in zip(gold, predictions, strict=True)
        ]
        count = _entity_terms if self._tags_entities else _word_terms
        return np.asarray([count(truth, guess) for truth, guess in pairs], dtype=np.float64)

    def _certain(self, item: TokenItem, labels: Sequence[str]) -> TokenPrediction:
        tags = tuple(Tag(*span, label, 1.0) for span, label in zip(item.spans, labels, strict=True))
        return TokenPrediction(tags, np.eye(len(self.labels))[[self._ids[label] for label in labels]])

    @property
    def _tags_entities(self) -> bool:
        return any(label.startswith(("B-", "I-")) for label in self.labels)


def first_pieces(row: Row) -> np.ndarray:
    """Whether each piece is the first one of a word. Shape: (n,) bool."""
    before = np.concatenate([[-1], row.words[:-1]])
    return np.asarray((row.words >= 0) & (row.words != before))


def _words(item: TokenItem) -> Iterator[str]:
    return (item.text[start:end] for start, end in item.spans)


def _word_scores(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    f1s = []
    for label in np.union1d(truth, guess):
        hits = np.sum((truth == label) & (guess == label))
        f1s.append(2 * hits / (np.sum(truth == label) + np.sum(guess == label)))
    return {"accuracy": 100 * float(np.mean(truth == guess)), "macro_f1": 100 * float(np.mean(f1s))}


def _entity_terms(truth: list[str], guess: list[str]) -> tuple[int, int]:
    there, said = set(get_entities(truth)), set(get_entities(guess))
    return 2 * len(there & said), len(there) + len(said)


def _word_terms(truth: list[str], guess: list[str]) -> tuple[int, int]:
    return sum(one == other for one, other in zip(truth, guess, strict=True)), len(truth)
