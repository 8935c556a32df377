import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification, AutoTokenizer, GenerationConfig

from app.errors import ConfigError, DataError, UnknownChoice
from distill import vocabulary
from distill.teacher import load_teacher, load_tokenizer
from tests.distill import tiny

Teacher = Callable[[str], Path]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    root = tmp_path_factory.mktemp("teachers")

    def build(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else tiny.tiny_teacher(family, folder)

    return build


def kept_of(folder: Path, *, keep_characters: bool = True) -> np.ndarray:
    counts = {"ha": vocabulary.count(folder, tiny.HAUSA), "en": vocabulary.count(folder, tiny.ENGLISH)}
    return vocabulary.select(counts, folder, threshold=1e-6, keep_characters=keep_characters)


def test_count_agrees_with_a_plain_loop(teacher: Teacher) -> None:
    tokenizer = load_tokenizer(teacher("xlm-roberta"))
    expected = [0] * len(tokenizer)
    for text in tiny.HAUSA:
        for i in tokenizer(text, add_special_tokens=False)["input_ids"]:
            expected[i] += 1
    assert vocabulary.count(tokenizer.backend_tokenizer, iter(tiny.HAUSA)).tolist() == expected


def test_count_is_not_cut_by_a_stored_truncation(teacher: Teacher) -> None:
    backend = Tokenizer.from_str(load_tokenizer(teacher("xlm-roberta")).backend_tokenizer.to_str())
    whole = vocabulary.count(backend, [" ".join(tiny.HAUSA)])
    backend.enable_truncation(4)
    assert np.array_equal(vocabulary.count(backend, [" ".join(tiny.HAUSA)]), whole)
    assert backend.truncation is not None


def test_counting_nothing_is_an_error(teacher: Teacher) -> None:
    with pytest.raises(DataError, match="empty"):
        vocabulary.count(teacher("bert"), ["", " "])


def test_the_threshold_is_a_share_of_each_language_alone(teacher: Teacher) -> None:
    tokenizer = load_tokenizer(teacher("bert")).backend_tokenizer
    words = [i for piece, i in sorted(tokenizer.get_vocab().items()) if len(piece.removeprefix("##")) > 1]
    words = [i for i in words if i > 10][:3]
    small, large = np.zeros(300, dtype=np.int64), np.zeros(300, dtype=np.int64)
    small[words[0]], small[words[1]] = 90, 10
    large[words[1]], large[words[2]] = 999_000, 1_000
    kept = vocabulary.select({"ha": small, "en": large}, tokenizer, threshold=0.05)
    assert [i in kept for i in words] == [True, True, False]
    assert words[2] in vocabulary.select({"ha": small, "en": large}, tokenizer, threshold=0.001)
    assert words[0] not in vocabulary.select({"en": large}, tokenizer, threshold=0)


def test_a_threshold_that_is_no_share_is_an_error(teacher: Teacher) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        vocabulary.select({}, teacher("bert"), threshold=2)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_special_added_and_single_character_pieces_are_kept(family: str, teacher: Teacher) -> None:
    tokenizer = load_tokenizer(teacher(family))
    kept = set(kept_of(teacher(family)).tolist())
    assert set(tokenizer.all_special_ids) <= kept
    assert {i for i in tokenizer.added_tokens_decoder} <= kept
    cyrillic = {i for piece, i in tokenizer.get_vocab().items() if piece.removeprefix("##") in set("шсвут")}
    assert cyrillic and cyrillic <= kept
    assert not cyrillic <= set(kept_of(teacher(family), keep_characters=False).tolist())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_trimmed_encoder_gives_the_same_output(family: str, teacher: Teacher, tmp_path: Path) -> None:
    kept = kept_of(teacher(family))
    out = vocabulary.trim(teacher(family), kept, tmp_path / "trimmed", sample=tiny.HAUSA)
    before, old_tokenizer = load_teacher(teacher(family))
    after = AutoModelForMaskedLM.from_pretrained(out).eval()
    new_tokenizer = AutoTokenizer.from_pretrained(out)
    texts = [*tiny.HAUSA, *tiny.ENGLISH]
    with torch.no_grad():
        old = before(**old_tokenizer(texts, padding=True, return_tensors="pt"), output_hidden_states=True)
        new = after(**new_tokenizer(texts, padding=True, return_tensors="pt"), output_hidden_states=True)
    assert len(kept) < before.config.vocab_size
    for a, b in zip(old.hidden_states, new.hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    torch.testing.assert_close(old.logits[..., kept], new.logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_ids_stay_contiguous_and_in_order_after_reload(family: str, teacher: Teacher, tmp_path: Path) -> None:
    kept = kept_of(teacher(family))
    out = vocabulary.trim(teacher(family), kept, tmp_path / "trimmed")
    old, new = load_tokenizer(teacher(family)), AutoTokenizer.from_pretrained(out)
    assert len(new) == len(kept) == json.loads((out / "config.json").read_text())["vocab_size"]
    assert sorted(new.get_vocab().values()) == list(range(len(kept)))
    assert new.convert_ids_to_tokens(list(range(len(kept)))) == old.convert_ids_to_tokens(kept.tolist())
    new_ids = vocabulary.old_to_new(kept, len(old))
    for text in tiny.HAUSA:
        ids = new(text)["input_ids"]
        assert ids == new_ids[old(text)["input_ids"]].tolist()
        assert new.decode(ids) == old.decode(old(text)["input_ids"])
        assert Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids == ids
    pair = new_ids[old("Ina", "Aisha")["input_ids"]]
    assert (pair >= 0).all() and new("Ina", "Aisha")["input_ids"] == pair.tolist()
    assert np.array_equal(vocabulary.load_kept(out), kept)
    assert not list(out.glob("*.model")) and not list(out.glob("vocab.txt"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_special_tokens_keep_their_roles(family: str, teacher: Teacher, tmp_path: Path) -> None:
    out = vocabulary.trim(teacher(family), kept_of(teacher(family)), tmp_path / "trimmed")
    old, new = load_tokenizer(teacher(family)), AutoTokenizer.from_pretrained(out)
    assert new.special_tokens_map == old.special_tokens_map
    assert new.model_input_names == old.model_input_names
    config = json.loads((out / "config.json").read_text())
    assert config["pad_token_id"] == new.pad_token_id
    assert new.unk_token_id in new("☃")["input_ids"]


def test_every_token_id_of_both_configs_is_renumbered(teacher: Teacher) -> None:
    model, tokenizer = load_teacher(teacher("bert"))
    dropped = tokenizer.convert_tokens_to_ids("[unused3]")
    model.config.sep_token_id = [tokenizer.sep_token_id]
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.cls_token_id, dropped
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.cls_token_id)
    kept = kept_of(teacher("bert"))
    assert dropped not in kept and kept[tokenizer.cls_token_id] != tokenizer.cls_token_id
    vocabulary.slice_embeddings(model, kept)
    new = vocabulary.old_to_new(kept, 300)
    assert model.config.bos_token_id == model.generation_config.bos_token_id == new[tokenizer.cls_token_id]
    assert model.config.sep_token_id == [new[tokenizer.sep_token_id]]
    assert model.config.eos_token_id is None
    assert model.config.pad_token_id == model.get_input_embeddings().padding_idx == 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_output_layer_stays_tied_and_its_bias_is_cut(family: str, teacher: Teacher) -> None:
    model, _ = load_teacher(teacher(family))
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.arange(model.config.vocab_size, dtype=torch.float32))
    kept = kept_of(teacher(family))
    vocabulary.slice_embeddings(model, kept)
    output: Any = model.get_output_embeddings()
    assert output.weight is model.get_input_embeddings().weight
    assert output.bias.tolist() == kept.tolist()
    assert all(len(kept) == p.shape[0] for n, p in model.named_parameters() if "word_embeddings" in n)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_task_teacher_is_cut_to_the_same_rows(family: str, teacher: Teacher) -> None:
    folder = teacher(family)
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=3)
    rows = model.get_input_embeddings().weight.detach().clone()
    classifier = model.classifier.weight.detach().clone()
    kept = kept_of(folder)
    vocabulary.slice_embeddings(model, kept)
    assert torch.equal(model.get_input_embeddings().weight, rows[kept])
    assert torch.equal(model.classifier.weight, classifier)
    assert model.config.vocab_size == len(kept)


def test_rows_beyond_the_tokenizer_are_dropped(teacher: Teacher) -> None:
    model, tokenizer = load_teacher(teacher("deberta-v2"))
    assert model.config.vocab_size > len(tokenizer)
    assert kept_of(teacher("deberta-v2"))[-1] == len(tokenizer) - 1


@pytest.mark.parametrize("kept", [[0, 2, 1], [0, 10_000], [-1, 0], []])
def test_ids_that_do_not_fit_the_matrix_are_an_error(kept: list[int], teacher: Teacher) -> None:
    with pytest.raises(DataError, match="kept ids"):
        vocabulary.slice_embeddings(load_teacher(teacher("bert"))[0], np.array(kept, dtype=np.int64))


def test_losing_or_moving_the_padding_token_is_an_error(teacher: Teacher) -> None:
    with pytest.raises(DataError, match="padding"):
        vocabulary.slice_embeddings(load_teacher(teacher("bert"))[0], np.arange(1, 50))
    with pytest.raises(DataError, match="positions"):
        vocabulary.slice_embeddings(load_teacher(teacher("xlm-roberta"))[0], np.arange(1, 50))


def test_the_score_of_the_unknown_is_unchanged(teacher: Teacher) -> None:
    folder = teacher("xlm-roberta")
    model = json.loads(load_tokenizer(folder).backend_tokenizer.to_str())["model"]
    lowest = int(np.argmin([score for _, score in model["vocab"]]))
    assert lowest in vocabulary.select({"ha": np.zeros(300, dtype=np.int64)}, folder, keep_characters=False)


def test_unk_rate_counts_unknown_pieces(teacher: Teacher) -> None:
    tokenizer = load_tokenizer(teacher("bert")).backend_tokenizer
    assert vocabulary.unk_rate(tokenizer, tiny.HAUSA) == 0
    assert vocabulary.unk_rate(tokenizer, ["Yara ☃ ☃ suna"]) == pytest.approx(
        2 / (2 + len(tokenizer.encode("Yara suna", add_special_tokens=False).ids))
    )
    bare = vocabulary.trim_tokenizer(tokenizer, kept_of(teacher("bert"), keep_characters=False))
    assert vocabulary.unk_rate(bare, tiny.OTHER) > vocabulary.unk_rate(tokenizer, tiny.OTHER)


def test_byte_level_bpe_keeps_the_merges_of_what_is_kept() -> None:
    tokenizer = tiny.byte_level_bpe()
    counts = {"ha": vocabulary.count(tokenizer, tiny.HAUSA)}
    kept = vocabulary.select(counts, tokenizer)
    trimmed = vocabulary.trim_tokenizer(tokenizer, kept)
    new_ids = vocabulary.old_to_new(kept, tokenizer.get_vocab_size())
    vocabulary.check(tokenizer, trimmed, kept, sample=tiny.HAUSA)
    assert len(kept) < tokenizer.get_vocab_size() == 400
    for text in tiny.HAUSA:
        assert trimmed.encode(text).ids == new_ids[tokenizer.encode(text).ids].tolist()
    assert trimmed.decode(trimmed.encode(tiny.OTHER[0]).ids).strip() == tiny.OTHER[0]


def test_check_finds_a_tokenizer_that_is_numbered_wrongly(teacher: Teacher) -> None:
    tokenizer = load_tokenizer(teacher("bert")).backend_tokenizer
    kept = kept_of(teacher("bert"))
    with pytest.raises(DataError, match="misnumbered"):
        vocabulary.check(tokenizer, tokenizer, kept)
    other = np.sort(np.append(kept[:-1], np.setdiff1d(np.arange(300), kept)[0]))
    with pytest.raises(DataError, match="misnumbered"):
        vocabulary.check(tokenizer, vocabulary.trim_tokenizer(tokenizer, kept), other)


def test_nothing_is_left_when_writing_fails(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_of(teacher("bert"))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(DataError, match="No space left"):
        vocabulary.trim(teacher("bert"), kept, tmp_path / "trimmed")
    assert list(tmp_path.iterdir()) == []


def test_a_trimmed_teacher_is_never_overwritten(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists"):
        vocabulary.trim(teacher("bert"), np.arange(20), tmp_path)


def test_a_word_level_tokenizer_names_the_choices() -> None:
    from tokenizers.models import WordLevel

    with pytest.raises(UnknownChoice, match="Unigram"):
        vocabulary.trim_tokenizer(Tokenizer(WordLevel({"a": 0}, unk_token="a")), np.array([0]))
