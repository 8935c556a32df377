import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from app.arborescence import arborescence


def trees(n: int) -> Iterator[tuple[int, ...]]:
    """Every assignment of heads to n words in which one word hangs on the root and all hang on that word."""
    for heads in itertools.product(range(n + 1), repeat=n):
        if heads.count(0) == 1 and all(reaches_root(heads, word) for word in range(1, n + 1)):
            yield heads


def reaches_root(heads: tuple[int, ...], word: int) -> bool:
    for _ in heads:
        word = heads[word - 1] if word else 0
    return word == 0


def total(scores: np.ndarray, heads: tuple[int, ...]) -> float:
    return float(sum(scores[word, head] for word, head in enumerate(heads)))


def test_there_are_as_many_trees_as_cayley_says() -> None:
    # n^(n-2) trees over the words, each with n choices of its root word
    assert [len(list(trees(n))) for n in range(1, 6)] == [1, 2, 9, 64, 625]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_no_tree_scores_higher(n: int) -> None:
    generator = np.random.default_rng(n)
    every = list(trees(n))
    for spread in (1.0, 5.0, 1e-3):
        for _ in range(40):
            scores = generator.normal(size=(n, n + 1)) * spread
            scores[:, 0] += generator.normal() * spread  # now all words want to be roots, now none does
            found = tuple(map(int, arborescence(scores)))
            assert found in every
            assert total(scores, found) == pytest.approx(max(total(scores, heads) for heads in every), abs=1e-9)


def test_small_whole_scores_with_many_ties_still_give_a_best_tree() -> None:
    generator = np.random.default_rng(0)
    every = list(trees(4))
    for _ in range(100):
        scores = generator.integers(0, 3, size=(4, 5)).astype(float)
        found = tuple(map(int, arborescence(scores)))
        assert found in every and total(scores, found) == max(total(scores, heads) for heads in every)


def test_words_under_themselves_are_not_looked_at() -> None:
    scores = np.array([[0.0, 99.0, 1.0], [2.0, 1.0, np.nan]])
    scores[1, 2] = np.inf
    assert arborescence(scores).tolist() == [2, 0]


@pytest.mark.parametrize("n", [60, 300])
def test_long_sentences_have_one_root_and_no_cycle(n: int) -> None:
    scores = np.random.default_rng(1).normal(size=(n, n + 1))
    scores[np.arange(0, n - 1, 2), np.arange(2, n + 1, 2)] = 50  # pairs that want each other: many cycles
    scores[np.arange(1, n, 2), np.arange(1, n, 2)] = 50
    heads = tuple(map(int, arborescence(scores)))
    assert heads.count(0) == 1 and all(reaches_root(heads, word) for word in range(1, n + 1))


def test_no_words_have_no_heads() -> None:
    assert arborescence(np.empty((0, 1))).tolist() == []
