"""One label a text or a pair of texts: natural language inference, sentiment, topic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import TooManyTokens
from app.rows import Row, Tensors
from app.tasks.base import frame, log_softmax, output, pieces, windows

Function = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class PairItem:
    """A text, for inference the premise, and the text it is compared with, the hypothesis."""

    text: str
    text_pair: str | None = None


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """The logit of every label, in the labels' order."""

    logits: dict[str, float]

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.logits, key=self.logits.__getitem__)

    @property
    def scores(self) -> dict[str, float]:
        """The probability of every label; they sum to 1."""
        return self.scores_by("softmax")

    def scores_by(self, function: Function) -> dict[str, float]:
        """The logits under ``function``; only those under softmax sum to 1."""
        logits = np.asarray(list(self.logits.values()), dtype=np.float64)
        if function == "softmax":
            logits = np.exp(log_softmax(logits))
        elif function == "sigmoid":
            logits = np.exp(-np.logaddexp(0, -logits))
        return dict(zip(self.logits, logits.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceClassification:
    """A first text longer than a window is read in windows whose logits are averaged."""

    per_token: ClassVar[bool] = False
    probe: ClassVar[PairItem] = PairItem("Hausa", "Kano")

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

    def encode(self, item: PairItem, tokenizer: Tokenizer) -> list[Row]:
        """Windows over ``text``, each with the whole of ``text_pair``.

        :raises TooManyTokens: ``text_pair`` leaves less than a quarter of a row for ``text``.
        """
        around = frame(tokenizer, pair=item.text_pair is not None)
        first = pieces(item.text, tokenizer)
        second = None
        size = self.max_length - around.n_special
        if item.text_pair is not None:
            second = pieces(item.text_pair, tokenizer).without_places()
            limit = size - self.max_length // 4
            if len(second) > limit:
                raise TooManyTokens(
                    f"text_pair has {len(second)} pieces, more than {limit}", limit=limit, actual=len(second)
                )
            size -= len(second)
        cuts = windows(len(first), size=size, stride=min(self.stride, size // 2))
        return [around.row(first.cut(start, end), second) for start, end in cuts]

    def decode(self, item: PairItem, rows: Sequence[Row], outputs: Sequence[Tensors]) -> ClassPrediction:
        """The mean of the windows' logits, under which probabilities are their normalised geometric mean."""
        logits = np.stack([output(values, "logits", shape=(len(self.labels),)) for values in outputs])
        return ClassPrediction(dict(zip(self.labels, logits.mean(axis=0).tolist(), strict=True)))
