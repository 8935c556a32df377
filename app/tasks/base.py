"""The task seam, and what every codec shares: the special tokens around a text, and windows over a long one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import BundleError, EngineError
from app.rows import Ints, Row, Tensors
from app.text import Span, trim

ItemT = TypeVar("ItemT", contravariant=True)
PredictionT = TypeVar("PredictionT", covariant=True)
Floats = npt.NDArray[np.float64]
# of a tokenizer; some megabytes at most, since longer words are not kept
_KEPT_WORDS, _KEPT_CHARACTERS = 10_000, 32


class Task(Protocol[ItemT, PredictionT]):
    """An item into rows, the rows' outputs into a prediction. Pure: no state, no order, safe in any thread."""

    per_token: ClassVar[bool]
    probe: ClassVar[Any]  # a small item, for warm-up

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Self:
        """The codec for a bundle's labels and lengths."""
        ...

    def encode(self, item: ItemT, tokenizer: Tokenizer) -> list[Row]:
        """The rows of one item, several where it is longer than a window; none where there is nothing to ask."""
        ...

    def decode(self, item: ItemT, rows: Sequence[Row], outputs: Sequence[Tensors]) -> PredictionT:
        """The answer, from the outputs of exactly the rows that ``encode`` gave."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The special tokens a tokenizer puts before, between and after one text or two.

    ``types`` is the type id of the pieces of the first and of the second text.
    """

    before: Row
    between: Row
    after: Row
    types: tuple[int, int]

    @property
    def n_special(self) -> int:
        """How many pieces of a row the frame takes."""
        return len(self.before) + len(self.between) + len(self.after)

    def row(self, first: "Pieces", second: "Pieces | None" = None) -> Row:
        """``first``, and ``second`` where the frame is a pair's, with the special tokens around them."""
        framed = [self.before, first.typed(self.types[0]), self.between, self.after]
        if second is not None:
            framed.insert(3, second.typed(self.types[1]))
        return Row(
            ids=np.concatenate([part.ids for part in framed]),
            type_ids=np.concatenate([part.type_ids for part in framed]),
            words=np.concatenate([part.words for part in framed]),
            spans=np.concatenate([part.spans for part in framed]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The pieces of one text, without special tokens. Shape: ``ids``, ``words`` (n,); ``spans`` (n, 2)."""

    ids: Ints
    words: Ints
    spans: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, end: int) -> "Pieces":
        """Pieces ``start`` to ``end``, half-open."""
        return Pieces(ids=self.ids[start:end], words=self.words[start:end], spans=self.spans[start:end])

    def typed(self, type_id: int) -> Row:
        """The pieces as a part of a row."""
        return Row(ids=self.ids, type_ids=np.full_like(self.ids, type_id), words=self.words, spans=self.spans)

    def without_places(self) -> "Pieces":
        """The same ids with no words and no spans: a text nobody will point into."""
        return Pieces(ids=self.ids, words=np.full_like(self.words, -1), spans=np.full_like(self.spans, -1))


def pieces(text: str, tokenizer: Tokenizer) -> Pieces:
    """The pieces of ``text``, their spans free of white space; words mean nothing here and are -1.

    What reads like a special token, though the vocabulary has it as a piece, is unknown: it means nothing in a text.
    """
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans = [trim(text, start, end) for start, end in encoding.offsets]
    ids = np.asarray(encoding.ids, dtype=np.int64)
    special, unknown = _meaningless(tokenizer)
    return Pieces(
        ids=np.where(np.isin(ids, special), unknown, ids),
        words=np.full(len(spans), -1, dtype=np.int64),
        spans=np.asarray(
            [span if span[0] < span[1] else (-1, -1) for span in spans],
            dtype=np.int64,
        ).reshape(-1, 2),
    )


def word_pieces(text: str, spans: Sequence[Span], tokenizer: Tokenizer) -> Pieces:
    """The pieces of the words at ``spans``, in order, each with the index of its word; a word may have none.

    A tokenizer reads a word without its neighbours, so that one it has read lately need not be read again.
    """
    parts = [text[start:end] for start, end in spans]
    words = _read(parts, tokenizer)
    counts = [len(words[part]) // 3 for part in parts]
    starts = np.repeat(np.array([start for start, _ in spans], dtype=np.int64), counts)
    read = np.array([number for part in parts for number in words[part]], dtype=np.int64).reshape(-1, 3)
    return Pieces(
        ids=read[:, 0], words=np.repeat(np.arange(len(spans)), counts), spans=read[:, 1:] + starts[:, np.newaxis]
    )


def first_pieces(row: Row, *, opens: bool, closes: bool) -> tuple[Ints, Ints]:
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


@lru_cache(maxsize=128)
def frame(tokenizer: Tokenizer, *, pair: bool) -> Frame:
    """Read the special tokens off the tokenizer's own post-processor; a tokenizer is asked once.

    :raises BundleError: the tokenizer gives no piece for a letter, so that it cannot be asked.
    """
    probe = tokenizer.encode("a", add_special_tokens=False)
    if not probe.ids:
        raise BundleError("the tokenizer gives no piece for the letter a")
    encoded = tokenizer.post_process(probe, probe if pair else None, add_special_tokens=True)
    marked = np.stack([encoded.ids, encoded.type_ids], axis=1).astype(np.int64)
    content = np.flatnonzero(np.asarray(encoded.special_tokens_mask) == 0)
    first, second = content[: len(probe.ids)], content[len(probe.ids) :]
    return Frame(
        before=_special(marked[: first[0]]),
        between=_special(marked[first[-1] + 1 : second[0]] if pair else marked[:0]),
        after=_special(marked[second[-1] + 1 :] if pair else marked[first[-1] + 1 :]),
        types=(int(marked[first[0], 1]), int(marked[second[0], 1]) if pair else 0),
    )


def windows(n: int, *, size: int, stride: int, starts: Ints | None = None) -> list[tuple[int, int]]:
    """Half-open windows of at most ``size`` pieces over ``n`` pieces, neighbours sharing up to ``stride``.

    ``starts`` (n,) is, for each piece, the first piece of its word: windows then begin and end between words, and of a
    word longer than a window only the first ``size`` pieces are covered. Up to ``size`` pieces are one window.
    """
    if n <= size:
        return [(0, n)]
    if starts is None:
        starts = np.arange(n, dtype=np.int64)
    found: list[tuple[int, int]] = []
    start = done = 0
    while True:
        if start + size >= n:
            end = done = n
        elif starts[start + size] > start:
            end = done = int(starts[start + size])
        else:
            end = start + size
            done = int(np.searchsorted(starts, start, side="right"))
        if found and end <= found[-1][1]:
            start = found[-1][1]
            continue
        found.append((start, end))
        if done == n:
            break
        back = max(done - stride, start + 1)
        start = min(done, back if starts[back] == back else int(np.searchsorted(starts, starts[back], side="right")))
    return found


def output(outputs: Tensors, name: str, *, shape: tuple[int | None, ...]) -> Floats:
    """One row's output ``name`` in float64, checked to be of ``shape``, where None stands for any size.

    :raises EngineError: the model has no such output, or of another shape: model and manifest do not match.
    """
    if name not in outputs:
        raise EngineError(f"the model gives {', '.join(sorted(outputs))}, not {name}")
    values = np.asarray(outputs[name], dtype=np.float64)
    if len(values.shape) != len(shape) or any(due not in (None, n) for n, due in zip(values.shape, shape, strict=True)):
        raise EngineError(f"the model gives {name} of shape {values.shape} where {shape} was due")
    return values


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _read(parts: Sequence[str], tokenizer: Tokenizer) -> dict[str, Sequence[int]]:
    """For each of the words its pieces, in order: id, start, end; start and end are in the word."""
    kept = _kept(tokenizer)
    found = {part: known for part in parts if (known := kept.get(part)) is not None}  # another thread may clear it
    missing = [part for part in dict.fromkeys(parts) if part not in found]
    if missing:
        encoding = tokenizer.encode(missing, is_pretokenized=True, add_special_tokens=False)
        read: list[list[int]] = [[] for _ in missing]
        for word, piece, offsets in zip(encoding.word_ids, encoding.ids, encoding.offsets, strict=True):
            read[word or 0] += (piece, *offsets)
        found |= zip(missing, map(tuple, read), strict=True)
        kept |= {part: found[part] for part in missing if len(part) <= _KEPT_CHARACTERS}
        if len(kept) > _KEPT_WORDS:
            kept.clear()
    return found


@lru_cache(maxsize=128)
def _kept(tokenizer: Tokenizer) -> dict[str, Sequence[int]]:
    """The words that a tokenizer has read lately."""
    return {}


@lru_cache(maxsize=128)
def _meaningless(tokenizer: Tokenizer) -> tuple[Ints, int]:
    """The ids of special tokens and of the unknown piece; none where it has no such piece."""
    model = json.loads(tokenizer.to_str())["model"]
    unknown = model.get("unk_id", tokenizer.token_to_id(model.get("unk_token") or ""))
    if unknown is None:
        return np.empty(0, dtype=np.int64), -1
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    return np.asarray(special, dtype=np.int64), unknown


def _special(marked: Ints) -> Row:
    """Shape: ``marked`` (k, 2), an id and its type id."""
    nowhere = np.full((len(marked), 2), -1, dtype=np.int64)
    return Row(ids=marked[:, 0], type_ids=marked[:, 1], words=nowhere[:, 0], spans=nowhere)
