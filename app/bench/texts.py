"""Texts for a benchmark: words of a tokenizer's vocabulary, in lengths as requests have them."""

import numpy as np
from tokenizers import Tokenizer

MEAN_PIECES = 25
_SIGMA = 0.8
_SHORTEST = 3


def lengths(n: int, *, longest: int, seed: int = 0) -> list[int]:
    """Log-normal with mean 25 before it is cut at 3 and ``longest``: half of them below 18, one in 300 above 160."""
    mu = np.log(MEAN_PIECES) - _SIGMA**2 / 2
    drawn = np.random.default_rng(seed).lognormal(mu, _SIGMA, n)
    return [int(length) for length in np.clip(np.round(drawn), _SHORTEST, longest)]


def texts(tokenizer: Tokenizer, n: int, *, longest: int, seed: int = 0) -> list[str]:
    """``n`` texts, each of as many words that are one piece as ``lengths`` says."""
    pieces = (piece.removeprefix("▁") for piece in sorted(tokenizer.get_vocab()))
    words = np.array([word for word in pieces if len(word) > 2 and word.isalpha()])
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, length)) for length in lengths(n, longest=longest, seed=seed)]
