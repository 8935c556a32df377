"""One label a word: named entities, parts of speech."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.rows import Ints, Row, Tensors
from app.tasks.base import Floats, Pieces, frame, log_softmax, output, windows
from app.text import Span, trim, words

Strategy = Literal["simple", "first", "average", "max"]
OUTSIDE = "O"
_UNKNOWN = "X"


@dataclass(frozen=True, slots=True)
class TokenItem:
    """A text, and the spans of its words where they are known; None lets ``app.text.words`` find them."""

    text: str
    words: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tag:
    """The label of the word ``text[start:end]``."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Entity:
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
    """Scores a word at its first piece; a word in several windows is answered where it has most context."""

    per_token: ClassVar[bool] = True
    probe: ClassVar[TokenItem] = TokenItem("Hausa (2024)")

    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's labels and lengths."""
        return cls(
            labels=manifest.labels, max_length=manifest.max_length, stride=manifest.stride, pad_id=manifest.pad_id
        )

    def encode(self, item: TokenItem, tokenizer: Tokenizer) -> list[Row]:
        """Windows of whole words; ``row.words`` marks every piece's word. No words, no rows."""
        spans = _spans(item)
        if not spans:
            return []
        around = frame(tokenizer, pair=False)
        found = _pieces(item.text, spans, tokenizer)
        size = max(self.max_length - around.n_special, 1)
        starts = np.searchsorted(found.words, found.words, side="left")
        cuts = windows(len(found), size=size, stride=min(self.stride, size // 2), starts=starts)
        return [around.row(found.cut(start, end)) for start, end in cuts]

    def decode(self, item: TokenItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> TokenPrediction:
        """A tag for every word of the item; a word without pieces gets "O", or "X" where there is no "O"."""
        spans = _spans(item)
        fallback = self._fallback()
        probabilities = np.full((len(spans), len(self.labels)), 1 / len(self.labels))
        if OUTSIDE in self.labels:
            probabilities[:] = np.eye(len(self.labels))[fallback]
        best = np.full(len(spans), fallback)
        most_context = np.full(len(spans), -1)
        for index, (row, values) in enumerate(zip(rows, outputs, strict=True)):
            logits = output(values, "logits", shape=(len(row), len(self.labels)))
            places, context = _first_pieces(row, opens=index == 0, closes=index == len(rows) - 1)
            better = context > most_context[row.words[places]]
            places, context = places[better], context[better]
            answered = row.words[places]
            most_context[answered] = context
            probabilities[answered] = np.exp(log_softmax(logits[places]))
            best[answered] = logits[places].argmax(axis=-1)
        tags = (
            Tag(start, end, self.labels[label], float(probabilities[word, label]))
            for word, ((start, end), label) in enumerate(zip(spans, best, strict=True))
        )
        return TokenPrediction(tuple(tags), probabilities)

    def _fallback(self) -> int:
        for label in (OUTSIDE, _UNKNOWN):
            if label in self.labels:
                return self.labels.index(label)
        return 0


def entities(text: str, prediction: TokenPrediction, *, strategy: Strategy = "simple") -> list[Entity]:
    """Group BIO tags into entities; an I- that continues nothing begins an entity, and plain labels group by equality.

    The score is the mean over the words (``simple``, ``average``), the first word's, or the highest.
    """
    found = []
    for group in _groups(prediction.words):
        scores = [tag.score for tag in group]
        score = {"first": scores[0], "max": max(scores)}.get(strategy, sum(scores) / len(scores))
        start, end = trim(text, group[0].start, group[-1].end)
        found.append(Entity(_kind(group[0].label), start, end, score))
    return found


def _groups(tags: Sequence[Tag]) -> Iterator[list[Tag]]:
    group: list[Tag] = []
    for tag in tags:
        continues = group and not tag.label.startswith("B-") and _kind(tag.label) == _kind(group[-1].label)
        if group and not continues:
            yield group
            group = []
        if tag.label != OUTSIDE:
            group.append(tag)
    if group:
        yield group


def _kind(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label


def _spans(item: TokenItem) -> tuple[Span, ...]:
    return words(item.text) if item.words is None else item.words


def _pieces(text: str, spans: Sequence[Span], tokenizer: Tokenizer) -> Pieces:
    encoding = tokenizer.encode(
        [text[start:end] for start, end in spans], is_pretokenized=True, add_special_tokens=False
    )
    word_of = np.asarray(encoding.word_ids, dtype=np.int64)
    base = np.asarray([start for start, _ in spans], dtype=np.int64)
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return Pieces(
        ids=np.asarray(encoding.ids, dtype=np.int64), words=word_of, spans=offsets + base[word_of][:, np.newaxis]
    )


def _first_pieces(row: Row, *, opens: bool, closes: bool) -> tuple[Ints, Ints]:
    """Where words begin in ``row``, and the pieces of context each has on its poorer side.

    Shape: (words,) both. The edge of the text itself (``opens``, ``closes``) cuts nothing off: it is far away.
    """
    content = np.flatnonzero(row.words >= 0)
    if not len(content):
        return content, content
    marks = row.words[content]
    places = content[np.concatenate([[True], marks[1:] != marks[:-1]])]
    left = places - content[0] if not opens else np.full_like(places, len(row))
    right = content[-1] - places if not closes else np.full_like(places, len(row))
    return places, np.minimum(left, right)
