import numpy as np
import pytest

from app.bench.texts import lengths, texts
from tests.app import tiny


def test_lengths_are_log_normal_with_mean_25_and_a_tail() -> None:
    drawn = np.array(lengths(20_000, longest=254))
    assert drawn.mean() == pytest.approx(25, rel=0.03)
    # the median of a log-normal is its mean divided by exp(sigma^2 / 2)
    assert np.median(drawn) == pytest.approx(25 / np.exp(0.32), rel=0.05)
    assert (drawn.min(), drawn.max()) == (3, 254)
    assert 0.001 < (drawn > 160).mean() < 0.006


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_texts_have_these_lengths_in_pieces(family: str) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    made = texts(tokenizer, 50, longest=60, seed=3)
    n_pieces = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in made]
    assert n_pieces == lengths(50, longest=60, seed=3)
    assert texts(tokenizer, 50, longest=60, seed=3) == made
