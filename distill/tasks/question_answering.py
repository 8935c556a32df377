"""Extractive question answering: start and end positions; SQuAD's exact match and F1."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from statistics import median_low
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering

from app.rows import Row
from app.tasks.question_answering import Answer, AnswerPrediction, QuestionAnswering, QuestionItem
from app.text import words
from distill.tasks.base import Batch, Example, Span, Targets, task_named

IMPOSSIBLE = -1e4


class TrainingTask:
    """Gold is a tuple of acceptable spans; the first one that the context holds is the target."""

    codec: ClassVar[str] = "question_answering"
    auto_model: ClassVar[Any] = AutoModelForQuestionAnswering
    baseline_rule: ClassVar[str] = (
        "the first words of the context, as many as the median answer of the training data has"
    )

    def __init__(self, name: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.labels = name, labels
        self.main_metric = task_named(name).main_metric

    def codec_for(self, *, max_length: int, stride: int, pad_id: int) -> QuestionAnswering:
        """The codec that serves it."""
        return QuestionAnswering(labels=self.labels, max_length=max_length, stride=stride, pad_id=pad_id)

    def items(self, texts: Sequence[str]) -> list[QuestionItem]:
        """The first eight words of each text, asked of the next text."""
        return [
            QuestionItem(" ".join(text.split()[:8]), texts[(index + 1) % len(texts)])
            for index, text in enumerate(texts)
        ]

    def targets(self, example: Example, rows: Sequence[Row]) -> list[Targets]:
        """Shape: start_positions, end_positions () inclusive; position_mask (n,), 1 where an answer may lie.

        A window without the whole answer points at its first piece, which is no part of the context.
        """
        answer = next((span for span in example.gold if span.start >= 0), None)
        return [_targets(answer, row) for row in rows]

    def as_gold(self, prediction: AnswerPrediction) -> tuple[Span, ...]:
        """The best answer; none where there was none."""
        return tuple(Span(answer.start, answer.text) for answer in prediction.answers[:1])

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Mean of the start and the end cross-entropy over the positions an answer may have."""
        start, end = self.distilled_logits(outputs, batch)
        losses = (
            cross_entropy(start.float(), batch["start_positions"]),
            cross_entropy(end.float(), batch["end_positions"]),
        )
        return (losses[0] + losses[1]) / 2

    def distilled_logits(self, outputs: Any, batch: Batch) -> list[torch.Tensor]:
        """Shape: start and end (b, n), -1e4 off the context and its window's first piece."""
        possible = batch["position_mask"].bool()
        return [logits.masked_fill(~possible, IMPOSSIBLE) for logits in (outputs.start_logits, outputs.end_logits)]

    def baseline(self, train: Sequence[Example], items: Sequence[QuestionItem]) -> list[AnswerPrediction]:
        """The context's first words, as many as half of the answers of `train` have at most."""
        n_words = median_low(len(words(example.gold[0].text)) for example in train)
        return [AnswerPrediction(_beginning(item.context, n_words)) for item in items]

    def score(self, gold: Sequence[Sequence[Span]], predictions: Sequence[AnswerPrediction | None]) -> dict[str, float]:
        """exact_match and f1 against the best of the gold answers, SQuAD 1.1's way, in 0..100."""
        exact = [
            max(float(normalised(span.text) == normalised(_said(prediction))) for span in spans)
            for spans, prediction in zip(gold, predictions, strict=True)
        ]
        return {
            "exact_match": 100 * float(np.mean(exact)),
            "f1": 100 * float(self.terms(gold, predictions)[:, 0].mean()),
        }

    def terms(self, gold: Sequence[Sequence[Span]], predictions: Sequence[AnswerPrediction | None]) -> np.ndarray:
        """Shape: (items, 2): the token F1 against the best gold answer, and 1."""
        pairs = zip(gold, predictions, strict=True)
        return np.asarray(
            [(max(token_f1(span.text, _said(said)) for span in spans), 1) for spans, said in pairs], float
        )


def _beginning(context: str, n_words: int) -> tuple[Answer, ...]:
    spans = words(context)[:n_words]
    return tuple(
        Answer(context[start:end], start, end, 1.0) for (start, _), (_, end) in zip(spans[:1], spans[-1:], strict=True)
    )


def _said(prediction: AnswerPrediction | None) -> str:
    return prediction.answers[0].text if prediction is not None and prediction.answers else ""


def normalised(text: str) -> str:
    """SQuAD's form of an answer: lower case, no ASCII punctuation, no English articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(gold: str, guess: str) -> float:
    """F1 of the two normalised answers as bags of words; two empty ones agree."""
    truth, said = normalised(gold).split(), normalised(guess).split()
    shared = sum((Counter(truth) & Counter(said)).values())
    if not truth or not said:
        return float(truth == said)
    return 2 * shared / (len(truth) + len(said))


def _targets(answer: Span | None, row: Row) -> Targets:
    starts, ends = row.spans[:, 0], row.spans[:, 1]
    context = starts >= 0
    first = last = 0
    if answer is not None and context.any():
        touched = np.flatnonzero(context & (starts < answer.end) & (ends > answer.start))
        inside = starts[context].min() <= answer.start and answer.end <= ends[context].max()
        if len(touched) and inside:
            first, last = int(touched[0]), int(touched[-1])
    mask = context.astype(np.int64)
    mask[0] = 1
    return {
        "start_positions": np.asarray(first, dtype=np.int64),
        "end_positions": np.asarray(last, dtype=np.int64),
        "position_mask": mask,
    }
