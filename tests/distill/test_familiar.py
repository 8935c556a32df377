import numpy as np
import pytest

from app.guard import unpack
from distill.familiar import familiarity
from tests.distill import tiny
from tests.distill.tiny import tiny_tokenizer


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_no_text_holds_is_rare_and_so_is_the_unknown_piece(family: str) -> None:
    wrapped = tiny_tokenizer(family)
    tokenizer = wrapped.backend_tokenizer
    texts = {"ha": [line for line in tiny.HAUSA for _ in range(2)], "en": [line for line in tiny.ENGLISH for _ in "ab"]}
    found = familiarity(tokenizer, texts)
    rare = unpack(found["rare"], tokenizer.get_vocab_size())
    lines = [line for several in texts.values() for line in several]
    seen = {index for encoded in tokenizer.encode_batch(lines, add_special_tokens=False) for index in encoded.ids}
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unknown = wrapped.unk_token_id
    assert set(np.flatnonzero(rare)) == set(range(len(rare))) - (seen - {unknown}) - (special - {unknown})
    # every line is in both halves, so that only unknown pieces can be rare in the half that sets the limit
    assert found["limit"] == max(
        np.mean(np.asarray(ids[:32]) == unknown)
        for ids in (tokenizer.encode(line, add_special_tokens=False).ids for line in lines)
    )


def test_the_limit_is_what_few_texts_of_the_other_half_exceed() -> None:
    tokenizer = tiny_tokenizer("xlm-roberta").backend_tokenizer
    found = familiarity(tokenizer, {"ha": [tiny.HAUSA[0], tiny.OTHER[0]]})
    rare = unpack(found["rare"], tokenizer.get_vocab_size())
    ids = tokenizer.encode(tiny.OTHER[0], add_special_tokens=False).ids[:32]
    assert found["limit"] == rare[ids].mean() > 0.5


def test_texts_too_few_to_tell_give_no_statistics() -> None:
    tokenizer = tiny_tokenizer("bert").backend_tokenizer
    assert familiarity(tokenizer, {"ha": ["Yara suna zuwa makaranta."]}) == {}
