"""One label a text or pair (NLI): accuracy."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from app.rows import Row
from app.tasks.sequence_classification import ClassPrediction, PairItem, SequenceClassification
from distill.tasks.base import Batch, Example, Targets, task_named


class TrainingTask:
    """Gold is one label."""

    codec: ClassVar[str] = "sequence_classification"
    auto_model: ClassVar[Any] = AutoModelForSequenceClassification
    baseline_rule: ClassVar[str] = "the most frequent label in the training data, whatever is asked"

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.name, self.labels = name, labels
        self.main_metric = task_named(name).main_metric
        self._ids = {label: index for index, label in enumerate(labels)}

    def codec_for(self, *, max_length: int, stride: int, pad_id: int) -> SequenceClassification:
        """The codec that serves these labels."""
        return SequenceClassification(labels=self.labels, max_length=max_length, stride=stride, pad_id=pad_id)

    def items(self, texts: Sequence[str]) -> list[PairItem]:
        """Each text paired with the next."""
        return [PairItem(text, texts[(index + 1) % len(texts)]) for index, text in enumerate(texts)]

    def targets(self, example: Example, rows: Sequence[Row]) -> list[Targets]:
        """Shape: labels (), the same for each window. Raises KeyError on a label there is none of."""
        return [{"labels": np.asarray(self._ids[example.gold], dtype=np.int64)} for _ in rows]

    def as_gold(self, prediction: ClassPrediction) -> str:
        """The likeliest label."""
        return prediction.label

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the rows."""
        return cross_entropy(outputs.logits.float(), batch["labels"])

    def distilled_logits(self, outputs: Any, batch: Batch) -> list[torch.Tensor]:
        """Shape: one tensor (b, labels)."""
        return [outputs.logits]

    def baseline(self, train: Sequence[Example], items: Sequence[PairItem]) -> list[ClassPrediction]:
        """The most frequent label of `train`."""
        usual = Counter(example.gold for example in train).most_common(1)[0][0]
        return [ClassPrediction({label: float(label == usual) for label in self.labels}) for _ in items]

    def score(self, gold: Sequence[str], predictions: Sequence[ClassPrediction | None]) -> dict[str, float]:
        """Accuracy in 0..100."""
        return {"accuracy": 100 * float(self.terms(gold, predictions)[:, 0].mean())}

    def terms(self, gold: Sequence[str], predictions: Sequence[ClassPrediction | None]) -> np.ndarray:
        """Shape: (items, 2): 1 where right, and 1."""
        pairs = zip(gold, predictions, strict=True)
        return np.asarray(
            [(prediction is not None and prediction.label == label, 1) for label, prediction in pairs], float
        )
