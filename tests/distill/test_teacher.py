import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from transformers import BertConfig, BertForTokenClassification, GPT2Config, GPT2LMHeadModel

from app.errors import ConfigError, DataError, UnknownChoice
from distill.teacher import load_teacher, load_tokenizer
from tests.distill import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.tiny_teacher("xlm-roberta", tmp_path / "teacher", layers=2)


def test_a_teacher_comes_in_float32_and_eval_mode(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    model, tokenizer = load_teacher(str(folder), attn_implementation="eager")
    assert model.dtype == torch.float32 and not model.training
    assert model.config._attn_implementation == "eager"
    assert tokenizer.mask_token == "<mask>"


def test_the_tokenizer_is_what_its_file_says_whatever_class_is_named(folder: Path) -> None:
    stated = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stated.normalizer = normalizers.Lowercase()
    stated.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "XLMRobertaTokenizer"}))
    assert load_tokenizer(folder)("KANO")["input_ids"] == stated.encode("KANO").ids


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_teacher(tmp_path / "nowhere")


def test_a_file_is_no_teacher(folder: Path) -> None:
    with pytest.raises(DataError, match="give the folder"):
        load_teacher(folder / "config.json")


def test_an_empty_folder_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        load_teacher(tmp_path)


def test_a_broken_config_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_teacher(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin, and pickled weights are never read"):
        load_teacher(folder)


def test_cut_off_weights_are_an_error(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be loaded"):
        load_teacher(folder)


def test_missing_tensors_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(k for k in tensors if "layer.1.attention.self.query.weight" in k)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=name):
        load_teacher(folder)


def test_a_classifier_is_no_masked_language_model(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForTokenClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="BertForTokenClassification, not a masked language model"):
        load_teacher(tmp_path)


def test_a_deberta_with_the_newer_head_is_refused(tmp_path: Path) -> None:
    folder = tiny.tiny_teacher("deberta-v2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"legacy": False}))
    with pytest.raises(ConfigError, match="legacy = false"):
        load_teacher(folder)


def test_a_decoder_names_the_supported_families(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10)).save_pretrained(tmp_path)
    with pytest.raises(UnknownChoice, match="bert, deberta-v2, xlm-roberta"):
        load_teacher(tmp_path)


def test_a_teacher_without_a_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match="tokenizer"):
        load_teacher(folder)


def test_a_hub_id_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hf download some-org/some-model"):
        load_teacher("some-org/some-model")
