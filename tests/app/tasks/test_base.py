from itertools import pairwise

import numpy as np
import pytest

from app.errors import EngineError
from app.tasks import base
from app.tasks.base import frame, output, pieces, windows, word_pieces
from app.text import words
from tests.app import tiny


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_a_framed_row_is_what_the_tokenizer_itself_would_make(family: str, pair: bool) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    first, second = (pieces(text, tokenizer) for text in ("Bola ya isa", "Ina Kano?"))
    row = frame(tokenizer, pair=pair).row(first, second if pair else None)
    expected = tokenizer.encode("Bola ya isa", "Ina Kano?") if pair else tokenizer.encode("Bola ya isa")
    assert row.ids.tolist() == expected.ids
    assert row.type_ids.tolist() == expected.type_ids
    assert (row.spans[np.array(expected.special_tokens_mask) == 1] == -1).all()


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_pieces_of_words_are_those_that_the_tokenizer_gives_all_of_them_at_once(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    text = f"Bola ya isa Kano, Bola! {'Kano' * 20} \u200b 1942 'yan"
    spans = [*words(text), (0, 0)]
    parts = [text[start:end] for start, end in spans]
    expected = tokenizer.encode(parts, is_pretokenized=True, add_special_tokens=False)
    for kept in (0, 10_000, 10_000):
        monkeypatch.setattr(base, "_KEPT_WORDS", kept)
        found = word_pieces(text, spans, tokenizer)
        assert found.ids.tolist() == expected.ids
        assert found.words.tolist() == expected.word_ids
        starts = [spans[word][0] for word in expected.word_ids if word is not None]
        assert found.spans.tolist() == [
            [start + begin, start + end] for start, (begin, end) in zip(starts, expected.offsets, strict=True)
        ]


def test_windows_of_a_short_text_are_one() -> None:
    assert windows(5, size=5, stride=2) == [(0, 5)]
    assert windows(0, size=5, stride=2) == [(0, 0)]


def test_windows_overlap_by_the_stride() -> None:
    assert windows(10, size=4, stride=1) == [(0, 4), (3, 7), (6, 10)]
    assert windows(9, size=4, stride=0) == [(0, 4), (4, 8), (8, 9)]


def test_windows_begin_and_end_between_words() -> None:
    starts = np.array([0, 1, 1, 3, 3, 3, 6, 7])
    assert windows(8, size=4, stride=2, starts=starts) == [(0, 3), (3, 7), (6, 8)]


def test_a_word_longer_than_a_window_keeps_its_first_pieces() -> None:
    starts = np.array([0, 1, 1, 1, 1, 1, 6])
    assert windows(7, size=3, stride=1, starts=starts) == [(0, 1), (1, 4), (6, 7)]


@pytest.mark.parametrize("seed", range(50))
def test_windows_cover_every_word_in_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 6, size=generator.integers(1, 40))
    starts = np.repeat(np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    size, stride = int(generator.integers(5, 20)), int(generator.integers(0, 10))
    found = windows(len(starts), size=size, stride=stride, starts=starts)
    assert {index for start, end in found for index in range(start, end)} == set(range(len(starts)))
    assert all(0 < end - start <= size for start, end in found)
    assert all(starts[start] == start for start, _ in found)
    assert all(after[0] > before[0] and after[1] > before[1] for before, after in pairwise(found))
    assert all(after[0] >= before[1] - stride for before, after in pairwise(found))


def test_an_output_that_is_not_there_or_of_another_shape_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="gives other, not logits"):
        output({"other": np.zeros(3)}, "logits", shape=(3,))
    with pytest.raises(EngineError, match="shape"):
        output({"logits": np.zeros(3)}, "logits", shape=(4,))


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_what_reads_like_a_special_token_in_a_text_is_none(family: str) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    tokenizer.encode_special_tokens = True  # as a bundle's tokenizer
    special = {token.content: index for index, token in tokenizer.get_added_tokens_decoder().items()}
    unknown = special["[UNK]" if "[UNK]" in special else "<unk>"]
    found = pieces(f"Bola {' '.join(special)} Kano", tokenizer)
    assert not set(found.ids.tolist()) & (set(special.values()) - {unknown})
    assert {"bert": 0, "xlmr": 4, "deberta": 4}[family] <= found.ids.tolist().count(unknown)
    kept = pieces("Bola ya isa", tokenizer)
    assert kept.ids.tolist() == tokenizer.encode("Bola ya isa", add_special_tokens=False).ids
