import lzma
from collections import Counter
from pathlib import Path

import pytest
import torch

from app.errors import DataError
from distill.corpus import Blocks, Masking, MixedBatches, MonolingualBatches, files, lines, pack, temperature_shares
from tests.distill import corpora
from tests.distill.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = corpora.write(tmp_path_factory.mktemp("data"))
    tokenizer = tiny_tokenizer("xlm-roberta").backend_tokenizer
    for language in ("en", "ha"):
        pack([folder / "text"], language, tokenizer, length=16, heldout=0.2, out=folder / "packed" / language)
    return folder / "packed"


def test_missing_text_names_every_path_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ha\.txt.*ha\.txt\.xz"):
        files([tmp_path], "ha")


def test_text_that_is_empty_or_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ha.txt").write_text("\n \n")
    with pytest.raises(DataError, match="empty"):
        list(lines([tmp_path], "ha"))
    (tmp_path / "ha.txt").write_bytes("ƙasa\n".encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8"):
        list(lines([tmp_path], "ha"))


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    text = b"line\n" * 5000 + "Musé\n".encode("latin-1") + b"line\n"
    (tmp_path / "ha.txt").write_bytes(text)
    with pytest.raises(DataError, match=r"ha\.txt:5001 is not UTF-8"):
        list(lines([tmp_path], "ha"))
    (tmp_path / "yo.txt.xz").write_bytes(lzma.compress(text))
    with pytest.raises(DataError, match=r"yo\.txt\.xz:5001 is not UTF-8"):
        list(lines([tmp_path], "yo"))


def test_text_that_lies_beside_its_compressed_form_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "ha.txt").write_text("ɗaya\n", encoding="utf-8")
    (tmp_path / "ha.txt.xz").write_bytes(lzma.compress("ɗaya\n".encode()))
    assert list(lines([tmp_path], "ha")) == ["ɗaya"]


def test_plain_and_compressed_text_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "ha.txt").write_text("ɗaya\n\nbiyu\n", encoding="utf-8")
    (tmp_path / "b" / "ha.txt.xz").write_bytes(lzma.compress(b"uku\n"))
    assert list(lines([tmp_path / "a", tmp_path / "b"], "ha")) == ["ɗaya", "biyu", "uku"]


def test_blocks_are_full_and_hold_each_line_of_the_text(packed: Path) -> None:
    train = Blocks.open(packed / "en", "en", "train")
    rows = train.take(0, len(train), seed=1)
    assert rows.shape == (len(train), 16)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, train.take(len(train), len(train), seed=1)))


def test_languages_alternate_half_and_half_in_monolingual_batches(packed: Path) -> None:
    blocks = [Blocks.open(packed / language, language, "train") for language in ("en", "ha")]
    batches = MonolingualBatches(blocks, [1.0, 1.0], batch_size=4, seed=3, mask=None)
    counts = Counter(batches.language(index) for index in range(101))
    assert abs(counts["en"] - counts["ha"]) <= 1
    rows = {
        language: set(map(tuple, block.take(0, len(block), seed=3)))
        for language, block in zip(("en", "ha"), blocks, strict=True)
    }
    for index in range(20):
        assert set(map(tuple, batches(index)["input_ids"].numpy())) <= rows[batches.language(index)]


def test_mixed_batches_hold_rows_of_all_languages_in_their_shares(packed: Path) -> None:
    blocks = [Blocks.open(packed / language, language, "train") for language in ("en", "ha")]
    whole = Masking(mask_id=4, special_ids=tuple(range(5)), vocabulary=50, share=0.0)
    batches = MixedBatches(blocks, [0.75, 0.25], batch_size=8, seed=3, mask=whole)
    hausa = set(map(tuple, blocks[1].take(0, len(blocks[1]), seed=3)))
    english = set(map(tuple, blocks[0].take(0, len(blocks[0]), seed=3)))
    for index in range(6):
        rows = list(map(tuple, batches(index)["input_ids"].numpy()))
        assert sum(row in hausa for row in rows) == 2 and sum(row in english for row in rows) == 6


@pytest.mark.parametrize("kind", [MonolingualBatches, MixedBatches])
def test_a_batch_depends_on_seed_and_number_alone(
    packed: Path, kind: type[MonolingualBatches] | type[MixedBatches]
) -> None:
    def make() -> MonolingualBatches | MixedBatches:
        blocks = [Blocks.open(packed / language, language, "train") for language in ("en", "ha")]
        mask = Masking.of(tiny_tokenizer("xlm-roberta"), share=0.3)
        return kind(blocks, [0.7, 0.3], batch_size=2, seed=5, mask=mask)

    first, second = make(), make()
    in_order = [first(index) for index in range(12)]
    for index in reversed(range(12)):
        again = second(index)
        assert all(torch.equal(again[name], in_order[index][name]) for name in again)


def test_masking_touches_ordinary_tokens_only_in_the_stated_shares() -> None:
    mask = Masking(mask_id=4, special_ids=(0, 1, 2, 3, 4), vocabulary=1000, share=0.2)
    ids = torch.randint(5, 1000, (200, 200), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    batch = mask(ids, seed=1)
    chosen = batch["labels"] != -100
    assert not chosen[:, 0].any() and torch.equal(batch["labels"][chosen], ids[chosen])
    assert torch.equal(batch["input_ids"][~chosen], ids[~chosen])
    share = chosen.float().mean().item()
    masked = (batch["input_ids"][chosen] == 4).float().mean().item()
    kept = (batch["input_ids"][chosen] == ids[chosen]).float().mean().item()
    assert share == pytest.approx(0.2, abs=0.01) and masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.02)


def test_temperature_flattens_sizes() -> None:
    shares = temperature_shares({"en": 10_000, "ha": 100}, alpha=0.5)
    assert shares == pytest.approx({"en": 100 / 110, "ha": 10 / 110})
