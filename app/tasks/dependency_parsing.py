"""One dependency tree a sentence: for every word its head and its relation to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from tokenizers import Tokenizer

from app.arborescence import arborescence
from app.bundle import Manifest
from app.rows import Ints, Row, Tensors
from app.tasks.base import Floats, first_pieces, frame, log_softmax, output, windows, word_pieces
from app.text import Span, sentences, words

ROOT = "root"
_UNKNOWN = "dep"
# log-probability of a head that no window shows beside its dependent: worse than any that one shows
_UNSEEN = -1e4


@dataclass(frozen=True)
class SentenceItem:
    """One sentence with the spans of its words, or, where ``words`` is None, a text whose sentences are to be found."""

    text: str
    words: tuple[Span, ...] | None = None

    @cached_property
    def layout(self) -> tuple[tuple[Span, ...], list[tuple[int, int]]]:
        """The words and the ranges of them that are sentences."""
        if self.words is not None:
            return self.words, [(0, len(self.words))] if self.words else []
        spans = words(self.text)
        return spans, sentences(self.text, spans)


@dataclass(frozen=True, slots=True)
class Dependent:
    """The word ``text[start:end]`` and its place in the tree.

    ``head`` counts the prediction's words from 1; 0 is the root. ``score`` is the probability of the head times that of
    the relation under this head.
    """

    start: int
    end: int
    head: int
    relation: str
    score: float


@dataclass(frozen=True, slots=True)
class TreePrediction:
    """Every word of the item in order; ``sentences`` are half-open ranges of them, each a tree with one root word."""

    words: tuple[Dependent, ...]
    sentences: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyParsing:
    """A row a sentence; words are scored at their first pieces, the root at the row's first, special piece.

    A sentence longer than a row is read in windows that share ``stride`` pieces. A word's heads are then those of the
    window where it has most context; a head elsewhere is taken only where there is no tree without it.

    The model gives arc_scores (n, n), of each piece under each other, relation_dependents (n, labels, k) and
    relation_heads (n, k): the score of a label between two pieces is the product of the two over k. So outputs grow
    with a row's length but for the arcs, and no pair's relations are computed that the tree does not have.
    """

    per_token: ClassVar[bool] = True
    probe: ClassVar[SentenceItem] = SentenceItem("Hausa (2024). Kano!")

    labels: tuple[str, ...]
    max_length: int
    stride: int
    pad_id: int

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's relations and lengths."""
        return cls(
            labels=manifest.labels, max_length=manifest.max_length, stride=manifest.stride, pad_id=manifest.pad_id
        )

    def encode(self, item: SentenceItem, tokenizer: Tokenizer) -> list[Row]:
        """The rows of each sentence, of whole words; ``row.words`` counts the words of the item. No words, no rows."""
        spans, ranges = item.layout
        if not spans:
            return []
        around = frame(tokenizer, pair=False)
        found = word_pieces(item.text, spans, tokenizer)
        size = max(self.max_length - around.n_special, 1)
        rows = []
        for first, last in ranges:
            begin, end = np.searchsorted(found.words, (first, last))
            if begin == end:
                continue
            sentence = found.cut(int(begin), int(end))
            starts = np.searchsorted(sentence.words, sentence.words, side="left")
            cuts = windows(len(sentence), size=size, stride=min(self.stride, size // 2), starts=starts)
            rows += [around.row(sentence.cut(start, stop)) for start, stop in cuts]
        return rows

    def decode(self, item: SentenceItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> TreePrediction:
        """The best tree of each sentence; a word without pieces is a leaf of relation "dep" and score 0."""
        spans, ranges = item.layout
        found: list[Dependent] = []
        done = 0
        for first, last in ranges:
            begin = done
            while done < len(rows) and rows[done].words.max() < last:
                done += 1
            scores = self._read(rows[begin:done], outputs[begin:done], first, last)
            found += self._tree(scores, spans[first:last], first)
        return TreePrediction(tuple(found), tuple(ranges))

    def _read(self, rows: Sequence[Row], outputs: Sequence[Tensors], first: int, last: int) -> "_Scores":
        """What the windows of the words ``first`` to ``last`` say, each word heard where it has most context."""
        n = last - first
        scores = _Scores.unseen(n, len(self.labels))
        for index, (row, values) in enumerate(zip(rows, outputs, strict=True)):
            places, context = first_pieces(row, opens=index == 0, closes=index == len(rows) - 1)
            arcs = output(values, "arc_scores", shape=(len(row), None))[places][:, [0, *places]]
            dependents = output(values, "relation_dependents", shape=(len(row), len(self.labels), None))[places]
            heads = output(values, "relation_heads", shape=(len(row), dependents.shape[-1]))[places]
            arcs[np.arange(len(places)), 1 + np.arange(len(places))] = -np.inf
            scores.hear(row.words[places] - first, context, log_softmax(arcs), dependents, heads)
        return scores

    def _tree(self, scores: "_Scores", spans: Sequence[Span], first: int) -> Iterator[Dependent]:
        heads = arborescence(scores.arcs)
        relations = scores.relations(heads)
        if ROOT in self.labels:
            relations[:, self.labels.index(ROOT)] = -np.inf
        chances = log_softmax(relations)
        chance = np.where(heads == 0, 0, chances.max(axis=1))
        probabilities = np.exp(scores.arcs[np.arange(len(heads)), heads] + chance).tolist()
        for word, (start, end) in enumerate(spans):
            head, label = int(heads[word]), self.labels[chances[word].argmax()]
            if not head:
                label = ROOT
            elif scores.context[word] < 0 and _UNKNOWN in self.labels:
                label = _UNKNOWN
            yield Dependent(start, end, head and head + first, label, probabilities[word])


@dataclass(slots=True, kw_only=True)
class _Scores:
    """One sentence's words, gathered from its windows.

    Shape: ``context`` (n,), -1 where no window has the word; ``arcs`` (n, n + 1) log-probabilities, the root first;
    ``dependents`` (n, labels, k); ``heads`` (n, k).
    """

    context: Ints
    arcs: Floats
    dependents: Floats
    heads: Floats

    @classmethod
    def unseen(cls, n: int, n_labels: int) -> Self:
        """Before any window: anything may be any word's head, the root last of all."""
        arcs = np.full((n, n + 1), _UNSEEN)
        arcs[:, 0] *= 2
        return cls(context=np.full(n, -1), arcs=arcs, dependents=np.zeros((n, n_labels, 1)), heads=np.zeros((n, 1)))

    def hear(self, words: Ints, context: Ints, arcs: Floats, dependents: Floats, heads: Floats) -> None:
        """One window's view of its ``words``; those that another window saw in more context keep that."""
        if self.heads.shape[1] != heads.shape[1]:
            self.dependents = np.zeros((*self.dependents.shape[:2], heads.shape[1]))
            self.heads = np.zeros((len(self.heads), heads.shape[1]))
        better = context > self.context[words]
        chosen = words[better]
        self.context[chosen] = context[better]
        self.arcs[chosen] = _UNSEEN
        self.arcs[np.ix_(chosen, np.concatenate([[0], words + 1]))] = arcs[better]
        self.dependents[chosen] = dependents[better]
        self.heads[chosen] = heads[better]

    def relations(self, heads: Ints) -> Floats:
        """The labels' scores of each word under its head; of no meaning for a word under the root.

        Shape: ``heads`` (n,) to (n, labels).
        """
        scores: Floats = np.einsum("nlk,nk->nl", self.dependents, self.heads[heads - 1])
        return scores
