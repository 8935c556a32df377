"""The span of a context that answers a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import InputTooLong
from app.rows import Ints, Row, Tensors
from app.tasks.base import Floats, frame, log_softmax, output, pieces, windows
from app.text import snap


@dataclass(frozen=True, slots=True)
class QuestionItem:
    """A question about a context; at most ``top_k`` answers of at most ``max_answer_len`` pieces."""

    question: str
    context: str
    top_k: int = 1
    max_answer_len: int = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` is ``context[start:end]``; ``score`` is its probability among all spans that may be answers."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class AnswerPrediction:
    """Best first; empty where the context holds nothing to point at."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswering:
    """Reads the context in windows and compares the spans of all of them."""

    per_token: ClassVar[bool] = True
    probe: ClassVar[QuestionItem] = QuestionItem("Kano?", "Kano, Nigeria")

    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's lengths."""
        return cls(
            labels=manifest.labels, max_length=manifest.max_length, stride=manifest.stride, pad_id=manifest.pad_id
        )

    def encode(self, item: QuestionItem, tokenizer: Tokenizer) -> list[Row]:
        """Windows over the context, each with the whole question; only pieces of the context have spans.

        :raises InputTooLong: the question leaves less than a quarter of a row for the context.
        """
        around = frame(tokenizer, pair=True)
        encoding = tokenizer.encode(item.question, add_special_tokens=False)
        question = pieces(encoding, text=item.question).without_places()
        context = pieces(tokenizer.encode(item.context, add_special_tokens=False), text=item.context)
        size = self.max_length - around.n_special
        limit = size - self.max_length // 4
        if len(question) > limit:
            raise InputTooLong(
                f"the question has {len(question)} pieces, more than {limit}", limit=limit, actual=len(question)
            )
        size -= len(question)
        cuts = windows(len(context), size=size, stride=min(self.stride, size // 2))
        return [around.row(question, context.cut(start, end)) for start, end in cuts]

    def decode(self, item: QuestionItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> AnswerPrediction:
        """The best distinct answers; a span seen in several windows counts once, with its best score."""
        found = [
            _candidates(row, values, max_answer_len=item.max_answer_len)
            for row, values in zip(rows, outputs, strict=True)
        ]
        spans = np.concatenate([spans for spans, _ in found]) if found else np.empty((0, 2), np.int64)
        if not len(spans):
            return AnswerPrediction(())
        logits = np.concatenate([logits for _, logits in found])
        _, first, inverse = np.unique(spans[:, 0] << 32 | spans[:, 1], return_index=True, return_inverse=True)
        spans = spans[first]
        best = np.full(len(spans), -np.inf)
        np.maximum.at(best, inverse, logits)
        scores = np.exp(log_softmax(best))
        order = np.argsort(-scores, kind="stable")[: 4 * item.top_k]
        answers: dict[tuple[int, int], float] = {}
        chosen = snap(item.context, [(int(spans[index, 0]), int(spans[index, 1])) for index in order])
        for span, index in zip(chosen, order, strict=True):
            answers.setdefault(span, float(scores[index]))
        return AnswerPrediction(
            tuple(
                Answer(item.context[start:end], start, end, score)
                for (start, end), score in list(answers.items())[: item.top_k]
            )
        )


def _candidates(row: Row, values: Tensors, *, max_answer_len: int) -> tuple[Ints, Floats]:
    """Every span of at most ``max_answer_len`` pieces, with its log-probability in this window.

    Shape: (spans, 2) code points and (spans,). The first piece stands for "not in this window", as in training.
    """
    start_logits = output(values, "start_logits", shape=(len(row),))
    end_logits = output(values, "end_logits", shape=(len(row),))
    places = np.flatnonzero(row.spans[:, 0] >= 0)
    possible = np.concatenate([[0], places])
    n_ends = max(max_answer_len, 1)
    first = np.repeat(places, n_ends)
    last = first + np.tile(np.arange(n_ends), len(places))
    inside = np.isin(last, places)
    first, last = first[inside], last[inside]
    logits = _within(start_logits, possible)[first] + _within(end_logits, possible)[last]
    return np.stack([row.spans[first, 0], row.spans[last, 1]], axis=1), logits


def _within(logits: Floats, possible: Ints) -> Floats:
    """Log-probabilities among the ``possible`` positions; the rest is left at minus infinity. Shape: (n,) to (n,)."""
    result = np.full_like(logits, -np.inf)
    result[possible] = log_softmax(logits[possible])
    return result
