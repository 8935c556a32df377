"""The span of a context that answers a question."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import TooManyTokens
from app.rows import Ints, Row, Tensors
from app.tasks.base import Floats, frame, log_softmax, output, pieces, windows
from app.text import Span, snap, words

_ENDS = 1 << 32


@dataclass(frozen=True, slots=True)
class QuestionItem:
    """A question about a context; at most ``top_k`` answers of at most ``max_answer_len`` pieces.

    Where it ``may_be_impossible``, "" from 0 to 0 is an answer too; ``whole_words`` widens answers to words.
    """

    question: str
    context: str
    top_k: int = 1
    max_answer_len: int = 30
    may_be_impossible: bool = False
    whole_words: bool = False


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
    """Reads the context in windows and compares the spans of all of them.

    A question may have ``max_question_length`` pieces, and at most so many that a quarter of a row is left.
    """

    per_token: ClassVar[bool] = True
    probe: ClassVar[QuestionItem] = QuestionItem("Kano?", "Kano, Nigeria")

    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int
    max_question_length: int | None = None

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's lengths."""
        return cls(
            labels=manifest.labels, max_length=manifest.max_length, stride=manifest.stride, pad_id=manifest.pad_id
        )

    def encode(self, item: QuestionItem, tokenizer: Tokenizer) -> list[Row]:
        """Windows over the context, each with the whole question; only pieces of the context have spans.

        :raises TooManyTokens: the question is longer than it may be.
        """
        around = frame(tokenizer, pair=True)
        question = pieces(item.question, tokenizer).without_places()
        context = pieces(item.context, tokenizer)
        size = self.max_length - around.n_special
        limit = max(size - self.max_length // 4, 1)
        if self.max_question_length is not None:
            limit = min(limit, self.max_question_length)
        if len(question) > limit:
            raise TooManyTokens(
                f"the question has {len(question)} pieces, more than {limit}", limit=limit, actual=len(question)
            )
        size -= len(question)
        cuts = windows(len(context), size=size, stride=min(self.stride, size // 2))
        return [around.row(question, context.cut(start, end)) for start, end in cuts]

    def decode(self, item: QuestionItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> AnswerPrediction:
        """The best distinct answers; a span seen in several windows counts once, with its best score."""
        found = [_candidates(row, values, item=item) for row, values in zip(rows, outputs, strict=True)]
        if not sum(len(logits) for _, logits in found):
            return AnswerPrediction(())
        spans, inverse = np.unique(np.concatenate([spans for spans, _ in found]), return_inverse=True)
        best = np.full(len(spans), -np.inf)
        np.maximum.at(best, inverse, np.concatenate([logits for _, logits in found]))
        if item.may_be_impossible:
            spans = np.append(spans, 0)
            best = np.append(best, min(_impossible(row, values) for row, values in zip(rows, outputs, strict=True)))
        scores = np.exp(log_softmax(best))
        order = np.argsort(-scores, kind="stable")[: 4 * item.top_k]
        chosen = [divmod(int(span), _ENDS) for span in spans[order]]
        answers: dict[Span, float] = {}
        for span, index in zip(_snapped(item, chosen), order, strict=True):
            answers.setdefault(span, float(scores[index]))
        return AnswerPrediction(
            tuple(
                Answer(item.context[start:end], start, end, score)
                for (start, end), score in list(answers.items())[: item.top_k]
            )
        )


def _snapped(item: QuestionItem, spans: Sequence[Span]) -> list[Span]:
    """The spans on grapheme boundaries, or around the words they touch."""
    if not item.whole_words:
        return snap(item.context, spans)
    bounds = words(item.context)
    starts, ends = [start for start, _ in bounds], [end for _, end in bounds]
    widened = []
    for start, end in spans:
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        is_word = start < end and first <= last
        widened.append((min(start, starts[first]), max(end, ends[last])) if is_word else (start, end))
    return snap(item.context, widened)


def _candidates(row: Row, values: Tensors, *, item: QuestionItem) -> tuple[Ints, Floats]:
    """Every span that may be an answer, with its log-probability in this window.

    Shape: (spans,) both; a span from ``start`` to ``end`` is one number, ``start * _ENDS + end``, of which there may be
    millions.
    """
    starts, ends = _log_probabilities(row, values)
    places = np.flatnonzero(row.spans[:, 0] >= 0)
    n_ends = max(min(item.max_answer_len, len(row)), 1)
    first = np.repeat(places, n_ends)
    last = first + np.tile(np.arange(n_ends), len(places))
    inside = np.isin(last, places)
    first, last = first[inside], last[inside]
    return row.spans[first, 0] * _ENDS + row.spans[last, 1], starts[first] + ends[last]


def _impossible(row: Row, values: Tensors) -> float:
    """The log-probability that this window holds no answer."""
    starts, ends = _log_probabilities(row, values)
    return float(starts[0] + ends[0])


def _log_probabilities(row: Row, values: Tensors) -> tuple[Floats, Floats]:
    """Of a start and of an end, among the pieces of the context and the first, which stands for "not in this window".

    Shape: (n,) both, minus infinity at the other pieces.
    """
    possible = np.concatenate([[0], np.flatnonzero(row.spans[:, 0] >= 0)])
    found = []
    for name in ("start_logits", "end_logits"):
        logits = output(values, name, shape=(len(row),))
        found.append(np.full_like(logits, -np.inf))
        found[-1][possible] = log_softmax(logits[possible])
    return found[0], found[1]
