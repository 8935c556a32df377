"""What text of the student's languages looks like in pieces, so that the server can tell when a text does not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from app.guard import MIN_PIECES, pack
from app.rows import Ints
from distill.vocabulary import unknown_id

RARE_BELOW = 1e-5
FALSE_ALARMS = 0.005
_LONGEST = 32


def familiarity(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The manifest's ``familiar``, from texts by language: ``rare`` as `app.guard.pack` writes it, and ``limit``.

    The unknown piece is rare, and so is one that makes up less than 1e-5 of each language's pieces in every other text.
    ``limit`` is the share of rare pieces that 0.5 % of the other half of the worse language's texts exceed, cut to
    32 pieces, the length of a sentence. Empty where that half has no text of 8 pieces.
    """
    n = tokenizer.get_vocab_size()
    shares = np.zeros(n)
    for lines in texts.values():
        counts = sum((np.bincount(ids, minlength=n) for ids in _encode(tokenizer, lines[::2])), np.zeros(n))
        shares = np.maximum(shares, counts / max(counts.sum(), 1))
    rare = shares < RARE_BELOW
    rare[[index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = False
    if (unknown := unknown_id(tokenizer)) >= 0:
        rare[unknown] = True
    limits = []
    for lines in texts.values():
        cut = (ids[:_LONGEST] for ids in _encode(tokenizer, lines[1::2]) if len(ids) >= MIN_PIECES)
        found = [rare[ids].mean() for ids in cut]
        limits += [np.quantile(found, 1 - FALSE_ALARMS, method="higher")] if found else []
    return {"rare": pack(rare), "limit": float(max(limits))} if limits else {}


def _encode(tokenizer: Tokenizer, lines: Sequence[str]) -> list[Ints]:
    encodings = tokenizer.encode_batch(list(lines), add_special_tokens=False)
    return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]
