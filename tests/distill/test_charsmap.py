"""The normaliser's table, read from the embedded teacher and compared with the tokenizers library."""

import base64
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from tokenizers.normalizers import Precompiled

from app.errors import DataError
from distill import charsmap, vocabulary

TOKENIZER = Path(__file__).parents[2] / "model_store" / "mmt-mini" / "tokenizer.json"
YORUBA = set("abdefgijklmnoprstuwyABOS \u00e0\u00e1\u00e8\u00e9\u00f2\u00f3\u1eb9\u1ecd\u1e63\u0300\u0301\u0323")


@pytest.fixture(scope="module")
def blob() -> bytes:
    state = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    (table,) = [n for n in state["normalizer"]["normalizers"] if n["type"] == "Precompiled"]
    return base64.b64decode(table["precompiled_charsmap"])


@pytest.fixture(scope="module")
def pruned(blob: bytes) -> bytes:
    state = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}
    charsmap.prune({"type": "Sequence", "normalizers": [state]}, YORUBA)
    return base64.b64decode(state["precompiled_charsmap"])


def test_every_string_of_the_table_becomes_what_the_library_makes_of_it(blob: bytes) -> None:
    library = Precompiled(blob)
    table = charsmap.read(blob)
    assert len(table) > 5000
    characters = [key for key in table if len(key) == 1]
    assert [table[key] for key in characters] == [library.normalize_str(key) for key in characters]


def test_the_library_reads_a_written_table_as_the_one_it_was_read_from(blob: bytes) -> None:
    table = charsmap.read(blob)
    written = charsmap.write(table)
    assert charsmap.read(written) == table
    before, after = Precompiled(blob), Precompiled(written)
    for code in (*range(1, 0xD800), *range(0xE000, 0x20000)):
        assert after.normalize_str(chr(code)) == before.normalize_str(chr(code)), hex(code)


def test_text_of_the_alphabet_and_of_what_becomes_it_is_normalised_as_before(blob: bytes, pruned: bytes) -> None:
    before, after = Precompiled(blob), Precompiled(pruned)
    parts = [*YORUBA, *charsmap.read(pruned)]
    choose = random.Random(7)
    for _ in range(20_000):
        text = "".join(choose.choices(parts, k=choose.randint(1, 12)))
        assert after.normalize_str(text) == before.normalize_str(text), ascii(text)


def test_pruning_leaves_out_what_no_character_of_the_alphabet_takes_part_in(blob: bytes, pruned: bytes) -> None:
    table = charsmap.read(pruned)
    assert table["e\u0323"] == "\u1eb9" and table["\t"] == " " and table["\uff21"] == "A"
    assert "\uf900" in charsmap.read(blob) and "\uf900" not in table
    assert len(pruned) < len(blob) / 8


def test_a_table_cut_short_or_going_round_is_refused(blob: bytes) -> None:
    looping = struct.pack("<I256I", 1024, *([1 << 10 | 1] * 256))
    for broken in (b"", blob[:1000], blob[:180_000], looping):
        with pytest.raises(DataError, match="precompiled_charsmap"):
            charsmap.read(broken)


def test_an_empty_table_is_written_and_changes_nothing() -> None:
    empty = charsmap.write({})
    assert charsmap.read(empty) == {}
    assert Precompiled(empty).normalize_str("\ufb01 e\u0301") == "\ufb01 e\u0301"


def test_trimming_prunes_the_table_and_text_that_it_composes_keeps_its_pieces() -> None:
    before = Tokenizer.from_file(str(TOKENIZER))
    texts = [
        "O so\u0323 pe\u0301 oun maa wa\u0301",
        "\uff2f s\u1ecd\tp\u00e9",
        "\u1ecc\u030cr\u1ecd\u0300 Yoru\u0300ba\u0301",
    ]
    kept = vocabulary.select({"yo": vocabulary.count(before, texts)}, before, threshold=0.0, keep_characters=False)
    after = vocabulary.trim_tokenizer(before, kept)
    assert len(after.to_str()) < len(before.to_str()) / 8
    assert [kept[after.encode(text).ids].tolist() for text in texts] == [before.encode(text).ids for text in texts]


def test_where_unknown_characters_become_bytes_the_table_is_left_whole(blob: bytes) -> None:
    pieces = {"<unk>": 0, **{f"<0x{byte:02X}>": 1 + byte for byte in range(256)}}
    before = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True))
    before.normalizer = Precompiled(blob)
    after = vocabulary.trim_tokenizer(before, np.arange(len(pieces)))
    assert after.to_str() == before.to_str()
    assert after.encode("\uff2f").tokens == ["<0x4F>"]
