"""One label a word: named entities, parts of speech."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.rows import Ints, Row, Tensors
from app.tasks.base import Floats, first_pieces, frame, log_softmax, output, windows, word_pieces
from app.text import Span, trim, words

Pooling = Literal["first", "average", "max"]
OUTSIDE = "O"
_UNKNOWN = "X"


@dataclass(frozen=True)
class TokenItem:
    """A text, and the spans of its words where they are known; None lets ``app.text.words`` find them."""

    text: str
    words: tuple[Span, ...] | None = None

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where the words are."""
        return words(self.text) if self.words is None else self.words


class Tag(NamedTuple):
    """The label of the word ``text[start:end]``."""

    start: int
    end: int
    label: str
    score: float


class Entity(NamedTuple):
    """One or more neighbouring words under one label, without the B- and I- of its tags."""

    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class TokenPrediction:
    """A tag for every word, in order. Shape: ``probabilities`` (words, labels)."""

    words: tuple[Tag, ...]
    probabilities: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClassification:
    """A word in several windows is answered where it has most context.

    ``pooling`` says which pieces of a word are read: the first, on which models are trained; all, with their
    probabilities averaged; or the one of the surest label.
    """

    per_token: ClassVar[bool] = True
    probe: ClassVar[TokenItem] = TokenItem("Hausa (2024)")

    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int
    pooling: Pooling = "first"

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's labels and lengths."""
        return cls(
            labels=manifest.labels, max_length=manifest.max_length, stride=manifest.stride, pad_id=manifest.pad_id
        )

    def encode(self, item: TokenItem, tokenizer: Tokenizer) -> list[Row]:
        """Windows of whole words; ``row.words`` marks every piece's word. No words, no rows."""
        spans = item.spans
        if not spans:
            return []
        around = frame(tokenizer, pair=False)
        found = word_pieces(item.text, spans, tokenizer)
        size = max(self.max_length - around.n_special, 1)
        if len(found) <= size:
            return [around.row(found)]
        starts = np.searchsorted(found.words, found.words, side="left")
        cuts = windows(len(found), size=size, stride=min(self.stride, size // 2), starts=starts)
        return [around.row(found.cut(start, end)) for start, end in cuts]

    def decode(self, item: TokenItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> TokenPrediction:
        """A tag for every word of the item; a word without pieces gets "O", or "X" where there is no "O"."""
        spans = item.spans
        fallback = self._fallback()
        if OUTSIDE in self.labels:
            probabilities = np.zeros((len(spans), len(self.labels)))
            probabilities[:, fallback] = 1
        else:
            probabilities = np.full((len(spans), len(self.labels)), 1 / len(self.labels))
        best = np.full(len(spans), fallback)
        most_context = np.full(len(spans), -1)
        for index, (row, values) in enumerate(zip(rows, outputs, strict=True)):
            logits = output(values, "logits", shape=(len(row), len(self.labels)))
            places, context = first_pieces(row, opens=index == 0, closes=index == len(rows) - 1)
            better = context > most_context[row.words[places]]
            answered = row.words[places[better]]
            most_context[answered] = context[better]
            probabilities[answered] = np.exp(self._pooled(logits, row, places)[better])
            best[answered] = probabilities[answered].argmax(axis=-1)
        scores = probabilities[np.arange(len(spans)), best].tolist()
        labels = [self.labels[label] for label in best.tolist()]
        tags = [Tag(*span, label, score) for span, label, score in zip(spans, labels, scores, strict=True)]
        return TokenPrediction(tuple(tags), probabilities)

    def _pooled(self, logits: Floats, row: Row, places: Ints) -> Floats:
        """Log-probabilities of the words that begin at ``places``. Shape: (n, labels), (words,) to (words, labels)."""
        if self.pooling == "first":
            return log_softmax(logits[places])
        end = np.flatnonzero(row.words >= 0)[-1] + 1
        ends = np.append(places[1:], end)
        logs = log_softmax(logits[:end])
        if self.pooling == "average":
            means: Floats = np.add.reduceat(np.exp(logs), places) / (ends - places)[:, np.newaxis]
            return np.log(means)
        surest = logs.max(axis=-1)
        return logs[[start + surest[start:stop].argmax() for start, stop in zip(places, ends, strict=True)]]

    def _fallback(self) -> int:
        for label in (OUTSIDE, _UNKNOWN):
            if label in self.labels:
                return self.labels.index(label)
        return 0


def entities(text: str, prediction: TokenPrediction, *, ignore: Container[str] = (OUTSIDE,)) -> list[Entity]:
    """Neighbouring words of one kind; B- begins an entity, as does an I- that continues nothing.

    Kinds to ``ignore`` are left out. The score is the mean over the words.
    """
    found = []
    for group in _groups(prediction.words):
        if (kind := _kind(group[0].label)) not in ignore:
            start, end = trim(text, group[0].start, group[-1].end)
            found.append(Entity(kind, start, end, sum(tag.score for tag in group) / len(group)))
    return found


def _groups(tags: Sequence[Tag]) -> Iterator[list[Tag]]:
    group: list[Tag] = []
    for tag in tags:
        if group and (tag.label.startswith("B-") or _kind(tag.label) != _kind(group[-1].label)):
            yield group
            group = []
        group.append(tag)
    if group:
        yield group


def _kind(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label
