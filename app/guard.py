"""LanguageGuard: whether a text is in a language the student was made for, told by its rare and unknown pieces."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import BundleError
from app.rows import Row

MIN_PIECES = 8
_SPECIAL, _FAMILIAR, _RARE = range(3)


class LanguageGuard:
    """Knows which pieces are rare in all text of the student's languages, and what share of them is too much.

    A text in another script is far above ``limit``; one in a related language of the same script may well be below.
    """

    def __init__(self, kinds: npt.NDArray[np.uint8], *, limit: float) -> None:
        self.limit = limit
        self._kinds = kinds

    @classmethod
    def from_manifest(cls, manifest: Manifest, tokenizer: Tokenizer) -> Self | None:
        """The guard of a bundle; None where its manifest has no ``familiar``.

        :raises BundleError: ``familiar`` is ill-formed or made for another vocabulary.
        """
        if not manifest.familiar:
            return None
        n = tokenizer.get_vocab_size()
        try:
            rare = unpack(manifest.familiar["rare"], n)
            limit = float(manifest.familiar["limit"])
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise BundleError(f"the manifest's familiar cannot be used with {n} pieces: {error}") from error
        kinds = np.where(rare, _RARE, _FAMILIAR).astype(np.uint8)
        for index, token in tokenizer.get_added_tokens_decoder().items():
            if token.special and not rare[index]:
                kinds[index] = _SPECIAL
        return cls(kinds, limit=limit)

    def shares(self, items: Sequence[Sequence[Row]]) -> list[float]:
        """The share of rare and unknown pieces in each item's rows; items of fewer than 8 pieces are left out."""
        found: list[float] = []
        for rows in items:
            kinds = self._kinds[np.concatenate([row.ids for row in rows])] if rows else self._kinds[:0]
            n = np.count_nonzero(kinds)
            if n >= MIN_PIECES:
                found.append(float(np.count_nonzero(kinds == _RARE) / n))
        return found

    def warns(self, shares: Sequence[float]) -> bool:
        """Whether one of them is too much."""
        return any(share > self.limit for share in shares)


def pack(rare: npt.NDArray[np.bool_]) -> str:
    """A bit a piece, as base64: what a manifest holds. Shape: ``rare`` (pieces,)."""
    return base64.b64encode(np.packbits(rare).tobytes()).decode("ascii")


def unpack(text: Any, n: int) -> npt.NDArray[np.bool_]:
    """The inverse of ``pack`` for ``n`` pieces.

    :raises ValueError: the text is no base64 or is of another number of pieces.
    """
    bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(bits) != (n + 7) // 8:
        raise ValueError(f"rare has {8 * len(bits)} bits")
    return np.unpackbits(bits, count=n).astype(np.bool_)
