from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, GPT2Config

from app.errors import ConfigError, UnknownChoice
from distill.student import create, layer_map, load_student, source_name
from distill.teacher import load_teacher
from tests.distill import tiny


@pytest.mark.parametrize(
    ("factor", "strategy", "expected"),
    [
        (1, "regular", tuple(range(12))),
        (2, "regular", (1, 3, 5, 7, 9, 11)),
        (3, "regular", (2, 5, 8, 11)),
        (12, "regular", (11,)),
        (2, "bottom", (0, 1, 2, 3, 4, 5)),
        (2, "spread", (0, 2, 4, 7, 9, 11)),
        (12, "spread", (11,)),
    ],
)
def test_layer_map_of_twelve_layers(factor: int, strategy: str, expected: tuple[int, ...]) -> None:
    assert layer_map(12, factor, strategy) == expected


@pytest.mark.parametrize("factor", [5, 0, -2, 24])
def test_a_factor_that_does_not_divide_names_those_that_do(factor: int) -> None:
    with pytest.raises(ConfigError, match="choose from 1, 2, 3, 4, 6, 12"):
        layer_map(12, factor)


def test_an_unknown_strategy_names_the_choices() -> None:
    with pytest.raises(UnknownChoice, match="regular, bottom, spread"):
        layer_map(12, 2, "top")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_tensor_is_a_copy_of_its_source(family: str, tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher(family, tmp_path, layers=6))
    student = create(teacher, layer_reduction_factor=3)
    source = teacher.base_model.state_dict()
    layers = layer_map(6, 3)
    names = set()
    for name, tensor in student.state_dict().items():
        original = source[source_name(name, layers)]
        assert torch.equal(tensor, original), name
        assert tensor.data_ptr() != original.data_ptr()
        names.add(source_name(name, layers))
    assert {int(n.split(".")[2]) for n in names if n.startswith("encoder.layer.")} == {2, 5}
    assert {n for n in source if ".layer." not in n} <= names


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_factor_of_one_gives_the_teacher_back(family: str, tmp_path: Path) -> None:
    teacher, tokenizer = load_teacher(tiny.tiny_teacher(family, tmp_path))
    student = create(teacher, layer_reduction_factor=1).train()
    batch = tokenizer(list(tiny.HAUSA), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = teacher.base_model(**batch, output_hidden_states=True).hidden_states
        actual = student(**batch, output_hidden_states=True).hidden_states
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_the_saved_config_says_no_dropout_and_the_teacher_keeps_its_own(tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher("bert", tmp_path / "teacher"))
    create(teacher, layer_reduction_factor=2).save_pretrained(tmp_path / "student")
    config = AutoConfig.from_pretrained(tmp_path / "student")
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.num_hidden_layers) == (0, 0, 2)
    assert (teacher.config.hidden_dropout_prob, teacher.config.num_hidden_layers) == (0.1, 4)
    assert AutoModel.from_pretrained(tmp_path / "student", add_pooling_layer=False).config.num_hidden_layers == 2


def test_a_pooler_is_copied_where_there_is_one(tmp_path: Path) -> None:
    teacher = AutoModel.from_pretrained(tiny.tiny_teacher("bert", tmp_path), add_pooling_layer=True)
    student: Any = create(teacher, layer_reduction_factor=2)
    assert torch.equal(student.pooler.dense.weight, teacher.pooler.dense.weight)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_narrow_student_keeps_the_singular_values_of_the_embeddings(family: str, tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher(family, tmp_path, layers=2))
    encoder: Any = teacher.base_model
    with torch.no_grad():  # words alone decide the axes then, and numpy knows their singular values
        for name, value in encoder.embeddings.named_parameters():
            if "_embeddings" in name and "word" not in name:
                value.zero_()
    student: Any = create(teacher, layer_reduction_factor=1, hidden_size_reduction_factor=2)
    words = encoder.embeddings.word_embeddings.weight.detach().double().numpy()
    narrow = student.embeddings.word_embeddings.weight.detach().double().numpy()
    left, singular, right = np.linalg.svd(words, full_matrices=False)
    np.testing.assert_allclose(np.linalg.svd(narrow, compute_uv=False), singular[:16], rtol=1e-4)
    best = left[:, :16] * singular[:16] @ right[:16]
    rebuilt = narrow @ np.linalg.lstsq(narrow, words, rcond=None)[0]
    np.testing.assert_allclose(rebuilt, best, atol=1e-5)
    assert (student.config.hidden_size, student.config.intermediate_size) == (16, 32)
    assert student.config.num_attention_heads == teacher.config.num_attention_heads


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_narrow_student_is_saved_and_read_again(family: str, tmp_path: Path) -> None:
    teacher, tokenizer = load_teacher(tiny.tiny_teacher(family, tmp_path / "teacher"))
    student = create(teacher, layer_reduction_factor=2, hidden_size_reduction_factor=4)
    student.save_pretrained(tmp_path / "student")
    again = load_student(tmp_path / "student", attn_implementation="eager")
    batch = tokenizer(list(tiny.HAUSA), padding=True, return_tensors="pt")
    torch.testing.assert_close(again(**batch).last_hidden_state, student.eval()(**batch).last_hidden_state)


def test_a_width_that_does_not_divide_names_those_that_do(tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher("bert", tmp_path))
    with pytest.raises(ConfigError, match="choose from 1, 2, 4, 8, 16"):
        create(teacher, layer_reduction_factor=2, hidden_size_reduction_factor=3)


def test_random_weights_are_the_seeds_and_not_the_teachers(tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher("xlm-roberta", tmp_path))
    made = [
        create(teacher, layer_reduction_factor=2, initialization="random", seed=seed).state_dict() for seed in (1, 1, 2)
    ]
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(made[0][name], made[1][name]) and not torch.equal(made[0][name], made[2][name])
    layers = [value for key, value in teacher.base_model.state_dict().items() if key.endswith("output.dense.weight")]
    assert not any(made[0][name].shape == layer.shape and torch.equal(made[0][name], layer) for layer in layers)


def test_another_architecture_names_the_supported_ones() -> None:
    with torch.device("meta"):
        teacher = AutoModel.from_config(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=10))
    with pytest.raises(UnknownChoice, match="xlm-roberta"):
        create(teacher, layer_reduction_factor=2)
